//! `windlass why`: why a task waits.

use clap::Args;
use windlass_model::{
    TaskId,
    scheduling::{WaitView, WhyView},
};

use super::Context;
use crate::{
    errors::Failure,
    exit::Exit,
    text::{duration, now_ms, visible},
};

/// Tell why a task waits, who holds what it waits for, and what will end the wait
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  windlass why 12\n  windlass why 12 -o json")]
pub struct Why {
    /// Number of the task
    task: TaskId,
}

fn line(wait: &WaitView, now: u64) -> String {
    let node = if wait.node.is_empty() { "it".to_owned() } else { visible(&wait.node).to_string() };
    let place = wait.reason.position.map(|place| format!(", number {place} in the line")).unwrap_or_default();
    let since = duration(now.saturating_sub(wait.reason.since_ms));
    let ends = wait.reason.ends.as_ref().map(|ends| format!("\n    ends with {}", visible(ends))).unwrap_or_default();
    format!("\n  {node} {} (for {since}{place}){ends}", visible(&wait.reason.text))
}

fn shown(why: &WhyView) -> String {
    let now = now_ms();
    let mut text = format!("task {} · {} · {}", why.task.id, visible(&why.task.title), why.task.state);
    if why.waits.is_empty() {
        text.push_str("\n  nothing of it waits");
    }
    for wait in &why.waits {
        text.push_str(&line(wait, now));
    }
    for asked in &why.questions {
        for last in &asked.last_lines {
            text.push_str(&format!("\n    | {}", visible(last)));
        }
        let answers = asked.choices.join("|");
        text.push_str(&format!("\n  answer with: windlass interruption answer {} {answers}", asked.number));
    }
    for wait in &why.holders {
        let held = line(wait, now);
        text.push_str(&format!("\n  and of task {}:{}", wait.task, held.replace("\n  ", "\n    ")));
    }
    text
}

/// Runs it.
///
/// # Errors
/// When the server refuses or cannot be reached.
pub async fn run(context: &Context<'_>, command: Why) -> Result<Exit, Failure> {
    let why = context.client()?.why(command.task).await?;
    context.ui.one(&why, |why| why.task.id.to_string(), shown)?;
    Ok(Exit::Done)
}
