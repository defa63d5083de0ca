//! `windlass plugin`: build, look into, install and list step types.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use windlass_build::{Guests, Install};
use windlass_model::{
    Manifest,
    manifest::{InputKind, RunsOn},
    views::PluginRecord,
};
use windlass_wasm::{Config, PluginHost};

use super::Context;
use crate::{
    cli::Format,
    errors::Failure,
    exit::Exit,
    render::Table,
    text::{bytes, date, visible, visible_lines},
};

/// Largest component that is read.
const MAX_COMPONENT: u64 = 64 << 20;

/// Build, install and look at plugins
#[derive(Debug, Subcommand)]
pub enum Plugin {
    /// List installed plugins
    #[command(after_help = "Examples:\n  windlass plugin list\n  windlass plugin list -o json")]
    List,
    /// Show what a plugin does, needs and takes: an installed one by id, or a file
    #[command(
        after_help = "Examples:\n  windlass plugin inspect deploy-package\n  windlass plugin inspect dist/deploy-package.wasm"
    )]
    Inspect {
        /// Id of an installed plugin, or a file that ends in .wasm
        plugin: String,
        /// Version of an installed plugin; the newest when none is given
        #[arg(long)]
        version: Option<String>,
    },
    /// Install plugins
    #[command(
        after_help = "Examples:\n  windlass plugin install dist/deploy-package.wasm\n  windlass plugin install dist/*.wasm"
    )]
    Install {
        /// The components, as `windlass plugin build` makes them
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Build the plugins of a folder into its subfolder dist
    #[command(
        after_help = "Examples:\n  windlass plugin build plugins\n  windlass plugin build my-step --install-toolchain"
    )]
    Build {
        /// A plugin's folder, or a cargo workspace of plugins
        #[arg(default_value = ".")]
        folder: PathBuf,
        /// Install a toolchain for wasm32 when none is there
        #[arg(long)]
        install_toolchain: bool,
        /// Build even if nothing changed
        #[arg(long)]
        force: bool,
    },
}

/// Runs it.
///
/// # Errors
/// When a plugin is none or does not build, or the server refuses or cannot be reached.
pub async fn run(context: &Context<'_>, command: Plugin) -> Result<Exit, Failure> {
    match command {
        Plugin::List => {
            let found = context.client()?.plugins().await?;
            context.ui.list(&found, id, &["id", "version", "title", "size", "installed"], |record| {
                let manifest = &record.manifest;
                vec![
                    manifest.id.clone(),
                    manifest.version.clone(),
                    manifest.title.clone(),
                    bytes(record.size),
                    date(record.installed_ms),
                ]
            })?;
        }
        Plugin::Inspect { plugin, version } => {
            let record = if is_file(&plugin) {
                inspect_file(Path::new(&plugin)).await?
            } else {
                context.client()?.plugin(&plugin, version.as_deref()).await?
            };
            context.ui.one(&record, id, described)?;
        }
        Plugin::Install { files } => {
            let client = context.client()?;
            let mut installed = Vec::new();
            for file in &files {
                let component = read(file).await?;
                let at = |failure: Failure| failure.at(file.display().to_string());
                let record = client.install_plugin(component).await.map_err(Failure::from).map_err(at)?;
                if context.ui.format == Format::Table {
                    context.ui.data(&format!(
                        "installed {} {}",
                        visible(&record.manifest.id),
                        visible(&record.manifest.version)
                    ))?;
                }
                installed.push(record);
            }
            if context.ui.format != Format::Table {
                context.ui.list(&installed, id, &[], |_| Vec::new())?;
            }
        }
        Plugin::Build { folder, install_toolchain, force } => {
            let install = if install_toolchain { Install::IfMissing } else { Install::Never };
            // Progress is talk; a closed standard error is no reason to stop building.
            let say = |event: windlass_build::Event| drop(context.ui.say(&visible(&event.to_string())));
            let built = Guests::in_workspace(&folder).install(install).force(force).build(&say).await;
            let built =
                built.map_err(|error| Failure::new("build", "failed to build the plugins").cause(error.to_string()))?;
            let file = |plugin: &windlass_build::Plugin| plugin.component.display().to_string();
            context.ui.list(&built.plugins, file, &["id", "version", "component"], |plugin| {
                vec![plugin.id.clone(), plugin.version.clone(), file(plugin)]
            })?;
        }
    }
    Ok(Exit::Done)
}

fn id(record: &PluginRecord) -> String {
    format!("{}@{}", record.manifest.id, record.manifest.version)
}

fn is_file(text: &str) -> bool {
    Path::new(text).extension().is_some_and(|extension| extension == "wasm") || text.contains('/')
}

async fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let failed = |error: std::io::Error| Failure::file("read", path, &error);
    let size = tokio::fs::metadata(path).await.map_err(failed)?.len();
    if size > MAX_COMPONENT {
        return Err(Failure::new(
            "plugin-too-large",
            format!("{} is larger than {}", path.display(), bytes(MAX_COMPONENT)),
        )
        .fix("build it in release mode, without debug information"));
    }
    tokio::fs::read(path).await.map_err(failed)
}

/// Loads a component as a server would, in the same sandbox.
async fn inspect_file(path: &Path) -> Result<PluginRecord, Failure> {
    let component = read(path).await?;
    let size = component.len() as u64;
    let host =
        PluginHost::new(Config::default()).map_err(|error| Failure::new("wasm", format!("failed to {error}")))?;
    let plugin = host.load(component).await.map_err(|refused| {
        let failure = Failure::new("plugin-refused", refused.to_string()).fix(refused.fix());
        failure.at(path.display().to_string())
    })?;
    Ok(PluginRecord {
        manifest: (**plugin.manifest()).clone(),
        sha256: plugin.digest().to_owned(),
        size,
        installed_ms: 0,
    })
}

fn described(record: &PluginRecord) -> String {
    let manifest = &record.manifest;
    let mut text = format!("{} {}: {}", visible(&manifest.id), visible(&manifest.version), visible(&manifest.title));
    if !manifest.description.is_empty() {
        text = format!("{text}\n\n{}", visible_lines(&manifest.description));
    }
    let major = manifest.major().unwrap_or(0);
    let on = match manifest.runs_on {
        RunsOn::Machine => "once per machine",
        RunsOn::Anywhere => "per machine, or once without one",
    };
    text = format!("{text}\n\nuses: {}@{major}\nruns: {on}\n{}", visible(&manifest.id), needs(manifest));
    if !manifest.inputs.is_empty() {
        text = format!("{text}\n\n{}", inputs(manifest));
    }
    if !manifest.outputs.is_empty() {
        let mut table = Table::new(&["output", "what"]);
        for output in &manifest.outputs {
            table.row([&output.name, &output.description]);
        }
        text = format!("{text}\n\n{}", table.render());
    }
    format!("{text}\n\nsha256 {}, {}", visible(&record.sha256), bytes(record.size))
}

fn needs(manifest: &Manifest) -> String {
    let mut lines: Vec<String> = manifest
        .capabilities
        .iter()
        .map(|capability| format!("may: {} ({capability})", capability.meaning()))
        .collect();
    match manifest.locks.as_slice() {
        [] => lines.push("locks: its whole machine".to_owned()),
        locks => lines.extend(locks.iter().map(|lock| {
            let mode = match lock.mode {
                windlass_model::manifest::LockMode::Exclusive => "alone",
                windlass_model::manifest::LockMode::Shared => "shared",
            };
            format!("locks: {}, {mode}", visible(&lock.resource))
        })),
    }
    lines.join("\n")
}

fn inputs(manifest: &Manifest) -> String {
    let mut table = Table::new(&["input", "kind", "default", "what"]);
    for input in &manifest.inputs {
        let kind = match input.kind {
            InputKind::Text => "text",
            InputKind::Integer => "integer",
            InputKind::Boolean => "boolean",
            InputKind::List => "list",
            InputKind::Map => "map",
            InputKind::Secret => "secret",
            InputKind::Package => "package",
        };
        let default = match &input.default {
            Some(serde_json::Value::String(text)) => text.clone(),
            Some(value) => value.to_string(),
            None if input.required => "(required)".to_owned(),
            None => String::new(),
        };
        let what = if input.description.is_empty() { &input.title } else { &input.description };
        table.row([input.name.as_str(), kind, &default, what]);
    }
    table.render()
}
