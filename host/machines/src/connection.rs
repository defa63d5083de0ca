//! One live connection to a machine: its link, and the two shells with the runner that live on it.
//!
//! The control shell starts, cancels and confirms runs and hears of their ends; the data shell, opened when first
//! needed, fetches output. A housekeeping task confirms in batches, pings a quiet link and closes an idle one.

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::OnceCell;

use crate::command::CommandSpec;
use crate::error::MachineError;
use crate::facts::Facts;
use crate::link::{Channel, Link};
use crate::pool::Config;
use crate::runner::{Dialect, RunState, Shell, Upload, Watch, uploads};
use crate::ticket::Ticket;

/// Longest pause between two looks at a connection.
const LOOK: Duration = Duration::from_secs(1);
/// Confirmations sent at once, at most.
const BATCH: usize = 64;
/// Confirmations that may wait on a machine whose disk is full; what is beyond goes by its age.
const WAITING: usize = 4096;
/// How often outputs that nobody reads are held to their cap.
const TRIM: Duration = Duration::from_secs(20);

pub(crate) struct Connection {
    machine: String,
    link: Arc<dyn Link>,
    control: Shell,
    data: OnceCell<Shell>,
    facts: OnceCell<Facts>,
    /// Supervisors that are children of the control shell and want to be waited for.
    children: Mutex<HashMap<Ticket, u32>>,
    acks: Mutex<Vec<Ticket>>,
    used: Mutex<Instant>,
}

impl Connection {
    /// Loads the runner over a fresh link.
    pub(crate) async fn open(
        link: Arc<dyn Link>,
        machine: &str,
        home: Option<&str>,
        config: Config,
    ) -> Result<Arc<Self>, MachineError> {
        let control = Shell::open(Arc::clone(&link), machine, home).await?;
        let connection = Arc::new(Self {
            machine: machine.to_owned(),
            link,
            control,
            data: OnceCell::new(),
            facts: OnceCell::new(),
            children: Mutex::default(),
            acks: Mutex::default(),
            used: Mutex::new(Instant::now()),
        });
        tokio::spawn(keep_house(Arc::downgrade(&connection), config));
        Ok(connection)
    }

    pub(crate) fn machine(&self) -> &str {
        &self.machine
    }

    /// Windlass' folder on the machine.
    pub(crate) fn home(&self) -> &str {
        self.control.home()
    }

    pub(crate) fn is_alive(&self) -> bool {
        self.link.lost().is_none() && !self.control.is_over()
    }

    pub(crate) fn close(&self, reason: &str) {
        self.link.close(reason);
    }

    pub(crate) fn dead(&self) -> MachineError {
        self.link.lost().unwrap_or_else(|| MachineError::LinkLost {
            machine: self.machine.clone(),
            reason: "its control shell ended".into(),
        })
    }

    /// Runs a command of ours by the login shell, without the runner.
    pub(crate) async fn exec(&self, command: &str) -> Result<Channel, MachineError> {
        if self.control.dialect() != Dialect::Posix {
            return Err(MachineError::MissingTool {
                machine: self.machine.clone(),
                tool: "POSIX shell, which files and packages need (Windows machines only run commands so far)".into(),
            });
        }
        self.touch();
        self.link.open(command).await
    }

    pub(crate) fn watch(&self, ticket: &Ticket) -> Watch {
        self.control.watch(ticket)
    }

    /// Starts `spec` unless the ticket is known already, and says how it stands.
    pub(crate) async fn start(&self, ticket: &Ticket, spec: &CommandSpec) -> Result<RunState, MachineError> {
        self.touch();
        let dialect = self.control.dialect();
        let uploads = if dialect == Dialect::Posix { uploads(ticket, spec, self.control.key()) } else { Vec::new() };
        for Upload { name, bytes } in uploads {
            let path = format!("{}/runs/{name}", self.home());
            crate::files::put_plain(self, &path, bytes).await?;
        }
        let answer = self.control.ask(|number| dialect.start(number, ticket, spec)).await?;
        if let (Some(seen), Some(fence)) = (answer.strip_prefix("E stale "), &spec.fence) {
            return Err(MachineError::Stale {
                machine: self.machine.clone(),
                ticket: ticket.clone(),
                resource: fence.resource.clone(),
                token: fence.token,
                seen: seen.parse().map_err(|_| self.odd(&answer))?,
            });
        }
        if let Some(pid) = answer.strip_prefix("STARTED ").and_then(|pid| pid.parse().ok()) {
            lock(&self.children).insert(ticket.clone(), pid);
        }
        self.read_state(&answer)
    }

    pub(crate) async fn status(&self, ticket: &Ticket) -> Result<RunState, MachineError> {
        self.touch();
        let answer = self.control.ask(|number| format!("_w_status {number} '{ticket}'\n")).await?;
        self.read_state(&answer)
    }

    /// Fences a run that has not started, or ends it: TERM, `grace`, KILL, sweep.
    pub(crate) async fn cancel(&self, ticket: &Ticket, grace: Duration) -> Result<RunState, MachineError> {
        self.touch();
        let seconds = grace.as_secs();
        let limit = grace + Duration::from_secs(40);
        let answer = self.control.ask_for(limit, |number| format!("_w_cancel {number} '{ticket}' {seconds}\n")).await?;
        self.read_state(&answer)
    }

    /// State and the next blocks of both streams.
    pub(crate) async fn poll(
        &self,
        ticket: &Ticket,
        out: &str,
        err: &str,
        blocks: u64,
    ) -> Result<(RunState, [Bytes; 2]), MachineError> {
        self.touch();
        let data = self.data().await?;
        let answer = data.fetch(|number| format!("_w_poll {number} '{ticket}' '{out}' '{err}' {blocks}\n")).await?;
        let state = self.read_state(&answer.text)?;
        let parts = answer.parts.try_into().map_err(|_| self.odd("output without its marks"))?;
        Ok((state, parts))
    }

    pub(crate) async fn facts(&self) -> Result<&Facts, MachineError> {
        let read = || async {
            let data = self.data().await?;
            let answer = data.fetch(|number| format!("_w_facts {number} {}\n", Facts::TOOLS.join(" "))).await?;
            let text = answer.parts.first().map(|part| String::from_utf8_lossy(part).into_owned());
            Ok(Facts::parse(&text.unwrap_or_default()))
        };
        self.facts.get_or_try_init(read).await
    }

    /// Puts a ticket on the list of those to confirm.
    pub(crate) fn ack_soon(&self, ticket: &Ticket) -> bool {
        let mut acks = lock(&self.acks);
        acks.push(ticket.clone());
        acks.len() >= BATCH
    }

    /// Confirms everything on the list: results and output are safe, the machine may forget.
    ///
    /// What a full disk refuses stays on the list.
    pub(crate) async fn flush_acks(&self) -> Result<(), MachineError> {
        loop {
            let batch: Vec<Ticket> = {
                let mut acks = lock(&self.acks);
                let keep = acks.len().saturating_sub(BATCH);
                acks.split_off(keep)
            };
            if batch.is_empty() {
                return Ok(());
            }
            match self.control.ask(|number| self.ack_request(number, &batch)).await?.as_str() {
                "OK" => {
                    let mut children = lock(&self.children);
                    children.retain(|ticket, _| !batch.contains(ticket));
                }
                "E full" => {
                    let mut acks = lock(&self.acks);
                    let room = WAITING.saturating_sub(acks.len());
                    acks.extend(batch.into_iter().take(room));
                    return Err(self.full("done"));
                }
                other => return Err(self.odd(other)),
            }
        }
    }

    fn ack_request(&self, number: u64, batch: &[Ticket]) -> String {
        let mut code = format!("_w_ack {number}");
        let children = lock(&self.children);
        for ticket in batch {
            let pid = children.get(ticket).map(u32::to_string).unwrap_or_default();
            let _ = write!(code, " '{ticket}:{pid}'");
        }
        code.push('\n');
        code
    }

    /// Removes runs and tombstones that are older than `days`: their hosts never came back.
    pub(crate) async fn tidy(&self, days: u32) -> Result<(), MachineError> {
        let limit = Duration::from_secs(300);
        self.data().await?.ask_for(limit, |number| format!("_w_tidy {number} {days}\n")).await.map(drop)
    }

    /// Holds the outputs of all runs to their caps, also of those that nobody follows.
    pub(crate) async fn trim(&self) -> Result<(), MachineError> {
        self.data().await?.ask(|number| format!("_w_trim_now {number}\n")).await.map(drop)
    }

    pub(crate) fn read_state(&self, text: &str) -> Result<RunState, MachineError> {
        if let Some(state) = RunState::parse(text) {
            return Ok(state);
        }
        let machine = self.machine.clone();
        match text.strip_prefix("E ").map(|what| what.split_once(' ').unwrap_or((what, ""))) {
            Some(("full", _)) => Err(self.full("runs")),
            Some(("home", _)) => Err(MachineError::HomeUnusable { machine, path: self.home().to_owned() }),
            Some(("tool", tool)) => Err(MachineError::MissingTool { machine, tool: tool.to_owned() }),
            _ => Err(self.odd(text)),
        }
    }

    async fn data(&self) -> Result<&Shell, MachineError> {
        let dialect = self.control.dialect();
        let open = || Shell::open_as(dialect, Arc::clone(&self.link), &self.machine, Some(self.home()));
        self.data.get_or_try_init(open).await
    }

    fn full(&self, folder: &str) -> MachineError {
        MachineError::DiskFull { machine: self.machine.clone(), path: format!("{}/{folder}", self.home()) }
    }

    fn odd(&self, what: &str) -> MachineError {
        MachineError::Protocol { machine: self.machine.clone(), reason: format!("the runner said {what:?}") }
    }

    fn touch(&self) {
        *lock(&self.used) = Instant::now();
    }

    /// Asks a quiet link whether it lives.
    async fn ping(&self, silence: Duration) {
        let patience = silence * 3 / 5;
        let answer = self.control.ask_for(patience * 4, |number| format!("_w_say '= {number} OK'\n"));
        // A busy upload may hold the answer back; while anything is heard, the link lives.
        if tokio::time::timeout(patience, answer).await.is_err() && self.link.quiet() >= patience {
            self.close(&format!("nothing was heard of it for {}", crate::error::seconds(silence)));
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.link.close("it is no longer used");
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn keep_house(connection: Weak<Connection>, config: Config) {
    let mut tidied = false;
    let mut trimmed = Instant::now();
    loop {
        tokio::time::sleep(LOOK.min(config.silence / 5)).await;
        let Some(connection) = connection.upgrade().filter(|c| c.is_alive()) else {
            return;
        };
        if let Err(error) = connection.flush_acks().await {
            tracing::debug!(machine = connection.machine(), %error, "confirming runs");
        }
        if connection.link.quiet() >= config.silence * 2 / 5 {
            connection.ping(config.silence).await;
        }
        // Two: the machine's own handle and ours.
        let unused = Arc::strong_count(&connection) <= 2 && lock(&connection.used).elapsed() >= config.idle;
        if unused {
            connection.close("it was idle");
        }
        if trimmed.elapsed() >= TRIM && !lock(&connection.children).is_empty() {
            trimmed = Instant::now();
            if let Err(error) = connection.trim().await {
                tracing::debug!(machine = connection.machine(), %error, "holding outputs to their caps");
            }
        }
        if !tidied && lock(&connection.used).elapsed() >= Duration::from_secs(10) {
            tidied = true;
            if let Err(error) = connection.tidy(config.keep_days).await {
                tracing::debug!(machine = connection.machine(), %error, "removing old runs");
            }
        }
    }
}
