//! `windlass script`: run a coordination script as a task, or check that it compiles.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use clap::Subcommand;
use windlass_model::views::ScriptRequest;
use windlass_script::{MAX_SOURCE, check};

use super::{Context, deploy::Watching};
use crate::{cli::Format, errors::Failure, exit::Exit, text::visible_lines};

/// Run and check coordination scripts
#[derive(Debug, Subcommand)]
pub enum Script {
    /// Run a script as a task on the server, and watch it
    #[command(after_help = "Examples:\n  windlass script run scripts/wait-until-quiet.rhai --arg machine=web1\n  \
        windlass script run release-train.rhai --arg dry_run=true --detach")]
    Run {
        /// The script
        file: PathBuf,
        /// An argument; the value is read as JSON where it is JSON, else as text; may be repeated
        #[arg(long = "arg", value_name = "NAME=VALUE", value_parser = parse_argument)]
        arguments: Vec<(String, serde_json::Value)>,
        /// How to watch
        #[command(flatten)]
        watching: Watching,
    },
    /// Check that a script compiles, without a server
    #[command(
        after_help = "Examples:\n  windlass script check scripts/wait-until-quiet.rhai\n  windlass script check *.rhai -o json"
    )]
    Check {
        /// The scripts
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
}

fn parse_argument(text: &str) -> Result<(String, serde_json::Value), String> {
    let (name, value) = text.split_once('=').ok_or("write it like machine=web1")?;
    if name.is_empty() {
        return Err("write it like machine=web1".to_owned());
    }
    let value = serde_json::from_str(value).unwrap_or_else(|_| serde_json::Value::from(value));
    Ok((name.to_owned(), value))
}

/// Runs it.
///
/// # Errors
/// When a script does not compile, or the server refuses or cannot be reached.
pub async fn run(context: &Context<'_>, command: Script) -> Result<Exit, Failure> {
    match command {
        Script::Check { files } => check_files(context, &files),
        Script::Run { file, arguments, watching } => {
            let text = read(&file)?;
            let name = name_of(&file);
            // What does not compile is told at its line, before a server is asked.
            if let Some(fault) = check(&file.display().to_string(), &text).first() {
                context.ui.say(&visible_lines(&fault.to_string()))?;
                return Err(Failure::said(Exit::Failure));
            }
            let client = context.client()?;
            let arguments: BTreeMap<_, _> = arguments.into_iter().collect();
            let task = client.run_script(&ScriptRequest { name, text, arguments }).await?;
            watching.run(context, &client, &task).await
        }
    }
}

fn check_files(context: &Context<'_>, files: &[PathBuf]) -> Result<Exit, Failure> {
    let mut faults = Vec::new();
    for file in files {
        faults.extend(check(&file.display().to_string(), &read(file)?));
    }
    match context.ui.format {
        Format::Json | Format::Jsonl => context.ui.json(&serde_json::json!({ "items": faults }))?,
        Format::Table | Format::Id => {
            for fault in &faults {
                context.ui.say(&visible_lines(&fault.to_string()))?;
            }
            if faults.is_empty() {
                context.ui.say("good")?;
            }
        }
    }
    if faults.is_empty() { Ok(Exit::Done) } else { Err(Failure::said(Exit::Failure)) }
}

fn name_of(file: &Path) -> String {
    file.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

fn read(file: &Path) -> Result<String, Failure> {
    let failed = |error: std::io::Error| Failure::file("read", file, &error);
    if std::fs::metadata(file).map_err(failed)?.len() > MAX_SOURCE as u64 {
        return Err(Failure::new("script-too-large", format!("{} is larger than {MAX_SOURCE} bytes", file.display())));
    }
    std::fs::read_to_string(file).map_err(failed)
}
