//! How a machine is reached, in plain values.
//!
//! These are not the records people write (those are in `windlass-model`): secrets are already looked up here, and
//! nothing can be serialized. `Debug` shows no secret.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use windlass_model::SecretText;

use crate::error::MachineError;

/// Where a machine is and how to log in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// The machine this process runs on, as its user.
    Local(LocalEndpoint),
    /// A machine with an SSH server.
    Ssh(SshEndpoint),
}

/// The machine this process runs on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LocalEndpoint {
    /// Windlass' folder there, absolute. Default: `$HOME/.windlass`.
    pub home: Option<String>,
}

/// A machine with an SSH server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshEndpoint {
    /// Name or address.
    pub host: String,
    /// Port of the SSH server.
    pub port: u16,
    /// Who to log in as.
    pub user: String,
    /// How to prove it.
    pub auth: Auth,
    /// The trusted host key, `SHA256:…`. Without one, connecting fails and tells the fingerprint.
    pub host_key: Option<String>,
    /// Windlass' folder there, absolute. Default: `$HOME/.windlass`.
    pub home: Option<String>,
    /// How long a run whose link was lost tries to get it back. Default: [`crate::Config::reconnect_for`].
    pub reconnect_for: Option<Duration>,
}

/// How to prove who we are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Auth {
    /// A password, by `password` or `keyboard-interactive`, whichever the server takes.
    Password(SecretText),
    /// A private key in memory, PEM or OpenSSH form.
    Key {
        /// The key.
        pem: SecretText,
        /// Its passphrase, if it has one.
        passphrase: Option<SecretText>,
    },
    /// A private key in a file here.
    KeyFile {
        /// The file.
        path: PathBuf,
        /// Its passphrase, if it has one.
        passphrase: Option<SecretText>,
    },
    /// Any key of the SSH agent at `SSH_AUTH_SOCK`.
    Agent,
}

impl Auth {
    /// How this method is called in messages.
    pub(crate) fn method(&self) -> String {
        match self {
            Self::Password(_) => "password".into(),
            Self::Key { .. } => "key".into(),
            Self::KeyFile { path, .. } => format!("key file {}", path.display()),
            Self::Agent => "keys of the SSH agent".into(),
        }
    }
}

impl Endpoint {
    pub(crate) fn home(&self) -> Option<&str> {
        match self {
            Self::Local(local) => local.home.as_deref(),
            Self::Ssh(ssh) => ssh.home.as_deref(),
        }
    }

    pub(crate) fn reconnect_for(&self) -> Option<Duration> {
        match self {
            Self::Local(_) => None,
            Self::Ssh(ssh) => ssh.reconnect_for,
        }
    }

    /// Refuses what could not work anyway.
    pub(crate) fn check(&self) -> Result<(), MachineError> {
        let invalid = |what: &str, reason: &str| {
            Err(MachineError::Invalid { what: format!("{what} of {self}"), reason: reason.into() })
        };
        if self.home().is_some_and(|home| !home.starts_with('/') || home.contains(['\0', '\n'])) {
            return invalid("home", "must be an absolute path in one line");
        }
        match self {
            Self::Ssh(ssh) if ssh.host.is_empty() => invalid("host", "must not be empty"),
            Self::Ssh(ssh) if ssh.user.is_empty() || ssh.user.contains('\0') => invalid("user", "must not be empty"),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local(_) => f.write_str("this machine"),
            Self::Ssh(ssh) => write!(f, "{ssh}"),
        }
    }
}

impl fmt::Display for SshEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}:{}", self.user, self.host, self.port)
    }
}
