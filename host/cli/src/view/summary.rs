//! What is said when something is over: a finished step, a failed run, the whole task.
//!
//! Data for the renderers; how it looks is theirs.

use windlass_model::{
    RunState, TaskState,
    task::{RunView, StepView},
};

use super::{
    View, label, place,
    rows::{Mark, Row, line_row},
    shown, took,
};
use crate::text::{count, duration};

/// One line of the table at the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Step, or step and machine for a run that did not succeed.
    pub name: String,
    /// Where it ended.
    pub state: RunState,
    /// Machines it ran on.
    pub machines: String,
    /// How long it took.
    pub took: String,
    /// What went wrong, or why it did not run.
    pub note: String,
}

impl View {
    /// The lines that a finished step leaves behind.
    #[must_use]
    pub fn finished(&self, node: &str) -> Vec<Row> {
        let Some(step) = self.step(node) else {
            return Vec::new();
        };
        let mut notes = Vec::new();
        if step.state != RunState::Succeeded {
            notes.push(step.state.to_string());
        }
        // Where it did not run is no news.
        if step.state != RunState::Skipped {
            notes.push(machines(step));
        }
        notes.extend(span(step).map(duration));
        notes.extend(self.own_reason(step));
        notes.retain(|note| !note.is_empty());
        vec![Row { depth: 0, mark: step.state.into(), text: label(step).to_owned(), note: notes.join(" · ") }]
    }

    /// The lines that a failed run leaves behind: what went wrong, and the end of its log.
    #[must_use]
    pub fn failure(&self, node: &str) -> Vec<Row> {
        let Some(run) = self.run(node) else {
            return Vec::new();
        };
        let mut note = run.state.to_string();
        if let Some(ms) = took(run) {
            note = format!("{note} after {}", duration(ms));
        }
        let mut rows = vec![Row { depth: 0, mark: run.state.into(), text: shown(node).to_owned(), note }];
        rows.extend(self.tail(node).map(line_row(1)));
        if let Some(error) = run.error.as_ref().filter(|error| !self.said_in_own_log(run, error)) {
            rows.extend(error.lines().map(|line| Row {
                depth: 1,
                mark: Mark::Loud,
                text: line.to_owned(),
                note: String::new(),
            }));
        }
        rows
    }

    /// The table at the end: each step, and each run that did not succeed. Errors are told here a second, last time.
    #[must_use]
    pub fn outcomes(&self) -> Vec<Outcome> {
        let mut outcomes = Vec::new();
        for step in self.steps() {
            outcomes.push(Outcome {
                name: label(step).to_owned(),
                state: step.state,
                machines: machines(step),
                took: span(step).map(duration).unwrap_or_default(),
                note: self.own_reason(step).unwrap_or_default(),
            });
            outcomes.extend(step.runs.iter().filter(|run| is_worth_a_line(run)).map(run_outcome));
        }
        outcomes
    }

    /// Why a step is as it is, unless its runs say it.
    fn own_reason(&self, step: &StepView) -> Option<String> {
        let text = &step.reason.as_ref()?.text;
        (!step.state.is_final() || !self.said_by_run(text)).then(|| text.clone())
    }

    /// The last line: how the task ended.
    #[must_use]
    pub fn verdict(&self) -> Row {
        let summary = &self.task.summary;
        let word = match summary.state {
            TaskState::TimedOut => "timed out".to_owned(),
            state => state.to_string(),
        };
        let mut note = word;
        if let (Some(start), Some(end)) = (summary.started_ms, summary.ended_ms) {
            note = format!("{note} in {}", duration(end.saturating_sub(start)));
        }
        if let Some(error) = summary.error.as_ref().filter(|error| !self.said_by_run(error)) {
            note = format!("{note}: {error}");
        }
        Row { depth: 0, mark: summary.state.into(), text: format!("task {} · {}", summary.id, summary.title), note }
    }
}

fn is_worth_a_line(run: &RunView) -> bool {
    matches!(run.state, RunState::Failed | RunState::Unknown)
}

fn run_outcome(run: &RunView) -> Outcome {
    Outcome {
        name: shown(&run.node).to_owned(),
        state: run.state,
        machines: String::new(),
        took: took(run).map(duration).unwrap_or_default(),
        note: run.error.clone().unwrap_or_default(),
    }
}

/// `web1`, `3 machines`, `2 of 3 machines`.
fn machines(step: &StepView) -> String {
    let good = step.runs.iter().filter(|run| run.state == RunState::Succeeded).count();
    match step.runs.as_slice() {
        [] => String::new(),
        [run] => place(run).to_owned(),
        runs if good == runs.len() || step.state == RunState::Skipped => count(runs.len(), "machine"),
        runs => format!("{good} of {}", count(runs.len(), "machine")),
    }
}

/// From the first start to the last end.
fn span(step: &StepView) -> Option<u64> {
    let start = step.runs.iter().filter_map(|run| run.started_ms).min()?;
    let end = step.runs.iter().filter_map(|run| run.ended_ms).max()?;
    Some(end.saturating_sub(start))
}
