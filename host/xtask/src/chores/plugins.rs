//! Building the step plugins.

use std::path::{Path, PathBuf};

use windlass_build::{Guests, Install};
use xtask::say;

use crate::Outcome;

/// Builds them, installing the guest toolchain if it is missing. Answers the folder they lie in.
pub async fn build(root: &Path, force: bool) -> Outcome<PathBuf> {
    say::heading("building the step plugins (about a minute the first time)");
    let workspace = root.join("plugins");
    let guests = Guests::in_workspace(&workspace).install(Install::IfMissing).force(force);
    guests.build(&|event| say::line(&event.to_string())).await.map_err(|error| error.to_string())?;
    Ok(workspace.join("dist"))
}
