//! The plugin host: takes plugins and runs them.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;
use wasmtime::{Engine, component::Component};
use windlass_effects::{Failure, Waist};
use windlass_model::{Capability, Manifest};

use crate::{
    bytes,
    cache::CodeCache,
    calls::from_wit,
    contract,
    engine::{engine, start_ticking},
    error::{Refused, RunError},
    limits::Limits,
    manifest,
    plugin::Plugin,
    request::{RunReport, RunRequest},
    run::Run,
    sandbox::Sandbox,
};

/// How a [`PluginHost`] is set up.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where compiled plugins are kept, in the server's data folder; none: they are compiled at every start.
    pub cache: Option<PathBuf>,
    /// Largest component that is taken, bytes.
    pub max_component: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { cache: None, max_component: 32 << 20 }
    }
}

/// Why a [`PluginHost`] could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The engine does not run on this machine.
    #[error("start the WebAssembly engine: {0}")]
    Engine(String),
    /// The thread that interrupts guests could not be started.
    #[error("start the thread that interrupts plugins: {0}")]
    Thread(std::io::Error),
    /// The folder for compiled plugins cannot be used.
    #[error("use {} for compiled plugins: {cause}; make it a folder that the server can write", folder.display())]
    Cache {
        /// The folder.
        folder: PathBuf,
        /// Why.
        cause: std::io::Error,
    },
}

/// Takes plugins and runs them. One a server; cloning shares it.
#[derive(Clone)]
pub struct PluginHost(Arc<Inner>);

struct Inner {
    engine: Engine,
    cache: Option<CodeCache>,
    max_component: usize,
    /// Compiling takes a processor for a while: one at a time.
    compiling: Arc<Semaphore>,
}

impl PluginHost {
    /// Sets up the engine and its cache.
    ///
    /// # Errors
    /// When the engine, its thread or the cache folder cannot be had.
    pub fn new(config: Config) -> Result<Self, HostError> {
        let engine = engine().map_err(|error| HostError::Engine(format!("{error:#}")))?;
        start_ticking(&engine).map_err(HostError::Thread)?;
        let cache = config
            .cache
            .map(|folder| CodeCache::open(&folder, &engine).map_err(|cause| HostError::Cache { folder, cause }))
            .transpose()?;
        let compiling = Arc::new(Semaphore::new(1));
        Ok(Self(Arc::new(Inner { engine, cache, max_component: config.max_component, compiling })))
    }

    /// Takes a component: checks it, compiles it (or finds it compiled) and asks it what it is.
    ///
    /// # Errors
    /// When it is no plugin that this server can run; the text says what to do.
    pub async fn load(&self, bytes: impl Into<Arc<[u8]>>) -> Result<Plugin, Refused> {
        let bytes = bytes.into();
        let digest = hex::encode(Sha256::digest(&bytes));
        let component = self.compile(bytes.clone(), digest.clone()).await?;
        let imports = contract::check(&self.0.engine, &component)?;
        let json = self.describe(&component).await?;
        let manifest = manifest::read(&json, &imports)?;
        Ok(Plugin::new(digest, &bytes, manifest, imports, component))
    }

    /// Takes a component together with the manifest that lies beside it: both must agree.
    ///
    /// # Errors
    /// As [`PluginHost::load`], and when they do not agree.
    pub async fn load_with(&self, bytes: impl Into<Arc<[u8]>>, manifest: &Manifest) -> Result<Plugin, Refused> {
        let plugin = self.load(bytes).await?;
        manifest::compare(manifest, plugin.manifest())?;
        Ok(plugin)
    }

    /// Runs a plugin once, in a fresh sandbox that is dropped afterwards whatever happens.
    ///
    /// # Errors
    /// How the run ended, if not well. Dropping the future ends the guest at once.
    pub async fn run(
        &self,
        plugin: &Plugin,
        request: RunRequest,
        waist: Arc<dyn Waist>,
    ) -> Result<RunReport, RunError> {
        let started = Instant::now();
        let pre = plugin.prepare(&request.grants)?;
        let mut run = Run::new(&self.0.engine, waist, &request.limits);
        let manifest = plugin.manifest().clone();
        let answer = run.step(&pre, manifest, request).await;
        let report = run.report(started.elapsed());
        answer.map(|()| report)
    }

    /// Lets a plugin check inputs as written: what it finds wrong. Nothing if it has no checks of its own.
    ///
    /// # Errors
    /// When the plugin does not return.
    pub async fn validate(&self, plugin: &Plugin, inputs: &Value) -> Result<Vec<Failure>, RunError> {
        if !plugin.validates() {
            return Ok(Vec::new());
        }
        let found = self.sandbox().validate(plugin.component(), inputs.to_string()).await?;
        Ok(found.into_iter().map(from_wit).collect())
    }

    async fn compile(&self, bytes: Arc<[u8]>, digest: String) -> Result<Component, Refused> {
        let host = self.0.clone();
        let closed = |detail: String| Refused::Host { detail };
        let slot = self.0.compiling.clone().acquire_owned().await.map_err(|error| closed(error.to_string()))?;
        let compiled = tokio::task::spawn_blocking(move || {
            let _slot = slot;
            bytes::check(&bytes, host.max_component)?;
            if let Some(component) = host.cache.as_ref().and_then(|cache| cache.load(&host.engine, &digest)) {
                return Ok(component);
            }
            let component = Component::from_binary(&host.engine, &bytes)
                .map_err(|error| Refused::Malformed { detail: crate::text::one_line(&format!("{error:#}"), 300) })?;
            if let Some(cache) = &host.cache {
                cache.store(&digest, &component);
            }
            Ok(component)
        });
        compiled.await.map_err(|error| closed(error.to_string()))?
    }

    async fn describe(&self, component: &Component) -> Result<String, Refused> {
        let linker = contract::linker(&self.0.engine, |_: &Capability| true)
            .map_err(|error| Refused::Host { detail: format!("{error:#}") })?;
        let pre = linker.instantiate_pre(component).and_then(crate::bindings::StepPre::new).map_err(|error| {
            Refused::Mismatch {
                detail: crate::text::one_line(&format!("{error:#}"), 300),
                served: contract::SERVED.to_string(),
            }
        })?;
        self.sandbox().describe(&pre).await.map_err(|cause| Refused::Describe { cause: Box::new(cause) })
    }

    /// A run that may not touch the world and not take long.
    fn sandbox(&self) -> Run {
        let limits = Limits {
            compute: Duration::from_secs(2),
            wall: Duration::from_secs(10),
            log_lines: 0,
            ..Limits::default()
        };
        Run::new(&self.0.engine, Arc::new(Sandbox::default()), &limits)
    }
}
