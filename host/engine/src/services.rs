//! What every part of the engine works with.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex},
};

use windlass_machines::Machines;
use windlass_model::{PoolName, TaskId};
use windlass_packages::repository::Repository;
use windlass_scheduler::Pool;
use windlass_store::Blobs;
use windlass_wasm::PluginHost;

use crate::{
    driver::{DriverHandle, Shared},
    feed::Feed,
    gate::Gate,
    holdings::Rates,
    identity::Identity,
    logs::Logs,
    once::Keys,
    plugins::Registry,
    runs::{Offline, TaskContext},
    vault::Vault,
    watches::Watches,
};

/// The engine's parts.
pub struct Services {
    /// Store, clock, board, events.
    pub shared: Arc<Shared>,
    /// The scheduler.
    pub driver: DriverHandle,
    /// Logs.
    pub logs: Arc<Logs>,
    /// Secrets at rest.
    pub vault: Vault,
    /// Who this server is to machines.
    pub identity: Identity,
    /// Connections to machines.
    pub machines: Machines,
    /// The package feed.
    pub packages: Repository,
    /// Its records.
    pub feed: Arc<Feed>,
    /// Installed plugins.
    pub plugins: Registry,
    /// Runs WASM.
    pub wasm: PluginHost,
    /// Runs Rhai.
    pub scripts: windlass_script::ScriptHost,
    /// How fast machines are reached.
    pub rates: Rates,
    /// Which machines this process saw to hold which payloads, by place and digest.
    pub held: Mutex<HashSet<(String, String)>>,
    /// Large values by digest.
    pub blobs: Blobs,
    /// HTTP for guests.
    pub http: reqwest::Client,
    /// What runs of live tasks share.
    pub contexts: Mutex<HashMap<TaskId, Arc<tokio::sync::OnceCell<Arc<TaskContext>>>>>,
    /// Runs that wait for what only a look at the tasks can tell.
    pub watches: Watches,
    /// Machines that could not be reached, by the run that waits for them.
    pub offline: Offline,
    /// The pools as the scheduler was told of them; none before the first time.
    pub pools: tokio::sync::Mutex<Option<BTreeMap<PoolName, Pool>>>,
    /// Keeps task numbers in the order of their commits.
    pub numbers: Arc<tokio::sync::Mutex<()>>,
    /// Idempotency keys.
    pub keys: Keys,
    /// Shut when the server stops.
    pub gate: Gate,
}
