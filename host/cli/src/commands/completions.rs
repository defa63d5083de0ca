//! `windlass completions`: a script that teaches a shell the commands and flags.

use clap::{Args, CommandFactory};
use clap_complete::{Shell, generate};

use super::Context;
use crate::{cli::Cli, errors::Failure, exit::Exit};

/// Print a completion script for a shell
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  windlass completions bash > /etc/bash_completion.d/windlass\n  source <(windlass completions zsh)"
)]
pub struct Completions {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Runs it.
///
/// # Errors
/// When it cannot be printed.
pub fn run(context: &Context<'_>, command: &Completions) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    generate(command.shell, &mut Cli::command(), "windlass", &mut script);
    context.ui.data(String::from_utf8_lossy(&script).trim_end())?;
    Ok(Exit::Done)
}
