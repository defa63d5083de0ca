//! `windlass environment`: the places that releases are deployed to.

use clap::Subcommand;

use super::Context;
use crate::{errors::Failure, exit::Exit};

/// Look at environments
#[derive(Debug, Subcommand)]
pub enum Environment {
    /// List environments
    #[command(after_help = "Examples:\n  windlass environment list\n  windlass environment list -o id")]
    List,
}

/// Runs it.
///
/// # Errors
/// When the server refuses or cannot be reached.
pub async fn run(context: &Context<'_>, command: Environment) -> Result<Exit, Failure> {
    let Environment::List = command;
    let found = context.client()?.environments().await?;
    let cells = |e: &windlass_model::Environment| vec![e.name.to_string(), e.description.clone()];
    context.ui.list(&found, |e| e.name.to_string(), &["name", "description"], cells)?;
    Ok(Exit::Done)
}
