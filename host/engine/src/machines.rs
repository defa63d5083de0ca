//! From a machine's record to the way it is reached. Secrets are read here, from where the record names them.

use std::time::Duration;

use windlass_machines::{Auth, Endpoint, LocalEndpoint, SshEndpoint};
use windlass_model::{Connection, SecretText, SshAuth};

use crate::error::EngineError;

/// How a machine is reached, its secrets included.
///
/// # Errors
/// When an environment variable that should hold a secret is not set.
pub fn endpoint(connection: &Connection) -> Result<Endpoint, EngineError> {
    let mut endpoint = address(connection);
    if let (Endpoint::Ssh(ssh), Connection::Ssh { auth, .. }) = (&mut endpoint, connection) {
        ssh.auth = credentials(auth)?;
    }
    Ok(endpoint)
}

/// Where a machine is, without what it takes to log in: for telling places apart, not for connecting.
#[must_use]
pub fn address(connection: &Connection) -> Endpoint {
    match connection {
        Connection::Local { home } => Endpoint::Local(LocalEndpoint { home: home.clone() }),
        Connection::Ssh { host, port, user, auth: _, host_key, home, reconnect_seconds } => {
            Endpoint::Ssh(SshEndpoint {
                host: host.clone(),
                port: *port,
                user: user.clone(),
                auth: Auth::Agent,
                host_key: host_key.clone(),
                home: home.clone(),
                reconnect_for: reconnect_seconds.map(|seconds| Duration::from_secs(seconds.into())),
            })
        }
    }
}

/// The place where an endpoint keeps what it is sent, as text.
#[must_use]
pub fn place(endpoint: &Endpoint) -> String {
    let (Endpoint::Local(LocalEndpoint { home }) | Endpoint::Ssh(SshEndpoint { home, .. })) = endpoint;
    match home {
        Some(home) => format!("{endpoint} {home}"),
        None => endpoint.to_string(),
    }
}

fn credentials(auth: &SshAuth) -> Result<Auth, EngineError> {
    Ok(match auth {
        SshAuth::Agent => Auth::Agent,
        SshAuth::Password { env } => Auth::Password(from_env(env)?),
        SshAuth::KeyFile { path, passphrase_env } => {
            let passphrase = passphrase_env.as_deref().map(from_env).transpose()?;
            Auth::KeyFile { path: path.into(), passphrase }
        }
    })
}

fn from_env(name: &str) -> Result<SecretText, EngineError> {
    std::env::var(name).map(SecretText::new).map_err(|_| {
        EngineError::invalid("secret-missing", format!("the server's environment variable {name} is not set"))
            .fix(format!("set {name} where windlass serve is started"))
    })
}
