//! Installed plugins: components by digest in files, their manifests in the store, compiled ones in memory.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use bytes::Bytes;
use windlass_model::{Manifest, PinnedGuest, PluginRef, views::PluginRecord};
use windlass_store::{Batch, Digest, Key, Store};
use windlass_wasm::Plugin;

use crate::{error::EngineError, records::PLUGINS, services::Services};

/// Compiled plugins kept in memory; runs keep theirs alive on their own.
const KEPT: usize = 64;
/// Largest component kept, in bytes; the sandbox refuses smaller ones already.
const MAX_COMPONENT: u64 = 64 << 20;

/// Loaded plugins by digest.
#[derive(Default)]
pub struct Registry(Mutex<HashMap<String, Plugin>>);

impl Registry {
    fn known(&self, digest: &str) -> Option<Plugin> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(digest).cloned()
    }

    fn keep(&self, plugin: &Plugin) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= KEPT {
            known.clear();
        }
        known.insert(plugin.digest().to_owned(), plugin.clone());
    }

    /// The plugin of that digest, ready to run.
    ///
    /// # Errors
    /// When its component is gone, or no longer runs here.
    pub async fn load(&self, services: &Services, digest: &str) -> Result<Plugin, EngineError> {
        if let Some(plugin) = self.known(digest) {
            return Ok(plugin);
        }
        let lost = || EngineError::not_found("plugin with the digest", digest).fix("windlass plugin install FILE");
        let parsed: Digest = digest.parse().map_err(|_| lost())?;
        let bytes = services.blobs.read(parsed, MAX_COMPONENT).await.map_err(|_| lost())?;
        let plugin = services.wasm.load(bytes.to_vec()).await.map_err(refused)?;
        self.keep(&plugin);
        Ok(plugin)
    }
}

/// Takes a plugin in: checks, compiles, keeps it.
///
/// # Errors
/// When it is no plugin for this server, or another one of that version is installed.
pub async fn install(services: &Services, bytes: Bytes) -> Result<PluginRecord, EngineError> {
    let plugin = services.wasm.load(bytes.to_vec()).await.map_err(refused)?;
    let manifest = (**plugin.manifest()).clone();
    let key = Key::of_text(&manifest.id).text(&manifest.version);
    let store = &*services.shared.store;
    if let Some(installed) = PLUGINS.get(store, key.clone()).await? {
        if installed.sha256 == plugin.digest() {
            // It may have been lost: then this brings it back.
            services.blobs.put(&mut std::io::Cursor::new(bytes), MAX_COMPONENT).await.map_err(EngineError::internal)?;
            return Ok(installed);
        }
        return Err(EngineError::conflict(
            "plugin-exists",
            format!("another {} {} is installed, and versions never change", manifest.id, manifest.version),
        )
        .fix("raise the version in its manifest, build it, and install that"));
    }
    services.blobs.put(&mut std::io::Cursor::new(bytes), MAX_COMPONENT).await.map_err(EngineError::internal)?;
    let record = PluginRecord {
        manifest,
        sha256: plugin.digest().to_owned(),
        size: plugin.size() as u64,
        installed_ms: services.shared.clock.now_ms(),
    };
    let mut batch = Batch::new();
    PLUGINS.require_absent(&mut batch, key.clone());
    PLUGINS.put(&mut batch, key, &record)?;
    store.commit(batch).await?;
    services.plugins.keep(&plugin);
    tracing::info!(plugin = %record.manifest.id, version = %record.manifest.version, digest = %record.sha256, "installed a plugin");
    Ok(record)
}

fn refused(refused: windlass_wasm::Refused) -> EngineError {
    EngineError::invalid("plugin-refused", refused.to_string()).fix(refused.fix())
}

/// All installed plugins.
///
/// # Errors
/// When the store stopped.
pub async fn list(store: &dyn Store) -> Result<Vec<PluginRecord>, EngineError> {
    Ok(PLUGINS.all(store, Key::new()).await?.into_iter().map(|(_, record)| record).collect())
}

/// The newest installed plugin that a step's `uses` names.
///
/// # Errors
/// When none is installed; the fix names what is.
pub fn resolve<'p>(
    installed: &'p [PluginRecord],
    uses: &PluginRef,
) -> Result<(&'p PluginRecord, PinnedGuest), EngineError> {
    let newest = Manifest::newest(installed.iter().map(|record| &record.manifest), uses);
    let found = installed.iter().find(|record| Some(&record.manifest) == newest);
    let Some(record) = found else {
        let mut other: Vec<_> = installed
            .iter()
            .filter(|record| record.manifest.id == uses.id)
            .map(|record| record.manifest.version.clone())
            .collect();
        other.sort();
        let fix = if other.is_empty() {
            format!("windlass plugin install {}.wasm", uses.id)
        } else {
            format!("use one of the installed versions: {}", other.join(", "))
        };
        return Err(EngineError::not_found("plugin", uses).fix(fix));
    };
    Ok((record, PinnedGuest { version: record.manifest.version.clone(), sha256: record.sha256.clone() }))
}
