//! A link: something that runs commands on a machine and carries their bytes.
//!
//! [`Link`] has two implementations, `ssh` and `local`. Everything above (runner, files, facts) speaks to this trait
//! only. Channels are bounded in both directions: whoever does not read, holds the far side back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use crate::error::MachineError;

/// How many pieces may wait in a channel, either way.
pub(crate) const QUEUE: usize = 16;
/// Largest piece read from a machine at once.
pub(crate) const PIECE: usize = 32 * 1024;

/// An open connection to one machine.
#[async_trait]
pub trait Link: Send + Sync + 'static {
    /// Runs `command` by the user's login shell, its streams carried by the channel.
    async fn open(&self, command: &str) -> Result<Channel, MachineError>;

    /// Why the link is dead, once it is.
    fn lost(&self) -> Option<MachineError>;

    /// How long ago the last byte came from the machine.
    fn quiet(&self) -> Duration;

    /// Ends the link; what runs under the runner goes on.
    fn close(&self, reason: &str);
}

/// What a channel brings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A piece of standard output.
    Out(Bytes),
    /// A piece of standard error.
    Err(Bytes),
    /// The command ended; `None` when by a signal. Nothing follows.
    Exit(Option<i32>),
}

/// Both ends of one command.
pub struct Channel {
    /// Its standard input; dropping it is the end of input.
    pub input: Input,
    /// What it prints, and how it ends; dropping it abandons the command.
    pub output: Output,
}

/// The standard input of a command.
pub struct Input {
    pub(crate) queue: mpsc::Sender<Bytes>,
    pub(crate) wake: Wake,
}

/// The output of a command.
pub struct Output {
    pub(crate) queue: mpsc::Receiver<Event>,
    pub(crate) stalled: Arc<AtomicBool>,
    pub(crate) wake: Wake,
    pub(crate) _permit: Option<OwnedSemaphorePermit>,
}

/// Wakes whoever serves the channel, when that is not a task of its own.
#[derive(Clone, Default)]
pub(crate) struct Wake(pub(crate) Option<Arc<dyn Fn() + Send + Sync>>);

impl Wake {
    pub(crate) fn wake(&self) {
        if let Some(wake) = &self.0 {
            wake();
        }
    }
}

impl Input {
    /// Sends bytes; waits while the machine does not take any more. `false` once the command no longer listens.
    pub async fn send(&self, bytes: impl Into<Bytes>) -> bool {
        let sent = self.queue.send(bytes.into()).await.is_ok();
        self.wake.wake();
        sent
    }
}

impl Drop for Input {
    fn drop(&mut self) {
        // The end of input must be visible before the driver is woken for it.
        let (closed, _) = mpsc::channel(1);
        self.queue = closed;
        self.wake.wake();
    }
}

impl Output {
    /// The next event; `None` when the link died before the command ended.
    pub async fn next(&mut self) -> Option<Event> {
        let event = self.queue.recv().await;
        if self.stalled.swap(false, Ordering::AcqRel) {
            self.wake.wake();
        }
        event
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        self.queue.close();
        self.wake.wake();
    }
}
