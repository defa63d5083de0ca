//! Judges one compiled file: is it a component, does it import only what the host serves, does it describe itself.
//! It is loaded exactly as a server would load it, so what passes here is not refused there.

use std::fs;

use windlass_wasm::{Config, PluginHost, Refused};

use crate::BuildError;
use crate::compile::Artifact;

/// A component that passed.
pub(crate) struct Verified {
    /// The plugin's id.
    pub id: String,
    /// The plugin's version.
    pub version: String,
    /// What it describes itself with, as JSON text.
    pub manifest: String,
    /// The component.
    pub bytes: Vec<u8>,
}

/// A plugin host that keeps nothing.
pub(crate) fn host() -> Result<PluginHost, BuildError> {
    PluginHost::new(Config::default()).map_err(|cause| BuildError::Verifier(cause.to_string()))
}

/// Reads and judges the component of a package.
pub(crate) async fn verify(host: &PluginHost, artifact: &Artifact) -> Result<Verified, BuildError> {
    let bytes = fs::read(&artifact.wasm).map_err(BuildError::file("read", &artifact.wasm))?;
    let refused = |refused: Refused| BuildError::NotAPlugin { package: artifact.package.clone(), refused };
    let plugin = host.load(bytes.as_slice()).await.map_err(refused)?;
    let manifest = plugin.manifest();
    let mut text = serde_json::to_string_pretty(manifest.as_ref())
        .map_err(|cause| BuildError::file("describe", &artifact.wasm)(cause.into()))?;
    text.push('\n');
    Ok(Verified { id: manifest.id.clone(), version: manifest.version.clone(), manifest: text, bytes })
}
