//! `windlass schema`: JSON Schemas of the files, with the inputs of the installed step types.

use std::path::PathBuf;

use clap::Args;
use windlass_model::{
    Manifest,
    schema::{FileKind, schema},
};

use super::Context;
use crate::{errors::Failure, exit::Exit};

/// Print the JSON Schema of the files, for editors
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  windlass schema process.yaml > .schema/process.json\n  windlass schema --offline --all .schema\n\n\
                  In an editor with the YAML language server, put this on top of a file:\n  # yaml-language-server: $schema=.schema/process.json"
)]
pub struct Schema {
    /// The file: environments, machines, project, process or variables
    #[arg(value_parser = parse_kind, required_unless_present = "all")]
    file: Option<FileKind>,
    /// Write the schemas of all files into this folder
    #[arg(long, value_name = "DIR", conflicts_with = "file")]
    all: Option<PathBuf>,
    /// Do not ask the server for its step types
    #[arg(long)]
    offline: bool,
}

fn parse_kind(text: &str) -> Result<FileKind, String> {
    let stem = |name: &str| name.trim_end_matches(".yaml").to_owned();
    let wanted = stem(text);
    FileKind::ALL.into_iter().find(|kind| stem(kind.file_name()) == wanted).ok_or_else(|| {
        let known: Vec<String> = FileKind::ALL.into_iter().map(|kind| stem(kind.file_name())).collect();
        format!("it is one of {}", known.join(", "))
    })
}

/// Runs it.
///
/// # Errors
/// When the server cannot be reached, or a file cannot be written.
pub async fn run(context: &Context<'_>, command: Schema) -> Result<Exit, Failure> {
    let manifests = if command.offline { Vec::new() } else { manifests(context).await? };
    if let Some(kind) = command.file {
        context.ui.json(&schema(kind, &manifests))?;
    }
    if let Some(folder) = command.all {
        std::fs::create_dir_all(&folder).map_err(|error| Failure::file("create", &folder, &error))?;
        for kind in FileKind::ALL {
            let path = folder.join(kind.file_name().replace(".yaml", ".json"));
            let text = format!("{:#}\n", schema(kind, &manifests));
            std::fs::write(&path, text).map_err(|error| Failure::file("write", &path, &error))?;
            context.ui.data(&path.display().to_string())?;
        }
    }
    Ok(Exit::Done)
}

/// Step types of the server; without a server the schema is still good, only without their inputs.
async fn manifests(context: &Context<'_>) -> Result<Vec<Manifest>, Failure> {
    let asked = async { Ok::<_, Failure>(context.client()?.plugins().await?) };
    match asked.await {
        Ok(plugins) => Ok(plugins.into_iter().map(|plugin| plugin.manifest).collect()),
        Err(failure) if matches!(failure.exit, Exit::NoServer | Exit::NotAllowed) => {
            context.ui.say(&format!("note: without the inputs of step types, since {}", failure.message))?;
            Ok(Vec::new())
        }
        Err(failure) => Err(failure),
    }
}
