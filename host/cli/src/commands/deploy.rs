//! `windlass deploy`: queue a deployment, and watch it unless told not to.

use std::time::Duration;

use clap::Args;
use windlass_model::{
    EnvironmentName, MachineName, ProjectName, StepName, process::Priority, task::TaskSummary, views::DeployRequest,
};

use super::Context;
use crate::{
    cli::Format,
    errors::Failure,
    exit::Exit,
    follow::{Watch, follow, parse_span},
    moment::parse_moment,
    text::visible,
};

/// Deploy a release to an environment, and watch it
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  windlass deploy shop -e test\n  windlass deploy shop -e production --version 1.4.0 --timeout 30m\n  \
                  windlass deploy shop -e production --at 22:30 --expires-after 1h --detach\n\n\
                  Ctrl-C stops watching; the deployment goes on. Exit codes: 0 succeeded, 3 failed, 6 time-out,\n7 cancelled, 130 detached."
)]
pub struct Deploy {
    /// What to deploy
    #[command(flatten)]
    what: What,
    /// How to watch
    #[command(flatten)]
    watching: Watching,
}

/// What is deployed, and where to: the same words deploy it and plan it.
#[derive(Debug, Args)]
pub struct What {
    /// The project
    project: ProjectName,
    /// Where to deploy to
    #[arg(short, long)]
    environment: EnvironmentName,
    /// Version of the release; the latest when none is given
    #[arg(long)]
    version: Option<String>,
    /// Only this machine; may be repeated
    #[arg(long = "machine", visible_alias = "only", value_name = "MACHINE")]
    machines: Vec<MachineName>,
    /// Leave this step out, unless it is required; may be repeated
    #[arg(long, value_name = "STEP")]
    skip: Vec<StepName>,
    /// Not before then: 22:30, "2026-12-01 22:30" (local time), 2026-12-01T22:30:00Z or +90m; at most 30 days ahead
    #[arg(long, value_parser = parse_moment, value_name = "WHEN")]
    at: Option<u64>,
    /// Give it up if it has not started so long after it could have, such as 90s, 15m or 2h
    #[arg(long, value_parser = parse_span, value_name = "TIME")]
    expires_after: Option<Duration>,
    /// Place among those that wait for their turn: low, normal or high
    #[arg(long, value_parser = parse_priority)]
    priority: Option<Priority>,
    /// Take the place of older deployments to that environment that have not started
    #[arg(long, overrides_with = "no_supersede")]
    supersede: bool,
    /// Leave them in the queue, whatever the process says
    #[arg(long, overrides_with = "supersede")]
    no_supersede: bool,
}

impl From<What> for DeployRequest {
    fn from(what: What) -> Self {
        Self {
            version: what.version,
            machines: what.machines,
            skip: what.skip,
            start_at_ms: what.at,
            expires_after_seconds: what.expires_after.map(|after| after.as_secs()),
            priority: what.priority,
            supersede: (what.supersede || what.no_supersede).then_some(what.supersede),
            ..Self::new(what.project, what.environment)
        }
    }
}

fn parse_priority(text: &str) -> Result<Priority, String> {
    serde_json::from_value(serde_json::Value::from(text)).map_err(|_| "it is one of low, normal, high".to_owned())
}

/// Whether and how long to watch a task.
#[derive(Debug, Args)]
pub struct Watching {
    /// Do not wait for the end
    #[arg(long)]
    detach: bool,
    /// Stop waiting after so long, such as 90s, 15m or 2h
    #[arg(long, value_parser = parse_span, value_name = "TIME", conflicts_with = "detach")]
    timeout: Option<Duration>,
    /// Cancel the task when the time is over
    #[arg(long, requires = "timeout")]
    cancel_on_timeout: bool,
}

impl Watching {
    /// Watches a task that was just queued, or says how to.
    ///
    /// # Errors
    /// As [`follow`]'s.
    pub async fn run(
        &self,
        context: &Context<'_>,
        client: &windlass_client::Client,
        task: &TaskSummary,
    ) -> Result<Exit, Failure> {
        let id = task.id;
        if self.detach {
            context.ui.one(
                task,
                |task| task.id.to_string(),
                |task| {
                    format!(
                        "task {id} · {} · {}\nfollow it: windlass task follow {id}",
                        visible(&task.title),
                        task.state
                    )
                },
            )?;
            return Ok(Exit::Done);
        }
        if context.ui.format == Format::Id {
            context.ui.data(&id.to_string())?;
        }
        let watch = Watch { timeout: self.timeout, cancel_on_timeout: self.cancel_on_timeout };
        follow(context.ui, client, id, watch).await
    }
}

/// Runs it.
///
/// # Errors
/// When the server refuses or cannot be reached.
pub async fn run(context: &Context<'_>, command: Deploy) -> Result<Exit, Failure> {
    let client = context.client()?;
    let task = client.deploy(&command.what.into()).await?;
    command.watching.run(context, &client, &task).await
}
