//! What people are told of the scheduler's decisions.

use std::sync::Arc;

use windlass_model::{
    RunState, TaskId,
    task::{PACKAGES_NODE, Reason, TaskChange, step_node},
};
use windlass_scheduler::{Decision, Event, RunKey, Subject, TaskPlan, Unavailable};
use windlass_store::StoreError;

use super::{Driver, turn::Turn};
use crate::board::{Live, node_of, packages_node};

impl Driver {
    /// Notes how far the package barrier is: the scheduler knows only that it is not open yet.
    pub(super) fn tell_packages(&mut self, turn: &mut Turn, now: u64, event: &Event) -> Result<(), StoreError> {
        let (task, machine, state, error) = match event {
            Event::PackagesAcquired { task, machine: Some(machine) } => (*task, machine, RunState::Succeeded, None),
            Event::PackagesFailed { task, machine: Some(machine), error, unavailable } => {
                let spared = |plan: &Arc<TaskPlan>| *unavailable && plan.unavailable != Unavailable::Fail;
                let spared = self.plans.get(task).is_some_and(spared);
                let state = if spared { RunState::Skipped } else { RunState::Failed };
                (*task, machine, state, Some(error.clone()))
            }
            _ => return Ok(()),
        };
        let node = packages_node(machine);
        if error.is_none() {
            self.learn(turn, task, now, &node)?;
        }
        self.note(turn, task, now, TaskChange::Run { node, state, reason: None, error, progress: None });
        let Some(barrier) = self.ahead.get(task).and_then(Live::packages) else { return Ok(()) };
        if barrier.runs.iter().all(|run| run.view.state.is_final()) {
            let failed = barrier.runs.iter().any(|run| run.view.state == RunState::Failed);
            let state = if failed { RunState::Failed } else { RunState::Succeeded };
            self.note(turn, task, now, TaskChange::Step { node: PACKAGES_NODE.into(), state, reason: None });
        }
        Ok(())
    }

    /// Notes a change if it is one.
    pub(super) fn note(&mut self, turn: &mut Turn, task: TaskId, now: u64, change: TaskChange) {
        if self.ahead.apply(task, now, &change) {
            turn.changes.push((task, now, change));
        }
    }

    /// Notes what a decision tells people.
    pub(super) fn tell(&mut self, turn: &mut Turn, now: u64, decision: &Decision) {
        let plans = &self.plans;
        let step_name = |task: TaskId, step: u32| {
            plans.get(&task).and_then(|plan| plan.steps.get(step as usize)).map(|step| step_node(&step.name))
        };
        let run_name = |run: RunKey| plans.get(&run.task).and_then(|plan| node_of(plan, run));
        let why = |kind: &str, text: &String| Reason::new(kind, text.clone(), now);
        let state = &self.state;
        let told = match decision {
            Decision::TaskState { task, state } => {
                Some((*task, TaskChange::Task { state: *state, reason: None, error: None }))
            }
            Decision::TaskFinished { task, state, error } => {
                Some((*task, TaskChange::Task { state: *state, reason: None, error: error.clone() }))
            }
            Decision::StepState { task, step, state: new, why: text } => step_name(*task, *step).map(|node| {
                let kind = if *new == RunState::Skipped { "skipped" } else { "failed" };
                (*task, TaskChange::Step { node, state: *new, reason: text.as_ref().map(|text| why(kind, text)) })
            }),
            Decision::RunState { run, state: new, why: text } => run_name(*run).map(|node| {
                (run.task, TaskChange::Run { node, state: *new, reason: None, error: text.clone(), progress: None })
            }),
            Decision::StartRun { run, .. } => run_name(*run).map(|node| (run.task, running(node))),
            Decision::Acquire { task, machines, .. } if !machines.is_empty() => {
                Some((*task, TaskChange::Step { node: PACKAGES_NODE.into(), state: RunState::Running, reason: None }))
            }
            Decision::Waiting { subject, cause } => {
                let (kind, text) = state.sentence(*subject, cause);
                let told = state.reason(*subject).filter(|reason| reason.text == text);
                let reason = told.unwrap_or_else(|| Reason::new(kind, text, now));
                self.waits(*subject, reason, step_name, run_name)
            }
            Decision::ResumeRun { run, .. } => run_name(*run).map(|node| (run.task, running(node))),
            Decision::GrantLock { request, .. } | Decision::RefuseLock { request, .. } => {
                run_name(request.run).map(|node| (request.run.task, running(node)))
            }
            _ => None,
        };
        if let Some((task, change)) = told {
            self.note(turn, task, now, change);
        }
        if let Decision::Acquire { task, machines, .. } = decision {
            for machine in machines {
                self.note(turn, *task, now, running(packages_node(machine)));
            }
        }
    }

    /// What people are shown of something that waits.
    fn waits(
        &self,
        subject: Subject,
        reason: Reason,
        step_name: impl Fn(TaskId, u32) -> Option<String>,
        run_name: impl Fn(RunKey) -> Option<String>,
    ) -> Option<(TaskId, TaskChange)> {
        let state = &self.state;
        let (_, progress) = state.task(subject.task())?;
        let change = match subject {
            Subject::Task(_) => TaskChange::Task { state: progress.state, reason: Some(reason), error: None },
            Subject::Step(task, step) => {
                TaskChange::Step { node: step_name(task, step)?, state: RunState::Waiting, reason: Some(reason) }
            }
            Subject::Run(run) => {
                // One that is suspended runs all the same.
                let known = progress.steps.get(run.step as usize).and_then(|step| step.runs.get(run.place as usize));
                waiting(run_name(run)?, known?.phase.state(), &reason)
            }
            Subject::Lock(request) => waiting(run_name(request.run)?, RunState::Running, &reason),
        };
        Some((subject.task(), change))
    }
}

fn running(node: String) -> TaskChange {
    TaskChange::Run { node, state: RunState::Running, reason: None, error: None, progress: None }
}

fn waiting(node: String, state: RunState, reason: &Reason) -> TaskChange {
    TaskChange::Run { node, state, reason: Some(reason.clone()), error: None, progress: None }
}
