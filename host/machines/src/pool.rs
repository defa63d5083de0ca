//! All machines this process knows: one [`Machine`] and one connection for each endpoint, shared by all who use it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;

use crate::endpoint::Endpoint;
use crate::error::MachineError;
use crate::machine::Machine;
use crate::ssh::Timeouts;

/// How patient to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// How long a run whose link was lost tries to get it back. Default: 5 min.
    pub reconnect_for: Duration,
    /// After how long an unused connection is closed. Default: 10 min.
    pub idle: Duration,
    /// For the TCP connection and the SSH handshake. Default: 10 s.
    pub handshake_timeout: Duration,
    /// For logging in. Default: 15 s.
    pub auth_timeout: Duration,
    /// For opening a channel. Default: 10 s.
    pub open_timeout: Duration,
    /// After how long without a sign of life a link counts as dead. Default: 13 s.
    pub silence: Duration,
    /// Days after which results that nobody took and tombstones are removed from a machine. A ticket older than that
    /// must not be started again. Default: 30.
    pub keep_days: u32,
}

impl Default for Config {
    fn default() -> Self {
        let Timeouts { handshake, auth, open } = Timeouts::default();
        Self {
            reconnect_for: Duration::from_secs(300),
            idle: Duration::from_secs(600),
            handshake_timeout: handshake,
            auth_timeout: auth,
            open_timeout: open,
            silence: Duration::from_secs(13),
            keep_days: 30,
        }
    }
}

impl Config {
    pub(crate) fn timeouts(&self) -> Timeouts {
        Timeouts { handshake: self.handshake_timeout, auth: self.auth_timeout, open: self.open_timeout }
    }
}

/// All machines this process knows.
#[derive(Debug, Default)]
pub struct Machines {
    config: Config,
    known: Mutex<HashMap<String, Arc<Machine>>>,
}

impl Machines {
    /// An empty pool.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self { config, known: Mutex::default() }
    }

    /// The machine at `endpoint`, connected. Asking again gives the same machine and the same connection; asking with
    /// another credential, host key or home replaces it.
    ///
    /// # Errors
    /// [`MachineError::HostKeyUnknown`] for a machine that is not trusted yet, and whatever connecting can meet.
    pub async fn connect(&self, endpoint: &Endpoint) -> Result<Arc<Machine>, MachineError> {
        let machine = self.get(endpoint).await?;
        machine.reached().await?;
        Ok(machine)
    }

    /// The machine at `endpoint`, without contacting it. It connects when it is first used.
    ///
    /// # Errors
    /// [`MachineError::Invalid`] for an endpoint that could never work.
    pub async fn get(&self, endpoint: &Endpoint) -> Result<Arc<Machine>, MachineError> {
        endpoint.check()?;
        let key = format!("{endpoint} {}", endpoint.home().unwrap_or_default());
        let mut known = self.known.lock().await;
        if let Some(machine) = known.get(&key).filter(|machine| machine.endpoint() == endpoint) {
            return Ok(Arc::clone(machine));
        }
        let machine = Arc::new(Machine::new(endpoint.clone(), self.config));
        known.insert(key, Arc::clone(&machine));
        Ok(machine)
    }

    /// Forgets a machine; its connection ends when its last user is done.
    pub async fn forget(&self, endpoint: &Endpoint) {
        self.known.lock().await.retain(|_, machine| machine.endpoint() != endpoint);
    }
}
