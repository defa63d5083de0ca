//! `windlass validate`: check a folder of files, with or without asking a server what it knows.

use std::path::PathBuf;

use clap::Args;
use windlass_model::validate::Known;

use super::{Context, workspace};
use crate::{errors::Failure, exit::Exit, text::count};

/// Check the files of a folder
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  windlass validate shop\n  windlass validate . --offline --strict")]
pub struct Validate {
    /// Folder with environments.yaml, machines.yaml, and projects
    #[arg(default_value = ".")]
    folder: PathBuf,
    /// Do not ask the server; what only it knows is not checked
    #[arg(long)]
    offline: bool,
    /// Take warnings for errors
    #[arg(long)]
    strict: bool,
}

/// Runs it.
///
/// # Errors
/// When the files have errors, or the server cannot be reached.
pub async fn run(context: &Context<'_>, command: Validate) -> Result<Exit, Failure> {
    let (_, mut loaded) = workspace::load(&command.folder)?;
    if loaded.is_good() {
        let known = if command.offline { Known::default() } else { known(context).await? };
        loaded.validate(&known);
    }
    if command.strict {
        loaded.deny_warnings();
    }
    workspace::report(context.ui, loaded.diagnostics)?;
    let found = &loaded.workspace;
    context.ui.say(&format!(
        "good: {}, {}, {}",
        count(found.projects.len(), "project"),
        count(found.environments.len(), "environment"),
        count(found.machines.len(), "machine")
    ))?;
    Ok(Exit::Done)
}

async fn known(context: &Context<'_>) -> Result<Known, Failure> {
    let asked = async { workspace::known(&context.client()?).await };
    asked.await.map_err(|failure| match failure.exit {
        Exit::NoServer | Exit::NotAllowed => failure.fix("without a server: windlass validate --offline"),
        _ => failure,
    })
}
