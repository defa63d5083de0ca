//! `windlass plan`: what a deployment would do, if it were queued now.

use clap::Args;

use super::{Context, deploy::What};
use crate::{errors::Failure, exit::Exit, render::plan};

/// Tell what a deployment would do: the real scheduler, played forward; nothing is changed
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  windlass plan shop -e test\n  windlass plan shop -e production --version 1.4.0 -o json"
)]
pub struct Plan {
    /// What would be deployed
    #[command(flatten)]
    what: What,
}

/// Runs it.
///
/// # Errors
/// When the server refuses or cannot be reached.
pub async fn run(context: &Context<'_>, command: Plan) -> Result<Exit, Failure> {
    let plan = context.client()?.plan(&command.what.into()).await?;
    context.ui.one(&plan, |plan| plan.title.clone(), plan::shown)?;
    Ok(Exit::Done)
}
