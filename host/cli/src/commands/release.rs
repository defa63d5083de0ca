//! `windlass release`: immutable snapshots of process, packages, variables and plugins.

use std::collections::BTreeMap;

use clap::Subcommand;
use windlass_model::{PackageId, ProjectName, Release as Record, views::ReleaseRequest};

use super::Context;
use crate::{
    errors::Failure,
    exit::Exit,
    render::Table,
    text::{bytes, date, visible, visible_lines},
};

/// Create and look at releases
#[derive(Debug, Subcommand)]
pub enum Release {
    /// Create a release
    #[command(after_help = "Examples:\n  windlass release create shop\n  \
        windlass release create shop --version 1.4.0 --package shop-web=1.4.0 --package shop-db=1.3.2")]
    Create {
        /// The project
        project: ProjectName,
        /// Its version; that of the newest package when none is given
        #[arg(long)]
        version: Option<String>,
        /// Version of a package; the newest for those not named
        #[arg(long = "package", value_name = "ID=VERSION", value_parser = parse_pin)]
        packages: Vec<(PackageId, String)>,
        /// Notes for people
        #[arg(long, default_value = "", hide_default_value = true)]
        notes: String,
    },
    /// List releases of a project, newest first
    #[command(after_help = "Examples:\n  windlass release list shop\n  windlass release list shop -o id")]
    List {
        /// The project
        project: ProjectName,
    },
    /// Show what a release holds
    #[command(after_help = "Examples:\n  windlass release show shop\n  windlass release show shop 1.4.0 -o json")]
    Show {
        /// The project
        project: ProjectName,
        /// Its version; the latest when none is given
        version: Option<String>,
    },
}

fn parse_pin(text: &str) -> Result<(PackageId, String), String> {
    let (id, version) = text.split_once('=').ok_or("write it like shop-web=1.4.0")?;
    let id = id.parse().map_err(|error: windlass_model::InvalidName| error.to_string())?;
    if version.is_empty() {
        return Err("write it like shop-web=1.4.0".to_owned());
    }
    Ok((id, version.to_owned()))
}

/// Runs it.
///
/// # Errors
/// When the server refuses or cannot be reached.
pub async fn run(context: &Context<'_>, command: Release) -> Result<Exit, Failure> {
    let client = context.client()?;
    let version = |release: &Record| release.version.clone();
    match command {
        Release::Create { project, version: wanted, packages, notes } => {
            let packages: BTreeMap<PackageId, String> = packages.into_iter().collect();
            let request = ReleaseRequest { version: wanted, packages, notes };
            let release = client.create_release(&project, &request).await?;
            context.ui.one(&release, version, |release| {
                let next = format!(
                    "deploy it: windlass deploy {} --version {} -e ENVIRONMENT",
                    release.project, release.version
                );
                format!(
                    "created release {} of {}\n{}\n{next}",
                    visible(&release.version),
                    release.project,
                    pins(release)
                )
            })?;
        }
        Release::List { project } => {
            let releases = client.releases(&project).await?;
            context.ui.list(&releases, version, &["version", "created", "packages", "notes"], |release| {
                let packages: Vec<String> =
                    release.packages.iter().map(|(id, package)| format!("{id} {}", package.version)).collect();
                let notes = release.notes.lines().next().unwrap_or_default().to_owned();
                vec![release.version.clone(), date(release.created_ms), packages.join(", "), notes]
            })?;
        }
        Release::Show { project, version: wanted } => {
            let release = client.release(&project, wanted.as_deref()).await?;
            context.ui.one(&release, version, |release| {
                let mut text = format!(
                    "release {} of {}, created {} UTC\n{}",
                    visible(&release.version),
                    release.project,
                    date(release.created_ms),
                    pins(release)
                );
                if !release.notes.is_empty() {
                    text = format!("{text}\n\n{}", visible_lines(&release.notes));
                }
                text
            })?;
        }
    }
    Ok(Exit::Done)
}

/// What a release holds, as a table.
fn pins(release: &Record) -> String {
    let mut table = Table::new(&["", "name", "version", "size"]);
    for step in release.process.all_steps() {
        table.row(["step", step.name.as_str(), &step.does(), ""]);
    }
    for (id, package) in &release.packages {
        table.row(["package", id.as_str(), &package.version, &bytes(package.size)]);
    }
    for (uses, guest) in &release.guests {
        table.row(["plugin", &uses.to_string(), &guest.version, ""]);
    }
    table.render()
}
