//! What happened before somebody watched, told as events.
//!
//! A view starts blank and is brought up to date by the events that could have led to what the server says. The same
//! is done when the server lost events for a slow follower. So the renderers know one kind of input only.

use std::collections::BTreeMap;

use windlass_model::{
    RunState, TaskState,
    task::{LogLine, RunView, StepView, TaskChange, TaskDetail},
};

use super::{Event, View, steps_mut};

impl View {
    /// A task of which nothing is known but its shape.
    #[must_use]
    pub fn blank(task: &TaskDetail) -> Self {
        let mut task = task.clone();
        task.summary.state = TaskState::Queued;
        task.summary.reason = None;
        task.summary.error = None;
        task.summary.started_ms = None;
        task.summary.ended_ms = None;
        for step in steps_mut(&mut task) {
            step.state = RunState::Pending;
            step.reason = None;
            for run in &mut step.runs {
                run.state = RunState::Pending;
                run.reason = None;
                run.error = None;
                run.progress = None;
                run.started_ms = None;
                run.ended_ms = None;
            }
        }
        Self { task, logs: BTreeMap::new() }
    }

    /// The events that lead from what is shown to `now`, with these new lines, in order of time.
    #[must_use]
    pub fn events_to(&self, now: &TaskDetail, lines: Vec<(String, Vec<LogLine>)>) -> Vec<Event> {
        let mut changes = Vec::new();
        for step in now.packages.iter().chain(&now.steps) {
            for run in &step.runs {
                let before = self.run(&run.node);
                changes.extend(run_changes(before, run));
            }
            changes.extend(step_change(self.step(&step.node), step));
        }
        for (node, lines) in lines {
            // A log in pieces, so that the lines of machines that worked side by side are told side by side.
            changes.extend(
                lines.into_iter().map(|line| (line.at_ms, TaskChange::Log { node: node.clone(), lines: vec![line] })),
            );
        }
        changes.extend(self.task_changes(now));
        changes.sort_by_key(|(at_ms, change)| (*at_ms, rank(change)));
        changes.into_iter().map(|(at_ms, change)| Event { task: now.summary.id, at_ms, change }).collect()
    }

    /// Takes over what events do not tell, such as outputs, after the events of [`View::events_to`] were applied.
    pub fn settle(&mut self, now: TaskDetail) {
        self.task = now;
    }

    /// Takes in steps and runs that were not there before, as yet without any state.
    pub fn grow(&mut self, now: &TaskDetail) {
        let old = std::mem::replace(&mut self.task, Self::blank(now).task);
        self.task.summary = old.summary;
        for step in steps_mut(&mut self.task) {
            let known = old.packages.iter().chain(&old.steps).find(|known| known.node == step.node);
            let Some(known) = known else { continue };
            (step.state, step.reason) = (known.state, known.reason.clone());
            for run in &mut step.runs {
                if let Some(known) = known.runs.iter().find(|known| known.node == run.node) {
                    run.clone_from(known);
                }
            }
        }
    }

    fn task_changes(&self, now: &TaskDetail) -> Vec<(u64, TaskChange)> {
        let (before, now) = (&self.task.summary, &now.summary);
        let change =
            |at_ms, state| (at_ms, TaskChange::Task { state, reason: now.reason.clone(), error: now.error.clone() });
        let mut changes = Vec::new();
        if let Some(started) = now.started_ms
            && before.started_ms.is_none()
        {
            let state = TaskState::Executing;
            changes.push((started, TaskChange::Task { state, reason: None, error: None }));
        }
        if before.state != now.state || before.reason != now.reason {
            let since = now.reason.as_ref().map(|reason| reason.since_ms);
            let at = now.ended_ms.or(since).or(now.started_ms).unwrap_or(now.created_ms);
            changes.push(change(at, now.state));
        }
        changes
    }
}

/// Nodes of a task that may have a log.
#[must_use]
pub fn nodes(task: &TaskDetail) -> Vec<String> {
    let mut nodes = vec![String::new()];
    for step in task.packages.iter().chain(&task.steps).filter(|step| step.state != RunState::Pending) {
        nodes.push(step.node.clone());
        nodes.extend(step.runs.iter().filter(|run| run.started_ms.is_some()).map(|run| run.node.clone()));
    }
    nodes
}

/// At one moment: starts first, then lines, then ends, the task's own last.
fn rank(change: &TaskChange) -> u8 {
    match change {
        TaskChange::Task { state, .. } if !state.is_final() => 0,
        TaskChange::Step { state, .. } if !state.is_final() => 1,
        TaskChange::Worker { .. } => 2,
        TaskChange::Run { state, .. } if !state.is_final() => 2,
        TaskChange::Log { .. } => 3,
        TaskChange::Run { .. } => 4,
        TaskChange::Step { .. } => 5,
        TaskChange::Task { .. } => 6,
    }
}

fn run_changes(before: Option<&RunView>, now: &RunView) -> Vec<(u64, TaskChange)> {
    let change = |at_ms, state, with_end: bool| {
        let node = now.node.clone();
        let reason = if with_end { now.reason.clone() } else { None };
        let error = if with_end { now.error.clone() } else { None };
        let progress = if with_end { now.progress.clone() } else { None };
        (at_ms, TaskChange::Run { node, state, reason, error, progress })
    };
    let mut changes = Vec::new();
    if let Some(started) = now.started_ms
        && before.is_none_or(|before| before.started_ms.is_none())
    {
        changes.push(change(started, RunState::Running, false));
    }
    let same = before.is_some_and(|before| {
        (before.state, &before.reason, &before.progress) == (now.state, &now.reason, &now.progress)
    });
    if !same {
        let since = now.reason.as_ref().map(|reason| reason.since_ms);
        changes.push(change(now.ended_ms.or(since).or(now.started_ms).unwrap_or(0), now.state, true));
    }
    changes
}

fn step_change(before: Option<&StepView>, now: &StepView) -> Vec<(u64, TaskChange)> {
    let start = now.runs.iter().filter_map(|run| run.started_ms).min();
    let end = now.runs.iter().filter_map(|run| run.ended_ms).max();
    let change = |at_ms, state, reason| (at_ms, TaskChange::Step { node: now.node.clone(), state, reason });
    let mut changes = Vec::new();
    let was = before.map_or(RunState::Pending, |before| before.state);
    if let Some(start) = start
        && matches!(was, RunState::Pending | RunState::Waiting)
        && now.state.is_final()
    {
        changes.push(change(start, RunState::Running, None));
    }
    if before.is_none_or(|before| (before.state, &before.reason) != (now.state, &now.reason)) {
        let since = now.reason.as_ref().map(|reason| reason.since_ms);
        let at = if now.state.is_final() { end.or(since) } else { start.or(since) };
        changes.push(change(at.unwrap_or(0), now.state, now.reason.clone()));
    }
    changes
}
