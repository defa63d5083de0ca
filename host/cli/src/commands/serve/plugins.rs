//! Installing the plugins of a folder at start, so that a package of Windlass can bring its step types along.

use std::path::{Path, PathBuf};

use windlass_engine::Engine;

use crate::errors::Failure;

/// Installs every component in the folder. Those that are installed already stay as they are.
///
/// # Errors
/// When the folder cannot be read, or a file in it is no plugin.
pub async fn install_from(engine: &Engine, folder: &Path) -> Result<(), Failure> {
    for path in components(folder)? {
        let at = |failure: Failure| failure.at(path.display().to_string());
        let bytes = tokio::fs::read(&path).await.map_err(|error| Failure::file("read", &path, &error))?;
        match engine.install_plugin(bytes.into()).await {
            Ok(record) => {
                let manifest = &record.manifest;
                tracing::info!(id = manifest.id, version = manifest.version, "plugin is installed");
            }
            Err(error) => {
                let failure = at(Failure::new(error.code, "failed to install a plugin").cause(error.message));
                return Err(match error.fix {
                    Some(fix) => failure.fix(fix),
                    None => failure,
                });
            }
        }
    }
    Ok(())
}

fn components(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let failed = |error: std::io::Error| Failure::file("read the plugins in", folder, &error);
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|extension| extension == "wasm") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}
