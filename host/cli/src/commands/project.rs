//! `windlass project`: what can be released and deployed.

use clap::Subcommand;
use windlass_model::{ProjectName, views::ProjectDetail};

use super::Context;
use crate::{errors::Failure, exit::Exit, render::Table, text::visible};

/// Releases named in the overview of a project.
const RELEASES: usize = 10;

/// Look at projects
#[derive(Debug, Subcommand)]
pub enum Project {
    /// List projects
    #[command(after_help = "Examples:\n  windlass project list\n  windlass project list -o json")]
    List,
    /// Show a project with its process
    #[command(after_help = "Examples:\n  windlass project show shop\n  windlass project show shop -o json")]
    Show {
        /// Its name
        project: ProjectName,
    },
}

/// Runs it.
///
/// # Errors
/// When the server refuses or cannot be reached.
pub async fn run(context: &Context<'_>, command: Project) -> Result<Exit, Failure> {
    let client = context.client()?;
    match command {
        Project::List => {
            let found = client.projects().await?;
            let cells = |p: &windlass_model::Project| vec![p.name.to_string(), p.description.clone()];
            context.ui.list(&found, |p| p.name.to_string(), &["name", "description"], cells)?;
        }
        Project::Show { project } => {
            let project = client.project(&project).await?;
            context.ui.one(&project, |p| p.project.name.to_string(), shown)?;
        }
    }
    Ok(Exit::Done)
}

fn shown(detail: &ProjectDetail) -> String {
    let mut text = format!("project {}", detail.project.name);
    if !detail.project.description.is_empty() {
        text = format!("{text}: {}", visible(&detail.project.description));
    }
    let mut table = Table::new(&["step", "uses", "on"]);
    for step in detail.process.all_steps() {
        // The form in which the file says it, without its braces and quotes.
        let on = serde_json::to_string(&step.on()).unwrap_or_default().replace(['{', '}', '"'], "").replace(':', ": ");
        let on = if on == "null" { String::new() } else { on };
        let name = if step.parent.is_some() { format!("  {}", step.name) } else { step.name.to_string() };
        table.row([&name, &step.does(), &on]);
    }
    let releases: Vec<String> = detail.releases.iter().take(RELEASES).map(|version| visible(version)).collect();
    let releases = match releases.len() {
        0 => format!("no releases yet: windlass release create {}", detail.project.name),
        _ => format!("releases, newest first: {}", releases.join(", ")),
    };
    format!("{text}\n\n{}\n\n{releases}", table.render())
}
