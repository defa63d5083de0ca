//! A long-lived `sh` on a machine with the runner loaded, and the client that speaks to it.
//!
//! Requests are shell code on its stdin, each a call of a function of `runner.sh`; answers come back as numbered lines.
//! Requests may overlap, except those that fetch bytes, which take the shell for themselves.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Mutex as AsyncMutex, oneshot, watch};

use super::dialect::{Dialect, is_windows};
use super::frame::{Frames, Line};
use crate::error::MachineError;
use crate::link::{Event, Input, Link, Output};
use crate::ticket::Ticket;

/// An answer that takes longer means that nothing will come.
const ANSWER: Duration = Duration::from_secs(30);
/// Last bytes of standard error kept to explain a failure.
const COMPLAINT: usize = 1024;

/// What came back for a request.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    pub text: String,
    /// Bytes before each mark and before the answer itself.
    pub parts: Vec<Bytes>,
}

/// A shell with the runner loaded.
pub(crate) struct Shell {
    machine: String,
    input: AsyncMutex<Input>,
    fetching: AsyncMutex<()>,
    next: AtomicU64,
    shared: Arc<Shared>,
    link: Arc<dyn Link>,
    dialect: Dialect,
    key: String,
    home: String,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    waiting: HashMap<u64, oneshot::Sender<Answer>>,
    watched: HashMap<String, watch::Sender<String>>,
    complaint: Vec<u8>,
    over: bool,
    code: Option<i32>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Hears of the end of one run without asking.
pub(crate) struct Watch {
    ticket: Ticket,
    pub(crate) ended: watch::Receiver<String>,
    shared: Arc<Shared>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        // Ours is one of the receivers still counted here.
        if state.watched.get(self.ticket.as_str()).is_some_and(|sender| sender.receiver_count() <= 1) {
            state.watched.remove(self.ticket.as_str());
        }
    }
}

impl Shell {
    /// Starts a shell over `link`, whichever the machine has, and loads the runner with `home` as Windlass' folder.
    pub(crate) async fn open(link: Arc<dyn Link>, machine: &str, home: Option<&str>) -> Result<Self, MachineError> {
        match Self::open_as(Dialect::Posix, Arc::clone(&link), machine, home).await {
            Err(error @ (MachineError::LinkLost { .. } | MachineError::MissingTool { .. }))
                if link.lost().is_none() =>
            {
                if is_windows(link.as_ref()).await {
                    Self::open_as(Dialect::PowerShell, link, machine, home).await
                } else {
                    Err(error)
                }
            }
            other => other,
        }
    }

    /// The same, when it is known which.
    pub(crate) async fn open_as(
        dialect: Dialect,
        link: Arc<dyn Link>,
        machine: &str,
        home: Option<&str>,
    ) -> Result<Self, MachineError> {
        let channel = link.open(&dialect.command()).await?;
        let nonce = format!("windlass{:032x}", rand::random::<u128>());
        let shared = Arc::new(Shared::default());
        let (ready, is_ready) = oneshot::channel();
        shared.lock().waiting.insert(0, ready);
        let key = format!("{:016x}", rand::random::<u64>());
        let boot = dialect.boot(&nonce, &key, home);
        let mut shell = Self {
            machine: machine.to_owned(),
            input: AsyncMutex::new(channel.input),
            fetching: AsyncMutex::new(()),
            next: AtomicU64::new(1),
            shared: Arc::clone(&shared),
            link: Arc::clone(&link),
            dialect,
            key,
            home: String::new(),
        };
        tokio::spawn(listen(channel.output, Frames::new(&nonce), shared, Arc::downgrade(&link)));
        shell.send(boot).await?;
        let answer = shell.in_time(ANSWER, is_ready).await?;
        match answer.text.strip_prefix("READY ") {
            Some(path) => {
                path.clone_into(&mut shell.home);
                Ok(shell)
            }
            None => Err(MachineError::HomeUnusable {
                machine: machine.to_owned(),
                path: home.unwrap_or("~/.windlass").to_owned(),
            }),
        }
    }

    /// Windlass' folder on the machine, absolute.
    pub(crate) fn home(&self) -> &str {
        &self.home
    }

    /// Which shell it is.
    pub(crate) fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// What tells this shell's uploads from those of others.
    pub(crate) fn key(&self) -> &str {
        &self.key
    }

    /// Hears of the end of `ticket`, if this very shell started it.
    pub(crate) fn watch(&self, ticket: &Ticket) -> Watch {
        let mut state = self.shared.lock();
        let sender =
            state.watched.entry(ticket.as_str().to_owned()).or_insert_with(|| watch::Sender::new(String::new()));
        Watch { ticket: ticket.clone(), ended: sender.subscribe(), shared: Arc::clone(&self.shared) }
    }

    /// Makes a request that answers in one line. `code` gets the request's number.
    pub(crate) async fn ask(&self, code: impl FnOnce(u64) -> String) -> Result<String, MachineError> {
        Ok(self.request(code, ANSWER).await?.text)
    }

    /// Makes a request that may take long to answer.
    pub(crate) async fn ask_for(
        &self,
        limit: Duration,
        code: impl FnOnce(u64) -> String,
    ) -> Result<String, MachineError> {
        Ok(self.request(code, limit).await?.text)
    }

    /// Makes a request that answers with bytes. One at a time: they share the stream.
    pub(crate) async fn fetch(&self, code: impl FnOnce(u64) -> String) -> Result<Answer, MachineError> {
        let _alone = self.fetching.lock().await;
        self.request(code, ANSWER).await
    }

    async fn request(&self, code: impl FnOnce(u64) -> String, limit: Duration) -> Result<Answer, MachineError> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        {
            let mut state = self.shared.lock();
            if state.over {
                return Err(self.gone(&state));
            }
            state.waiting.insert(number, sender);
        }
        let _forget = Forget { shared: &self.shared, number };
        self.send(code(number)).await?;
        self.in_time(limit, receiver).await
    }

    /// The answer, or the end of the link: a shell that does not answer is of no use to anybody.
    async fn in_time(&self, limit: Duration, receiver: oneshot::Receiver<Answer>) -> Result<Answer, MachineError> {
        if let Ok(answer) = tokio::time::timeout(limit, self.answer(receiver)).await {
            return answer;
        }
        self.link.close("its shell does not answer any more");
        Err(self.lost("its shell does not answer any more"))
    }

    async fn send(&self, code: String) -> Result<(), MachineError> {
        if self.input.lock().await.send(code).await {
            return Ok(());
        }
        Err(self.gone(&self.shared.lock()))
    }

    async fn answer(&self, receiver: oneshot::Receiver<Answer>) -> Result<Answer, MachineError> {
        receiver.await.map_err(|_| self.gone(&self.shared.lock()))
    }

    fn gone(&self, state: &State) -> MachineError {
        if let Some(error) = self.link.lost() {
            return error;
        }
        if state.code == Some(127) {
            return MachineError::MissingTool {
                machine: self.machine.clone(),
                tool: "sh in the PATH of its logins".into(),
            };
        }
        let complaint = String::from_utf8_lossy(&state.complaint);
        match complaint.trim() {
            "" => self.lost("its shell ended"),
            complaint => self.lost(&format!("its shell ended, saying {complaint:?}")),
        }
    }

    fn lost(&self, reason: &str) -> MachineError {
        MachineError::LinkLost { machine: self.machine.clone(), reason: reason.to_owned() }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.shared.lock().over
    }
}

/// Takes a request off the list, answered or not.
struct Forget<'a> {
    shared: &'a Shared,
    number: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.shared.lock().waiting.remove(&self.number);
    }
}

/// Hands answers and ends of runs to whoever waits for them, until the shell is gone.
async fn listen(mut output: Output, mut frames: Frames, shared: Arc<Shared>, link: std::sync::Weak<dyn Link>) {
    let mut parts = Vec::new();
    while let Some(event) = output.next().await {
        match event {
            Event::Out(bytes) => frames.push(&bytes),
            Event::Err(bytes) => {
                let complaint = &mut shared.lock().complaint;
                complaint.extend_from_slice(&bytes);
                let excess = complaint.len().saturating_sub(COMPLAINT);
                complaint.drain(..excess);
            }
            Event::Exit(code) => {
                shared.lock().code = code;
                break;
            }
        }
        loop {
            match frames.next() {
                Ok(None) => break,
                Ok(Some(frame)) => deliver(&shared, &mut parts, frame.payload, frame.line),
                Err(what) => {
                    if let Some(link) = link.upgrade() {
                        link.close(&format!("its shell sent {what}"));
                    }
                    break;
                }
            }
        }
    }
    let mut state = shared.lock();
    state.over = true;
    state.waiting.clear();
    state.watched.clear();
}

fn deliver(shared: &Shared, parts: &mut Vec<Bytes>, payload: Bytes, line: Line) {
    match line {
        Line::Mark(_) => parts.push(payload),
        Line::Answer(number, text) => {
            let mut parts = std::mem::take(parts);
            parts.push(payload);
            if let Some(sender) = shared.lock().waiting.remove(&number) {
                let _ = sender.send(Answer { text, parts });
            }
        }
        Line::Ended(ticket, text) => {
            if let Some(sender) = shared.lock().watched.get(&ticket) {
                sender.send_replace(text);
            }
        }
    }
}
