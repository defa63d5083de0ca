//! The local machine as a [`Link`]: commands are child processes.
//!
//! The runner protocol on top is the same as over SSH, so a local run survives this process in the same way.

use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{ChildStdin, Command};
use tokio::sync::mpsc;

use crate::error::MachineError;
use crate::link::{Channel, Event, Input, Link, Output, PIECE, QUEUE, Wake};

/// Runs commands as children of this process.
#[derive(Default)]
pub(crate) struct LocalLink {
    closed: Mutex<Option<String>>,
}

#[async_trait]
impl Link for LocalLink {
    async fn open(&self, command: &str) -> Result<Channel, MachineError> {
        let mut child = Command::new("/bin/sh")
            .arg("-c")
            .arg(command)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|e| unreachable(&e.to_string()))?;
        let (Some(stdin), Some(stdout), Some(stderr)) = (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(unreachable("a child process without pipes"));
        };
        let (input, bytes) = mpsc::channel(QUEUE);
        let (events, output) = mpsc::channel(QUEUE);
        tokio::spawn(feed(stdin, bytes));
        tokio::spawn(async move {
            tokio::select! {
                () = events.closed() => {} // Abandoned: the child dies with its handle.
                status = async {
                    tokio::join!(pump(stdout, &events, Event::Out), pump(stderr, &events, Event::Err));
                    child.wait().await
                } => {
                    let _ = events.send(Event::Exit(status.ok().and_then(|s| s.code()))).await;
                }
            }
        });
        Ok(Channel {
            input: Input { queue: input, wake: Wake::default() },
            output: Output { queue: output, stalled: Arc::default(), wake: Wake::default(), _permit: None },
        })
    }

    fn lost(&self) -> Option<MachineError> {
        let closed = self.closed.lock().unwrap_or_else(PoisonError::into_inner);
        closed.as_ref().map(|reason| MachineError::LinkLost { machine: "this machine".into(), reason: reason.clone() })
    }

    fn quiet(&self) -> Duration {
        Duration::ZERO
    }

    fn close(&self, reason: &str) {
        self.closed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| reason.to_owned());
    }
}

fn unreachable(reason: &str) -> MachineError {
    MachineError::Unreachable { machine: "this machine".into(), reason: format!("/bin/sh does not start: {reason}") }
}

async fn feed(mut stdin: ChildStdin, mut bytes: mpsc::Receiver<Bytes>) {
    while let Some(piece) = bytes.recv().await {
        if stdin.write_all(&piece).await.is_err() {
            return;
        }
    }
}

async fn pump(mut from: impl AsyncRead + Unpin, to: &mpsc::Sender<Event>, wrap: fn(Bytes) -> Event) {
    let mut buffer = vec![0; PIECE];
    while let Ok(n) = from.read(&mut buffer).await {
        let Some(piece) = buffer.get(..n).filter(|piece| !piece.is_empty()) else {
            return;
        };
        if to.send(wrap(Bytes::copy_from_slice(piece))).await.is_err() {
            return;
        }
    }
}
