//! What is done to a data folder while no server uses it: `check` looks it over, `restore` makes one from a backup.

mod check;
mod restore;

use windlass_store::EmbeddedOptions;
pub use windlass_store::{BackupRead, Checked, Finding};

pub use self::{
    check::check,
    restore::{RestoreReport, restore, verify_backup},
};
use crate::error::EngineError;

fn options() -> EmbeddedOptions {
    // No server: nothing has to be kept back.
    EmbeddedOptions { reserve_bytes: 0, ..EmbeddedOptions::default() }
}

fn invalid(code: &'static str, error: impl std::fmt::Display) -> EngineError {
    EngineError::invalid(code, error.to_string())
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, EngineError> + Send + 'static,
) -> Result<T, EngineError> {
    tokio::task::spawn_blocking(work).await.map_err(EngineError::internal)?
}
