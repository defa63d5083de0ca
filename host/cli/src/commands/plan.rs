//! `windlass plan`: what a deployment would do, if it were queued now.

use clap::Args;
use windlass_model::{EnvironmentName, MachineName, ProjectName, scheduling::PlanView, views::DeployRequest};

use super::Context;
use crate::{
    errors::Failure,
    exit::Exit,
    text::{duration, visible},
};

/// Tell what a deployment would do: the real scheduler, played forward; nothing is changed
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  windlass plan shop -e test\n  windlass plan shop -e production --version 1.4.0 -o json"
)]
pub struct Plan {
    /// The project
    project: ProjectName,
    /// Where it would be deployed to
    #[arg(short, long)]
    environment: EnvironmentName,
    /// Version of the release; the latest when none is given
    #[arg(long)]
    version: Option<String>,
    /// Only this machine; may be repeated
    #[arg(long = "machine", value_name = "MACHINE")]
    machines: Vec<MachineName>,
}

fn shown(plan: &PlanView) -> String {
    let mut text = visible(&plan.title).to_string();
    for package in &plan.packages {
        let size = package.bytes.map(|bytes| format!(", {bytes} bytes")).unwrap_or_default();
        let (id, version) = (visible(&package.package), visible(&package.version));
        text.push_str(&format!("\n  package {id} {version} to {}{size}, unless it has it", package.machine));
    }
    for skipped in &plan.skipped {
        text.push_str(&format!("\n  skips {}: {}", visible(&skipped.step), visible(&skipped.why)));
    }
    for run in &plan.runs {
        let took = run.ends_in_ms.map(|ends| format!(", takes {}", duration(ends.saturating_sub(run.starts_in_ms))));
        let guess = if run.learnt { "" } else { " (a guess)" };
        let starts = duration(run.starts_in_ms);
        text.push_str(&format!("\n  after {starts}: {}{}{guess}", visible(&run.node), took.unwrap_or_default()));
    }
    for wait in plan.waits.iter().filter(|wait| !wait.text.contains("waits for its turn")) {
        let node = if wait.node.is_empty() { "the task".to_owned() } else { visible(&wait.node).to_string() };
        text.push_str(&format!("\n  {node} {} for {}", visible(&wait.text), duration(wait.for_ms)));
    }
    for question in &plan.questions {
        text.push_str(&format!("\n  a person is asked: {}", visible(question)));
    }
    for deadlock in &plan.deadlocks {
        text.push_str(&format!("\n  {}", visible(deadlock)));
    }
    if !plan.locks.is_empty() {
        text.push_str(&format!("\n  locks {}", plan.locks.join(", ")));
    }
    let end = match (plan.ends_in_ms, plan.state) {
        (Some(ends), Some(state)) => format!("over in {}, {state}", duration(ends)),
        _ => "it would not end by itself".to_owned(),
    };
    let error = plan.error.as_ref().map(|error| format!(": {}", visible(error))).unwrap_or_default();
    text.push_str(&format!("\n{end}{error}"));
    text
}

/// Runs it.
///
/// # Errors
/// When the server refuses or cannot be reached.
pub async fn run(context: &Context<'_>, command: Plan) -> Result<Exit, Failure> {
    let Plan { project, environment, version, machines } = command;
    let plan = context
        .client()?
        .plan(&DeployRequest { version, machines, ..DeployRequest::new(project, environment) })
        .await?;
    context.ui.one(&plan, |plan| plan.title.clone(), shown)?;
    Ok(Exit::Done)
}
