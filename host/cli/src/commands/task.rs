//! `windlass task`: what runs, what ran, and stopping it.

use clap::Subcommand;
use windlass_client::LogRange;
use windlass_model::{
    EnvironmentName, MachineName, ProjectName, TaskId, TaskState,
    task::{TaskDetail, TaskQuery, TaskSummary},
};

use super::Context;
use crate::{
    cli::Format,
    errors::Failure,
    exit::Exit,
    follow::{Watch, follow, parse_span},
    render::{outcomes, paint},
    text::{clock, date, duration, now_ms, visible},
    view::{self, View, history::nodes},
};

/// Lines of a log in one request.
const PAGE: u32 = 1000;

/// Look at tasks, follow and cancel them
#[derive(Debug, Subcommand)]
pub enum Task {
    /// List tasks, newest first
    #[command(
        after_help = "Examples:\n  windlass task list\n  windlass task list --machine web1 --state queued,executing"
    )]
    List {
        /// Only tasks with work on this machine
        #[arg(long)]
        machine: Option<MachineName>,
        /// Only tasks in these states: queued, executing, cancelling, cancelled, failed, timed_out, succeeded
        #[arg(long, value_delimiter = ',', value_parser = parse_state)]
        state: Vec<TaskState>,
        /// Only tasks of this project
        #[arg(long)]
        project: Option<ProjectName>,
        /// Only tasks of this environment
        #[arg(short, long)]
        environment: Option<EnvironmentName>,
        /// At most so many
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=200))]
        limit: u32,
        /// Only tasks older than this one: the next page
        #[arg(long, value_name = "TASK")]
        before: Option<TaskId>,
    },
    /// Show a task with its steps
    #[command(after_help = "Examples:\n  windlass task show 12\n  windlass task show 12 -o json")]
    Show {
        /// Its number
        task: TaskId,
    },
    /// Watch a task until it is over
    #[command(after_help = "Examples:\n  windlass task follow 12\n  windlass task follow 12 --timeout 15m -o jsonl")]
    Follow {
        /// Its number
        task: TaskId,
        /// Stop waiting after so long, such as 90s, 15m or 2h
        #[arg(long, value_parser = parse_span, value_name = "TIME")]
        timeout: Option<std::time::Duration>,
    },
    /// Stop a task
    #[command(after_help = "Examples:\n  windlass task cancel 12\n  windlass task cancel 12 -o json")]
    Cancel {
        /// Its number
        task: TaskId,
    },
    /// Execute a run again against its journal, touching nothing, and show each effect with its outcome
    #[command(
        after_help = "Examples:\n  windlass task replay 12\n  windlass task replay 12.0.m-web1.1 -o json",
        long_about = "Execute a run again against its journal, touching nothing, and show each effect with its outcome.\n\nThe debugger for plugins and scripts: the guest runs as it did, and everything it asks for is answered from the record. Where the guest no longer matches its journal, the entry is told, with what was recorded and what was asked."
    )]
    Replay {
        /// Its id, such as 12.0.m-web1.1, or the number of a task that has only one run
        run: String,
    },
    /// Make a queued task the next
    #[command(after_help = "Examples:\n  windlass task top 12\n  windlass task top 12 -o json")]
    Top {
        /// Its number
        task: TaskId,
    },
    /// Print the log of a task, or of one step on one machine
    #[command(after_help = "Examples:\n  windlass task log 12 --node web/web1\n  windlass task log 12 > task.log")]
    Log {
        /// Its number
        task: TaskId,
        /// Step, or step/machine; the whole task when none is given
        #[arg(long)]
        node: Option<String>,
        /// Number of the first line
        #[arg(long, default_value_t = 0, requires = "node")]
        from: u64,
    },
}

fn parse_state(text: &str) -> Result<TaskState, String> {
    serde_json::from_value(serde_json::Value::from(text.replace('-', "_")))
        .map_err(|_| "it is one of queued, executing, cancelling, cancelled, failed, timed_out, succeeded".to_owned())
}

/// Runs it.
///
/// # Errors
/// When the server refuses or cannot be reached.
pub async fn run(context: &Context<'_>, command: Task) -> Result<Exit, Failure> {
    let client = context.client()?;
    let id = |task: &TaskSummary| task.id.to_string();
    match command {
        Task::List { machine, state, project, environment, limit, before } => {
            let query =
                TaskQuery { machine, state, project, environment, exclude_task: None, limit: Some(limit), before };
            let found = client.tasks(&query).await?;
            context.ui.list(&found.items, id, &["task", "what", "state", "queued", "took", "because"], task_cells)?;
            if let (Some(next), Format::Table) = (found.next, context.ui.format) {
                context.ui.say(&format!("there may be more: windlass task list --before {next}"))?;
            }
        }
        Task::Show { task } => {
            let task = client.task(task).await?;
            context.ui.one(&task, |task| task.summary.id.to_string(), shown)?;
        }
        Task::Follow { task, timeout } => {
            return follow(context.ui, &client, task, Watch { timeout, cancel_on_timeout: false }).await;
        }
        Task::Replay { run } => {
            let replayed = client.replay(&run).await?;
            context.ui.one(&replayed, |replayed| replayed.run.to_string(), super::replay::shown)?;
            if replayed.fault.is_some() {
                return Ok(Exit::Conflict);
            }
        }
        Task::Top { task } => {
            let task = client.move_to_top(task).await?;
            context.ui.one(&task, id, |task| format!("task {} · {} is the next", task.id, visible(&task.title)))?;
        }
        Task::Cancel { task } => {
            let task = client.cancel(task).await?;
            context
                .ui
                .one(&task, id, |task| format!("task {} · {} · {}", task.id, visible(&task.title), task.state))?;
        }
        Task::Log { task, node: Some(node), from } => print_log(context, &client, task, &node, from).await?,
        Task::Log { task, node: None, .. } => {
            let detail = client.task(task).await?;
            for node in nodes(&detail) {
                print_log(context, &client, task, &node, 0).await?;
            }
        }
    }
    Ok(Exit::Done)
}

fn task_cells(task: &TaskSummary) -> Vec<String> {
    let end = if task.state.is_final() { task.ended_ms } else { Some(now_ms()) };
    let took = task.started_ms.zip(end).map(|(start, end)| duration(end.saturating_sub(start)));
    let because = task.reason.as_ref().map(|reason| reason.text.clone()).or_else(|| task.error.clone());
    let because = because.unwrap_or_default().lines().next().unwrap_or_default().to_owned();
    vec![
        task.id.to_string(),
        task.title.clone(),
        task.state.to_string(),
        date(task.created_ms),
        took.unwrap_or_default(),
        because,
    ]
}

/// A task as it is now, for people.
fn shown(task: &TaskDetail) -> String {
    let mut view = View::blank(task);
    view.settle(task.clone());
    let mut text = paint::row(&view.verdict(), 0);
    if let Some(reason) = &task.summary.reason {
        text = format!("{text}\n{}", visible(&reason.text));
    }
    format!("{text}\n\n{}", outcomes(&view, None))
}

/// Prints a log as it is read, page by page.
async fn print_log(
    context: &Context<'_>,
    client: &windlass_client::Client,
    task: TaskId,
    node: &str,
    mut from: u64,
) -> Result<(), Failure> {
    let name = if node.is_empty() { format!("task {task}") } else { visible(view::shown(node)) };
    loop {
        let page = client.log(task, &LogRange { node: node.to_owned(), from, limit: Some(PAGE) }).await?;
        for line in &page.items {
            match context.ui.format {
                Format::Json | Format::Jsonl => {
                    let line = serde_json::json!({ "node": node, "line": line });
                    context.ui.data(&line.to_string())?;
                }
                Format::Table | Format::Id => {
                    context.ui.data(&format!("{} {name} | {}", clock(line.at_ms), visible(&line.text)))?;
                }
            }
        }
        match page.next {
            Some(next) if next > from => from = next,
            _ => return Ok(()),
        }
    }
}
