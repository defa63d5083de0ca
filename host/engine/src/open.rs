//! Opening and closing an engine.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, RwLock},
    time::Duration,
};

use tokio::{sync::watch, task::JoinHandle};
use windlass_machines::Machines;
use windlass_packages::repository::{Repository, RepositoryConfig};
use windlass_scheduler::Settings;
use windlass_store::{Blobs, EmbeddedOptions, EmbeddedStore, OpenError, Store};
use windlass_wasm::PluginHost;

use crate::{
    actor::{Hands, HandsActor},
    backup,
    board::Board,
    clock::{Clock, SystemClock},
    driver::{Driver, Shared, queue},
    error::EngineError,
    events::Hub,
    feed::Feed,
    gate::Gate,
    history::History,
    holdings::Rates,
    identity::Identity,
    logs::Logs,
    once::{self, Keys, Once},
    plugins::Registry,
    pools, restored,
    runs::Offline,
    services::Services,
    vault::Vault,
    watches::{Watches, watch},
};

/// How to open an engine.
pub struct EngineConfig {
    /// Folder for everything it keeps.
    pub data: PathBuf,
    /// Limits of the scheduler.
    pub settings: Settings,
    /// How machines are reached.
    pub machines: windlass_machines::Config,
    /// Longest outage of a machine through which a run keeps its guest; a longer one suspends it.
    pub hold: Duration,
    /// Whose time it is.
    pub clock: Arc<dyn Clock>,
    /// Whether to go on with what was under way in a backup that the data was restored from.
    pub resume_restored: bool,
    /// A store to use instead of the one in the folder: for tests, and for measuring what that one costs.
    pub store: Option<Arc<dyn Store>>,
}

impl EngineConfig {
    /// The defaults over a folder.
    #[must_use]
    pub fn new(data: impl Into<PathBuf>) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(1));
        Self {
            data: data.into(),
            settings: Settings::for_cores(cores),
            machines: windlass_machines::Config::default(),
            hold: Duration::from_secs(20),
            clock: Arc::new(SystemClock),
            resume_restored: false,
            store: None,
        }
    }
}

/// A running engine. Clones share it.
#[derive(Clone)]
pub struct Engine {
    pub(crate) services: Arc<Services>,
    hands: Arc<Hands>,
    tasks: Arc<Mutex<Vec<JoinHandle<()>>>>,
    /// The folder for everything it keeps.
    pub(crate) data: PathBuf,
    /// One backup at a time.
    pub(crate) backups: Arc<tokio::sync::Semaphore>,
    /// The key under which this handle makes what it makes.
    pub(crate) once: Option<Once>,
}

impl Engine {
    /// Opens the engine in its folder, and goes on with whatever was going on.
    ///
    /// # Errors
    /// When the folder, the store or the secret key cannot be used.
    pub async fn open(config: EngineConfig) -> Result<Self, EngineError> {
        let data = config.data.clone();
        tokio::fs::create_dir_all(&data)
            .await
            .map_err(|error| EngineError::internal(format!("failed to create {}: {error}", data.display())))?;
        let vault = Vault::open(&data.join("secret.key"))?;
        let store = match config.store {
            Some(store) => store,
            None => open_store(&data).await?,
        };
        restored::admit(&*store, &vault, config.resume_restored, config.clock.now_ms()).await?;
        let identity = Identity::load(&*store, &vault).await?;
        // What an interrupted backup left behind; if it cannot go, it only takes space.
        let _ = tokio::fs::remove_dir_all(backup::scratch_folder(&data)).await;
        let shared = Arc::new(Shared {
            store: Arc::clone(&store),
            clock: Arc::clone(&config.clock),
            board: RwLock::new(Board::default()),
            hub: Hub::new(config.clock.now_ms().saturating_mul(1000)),
            history: History::load(&*store).await?,
            generation: watch::Sender::new(0),
            locks: Mutex::default(),
            questions: RwLock::default(),
        });
        let patience = config.machines.reconnect_for;
        let machines = windlass_machines::Config { reconnect_for: patience.min(config.hold), ..config.machines };
        let (driver, inputs) = queue();
        let feed = Arc::new(Feed::new(Arc::clone(&store)));
        let packages = Repository::open(RepositoryConfig::new(data.join("packages")), Arc::clone(&feed) as _)
            .await
            .map_err(EngineError::internal)?;
        let services = Arc::new(Services {
            shared: Arc::clone(&shared),
            driver,
            logs: Logs::new(Arc::clone(&shared)),
            vault,
            identity,
            machines: Machines::new(machines),
            packages,
            feed,
            plugins: Registry::default(),
            wasm: PluginHost::new(windlass_wasm::Config {
                cache: Some(data.join("compiled")),
                ..windlass_wasm::Config::default()
            })
            .map_err(EngineError::internal)?,
            scripts: windlass_script::ScriptHost::default(),
            blobs: Blobs::open(&data.join("blobs")).await.map_err(EngineError::internal)?,
            rates: Rates::load(&*store).await?,
            held: Mutex::default(),
            http: http_client()?,
            contexts: Mutex::default(),
            watches: Watches::default(),
            offline: Offline::load(patience, &*store).await?,
            pools: tokio::sync::Mutex::default(),
            numbers: Arc::default(),
            keys: Keys::default(),
            gate: Gate::default(),
        });
        let hands = Arc::new(Hands::default());
        hands.equip(Arc::clone(&services));
        let logs = tokio::spawn({
            let logs = Arc::clone(&services.logs);
            async move {
                if let Err(error) = logs.run().await {
                    tracing::error!(%error, "the log writer stopped");
                }
            }
        });
        let actor = Arc::new(HandsActor(Arc::clone(&hands)));
        let driver = Driver::restore(shared, actor, inputs, config.settings).await?;
        let driver = tokio::spawn(driver.run());
        pools::tell(&services).await?;
        hands.watch_fences(&services).await?;
        let watching = tokio::spawn(watch(Arc::clone(&services)));
        let collector = tokio::spawn(once::collect(Arc::clone(&services)));
        let tasks = Arc::new(Mutex::new(vec![logs, driver, watching, collector]));
        let backups = Arc::new(tokio::sync::Semaphore::new(1));
        Ok(Self { services, hands, tasks, data, backups, once: None })
    }

    /// Resolves when the store has stopped; the server must then end and be started again.
    pub async fn stopped(&self) -> Arc<str> {
        self.services.shared.store.stopped().await
    }

    /// Brings what is under way to a point that the next start goes on from: no run, transfer or effect begins any
    /// more, and those whose outcome nobody else knows come to their end, but for no longer than `within`. Commands
    /// on machines go on. Tells whether that was time enough. [`Engine::close`] is to follow.
    pub async fn drain(&self, within: Duration) -> bool {
        self.hands.start_nothing_more();
        self.services.gate.shut(within).await
    }

    /// Stops in good order: starts nothing more, writes what is known, closes the store. Commands on machines go on
    /// and are picked up at the next start.
    pub async fn close(&self) {
        self.hands.close().await;
        self.services.logs.flush().await;
        self.services.logs.close();
        if let Err(error) = self.services.shared.store.close().await {
            tracing::warn!(%error, "the store was not closed in good order");
        }
        let tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
        for task in tasks {
            task.abort();
        }
    }
}

async fn open_store(data: &Path) -> Result<Arc<dyn Store>, EngineError> {
    let folder = data.join("store");
    let opened = tokio::task::spawn_blocking(move || EmbeddedStore::open(&folder, &EmbeddedOptions::default()))
        .await
        .map_err(EngineError::internal)?;
    let store = opened.map_err(|error| {
        let failed = EngineError::internal(format!("failed to {error}"));
        match &error {
            OpenError::Io { source, .. } if source.kind() == std::io::ErrorKind::ReadOnlyFilesystem => failed
                .fix("see to it that the disk can be written again, as dmesg tells why it cannot; nothing is lost"),
            _ => failed,
        }
    })?;
    Ok(Arc::new(store))
}

fn http_client() -> Result<reqwest::Client, EngineError> {
    // Fails only when a provider is set already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
        .user_agent(concat!("windlass/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(Duration::from_secs(10))
        .redirect(reqwest::redirect::Policy::limited(5))
        .build()
        .map_err(|error| EngineError::internal(format!("failed to set up HTTP: {error}")))
}
