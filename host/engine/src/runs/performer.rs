//! Does what effects ask for, for one run.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use rand::Rng;
use windlass_effects::{
    Answer, CancelToken, Content, Effect, Failure, Outcome, PackageHandle, PackageInfo, Performer, SecretHandle,
};
use windlass_machines::{Machine, MachineError};
use windlass_model::{RunId, SecretText, template::Mode, variables::Context};
use windlass_scheduler::RunKey;

use super::{commands::Commands, http, substitute, waits};
use crate::{error::EngineError, logs::NodeLog, packages, services::Services};

/// Longest answer kept in the journal, in bytes: what is larger belongs into a file or a package.
const MAX_ANSWER: u32 = 1 << 20;

/// The hands of one run.
pub struct RunPerformer {
    pub(super) services: Arc<Services>,
    pub(super) run: RunKey,
    pub(super) id: RunId,
    pub(super) node: String,
    pub(super) context: Context,
    pub(super) log: Arc<NodeLog>,
    pub(super) secrets: BTreeMap<SecretHandle, SecretText>,
    pub(super) packages: BTreeMap<PackageHandle, (PackageInfo, windlass_packages::digest::Sha256)>,
    pub(super) machine: Option<Arc<Machine>>,
    pub(super) commands: Commands,
}

#[async_trait]
impl Performer for RunPerformer {
    async fn perform(&self, index: u64, effect: &Effect, cancel: &CancelToken) -> Answer {
        match effect {
            Effect::Now => Ok(Outcome::Number(self.services.shared.clock.now_ms())),
            Effect::Random { len } => {
                let mut bytes = vec![0; (*len).min(1024) as usize];
                rand::rng().fill_bytes(&mut bytes);
                Ok(Outcome::Bytes(bytes))
            }
            Effect::Sleep { ms } => waits::sleep(self, Duration::from_millis(*ms), cancel).await,
            Effect::Variable { name } => self.variable(name),
            Effect::Expand { text } => self.expand(text),
            Effect::HasSecret { name } => {
                let found = self.context.value(name).map_err(|error| Failure::new("invalid", error.to_string()))?;
                Ok(Outcome::Flag(found.is_some_and(|value| value.secrets_used)))
            }
            Effect::Reveal { secret } => self.secret(secret).map(Outcome::Secret),
            Effect::PackageInfo { package } => self.package(*package).map(|(info, _)| Outcome::Package(info.clone())),
            Effect::Http { request } => http::send(self, request, cancel).await,
            Effect::Acquire { resource, mode, wait_ms } => {
                waits::lock(self, index, resource, *mode, *wait_ms, cancel).await
            }
            Effect::Tasks { query } => waits::tasks(self, query).await,
            Effect::AwaitQuiet { query, wait_ms } => waits::quiet(self, query, *wait_ms, cancel).await,
            Effect::AwaitTask { task, wait_ms } => waits::task(self, *task, *wait_ms, cancel).await,
            Effect::Output { .. } | Effect::Release { .. } | Effect::Deploy { .. } => {
                Err(Failure::new("unavailable", format!("{} is performed with its record", effect.name())))
            }
            on_machine => self.on_machine(index, on_machine, cancel).await,
        }
    }
}

impl RunPerformer {
    fn variable(&self, name: &str) -> Answer {
        let found = self.context.value(name).map_err(|error| Failure::new("invalid", error.to_string()))?;
        match found {
            Some(value) if value.secrets_used => {
                Err(Failure::new("secret", format!("the variable {name} holds a secret")).fix("ask for it as a secret"))
            }
            found => Ok(Outcome::MaybeText(found.map(|value| value.text))),
        }
    }

    fn expand(&self, text: &str) -> Answer {
        let expanded = self.context.expand(text, Mode::Strict).map_err(|error| {
            Failure::new("invalid", error.to_string())
                .fix("define the variable for this environment, machine and step, then create a new release")
        })?;
        if expanded.secrets_used {
            return Err(Failure::new("secret", "the text would show a secret")
                .fix("hand the secret on by an input of kind secret"));
        }
        Ok(Outcome::Text(expanded.text))
    }

    pub(super) fn secret(&self, handle: &SecretHandle) -> Result<SecretText, Failure> {
        if let Some(secret) = self.secrets.get(handle) {
            return Ok(secret.clone());
        }
        let found = self.context.value(&handle.0).map_err(|error| Failure::new("invalid", error.to_string()))?;
        match found {
            Some(value) if value.secrets_used => Ok(SecretText::new(value.text)),
            _ => Err(Failure::new("not-found", format!("there is no secret {}", handle.0))),
        }
    }

    fn package(&self, handle: PackageHandle) -> Result<&(PackageInfo, windlass_packages::digest::Sha256), Failure> {
        self.packages.get(&handle).ok_or_else(|| Failure::new("not-found", "there is no such package"))
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
                let (_, digest) = self.package(*package)?;
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
        MachineError::OutcomeUnknown { .. } => "unknown-outcome",
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
