//! Does what effects ask for, for one run.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use rand::Rng;
use windlass_effects::{
    Answer, Attempt, Call, CancelToken, Content, Effect, Failure, Masker, Outcome, Performer, SecretHandle,
    UNKNOWN_OUTCOME, Verdict,
};
use windlass_machines::{Fence, Machine, MachineError, Ticket};
use windlass_model::{RunId, SecretText};
use windlass_scheduler::{LockRequest, RunKey, progress::Resume};

use super::{commands::Commands, http, pinned::Pinned, substitute, unknown, waits};
use crate::{driver::MachineLock, error::EngineError, logs::NodeLog, packages, services::Services};

/// Longest answer kept in the journal, in bytes: what is larger belongs into a file or a package.
const MAX_ANSWER: u32 = 1 << 20;

/// The hands of one run.
pub struct RunPerformer {
    pub(super) services: Arc<Services>,
    pub(super) run: RunKey,
    pub(super) id: RunId,
    pub(super) node: String,
    pub(super) log: Arc<NodeLog>,
    pub(super) pinned: Pinned,
    pub(super) machine: Option<Arc<Machine>>,
    /// How it holds its machine.
    pub(super) lock: Option<MachineLock>,
    pub(super) commands: Commands,
    pub(super) masker: Masker,
    /// What it is told as it goes on, and the index of the effect that it waited for.
    pub(super) resume: Mutex<Option<(u64, Resume)>>,
    /// How often people had effects done once more, by index: each has a ticket of its own.
    pub(super) tries: Mutex<BTreeMap<u64, u32>>,
}

#[async_trait]
impl Performer for RunPerformer {
    async fn perform(&self, index: u64, effect: &Effect, cancel: &CancelToken) -> Answer {
        if let Some(answer) = self.pinned.answer(effect) {
            return answer;
        }
        match effect {
            Effect::Now => Ok(Outcome::Number(self.services.shared.clock.now_ms())),
            Effect::Random { len } => {
                let mut bytes = vec![0; (*len).min(1024) as usize];
                rand::rng().fill_bytes(&mut bytes);
                Ok(Outcome::Bytes(bytes))
            }
            Effect::Http { request } => http::send(self, request, cancel).await,
            Effect::Tasks { query } => waits::tasks(self, query).await,
            Effect::Sleep { .. } | Effect::Acquire { .. } | Effect::AwaitQuiet { .. } | Effect::AwaitTask { .. } => {
                Err(Failure::new("unavailable", format!("{} is attempted, and may suspend", effect.name())))
            }
            Effect::Output { .. } | Effect::Release { .. } | Effect::Deploy { .. } => {
                Err(Failure::new("unavailable", format!("{} is performed with its record", effect.name())))
            }
            on_machine => self.on_machine(index, on_machine, cancel).await,
        }
    }

    async fn attempt(&self, call: Call<'_>, cancel: &CancelToken) -> Attempt {
        let Call { index, since_ms, tries, effect } = call;
        let limit = |wait_ms: u64| waits::Limit { since_ms, wait_ms };
        match effect {
            // What it waits for may well have ended by the same cancel; that is not what it waited for.
            Effect::AwaitQuiet { .. } | Effect::AwaitTask { .. } if cancel.is_cancelled() => {
                Attempt::Answered(Err(Failure::cancelled()))
            }
            Effect::Sleep { ms } => waits::sleep(self, *ms, since_ms, cancel).await,
            Effect::Acquire { resource, mode, wait_ms } => {
                let request = LockRequest { run: self.run, number: index };
                waits::lock(self, request, resource, *mode, since_ms.saturating_add(*wait_ms), cancel).await
            }
            Effect::AwaitQuiet { query, wait_ms } => waits::quiet(self, index, query, limit(*wait_ms), cancel).await,
            Effect::AwaitTask { task, wait_ms } => waits::task(self, index, *task, limit(*wait_ms), cancel).await,
            _ => {
                if tries > 0 {
                    self.tries.lock().unwrap_or_else(PoisonError::into_inner).insert(index, tries);
                }
                match self.perform(index, effect, cancel).await {
                    Err(failure) if effect.session().is_some() => self.missed(failure, cancel).await,
                    answer => {
                        if effect.session().is_some() {
                            self.found().await;
                        }
                        Attempt::Answered(answer)
                    }
                }
            }
        }
    }

    async fn undecided(&self, call: Call<'_>, failure: &Failure, cancel: &CancelToken) -> Verdict {
        unknown::ask(self, call, failure, cancel).await
    }

    fn replayed(&self, index: u64, effect: &Effect, answer: &Answer) {
        self.commands.replayed(self, index, effect, answer);
    }
}

impl RunPerformer {
    /// What the run is told as it goes on, if it waited for the effect of that index. Given once.
    pub(super) fn resumed(&self, index: u64) -> Option<Resume> {
        let mut resume = self.resume.lock().unwrap_or_else(PoisonError::into_inner);
        resume.take_if(|(waited, _)| *waited == index).map(|(_, resume)| resume)
    }

    /// The ticket of an effect.
    pub(super) fn ticket(&self, index: u64) -> Result<Ticket, Failure> {
        let tries = self.tries.lock().unwrap_or_else(PoisonError::into_inner).get(&index).copied();
        self.services.identity.ticket(&self.id, index, tries.unwrap_or_default()).map_err(failure)
    }

    /// The machine is there.
    async fn found(&self) {
        let mut over = self.services.offline.over(self.run);
        if !over.is_empty() {
            over.relaxed();
            if let Err(error) = self.services.shared.store.commit(over).await {
                tracing::debug!(%error, "a machine that is back counts as away");
            }
        }
    }

    /// A failure as the guest is told it, unless it is that the machine is away: the run waits for that.
    async fn missed(&self, failure: Failure, cancel: &CancelToken) -> Attempt {
        let Some(machine) = self.machine.as_ref().filter(|_| !cancel.is_cancelled()) else {
            return Attempt::Answered(Err(failure));
        };
        let now = self.services.shared.clock.now_ms();
        let name = machine.endpoint().to_string();
        match self.services.offline.wait(self.run, &name, &failure, now) {
            Some(wait) => waits::suspend_with(self, wait.on, wait.text, wait.with, cancel).await,
            None => Attempt::Answered(Err(failure)),
        }
    }

    /// A machine's error as the guest is told it.
    pub(super) async fn told(&self, machine: &Machine, error: MachineError) -> Failure {
        match (&error, &self.lock) {
            (MachineError::Stale { seen, .. }, Some(lock)) => {
                let home = machine.home().await.unwrap_or_else(|_| "~/.windlass".to_owned());
                self.services.identity.refusal(&lock.resource, &home, *seen)
            }
            _ => failure(error),
        }
    }

    /// What its commands prove to have locked.
    pub(super) fn fence(&self) -> Option<Fence> {
        self.lock.as_ref().map(|lock| self.services.identity.fence(lock))
    }

    pub(super) fn secret(&self, handle: &SecretHandle) -> Result<SecretText, Failure> {
        self.pinned.secret(handle)
    }

    pub(super) fn machine(&self) -> Result<&Arc<Machine>, Failure> {
        self.machine.as_ref().ok_or_else(|| Failure::new("not-found", "this run has no machine"))
    }

    async fn on_machine(&self, index: u64, effect: &Effect, cancel: &CancelToken) -> Answer {
        let machine = self.machine()?;
        match effect {
            Effect::Facts { .. } => self.facts(machine).await,
            Effect::Run { command, .. } => self.commands.run(self, machine, index, command, cancel).await,
            Effect::Start { command, .. } => self.commands.start(self, machine, index, command).await,
            Effect::ReadOutput { process, stderr, offset, max, .. } => {
                let max = (*max).min(MAX_ANSWER);
                self.commands.read(self, machine, *process, *stderr, *offset, max, cancel).await
            }
            Effect::Wait { process, .. } => self.commands.wait(self, machine, *process, cancel).await,
            Effect::Kill { process, .. } => self.commands.kill(self, machine, *process).await,
            Effect::ReadFile { path, max, .. } => {
                let path = self.path(machine, path).await?;
                let bytes = until(cancel, machine.get(&path, u64::from((*max).min(MAX_ANSWER)))).await?;
                Ok(Outcome::Bytes(bytes.to_vec()))
            }
            Effect::WriteFile { path, content, mode, .. } => {
                let path = self.path(machine, path).await?;
                match content {
                    Content::Bytes(bytes) => until(cancel, machine.put_bytes(&path, bytes, *mode)).await?,
                    Content::Secret(handle) => {
                        let secret = self.secret(handle)?;
                        until(cancel, machine.put_bytes(&path, secret.expose().as_bytes(), *mode)).await?;
                    }
                }
                Ok(Outcome::Done)
            }
            Effect::Substitute { root, globs, .. } => {
                let root = self.path(machine, root).await?;
                substitute::run(self, machine, index, &root, globs, cancel).await
            }
            Effect::StagePackage { package, .. } => {
                let (_, digest) = self.pinned.package(*package)?;
                let staged = packages::stage(&self.services, machine, digest, cancel).await;
                staged.map(Outcome::Text)
            }
            other => Err(Failure::new("unavailable", format!("{} is not served", other.name()))),
        }
    }

    async fn facts(&self, machine: &Arc<Machine>) -> Answer {
        let facts = machine.facts().await.map_err(failure)?;
        let mut map = BTreeMap::from([
            ("os".to_owned(), facts.os.clone()),
            ("distribution".to_owned(), facts.distribution.clone()),
            ("kernel".to_owned(), facts.kernel.clone()),
            ("arch".to_owned(), facts.arch.clone()),
            ("hostname".to_owned(), facts.hostname.clone()),
            ("user".to_owned(), facts.user.clone()),
            ("user_home".to_owned(), facts.user_home.clone()),
            ("home".to_owned(), facts.home.clone()),
            ("shell".to_owned(), facts.shell.clone()),
        ]);
        for tool in &facts.tools {
            map.insert(format!("tool.{tool}"), "yes".to_owned());
        }
        Ok(Outcome::Facts(map))
    }

    /// A path on the machine: relative ones start at Windlass' folder there.
    async fn path(&self, machine: &Arc<Machine>, path: &str) -> Result<String, Failure> {
        if path.contains('\0') {
            return Err(Failure::new("invalid", "a path cannot hold a zero byte"));
        }
        if path.starts_with('/') {
            return Ok(path.to_owned());
        }
        let home = machine.home().await.map_err(failure)?;
        Ok(format!("{home}/{path}"))
    }
}

/// Waits for something on a machine unless the run is cancelled first.
pub(super) async fn until<T>(
    cancel: &CancelToken,
    work: impl Future<Output = Result<T, MachineError>>,
) -> Result<T, Failure> {
    tokio::select! {
        done = work => done.map_err(failure),
        () = cancel.cancelled() => Err(Failure::cancelled()),
    }
}

/// A machine's error as guests see it.
pub fn failure(error: MachineError) -> Failure {
    let code = match &error {
        MachineError::Unreachable { .. } | MachineError::Handshake { .. } => "unreachable",
        MachineError::AuthRefused { .. } | MachineError::BadCredential { .. } => "auth",
        MachineError::HostKeyUnknown { .. } | MachineError::HostKeyChanged { .. } => "host-key",
        MachineError::LinkLost { .. } => "link-lost",
        MachineError::Timeout { .. } => "timeout",
        MachineError::Cancelled { .. } => "cancelled",
        MachineError::MissingTool { .. } => "missing-tool",
        MachineError::DiskFull { .. } => "disk-full",
        // The result was taken by a server that this one does not remember to have been: it was restored since.
        MachineError::OutcomeUnknown { .. } | MachineError::AlreadyTaken { .. } => UNKNOWN_OUTCOME,
        MachineError::Stale { .. } => "stale",
        MachineError::Invalid { .. } => "invalid",
        _ => "io",
    };
    let failure = Failure::new(code, error.to_string()).fix(error.fix());
    if error.is_retryable() { failure.retryable() } else { failure }
}

impl From<Failure> for EngineError {
    fn from(failure: Failure) -> Self {
        let error = Self::new(crate::error::ErrorKind::Unavailable, "machine", failure.message.clone());
        match failure.attribute("fix") {
            Some(fix) => error.fix(fix),
            None => error,
        }
    }
}
