//! The first layer: may this run do that?
//!
//! Three things stand between a guest and the world: interfaces that were not granted are not linked, handles
//! cannot be made up, and this check, which looks at every effect once more.

use std::collections::{BTreeMap, BTreeSet};

use windlass_model::Capability;

use crate::{
    effect::{Command, Content, Effect, EnvValue, HeaderValue, PackageHandle, SecretHandle, SessionHandle, Stdin},
    outcome::Failure,
};

/// Largest piece of data that may travel in an effect, in bytes.
pub const MAX_INLINE: usize = 1 << 20;

/// What a run may do.
#[derive(Debug, Clone, Default)]
pub struct Grants {
    /// Capabilities: what the manifest asks for and the operator allowed.
    pub capabilities: BTreeSet<Capability>,
    /// Machines lent to the run, with their names for messages.
    pub sessions: BTreeMap<SessionHandle, String>,
    /// Packages lent to the run, with their ids for messages.
    pub packages: BTreeMap<PackageHandle, String>,
    /// Secrets lent to the run.
    pub secrets: BTreeSet<SecretHandle>,
}

impl Grants {
    /// Checks one effect.
    ///
    /// # Errors
    /// A `denied` failure that names what was asked and what is missing, or `too-large`.
    pub fn check(&self, effect: &Effect) -> Result<(), Failure> {
        if let Some(needed) = needed_capability(effect) {
            self.require(effect, needed)?;
        }
        if let Some(session) = session(effect)
            && !self.sessions.contains_key(&session)
        {
            return Err(foreign(effect, "machine"));
        }
        match effect {
            Effect::Run { command, .. } | Effect::Start { command, .. } => self.check_command(effect, command),
            Effect::WriteFile { content: Content::Bytes(bytes), .. } => small(effect, bytes.len()),
            Effect::WriteFile { content: Content::Secret(secret), .. } => self.check_secret(effect, secret),
            Effect::Reveal { secret } => self.check_secret(effect, secret),
            Effect::StagePackage { package, .. } => {
                self.require(effect, Capability::Package)?;
                self.check_package(effect, *package)
            }
            Effect::PackageInfo { package } => self.check_package(effect, *package),
            Effect::Http { request } => {
                for (_, value) in &request.headers {
                    if let HeaderValue::Secret { secret, .. } = value {
                        self.check_secret(effect, secret)?;
                    }
                }
                small(effect, request.body.len())
            }
            Effect::Expand { text } => small(effect, text.len()),
            Effect::Output { value, .. } => small(effect, value.len()),
            _ => Ok(()),
        }
    }

    fn require(&self, effect: &Effect, needed: Capability) -> Result<(), Failure> {
        if self.capabilities.contains(&needed) {
            return Ok(());
        }
        Err(Failure::denied(format!(
            "{} needs the capability {needed}, which this guest was not granted",
            effect.name()
        ))
        .fix(format!("ask for \"{needed}\" in the manifest's capabilities; it {}", needed.meaning())))
    }

    fn check_command(&self, effect: &Effect, command: &Command) -> Result<(), Failure> {
        for value in command.env.values() {
            self.check_value(effect, value)?;
        }
        match &command.stdin {
            Stdin::Empty => Ok(()),
            Stdin::Bytes(bytes) => small(effect, bytes.len()),
            Stdin::Secret(secret) => self.check_secret(effect, secret),
        }
    }

    fn check_value(&self, effect: &Effect, value: &EnvValue) -> Result<(), Failure> {
        match value {
            EnvValue::Text(_) => Ok(()),
            EnvValue::Secret(secret) => self.check_secret(effect, secret),
        }
    }

    fn check_secret(&self, effect: &Effect, secret: &SecretHandle) -> Result<(), Failure> {
        if self.secrets.contains(secret) { Ok(()) } else { Err(foreign(effect, "secret")) }
    }

    fn check_package(&self, effect: &Effect, package: PackageHandle) -> Result<(), Failure> {
        if self.packages.contains_key(&package) { Ok(()) } else { Err(foreign(effect, "package")) }
    }
}

fn foreign(effect: &Effect, what: &str) -> Failure {
    Failure::denied(format!("{} names a {what} that was not lent to this run", effect.name()))
}

fn small(effect: &Effect, len: usize) -> Result<(), Failure> {
    if len <= MAX_INLINE {
        return Ok(());
    }
    let message = format!("{} carries {len} bytes, more than the {MAX_INLINE} that one call may", effect.name());
    Err(Failure::new("too-large", message).fix("put bulk data into a package"))
}

/// The capability that an effect needs, if any.
#[must_use]
pub fn needed_capability(effect: &Effect) -> Option<Capability> {
    use Capability as C;
    use Effect as E;
    match effect {
        E::Now
        | E::Random { .. }
        | E::Sleep { .. }
        | E::Variable { .. }
        | E::Expand { .. }
        | E::HasSecret { .. }
        | E::Output { .. } => None,
        E::Reveal { .. } => Some(C::SecretReveal),
        E::Facts { .. } | E::Run { .. } | E::Start { .. } | E::ReadOutput { .. } | E::Wait { .. } | E::Kill { .. } => {
            Some(C::Machine)
        }
        E::ReadFile { .. } | E::WriteFile { .. } | E::Substitute { .. } | E::StagePackage { .. } => Some(C::Machine),
        E::PackageInfo { .. } => Some(C::Package),
        E::Http { .. } => Some(C::Http),
        E::Acquire { .. } | E::Release { .. } => Some(C::Lock),
        E::Tasks { .. } | E::AwaitQuiet { .. } | E::AwaitTask { .. } => Some(C::TasksRead),
        E::Deploy { .. } => Some(C::TasksDeploy),
    }
}

/// The machine that an effect touches, if any.
fn session(effect: &Effect) -> Option<SessionHandle> {
    use Effect as E;
    match effect {
        E::Facts { session }
        | E::Run { session, .. }
        | E::Start { session, .. }
        | E::ReadOutput { session, .. }
        | E::Wait { session, .. }
        | E::Kill { session, .. }
        | E::ReadFile { session, .. }
        | E::WriteFile { session, .. }
        | E::Substitute { session, .. }
        | E::StagePackage { session, .. } => Some(*session),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::effect::HttpRequest;

    fn web() -> Grants {
        Grants {
            capabilities: [Capability::Machine].into(),
            sessions: [(SessionHandle(1), "web1".into())].into(),
            packages: [(PackageHandle(1), "shop".into())].into(),
            secrets: [SecretHandle("Db.Password".into())].into(),
        }
    }

    fn request() -> HttpRequest {
        HttpRequest {
            method: "GET".into(),
            url: "http://localhost".into(),
            headers: vec![],
            body: vec![],
            timeout_ms: 1,
            max_body: 1,
            idempotency_key: None,
        }
    }

    #[test]
    fn what_was_granted_passes_and_what_was_not_is_denied_by_name() {
        let table = [
            (Effect::Now, None),
            (Effect::Facts { session: SessionHandle(1) }, None),
            (Effect::Facts { session: SessionHandle(2) }, Some("facts names a machine that was not lent to this run")),
            (
                Effect::Http { request: request() },
                Some("http needs the capability http, which this guest was not granted"),
            ),
            (
                Effect::StagePackage { session: SessionHandle(1), package: PackageHandle(1) },
                Some("stage_package needs the capability package, which this guest was not granted"),
            ),
            (
                Effect::Reveal { secret: SecretHandle("Db.Password".into()) },
                Some("reveal needs the capability secret-reveal, which this guest was not granted"),
            ),
            (
                Effect::WriteFile {
                    session: SessionHandle(1),
                    path: "x".into(),
                    content: Content::Secret(SecretHandle("other".into())),
                    mode: 0o600,
                },
                Some("write_file names a secret that was not lent to this run"),
            ),
            (
                Effect::Output { name: "x".into(), value: "v".repeat(MAX_INLINE + 1), sensitive: false },
                Some("output carries 1048577 bytes, more than the 1048576 that one call may"),
            ),
        ];
        for (effect, expected) in table {
            assert_eq!(web().check(&effect).err().map(|failure| failure.message).as_deref(), expected, "{effect:?}");
        }
    }
}
