//! Runs: the sliding window over the machines of a step, starting, stopping and ending a run.
//!
//! A run takes a place in its step's window first and then waits for its locks, so the window bounds what
//! a step asks for. Places are given in the order of the plan. The first machine that fails closes the
//! window: runs that have not started are skipped, running ones go on to their end.

use std::sync::Arc;

use windlass_model::{MachineName, RunState, TaskId, TaskState, task::run_node};

use crate::{
    event::{Decision, LockRequest, RunKey, RunOutcome, StopKind, Subject},
    locks::Claim,
    plan::StepPlan,
    progress::{Deadline, RunProgress, StepProgress},
    reasons::in_words,
    state::Timer,
    turn::Turn,
};

impl Turn<'_> {
    /// Opens the window of a step whose turn it is.
    pub fn start_step(&mut self, id: TaskId, index: u32) {
        let Some(task) = self.state.tasks.get_mut(&id) else {
            return;
        };
        let steps = task.progress.steps.get_mut(index as usize);
        let Some((step, plan)) = steps.zip(task.plan.steps.get(index as usize)) else {
            return;
        };
        step.state = RunState::Running;
        step.reason = None;
        step.runs = vec![RunProgress::pending(); plan.runs()];
        let places = step.runs.len() as u32;
        self.step_state(id, index, RunState::Running, None);
        for place in 0..places {
            self.touch(Subject::Run(RunKey { task: id, step: index, place }));
        }
    }

    /// Gives the free places of all running steps of a task to the machines whose turn it is.
    pub fn fill_windows(&mut self, id: TaskId) {
        let Some(task) = self.state.tasks.get(&id) else {
            return;
        };
        if task.progress.state == TaskState::Executing {
            for step in task.progress.active.clone() {
                self.fill_window(id, step);
            }
        }
    }

    fn fill_window(&mut self, id: TaskId, index: u32) {
        loop {
            let ticket = self.state.counters.ticket + 1;
            let Some(task) = self.state.tasks.get_mut(&id) else {
                return;
            };
            let steps = task.progress.steps.get_mut(index as usize);
            let Some((step, plan)) = steps.zip(task.plan.steps.get(index as usize)) else {
                return;
            };
            let place = step.next_place;
            let Some(run) = step.runs.get_mut(place as usize) else {
                return;
            };
            if step.open >= plan.window(&self.state.settings) {
                return;
            }
            run.state = RunState::Waiting;
            run.ticket = ticket;
            run.reason = None;
            step.next_place += 1;
            step.open += 1;
            let wants = plan.wants(plan.machine(place as usize));
            self.state.counters.ticket = ticket;
            let key = RunKey { task: id, step: index, place };
            let claim = Claim { run: key, call: None };
            if self.state.locks.ask(claim, wants, ticket) {
                self.granted(claim);
            }
            self.changed(id);
            self.touch(Subject::Run(key));
        }
    }

    /// A run holds its locks: it starts.
    pub fn start_run(&mut self, key: RunKey) {
        let now = self.now;
        let token = self.state.counters.token + 1;
        let Some(task) = self.state.tasks.get_mut(&key.task) else {
            return;
        };
        let whole = Arc::clone(&task.plan);
        let Some(plan) = whole.steps.get(key.step as usize) else {
            return;
        };
        let Some(run) = task.run_mut(key).filter(|run| run.state == RunState::Waiting) else {
            return;
        };
        run.state = RunState::Running;
        run.token = Some(token);
        run.reason = None;
        let deadline = plan.timeout_ms.map(|limit| now.saturating_add(limit));
        run.deadline = deadline.map(Deadline::At);
        let attempt = run.attempt;
        task.running.insert((key.step, key.place));
        self.state.counters.token = token;
        self.state.timers.extend(deadline.map(|at| (at, Timer::Run(key))));
        self.say(Decision::StartRun { run: key, machine: plan.machine(key.place as usize).cloned(), attempt, token });
        self.activity_changed(key.task);
    }

    /// Tells a running run to stop. It is over once it says so.
    pub fn stop_run(&mut self, key: RunKey, kind: StopKind) {
        let run = self.state.tasks.get_mut(&key.task).and_then(|task| task.run_mut(key));
        let Some(run) = run.filter(|run| run.state == RunState::Running && run.stop.is_none()) else {
            return;
        };
        run.stop = Some(kind);
        if let Some(Deadline::At(at)) = run.deadline.take() {
            self.state.timers.remove(&(at, Timer::Run(key)));
        }
        self.say(Decision::StopRun { run: key, kind });
    }

    /// A run is over.
    pub fn run_finished(&mut self, key: RunKey, outcome: RunOutcome) {
        let Some(task) = self.state.tasks.get_mut(&key.task) else {
            return;
        };
        let steps = task.progress.steps.get_mut(key.step as usize);
        let Some((step, plan)) = steps.zip(task.plan.steps.get(key.step as usize)) else {
            return;
        };
        let Some(run) = step.runs.get_mut(key.place as usize) else {
            return;
        };
        if run.state != RunState::Running {
            return;
        }
        let (state, why) = judge(outcome, run.stop, plan);
        run.state = state;
        run.error.clone_from(&why);
        let deadline = run.deadline.take();
        let calls = std::mem::take(&mut run.calls);
        step.open = step.open.saturating_sub(1);
        task.running.remove(&(key.step, key.place));
        let failed = state != RunState::Succeeded;
        if failed && task.progress.state == TaskState::Executing {
            let error = in_full(plan, plan.machine(key.place as usize), state, why.as_deref());
            task.progress.error.get_or_insert(error);
        }
        if let Some(Deadline::At(at)) = deadline {
            self.state.timers.remove(&(at, Timer::Run(key)));
        }
        self.say(Decision::RunState { run: key, state, why });
        if failed {
            self.drop_runs(key.task, key.step, RunState::Skipped, "the step failed on another machine");
        }
        for (number, call) in calls {
            let request = LockRequest { run: key, number };
            self.state.timers.remove(&(call.until_ms, Timer::Lock(request)));
            self.release(request.into());
        }
        self.release(Claim { run: key, call: None });
        self.activity_changed(key.task);
        self.close_window(key.task, key.step);
        self.ready(key.task);
    }

    /// Ends what has not started of a step: it never will.
    pub fn drop_runs(&mut self, id: TaskId, index: u32, state: RunState, why: &str) {
        let Some(task) = self.state.tasks.get_mut(&id) else {
            return;
        };
        let Some(step) = task.progress.steps.get_mut(index as usize) else {
            return;
        };
        step.next_place = step.runs.len() as u32;
        let mut dropped = Vec::new();
        for (place, run) in step.runs.iter_mut().enumerate() {
            let waiting = run.state == RunState::Waiting;
            if waiting || run.state == RunState::Pending {
                run.state = state;
                run.reason = None;
                step.open -= u32::from(waiting);
                dropped.push((RunKey { task: id, step: index, place: place as u32 }, waiting));
            }
        }
        for (run, waiting) in dropped {
            self.say(Decision::RunState { run, state, why: Some(why.to_owned()) });
            if waiting {
                self.release(Claim { run, call: None });
            }
        }
    }

    /// Ends a step whose runs are all over.
    pub fn close_window(&mut self, id: TaskId, index: u32) {
        let Some(task) = self.state.tasks.get_mut(&id) else {
            return;
        };
        let steps = task.progress.steps.get(index as usize);
        let Some((step, plan)) = steps.zip(task.plan.steps.get(index as usize)) else {
            return;
        };
        if step.open > 0 || (step.next_place as usize) < step.runs.len() {
            return;
        }
        if task.progress.active.remove(&index) {
            let (state, why) = verdict(step, plan);
            self.end_step(id, index, state, why);
        }
    }

    fn release(&mut self, claim: Claim) {
        let freed = self.state.locks.release(claim);
        self.freed(freed);
    }
}

/// How a run ended, given that it may have been told to stop.
fn judge(outcome: RunOutcome, stop: Option<StopKind>, plan: &StepPlan) -> (RunState, Option<String>) {
    let late = || {
        let limit = in_words(plan.timeout_ms.unwrap_or_default());
        format!("it took longer than its limit of {limit} and was stopped")
    };
    match (outcome, stop) {
        (RunOutcome::Succeeded, _) => (RunState::Succeeded, None),
        (RunOutcome::Unknown { error }, _) => (RunState::Unknown, Some(error)),
        (RunOutcome::Cancelled, Some(StopKind::Timeout)) => (RunState::Failed, Some(late())),
        (RunOutcome::Cancelled, _) => (RunState::Cancelled, None),
        (RunOutcome::Failed { error }, Some(StopKind::Timeout)) => {
            (RunState::Failed, Some(format!("{}: {error}", late())))
        }
        (RunOutcome::Failed { error }, _) => (RunState::Failed, Some(error)),
    }
}

/// How a step ended: as its worst run did.
fn verdict(step: &StepProgress, plan: &StepPlan) -> (RunState, Option<String>) {
    let worst = [RunState::Unknown, RunState::Failed, RunState::Cancelled];
    let found = worst.into_iter().find_map(|state| {
        let mut runs = step.runs.iter().enumerate();
        runs.find(|(_, run)| run.state == state)
    });
    match found {
        None => (RunState::Succeeded, None),
        Some((place, run)) => {
            let why = in_full(plan, plan.machine(place), run.state, run.error.as_deref());
            (run.state, Some(why))
        }
    }
}

/// What went wrong, with the place: `step web/web1 failed: exit code 3`.
fn in_full(plan: &StepPlan, machine: Option<&MachineName>, state: RunState, why: Option<&str>) -> String {
    let node = run_node(&plan.name, machine);
    let what = match state {
        RunState::Unknown => "has an unknown outcome",
        RunState::Cancelled => "was cancelled",
        _ => "failed",
    };
    match why {
        Some(why) => format!("step {node} {what}: {why}"),
        None => format!("step {node} {what}"),
    }
}
