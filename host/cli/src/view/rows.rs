//! What the live tree shows at one moment: rows of task, step, machine and last lines, cut to the room there is.
//!
//! Pure: the terminal's size and the time come in, rows go out. Finished steps are not here, they have scrolled up.

use windlass_model::{
    RunState, TaskState,
    task::{LogLevel, LogLine, Progress, RunView, StepView},
};

use super::{View, label, place, worded};
use crate::text::{bytes, count, duration};

/// One line of the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// How deep it is indented.
    pub depth: usize,
    /// The sign in front.
    pub mark: Mark,
    /// Its name, or a line of a log.
    pub text: String,
    /// What is to say about it: progress, or why it waits.
    pub note: String,
}

/// The sign in front of a row: with the word beside it, never colour alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// Not started.
    Pending,
    /// Waits for something.
    Waiting,
    /// At work.
    Running,
    /// Ended well.
    Good,
    /// Ended badly.
    Bad,
    /// Will not run, or was stopped.
    Stopped,
    /// Nobody knows how it ended.
    Unknown,
    /// A line of a log.
    Line,
    /// More rows than there is room for.
    More,
    /// A line of a log that tells what went wrong, or may.
    Loud,
}

impl From<RunState> for Mark {
    fn from(state: RunState) -> Self {
        match state {
            RunState::Pending => Self::Pending,
            RunState::Waiting => Self::Waiting,
            RunState::Running => Self::Running,
            RunState::Succeeded => Self::Good,
            RunState::Failed => Self::Bad,
            RunState::Skipped | RunState::Cancelled => Self::Stopped,
            RunState::Unknown => Self::Unknown,
        }
    }
}

impl From<TaskState> for Mark {
    fn from(state: TaskState) -> Self {
        match state {
            TaskState::Queued => Self::Waiting,
            TaskState::Executing | TaskState::Cancelling => Self::Running,
            TaskState::Cancelled => Self::Stopped,
            TaskState::Failed | TaskState::TimedOut => Self::Bad,
            TaskState::Succeeded => Self::Good,
        }
    }
}

/// Lines of one log shown under its run, at most.
const LINES: usize = 3;

impl View {
    /// The rows for now, at most `room` of them.
    #[must_use]
    pub fn rows(&self, now_ms: u64, room: usize) -> Vec<Row> {
        let mut rows = vec![self.title_row(now_ms)];
        let open: Vec<&StepView> = self.steps().filter(|step| !step.state.is_final()).collect();
        let busy = open.iter().flat_map(|step| active(step)).count();
        let free = room.saturating_sub(1 + open.len() + busy);
        let lines = free.checked_div(busy).unwrap_or(0).min(LINES);
        // The reason of a wait is what people came for: it has a row of its own, and so the room of one.
        rows.extend(self.task.summary.reason.as_ref().map(|reason| {
            let text = reason.text.clone();
            Row { depth: 1, mark: Mark::Waiting, text, note: String::new() }
        }));
        rows.extend(self.last_lines("", LINES, 1));
        for step in open {
            rows.push(step_row(step, now_ms));
            for run in active(step) {
                rows.push(run_row(run, now_ms));
                rows.extend(self.last_lines(&run.node, lines, 3));
            }
        }
        fit(rows, room)
    }

    /// The last lines of a log that people want, in order.
    fn last_lines(&self, node: &str, count: usize, depth: usize) -> Vec<Row> {
        let wanted = self.tail(node).filter(|line| line.level != LogLevel::Debug);
        let mut rows: Vec<Row> = wanted.rev().take(count).map(line_row(depth)).collect();
        rows.reverse();
        rows
    }

    fn title_row(&self, now_ms: u64) -> Row {
        let summary = &self.task.summary;
        let age = now_ms.saturating_sub(summary.started_ms.unwrap_or(summary.created_ms));
        let note = format!("{} · {}", summary.state, duration(age));
        Row { depth: 0, mark: summary.state.into(), text: format!("task {} · {}", summary.id, summary.title), note }
    }
}

/// Runs that are at work or wait, those at work first.
fn active(step: &StepView) -> impl Iterator<Item = &RunView> {
    let of = |state| step.runs.iter().filter(move |run| run.state == state);
    // A pending step's runs say nothing yet.
    of(RunState::Running).chain(of(RunState::Waiting))
}

fn step_row(step: &StepView, now_ms: u64) -> Row {
    let started = step.runs.iter().filter_map(|run| run.started_ms).min();
    let done = step.runs.iter().filter(|run| run.state.is_final()).count();
    let mut notes = Vec::new();
    if let Some(reason) = &step.reason {
        notes.push(reason.text.clone());
    } else if step.state == RunState::Running && step.runs.len() > 1 {
        notes.push(format!("{done} of {} done", count(step.runs.len(), "machine")));
    }
    if let (RunState::Running, Some(started)) = (step.state, started) {
        notes.push(duration(now_ms.saturating_sub(started)));
    }
    Row { depth: 1, mark: step.state.into(), text: label(step).to_owned(), note: notes.join(" · ") }
}

fn run_row(run: &RunView, now_ms: u64) -> Row {
    let mut notes = Vec::new();
    if let Some(reason) = &run.reason {
        notes.push(reason.text.clone());
    } else if let Some(progress) = &run.progress {
        notes.push(progress_text(&run.node, progress));
    }
    if let Some(started) = run.started_ms {
        notes.push(duration(now_ms.saturating_sub(started)));
    }
    // A run that waits in the midst of its work is running for the server; for a person it waits.
    let mark = if run.reason.is_some() { Mark::Waiting } else { run.state.into() };
    Row { depth: 2, mark, text: place(run).to_owned(), note: notes.join(" · ") }
}

/// A row for a line of a log.
pub fn line_row(depth: usize) -> impl Fn(&LogLine) -> Row {
    move |line| {
        let loud = matches!(line.level, LogLevel::Warning | LogLevel::Error);
        let mark = if loud { Mark::Loud } else { Mark::Line };
        Row { depth, mark, text: worded(line), note: String::new() }
    }
}

/// How far something is, in bytes when packages are moved.
#[must_use]
pub fn progress_text(node: &str, progress: &Progress) -> String {
    let is_transfer = node.starts_with(windlass_model::task::PACKAGES_NODE);
    let amount = |number| {
        if is_transfer { bytes(number) } else { number.to_string() }
    };
    let how_far = match (progress.done, progress.total) {
        (0, 0) => String::new(),
        (done, 0) => amount(done),
        (done, total) => format!("{} / {}", amount(done), amount(total)),
    };
    [progress.note.as_str(), how_far.as_str()].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
}

/// Cuts rows to the room, and says how many are missing.
fn fit(mut rows: Vec<Row>, room: usize) -> Vec<Row> {
    let room = room.max(2);
    if rows.len() > room {
        let hidden = rows.len() - (room - 1);
        rows.truncate(room - 1);
        rows.push(Row { depth: 1, mark: Mark::More, text: format!("and {hidden} more"), note: String::new() });
    }
    rows
}
