//! Environments, and the machines that are deployed to or worked from.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::name::{EnvironmentName, MachineName, PoolName, Role};

/// A place releases are deployed to, such as `test` or `production`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Environment {
    /// Its name.
    pub name: EnvironmentName,
    /// What it is for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
}

/// A target (it has roles and environments) or a worker (it is in pools), or both.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// Its name.
    pub name: MachineName,
    /// Environments it belongs to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub environments: Vec<EnvironmentName>,
    /// Roles it plays: steps choose machines by role.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<Role>,
    /// Pools it works for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pools: Vec<PoolName>,
    /// How it is reached.
    pub connection: Connection,
    /// Takes part in nothing while set.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub disabled: bool,
}

/// How a machine is reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Connection {
    /// The machine that the server runs on, as the server's user.
    Local {
        /// Folder for what Windlass keeps there. Default: `~/.windlass`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        home: Option<String>,
    },
    /// Over SSH.
    Ssh {
        /// Host name or address.
        host: String,
        /// Port of the SSH server.
        #[serde(default = "default_port")]
        port: u16,
        /// User to log in as.
        user: String,
        /// How to log in.
        #[serde(default)]
        auth: SshAuth,
        /// SHA-256 fingerprint of the host key, `SHA256:…`. Set by `windlass machine trust`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        host_key: Option<String>,
        /// Folder for what Windlass keeps there. Default: `~/.windlass`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        home: Option<String>,
        /// Seconds for which a command whose link was lost tries to get it back before its step gives up. Default: 300.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reconnect_seconds: Option<u32>,
    },
}

fn default_port() -> u16 {
    22
}

/// How to log in over SSH. Secrets are named here, never written.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum SshAuth {
    /// Whatever the server's SSH agent offers.
    #[default]
    Agent,
    /// A private key file on the server.
    KeyFile {
        /// Path of the key, readable by the server only.
        path: String,
        /// Environment variable of the server that holds the passphrase.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        passphrase_env: Option<String>,
    },
    /// A password that the server reads from one of its environment variables.
    Password {
        /// Name of the variable.
        env: String,
    },
}

impl Connection {
    /// Host name or address, for people and for `#{Machine.Host}`.
    #[must_use]
    pub fn host(&self) -> &str {
        match self {
            Self::Local { .. } => "localhost",
            Self::Ssh { host, .. } => host,
        }
    }

    /// Folder on the machine for what Windlass keeps there, as written or the default.
    #[must_use]
    pub fn home(&self) -> &str {
        let (Self::Local { home } | Self::Ssh { home, .. }) = self;
        home.as_deref().unwrap_or("~/.windlass")
    }
}

#[cfg(test)]
mod tests {
    use super::Connection;

    #[test]
    fn the_home_of_a_machine_is_the_one_written_or_the_default() {
        let local = |home: Option<&str>| Connection::Local { home: home.map(str::to_owned) };
        assert_eq!(local(None).home(), "~/.windlass");
        assert_eq!(local(Some("/srv/w")).home(), "/srv/w");
    }
}
