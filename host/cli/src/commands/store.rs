//! `windlass store`: the data folder itself, while no server uses it.

use std::path::PathBuf;

use clap::Subcommand;
use serde::Serialize;
use windlass_engine::offline::{self, Checked, Finding};

use super::Context;
use crate::{
    cli::Format,
    config::{ProcessEnv, Server, ServerFlags},
    errors::Failure,
    exit::Exit,
    text::visible,
};

/// Look after the data folder of a stopped server
#[derive(Debug, Subcommand)]
pub enum Store {
    /// Read everything in a data folder and name what is damaged
    #[command(
        after_help = "Examples:\n  windlass store check\n  windlass store check --data /var/lib/windlass -o json\n\n\
        The server must be stopped. The exit code is 65 if anything is damaged."
    )]
    Check {
        /// Folder of the server
        #[arg(long, value_name = "DIR")]
        data: Option<PathBuf>,
    },
}

/// Runs it.
///
/// # Errors
/// When the folder holds no store, or a server uses it.
pub async fn run(context: &Context<'_>, command: Store) -> Result<Exit, Failure> {
    let Store::Check { data } = command;
    let flags = ServerFlags { data, ..ServerFlags::default() };
    let data = Server::resolve(flags, &ProcessEnv, context.config_file()?)?.data;
    let checked = offline::check(&data).await.map_err(Failure::from)?;
    report(context, &checked)?;
    Ok(if checked.is_sound() { Exit::Done } else { Exit::Damaged })
}

#[derive(Serialize)]
struct Fault<'a> {
    place: &'a str,
    problem: &'a str,
}

fn faults(findings: &[Finding]) -> Vec<Fault<'_>> {
    findings.iter().map(|Finding { place, problem }| Fault { place, problem }).collect()
}

fn report(context: &Context<'_>, checked: &Checked) -> Result<(), Failure> {
    let ui = context.ui;
    match ui.format {
        Format::Json | Format::Jsonl => ui.json(&serde_json::json!({
            "sound": checked.is_sound(),
            "commit": checked.last.0,
            "records": checked.records,
            "files": checked.files,
            "damage": faults(&checked.damage),
            "more": checked.more,
            "notes": faults(&checked.notes),
        }))?,
        Format::Id => {
            for finding in &checked.damage {
                ui.data(&visible(&finding.place))?;
            }
        }
        Format::Table => {
            for (word, findings) in [("damaged", &checked.damage), ("note", &checked.notes)] {
                for Finding { place, problem } in findings {
                    ui.data(&format!("{word}: {}: {}", visible(place), visible(problem)))?;
                }
            }
            if checked.more > 0 {
                ui.data(&format!("damaged: and {} more", checked.more))?;
            }
            let (records, files, last) = (checked.records, checked.files, checked.last);
            let verdict = if checked.is_sound() { "all sound" } else { "not sound" };
            ui.say(&format!("{verdict}: {records} records up to commit {last}, {files} files read"))?;
        }
    }
    Ok(())
}
