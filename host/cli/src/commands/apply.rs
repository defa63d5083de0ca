//! `windlass apply`: check a folder of files, read the secrets they name, send it all, tell what changed.

use std::path::PathBuf;

use clap::Args;
use windlass_model::{diff::Action, workspace::ApplyReport};

use super::{Context, workspace};
use crate::{
    errors::Failure,
    exit::Exit,
    render::paint::{self, GREEN, RED, YELLOW},
    text::visible,
};

/// Send the files of a folder to the server
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  windlass apply shop\n  windlass apply . --dry-run\n\n\
                  What the files name is created or changed; what they do not name stays as it is.")]
pub struct Apply {
    /// Folder with environments.yaml, machines.yaml, and projects
    #[arg(default_value = ".")]
    folder: PathBuf,
    /// Only tell what would change
    #[arg(long)]
    dry_run: bool,
    /// Take warnings for errors
    #[arg(long)]
    strict: bool,
}

/// Runs it.
///
/// # Errors
/// When the files have errors, or the server refuses or cannot be reached.
pub async fn run(context: &Context<'_>, command: Apply) -> Result<Exit, Failure> {
    let (source, mut loaded) = workspace::load(&command.folder)?;
    // Mistakes in the files are told even when the server is away.
    if !loaded.is_good() {
        workspace::report(context.ui, loaded.diagnostics)?;
        return Ok(Exit::Failure);
    }
    let client = context.client()?;
    loaded.validate(&workspace::known(&client).await?);
    loaded.read_secrets(&source);
    if command.strict {
        loaded.deny_warnings();
    }
    workspace::report(context.ui, loaded.diagnostics)?;
    let report = client.apply(&loaded.workspace, command.dry_run).await?;
    let id = |report: &ApplyReport| {
        report.changes.iter().map(|change| change.subject.clone()).collect::<Vec<_>>().join("\n")
    };
    context.ui.one(&report, id, |report| text(report, command.dry_run))?;
    Ok(Exit::Done)
}

fn text(report: &ApplyReport, dry_run: bool) -> String {
    let mut lines: Vec<String> = report
        .changes
        .iter()
        .map(|change| {
            let style = match change.action {
                Action::Add => GREEN,
                Action::Change => YELLOW,
                Action::Remove => RED,
            };
            paint::styled(style, &visible(&change.to_string()))
        })
        .collect();
    let verb = if dry_run { "would change" } else { "changed" };
    lines.push(match report.changes.len() {
        0 => format!("nothing to change, {} as asked for already", report.unchanged),
        changes => format!("{verb}: {changes}, unchanged: {}", report.unchanged),
    });
    lines.join("\n")
}
