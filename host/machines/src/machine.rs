//! One machine, whatever its connection is doing: what the rest of Windlass uses.
//!
//! A [`Machine`] keeps at most one connection, makes it again when it was lost, and carries runs across. It is cheap
//! to share and never holds a thread while it waits.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::command::{CommandSpec, Exit};
use crate::connection::Connection;
use crate::endpoint::Endpoint;
use crate::error::MachineError;
use crate::facts::Facts;
use crate::files::{self, FileSpec};
use crate::link::{Channel, Link};
use crate::local::LocalLink;
use crate::pool::Config;
use crate::runner::{Run, RunState};
use crate::sink::OutputSink;
use crate::ssh::SshLink;
use crate::ticket::Ticket;

/// First pause before connecting again.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// How long a cancel tries to reach a machine that went away: somebody waits for it.
const CANCEL_PATIENCE: Duration = Duration::from_secs(30);

/// One machine; get it from [`crate::Machines`].
pub struct Machine {
    endpoint: Endpoint,
    config: Config,
    current: Mutex<Option<Arc<Connection>>>,
}

impl std::fmt::Debug for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Machine({})", self.endpoint)
    }
}

impl Machine {
    pub(crate) fn new(endpoint: Endpoint, config: Config) -> Self {
        Self { endpoint, config, current: Mutex::new(None) }
    }

    /// How it is reached.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Starts `spec` under `ticket` or attaches to it, follows its output into `sink`, and returns how it ended.
    ///
    /// Calling it again with the same ticket, also from another process after a crash, goes on from the sink's
    /// offsets or returns the stored result. The command is started at most once. A lost link is made again and the
    /// run picked up, within [`Config::reconnect_for`]. Confirm with [`Machine::ack`] once result and output are safe.
    ///
    /// # Errors
    /// Any [`MachineError`]; [`MachineError::OutcomeUnknown`] when it started and nobody can know how it ended.
    ///
    /// # Cancellation
    /// `cancel` ends the command on the machine. Dropping the future leaves it running, to be attached to later.
    pub async fn run(
        &self,
        ticket: &Ticket,
        spec: &CommandSpec,
        sink: &mut dyn OutputSink,
        cancel: &CancellationToken,
    ) -> Result<Exit, MachineError> {
        spec.check()?;
        self.carry(Run::new(ticket, Some(spec), sink, cancel)).await
    }

    /// Like [`Machine::run`] for a run that was started before: never starts anything.
    ///
    /// # Errors
    /// Any [`MachineError`].
    pub async fn follow(
        &self,
        ticket: &Ticket,
        sink: &mut dyn OutputSink,
        cancel: &CancellationToken,
    ) -> Result<Exit, MachineError> {
        self.carry(Run::new(ticket, None, sink, cancel)).await
    }

    async fn carry(&self, mut run: Run<'_>) -> Result<Exit, MachineError> {
        let mut backoff = self.backoff();
        let mut hurried = false;
        loop {
            let error = match self.connection().await {
                Ok(connection) => match run.go_on(&connection).await {
                    Err(error) if error.is_retryable() => {
                        if !hurried {
                            backoff = self.backoff();
                        }
                        error
                    }
                    other => return other,
                },
                Err(error) if error.may_pass() => error,
                Err(error) => return Err(error),
            };
            if run.cancel.is_cancelled() && !hurried {
                // Somebody waits for the end: do not try for as long as for a running command.
                hurried = true;
                backoff = Backoff::new(FIRST_PAUSE, self.patience().min(CANCEL_PATIENCE));
            }
            let Some(pause) = backoff.pause() else {
                return Err(error.of_link());
            };
            tracing::debug!(machine = %self.endpoint, ticket = %run.ticket, %error, ?pause, "connecting again");
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = run.cancel.cancelled(), if !hurried => {}
            }
        }
    }

    /// Starts `spec` under `ticket` unless the machine knows it already; tells how it stands.
    ///
    /// # Errors
    /// Any [`MachineError`].
    pub async fn start(&self, ticket: &Ticket, spec: &CommandSpec) -> Result<RunState, MachineError> {
        spec.check()?;
        self.insist(|connection| async move { connection.start(ticket, spec).await }).await
    }

    /// How a run stands.
    ///
    /// # Errors
    /// Any [`MachineError`].
    pub async fn status(&self, ticket: &Ticket) -> Result<RunState, MachineError> {
        self.insist(|connection| async move { connection.status(ticket).await }).await
    }

    /// Ends a run, or makes sure that it can never start: TERM to its process group, KILL after `grace`, then KILL to
    /// whatever escaped. Returns the state after that.
    ///
    /// # Errors
    /// Any [`MachineError`].
    pub async fn cancel(&self, ticket: &Ticket, grace: Duration) -> Result<RunState, MachineError> {
        self.insist(|connection| async move { connection.cancel(ticket, grace).await }).await
    }

    /// Says that result and output of a run are safe here, so the machine may forget them, keeping a tombstone.
    ///
    /// Confirmations are sent in batches, within a second or two, or at once by [`Machine::flush_acks`]. One that is
    /// lost does no harm: what is left on the machine goes after [`Config::keep_days`].
    ///
    /// # Errors
    /// Any [`MachineError`].
    pub async fn ack(&self, ticket: &Ticket) -> Result<(), MachineError> {
        let connection = self.connection().await?;
        if connection.ack_soon(ticket) { connection.flush_acks().await } else { Ok(()) }
    }

    /// Sends all confirmations that still wait.
    ///
    /// # Errors
    /// Any [`MachineError`].
    pub async fn flush_acks(&self) -> Result<(), MachineError> {
        self.connection().await?.flush_acks().await
    }

    /// Streams a file to the machine. It appears under its name only when size and SHA-256 are right.
    ///
    /// # Errors
    /// Any [`MachineError`]; after [`MachineError::LinkLost`] send it again.
    pub async fn put(&self, file: &FileSpec, from: impl AsyncRead + Unpin + Send) -> Result<(), MachineError> {
        // What was read of it cannot be read again.
        let connection = self.reached().await?;
        files::put(&connection, file, from).await
    }

    /// Puts a small file.
    ///
    /// # Errors
    /// As [`Machine::put`].
    pub async fn put_bytes(&self, path: &str, bytes: &[u8], mode: u32) -> Result<(), MachineError> {
        let file = FileSpec {
            path: path.to_owned(),
            size: bytes.len() as u64,
            sha256: files::sha256_hex(bytes),
            mode,
            sync: false,
        };
        let file = &file;
        self.insist(|connection| async move { files::put(&connection, file, bytes).await }).await
    }

    /// Reads a file of at most `max` bytes.
    ///
    /// # Errors
    /// Any [`MachineError`]; [`MachineError::TooLarge`] before anything is read.
    pub async fn get(&self, path: &str, max: u64) -> Result<Bytes, MachineError> {
        self.insist(|connection| async move {
            let mut bytes = Vec::new();
            files::get(&connection, path, max, &mut bytes).await?;
            Ok(bytes.into())
        })
        .await
    }

    /// Streams a file from the machine and returns its size.
    ///
    /// # Errors
    /// Any [`MachineError`].
    pub async fn get_stream(&self, path: &str, to: impl AsyncWrite + Unpin + Send) -> Result<u64, MachineError> {
        let connection = self.reached().await?;
        files::get(&connection, path, u64::MAX, to).await
    }

    /// Whether a file, folder or link of that name is there.
    ///
    /// # Errors
    /// Any [`MachineError`].
    pub async fn exists(&self, path: &str) -> Result<bool, MachineError> {
        self.insist(|connection| async move { files::exists(&connection, path).await }).await
    }

    /// Whether a file with exactly that SHA-256 (lower-case hex) is there.
    ///
    /// # Errors
    /// Any [`MachineError`].
    pub async fn has_digest(&self, path: &str, sha256: &str) -> Result<bool, MachineError> {
        let found = self.insist(|connection| async move { files::digest(&connection, path).await }).await?;
        Ok(found.is_some_and(|found| found == sha256))
    }

    /// What the machine says of itself; asked once per connection.
    ///
    /// # Errors
    /// Any [`MachineError`].
    pub async fn facts(&self) -> Result<Facts, MachineError> {
        self.insist(|connection| async move { connection.facts().await.cloned() }).await
    }

    /// Windlass' folder there, absolute.
    ///
    /// # Errors
    /// Any [`MachineError`].
    pub async fn home(&self) -> Result<String, MachineError> {
        Ok(self.reached().await?.home().to_owned())
    }

    /// Runs a command line by the login shell, without the runner: it ends with the link and has no ticket.
    /// For probes and measurements only.
    ///
    /// # Errors
    /// Any [`MachineError`].
    pub async fn exec(&self, command: &str) -> Result<Channel, MachineError> {
        self.connection().await?.exec(command).await
    }

    /// Closes the connection; what runs under the runner goes on, and the next use connects again.
    pub async fn disconnect(&self) {
        if let Some(connection) = self.current.lock().await.take() {
            connection.close("it was closed");
        }
    }

    /// Does what may be done twice, again over the next connection when one was lost.
    async fn insist<T, W>(&self, mut work: impl FnMut(Arc<Connection>) -> W) -> Result<T, MachineError>
    where
        W: Future<Output = Result<T, MachineError>>,
    {
        let mut backoff = self.backoff();
        loop {
            let error = match work(self.reached().await?).await {
                Err(error) if error.is_retryable() => error,
                other => return other,
            };
            let Some(pause) = backoff.pause() else {
                return Err(error);
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// The live connection. One that is cut off while it is being made is made again for as long as the machine's limit
    /// says; a machine that cannot be reached is told at once.
    pub(crate) async fn reached(&self) -> Result<Arc<Connection>, MachineError> {
        let mut backoff = self.backoff();
        let mut strange = 0;
        loop {
            let error = match self.connection().await {
                Err(error @ MachineError::LinkLost { .. }) => error,
                // Cut off before its greeting, an SSH server looks like something else; seldom three times.
                Err(error) if error.may_pass() && !error.is_retryable() && strange < 2 => {
                    strange += 1;
                    error
                }
                other => return other,
            };
            let Some(pause) = backoff.pause() else {
                return Err(error);
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// The live connection, made if there is none. Whoever comes meanwhile waits for the same one.
    pub(crate) async fn connection(&self) -> Result<Arc<Connection>, MachineError> {
        let mut current = self.current.lock().await;
        if let Some(connection) = current.as_ref().filter(|connection| connection.is_alive()) {
            return Ok(Arc::clone(connection));
        }
        *current = None;
        let link: Arc<dyn Link> = match &self.endpoint {
            Endpoint::Local(_) => Arc::new(LocalLink::default()),
            Endpoint::Ssh(ssh) => Arc::new(SshLink::connect(ssh, self.config.timeouts()).await?),
        };
        let name = self.endpoint.to_string();
        let connection = Connection::open(link, &name, self.endpoint.home(), self.config).await?;
        *current = Some(Arc::clone(&connection));
        Ok(connection)
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(FIRST_PAUSE, self.patience())
    }

    fn patience(&self) -> Duration {
        self.endpoint.reconnect_for().unwrap_or(self.config.reconnect_for)
    }
}
