//! `windlass restore`: a data folder from a backup, on a machine where no server runs on it.

use std::path::PathBuf;

use clap::Args;
use windlass_engine::offline;

use super::Context;
use crate::{cli::Format, errors::Failure, exit::Exit, text::date};

/// Make a server's data folder from a backup
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  windlass restore windlass-monday.tar --data /var/lib/windlass --secret-key secret.key\n  \
                  windlass restore windlass-monday.tar --data /tmp/look\n\n\
                  Every byte is checked before the folder appears. Nothing of what was under way in the backup goes on\n\
                  by itself: windlass serve --resume-restored does that, once the old server is surely stopped."
)]
pub struct Restore {
    /// The backup
    file: PathBuf,
    /// Folder to make; it must not exist yet, or be empty
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// The secret.key of the server that the backup is of
    #[arg(long, value_name = "FILE")]
    secret_key: Option<PathBuf>,
}

/// Runs it.
///
/// # Errors
/// When the backup is damaged, or the folder holds something.
pub async fn run(context: &Context<'_>, command: Restore) -> Result<Exit, Failure> {
    let Restore { file, data, secret_key } = command;
    let report = offline::restore(&file, &data, secret_key.as_deref()).await.map_err(Failure::from)?;
    let folder = data.display();
    match context.ui.format {
        Format::Id => context.ui.data(&folder.to_string())?,
        Format::Json | Format::Jsonl => context.ui.json(&serde_json::json!({
            "data": data,
            "records": report.backup.head.records,
            "files": report.backup.files.saturating_sub(1),
            "under_way": report.open,
            "secret_key": report.key,
        }))?,
        Format::Table => {
            let head = &report.backup.head;
            let made = date(head.created_ms);
            context.ui.say(&format!("restored {} records of {made} to {folder}, and checked them", head.records))?;
            if !report.key {
                context.ui.say(&format!("next: copy the old server's secret.key to {folder}/secret.key"))?;
            }
            if !report.open.is_empty() {
                context.ui.say("under way in the backup, and not started again untold:")?;
                for task in &report.open {
                    context.ui.say(&format!("  {task}"))?;
                }
            }
            let flag = if report.open.is_empty() { "" } else { " --resume-restored" };
            context.ui.say(&format!("then: windlass serve --data {folder}{flag}"))?;
        }
    }
    Ok(Exit::Done)
}
