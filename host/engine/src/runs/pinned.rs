//! What a run was given before it started: variables, secrets, packages. Answered without leaving the server.

use std::collections::BTreeMap;

use windlass_effects::{Answer, Effect, Failure, Outcome, PackageHandle, PackageInfo, SecretHandle};
use windlass_model::{SecretText, template::Mode, variables::Context};
use windlass_packages::digest::Sha256;

/// What a run was given.
pub struct Pinned {
    /// What its texts may name.
    pub context: Context,
    /// Values of its secret inputs.
    pub secrets: BTreeMap<SecretHandle, SecretText>,
    /// Its packages.
    pub packages: BTreeMap<PackageHandle, (PackageInfo, Sha256)>,
}

impl Pinned {
    /// The answer to an effect of the class that is pinned; none to any other.
    pub fn answer(&self, effect: &Effect) -> Option<Answer> {
        Some(match effect {
            Effect::Variable { name } => self.variable(name),
            Effect::Expand { text } => self.expand(text),
            Effect::HasSecret { name } => self.has_secret(name),
            Effect::Reveal { secret } => self.secret(secret).map(Outcome::Secret),
            Effect::PackageInfo { package } => self.package(*package).map(|(info, _)| Outcome::Package(info.clone())),
            _ => return None,
        })
    }

    fn variable(&self, name: &str) -> Answer {
        let found = self.context.value(name).map_err(|error| Failure::new("invalid", error.to_string()))?;
        match found {
            Some(value) if value.secrets_used => {
                Err(Failure::new("secret", format!("the variable {name} holds a secret")).fix("ask for it as a secret"))
            }
            found => Ok(Outcome::MaybeText(found.map(|value| value.text))),
        }
    }

    fn has_secret(&self, name: &str) -> Answer {
        let found = self.context.value(name).map_err(|error| Failure::new("invalid", error.to_string()))?;
        Ok(Outcome::Flag(found.is_some_and(|value| value.secrets_used)))
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

    /// The value of a secret.
    ///
    /// # Errors
    /// When there is none.
    pub fn secret(&self, handle: &SecretHandle) -> Result<SecretText, Failure> {
        if let Some(secret) = self.secrets.get(handle) {
            return Ok(secret.clone());
        }
        let found = self.context.value(&handle.0).map_err(|error| Failure::new("invalid", error.to_string()))?;
        match found {
            Some(value) if value.secrets_used => Ok(SecretText::new(value.text)),
            _ => Err(Failure::new("not-found", format!("there is no secret {}", handle.0))),
        }
    }

    /// A package.
    ///
    /// # Errors
    /// When there is none.
    pub fn package(&self, handle: PackageHandle) -> Result<&(PackageInfo, Sha256), Failure> {
        self.packages.get(&handle).ok_or_else(|| Failure::new("not-found", "there is no such package"))
    }
}
