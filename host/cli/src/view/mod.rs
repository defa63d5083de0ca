//! A task as a person watches it: a fold of its events, with no terminal in sight.
//!
//! [`View`] holds the task's tree and the last lines of every log. Each event gives [`News`], which the plain renderer
//! prints one by one; the live tree draws [`View::rows`] instead. History and lost events are turned into events too
//! (see [`history`]), so there is one way for anything to be shown.

pub mod history;
pub mod rows;
mod said;
pub mod summary;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};

use serde::Serialize;
use windlass_model::{
    RunState, TaskId, TaskState,
    task::{LogLevel, LogLine, Progress, Reason, RunView, StepView, TaskChange, TaskDetail, TaskSummary},
};

/// Lines kept of every log: what a failure shows.
pub const TAIL: usize = 20;
/// A wait shorter than this is not worth a line when it is over.
const WORTH_A_LINE_MS: u64 = 1000;

/// A task being watched.
#[derive(Debug, Clone, PartialEq)]
pub struct View {
    task: TaskDetail,
    logs: BTreeMap<String, Log>,
}

/// One thing that happened, as the server told it or as history was turned into it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Event {
    /// Task it belongs to.
    pub task: TaskId,
    /// When, milliseconds since 1970 UTC.
    pub at_ms: u64,
    /// What happened.
    pub change: TaskChange,
}

/// The end of a log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Log {
    /// Number of the next line that is new.
    next: u64,
    tail: VecDeque<LogLine>,
}

/// Something worth a line.
#[derive(Debug, Clone, PartialEq)]
pub struct News {
    /// When.
    pub at_ms: u64,
    /// Node it is about: empty for the task, `step`, or `step/machine`.
    pub node: String,
    /// What happened.
    pub what: What,
}

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub enum What {
    /// The task came into this state, with this error unless it was told already.
    Task(TaskState, Option<String>),
    /// A step came into this state; when it ended, for this reason unless a run told it already.
    Step(RunState, Option<String>),
    /// A run came into this state, after so many milliseconds of work, with this error unless its log told it.
    Run(RunState, Option<u64>, Option<String>),
    /// It waits, for this reason.
    Reason(Reason),
    /// It goes on, after it waited so many milliseconds in the midst of its work.
    Resumed(u64),
    /// It is so far now.
    Progress(Progress),
    /// A line of its log.
    Line(LogLine),
}

impl View {
    /// The task as it is now.
    #[must_use]
    pub fn task(&self) -> &TaskDetail {
        &self.task
    }

    /// The package barrier and the steps, in order.
    pub fn steps(&self) -> impl Iterator<Item = &StepView> {
        self.task.packages.iter().chain(&self.task.steps)
    }

    /// The last lines of a node's log.
    pub fn tail(&self, node: &str) -> impl DoubleEndedIterator<Item = &LogLine> {
        self.logs.get(node).into_iter().flat_map(|log| &log.tail)
    }

    /// Takes in an event and tells what is new. Repeated events and lines tell nothing.
    pub fn apply(&mut self, event: &Event) -> Vec<News> {
        let at_ms = event.at_ms;
        let (node, what) = match &event.change {
            TaskChange::Task { state, reason, error } => (String::new(), self.apply_task(at_ms, *state, reason, error)),
            TaskChange::Step { node, state, reason } => (node.clone(), self.apply_step(node, *state, reason)),
            TaskChange::Run { node, state, reason, error, progress } => {
                (node.clone(), self.apply_run(at_ms, node, *state, reason, error, progress))
            }
            TaskChange::Worker { node, machine, run: id } => {
                let mut runs = steps_mut(&mut self.task).flat_map(|step| &mut step.runs);
                if let Some(run) = runs.find(|run| run.node == *node) {
                    (run.machine, run.run) = (Some(machine.clone()), id.clone());
                }
                return Vec::new();
            }
            TaskChange::Log { node, lines } => {
                return self
                    .apply_log(node, lines)
                    .map(|line| News { at_ms: line.at_ms, node: node.clone(), what: What::Line(line) })
                    .collect();
            }
        };
        what.into_iter().map(|what| News { at_ms, node: node.clone(), what }).collect()
    }

    fn apply_task(
        &mut self,
        at_ms: u64,
        state: TaskState,
        reason: &Option<Reason>,
        error: &Option<String>,
    ) -> Vec<What> {
        let untold = error.clone().filter(|error| !self.said_by_run(error));
        let summary: &mut TaskSummary = &mut self.task.summary;
        let mut what = Vec::new();
        if summary.state != state {
            if summary.started_ms.is_none() && state == TaskState::Executing {
                summary.started_ms = Some(at_ms);
            }
            if state.is_final() && summary.ended_ms.is_none() {
                summary.ended_ms = Some(at_ms);
            }
            what.push(What::Task(state, untold));
        }
        what.extend(fresh(&summary.reason, reason));
        summary.state = state;
        summary.reason.clone_from(reason);
        if error.is_some() {
            summary.error.clone_from(error);
        }
        what
    }

    fn apply_step(&mut self, node: &str, state: RunState, reason: &Option<Reason>) -> Vec<What> {
        let why = reason.as_ref().map(|reason| reason.text.clone()).filter(|text| !self.said_by_run(text));
        let Some(step) = steps_mut(&mut self.task).find(|step| step.node == node) else {
            return Vec::new();
        };
        let mut what = Vec::new();
        if step.state != state {
            what.push(What::Step(state, why.filter(|_| state.is_final())));
        }
        // Of what is over, the reason was told with its end.
        what.extend(fresh(&step.reason, reason).filter(|_| !state.is_final()));
        step.state = state;
        step.reason.clone_from(reason);
        what
    }

    fn apply_run(
        &mut self,
        at_ms: u64,
        node: &str,
        state: RunState,
        reason: &Option<Reason>,
        error: &Option<String>,
        progress: &Option<Progress>,
    ) -> Vec<What> {
        let told = |error: &String| self.run(node).is_some_and(|run| self.said_in_log(run, error));
        let untold = error.clone().filter(|error| !told(error));
        let Some(run) = steps_mut(&mut self.task).flat_map(|step| &mut step.runs).find(|run| run.node == node) else {
            return Vec::new();
        };
        let mut what = Vec::new();
        if state == RunState::Running && run.started_ms.is_none() {
            run.started_ms = Some(at_ms);
        }
        if run.state != state {
            if state.is_final() {
                run.ended_ms = Some(at_ms);
            }
            what.push(What::Run(state, took(run), untold));
        }
        what.extend(fresh(&run.reason, reason));
        if let (RunState::Running, RunState::Running, Some(before), None) = (run.state, state, &run.reason, reason) {
            let waited = at_ms.saturating_sub(before.since_ms);
            what.extend((waited >= WORTH_A_LINE_MS).then_some(What::Resumed(waited)));
        }
        if let Some(progress) = progress {
            if is_milestone(run.progress.as_ref(), progress) {
                what.push(What::Progress(progress.clone()));
            }
            run.progress = Some(progress.clone());
        }
        run.state = state;
        run.reason.clone_from(reason);
        if error.is_some() {
            run.error.clone_from(error);
        }
        what
    }

    fn apply_log(&mut self, node: &str, lines: &[LogLine]) -> impl Iterator<Item = LogLine> + use<> {
        let log = self.logs.entry(node.to_owned()).or_default();
        let new: Vec<LogLine> = lines.iter().filter(|line| line.n >= log.next).cloned().collect();
        if let Some(last) = new.last() {
            log.next = last.n + 1;
        }
        log.tail.extend(new.iter().cloned());
        while log.tail.len() > TAIL {
            log.tail.pop_front();
        }
        new.into_iter()
    }

    fn step(&self, node: &str) -> Option<&StepView> {
        self.steps().find(|step| step.node == node)
    }

    fn run(&self, node: &str) -> Option<&RunView> {
        self.steps().flat_map(|step| &step.runs).find(|run| run.node == node)
    }
}

fn steps_mut(task: &mut TaskDetail) -> impl Iterator<Item = &mut StepView> {
    task.packages.iter_mut().chain(&mut task.steps)
}

/// A reason whose sentence was not told yet.
fn fresh(before: &Option<Reason>, now: &Option<Reason>) -> Option<What> {
    let text = |reason: &Option<Reason>| reason.as_ref().map(|reason| reason.text.clone());
    if text(before) == text(now) { None } else { now.clone().map(What::Reason) }
}

/// Whether progress is worth a line of its own: every quarter, and every new note.
fn is_milestone(before: Option<&Progress>, now: &Progress) -> bool {
    let quarter = |progress: &Progress| (progress.done.saturating_mul(4)).checked_div(progress.total);
    match before {
        None => true,
        Some(before) => before.note != now.note || quarter(before) != quarter(now),
    }
}

/// How long a run worked, when it ended.
#[must_use]
pub fn took(run: &RunView) -> Option<u64> {
    Some(run.ended_ms?.saturating_sub(run.started_ms?))
}

/// What a line of a log says, with the word for how it is meant.
#[must_use]
pub fn worded(line: &LogLine) -> String {
    match line.level {
        LogLevel::Info | LogLevel::Stderr => line.text.clone(),
        // The line below an error that says what to do about it is no other error.
        LogLevel::Error if line.text.starts_with("fix: ") => line.text.clone(),
        LogLevel::Debug => format!("debug: {}", line.text),
        LogLevel::Warning => format!("warning: {}", line.text),
        LogLevel::Error => format!("error: {}", line.text),
    }
}

/// Name of the place a run works at.
#[must_use]
pub fn place(run: &RunView) -> &str {
    run.machine.as_ref().map_or("server", |machine| machine.as_str())
}

/// What a step is called on a screen.
#[must_use]
pub fn label(step: &StepView) -> &str {
    if step.node == windlass_model::task::PACKAGES_NODE { shown(&step.node) } else { &step.name }
}

/// A node as people read it: `packages/web1`, where the server says `@packages/web1`.
#[must_use]
pub fn shown(node: &str) -> &str {
    node.strip_prefix('@').unwrap_or(node)
}
