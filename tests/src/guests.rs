//! The bundled plugins, built once for all tests of a process.

use std::path::{Path, PathBuf};

use tokio::sync::OnceCell;
use windlass_build::{Guests, Install};

static PLUGINS: OnceCell<Vec<PathBuf>> = OnceCell::const_new();

/// Components of all bundled plugins, built if their sources changed. A missing toolchain is installed.
///
/// # Errors
/// The builder's own words, with their fix.
pub async fn plugins() -> Result<&'static [PathBuf], String> {
    let built = PLUGINS.get_or_try_init(|| async {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins");
        let built = Guests::in_workspace(folder)
            .install(Install::IfMissing)
            .build(&|event| eprintln!("{event}"))
            .await
            .map_err(|error| error.to_string())?;
        Ok::<_, String>(built.plugins.into_iter().map(|plugin| plugin.component).collect())
    });
    built.await.map(Vec::as_slice)
}
