//! Names of what can be locked.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};
use windlass_model::MachineName;

/// Something that can be locked, by its canonical name.
///
/// `machine:<name>` is a whole machine, `machine:<name>/<resource>` a resource on it, `global:<resource>` one
/// of the whole server, `lease:<name>` the leases of a worker.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Resource(Arc<str>);

impl Resource {
    /// The whole machine.
    #[must_use]
    pub fn machine(name: &MachineName) -> Self {
        Self(format!("machine:{}", name.key()).into())
    }

    /// A resource by the name a manifest or a guest gives it: on the machine, unless the name starts with
    /// `global:` or there is no machine.
    #[must_use]
    pub fn named(machine: Option<&MachineName>, name: &str) -> Self {
        match (name.strip_prefix("global:"), machine) {
            (None, Some(machine)) => Self(format!("machine:{}/{name}", machine.key()).into()),
            (global, _) => Self(format!("global:{}", global.unwrap_or(name)).into()),
        }
    }

    /// The leases of a worker.
    #[must_use]
    pub fn lease(worker: &MachineName) -> Self {
        Self(format!("lease:{}", worker.key()).into())
    }

    /// A resource by its canonical name, as a person writes it.
    #[must_use]
    pub fn canonical(name: &str) -> Self {
        Self(name.into())
    }

    /// Its canonical name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn shared(&self) -> Arc<str> {
        Arc::clone(&self.0)
    }

    /// Whether it is a whole machine.
    #[must_use]
    pub fn is_machine(&self) -> bool {
        self.0.starts_with("machine:") && !self.0.contains('/')
    }
}

/// In words: `machine web1`, `iis:metabase on machine web1`, `lock licence`, `a lease of worker w1`.
impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.split_once(':') {
            Some(("machine", rest)) => match rest.split_once('/') {
                Some((machine, resource)) => write!(f, "{resource} on machine {machine}"),
                None => write!(f, "machine {rest}"),
            },
            Some(("lease", worker)) => write!(f, "a lease of worker {worker}"),
            _ => write!(f, "lock {}", self.0.strip_prefix("global:").unwrap_or(&self.0)),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn resources_have_one_name_and_read_well() {
        let web = MachineName::new("Web1").unwrap();
        for (resource, name, words) in [
            (Resource::machine(&web), "machine:web1", "machine web1"),
            (Resource::named(Some(&web), "iis:metabase"), "machine:web1/iis:metabase", "iis:metabase on machine web1"),
            (Resource::named(Some(&web), "dir:/srv/a"), "machine:web1/dir:/srv/a", "dir:/srv/a on machine web1"),
            (Resource::named(Some(&web), "global:licence"), "global:licence", "lock licence"),
            (Resource::named(None, "licence"), "global:licence", "lock licence"),
            (Resource::lease(&web), "lease:web1", "a lease of worker web1"),
        ] {
            assert_eq!(resource.as_str(), name);
            assert_eq!(resource.to_string(), words);
            assert_eq!(resource.is_machine(), name == "machine:web1");
        }
    }
}
