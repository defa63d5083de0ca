//! How an attempt ended, and what follows: another one, a question to a person, or the end of the run.

use std::sync::Arc;

use windlass_model::{MachineName, RunState, TaskState};

use crate::{
    decision::Decision,
    event::{RunKey, RunOutcome, StopKind, Subject},
    lanes::in_full,
    plan::Unavailable,
    progress::Phase,
    question::Choice,
    step::MAX_RETRIES,
    timers::Timer,
    turn::Turn,
    words::in_words,
};

impl Turn<'_> {
    /// A run that waits cannot go on.
    pub fn never_started(&mut self, key: RunKey, error: String) {
        self.let_go(key);
        self.attempt_failed(key, RunState::Failed, error);
    }

    pub(super) fn skip_unavailable(
        &mut self,
        key: RunKey,
        machine: Option<MachineName>,
        why: &str,
        policy: Unavailable,
    ) {
        let why = format!("it could not be reached: {why}");
        self.settle_run(key, RunState::Skipped, Some(why.clone()));
        if let Some(machine) = machine.filter(|_| policy == Unavailable::Exclude) {
            self.exclude(key.task, &machine, &why);
        }
        self.go_on(key);
    }

    /// An attempt failed: it is tried again, or a person is asked, or the run failed.
    pub(super) fn attempt_failed(&mut self, key: RunKey, state: RunState, error: String) {
        let now = self.now;
        let Some(task) = self.state.tasks.get_mut(&key.task) else {
            return;
        };
        let plan = Arc::clone(&task.plan);
        let Some(step) = plan.steps.get(key.step as usize) else {
            return;
        };
        let Some(run) = task.run_mut(key) else {
            return;
        };
        run.stop = None;
        // What becomes of a machine that was left out meanwhile no longer matters.
        if let Some(why) = step.machine(key.place as usize).and_then(|machine| task.progress.excluded.get(machine)) {
            let why = format!("{error}; its machine was left out: {why}");
            return self.pardon(key, &why);
        }
        let Some(run) = task.run_mut(key) else {
            return;
        };
        let tries = run.attempt.saturating_sub(run.person_retries);
        if state == RunState::Failed && tries <= step.retries.min(MAX_RETRIES) {
            let wait = step.backoff_ms.saturating_mul(1 << (tries - 1).min(20));
            let at = now.saturating_add(wait);
            run.phase = Phase::Backoff(at);
            let attempt = run.attempt + 1;
            self.state.timers.set(at, Timer::Run(key));
            self.say(Decision::Retry { run: key, attempt, error });
            self.touch(Subject::Run(key));
            return self.idles(key.task);
        }
        if plan.guided {
            run.phase = Phase::Asking;
            run.error = Some(error.clone());
            return self.ask_failure(key, state, &error);
        }
        self.end_run(key, state, Some(error));
    }

    /// What a person decided about a failed run.
    pub fn decided(&mut self, key: RunKey, choice: Choice, by: &str) {
        let Some(task) = self.state.tasks.get_mut(&key.task) else {
            return;
        };
        let machine = task.machine(key).cloned();
        let Some(run) = task.run_mut(key).filter(|run| run.phase == Phase::Asking) else {
            return;
        };
        let error = run.error.clone().unwrap_or_default();
        match choice {
            Choice::Retry => {
                run.attempt += 1;
                run.person_retries += 1;
                self.begin(key);
            }
            Choice::Ignore => self.pardon(key, &format!("{error}; {by} let it pass")),
            Choice::Exclude => {
                run.pardoned = true;
                let why = format!("{by} left it out after: {error}");
                self.settle_run(key, RunState::Failed, Some(why.clone()));
                if let Some(machine) = machine {
                    self.exclude(key.task, &machine, &why);
                }
                self.go_on(key);
            }
            _ => self.end_run(key, RunState::Failed, Some(error)),
        }
    }

    /// Ends a run whose failure does not count.
    pub fn pardon(&mut self, key: RunKey, why: &str) {
        if let Some(run) = self.state.run_mut(key) {
            run.pardoned = true;
        }
        self.drop_run_questions(key);
        self.settle_run(key, RunState::Failed, Some(why.to_owned()));
        self.go_on(key);
    }

    /// Ends a run for good. A failure closes the window of its unit.
    pub fn end_run(&mut self, key: RunKey, state: RunState, why: Option<String>) {
        let Some(task) = self.task(key.task) else {
            return;
        };
        let failed = state != RunState::Succeeded;
        let lead = task.plan.lead(key.step);
        if failed && task.progress.state == TaskState::Executing {
            let worker = task.run(key).and_then(|run| run.worker.clone());
            let error = in_full(&task.plan, key.step, key.place as usize, worker.as_ref(), state, why.as_deref());
            task.progress.error.get_or_insert(error);
        }
        self.settle_run(key, state, why);
        if failed {
            self.close_window(key.task, lead, RunState::Skipped, "the step failed on another machine");
        }
        self.go_on(key);
    }
}

/// How a run ended, given that it may have been told to stop.
pub(super) fn judge(outcome: RunOutcome, stop: Option<StopKind>, limit_ms: Option<u64>) -> (RunState, Option<String>) {
    let late = || {
        let limit = in_words(limit_ms.unwrap_or_default());
        format!("it took longer than its limit of {limit} and was stopped")
    };
    match (outcome, stop) {
        (RunOutcome::Succeeded, _) => (RunState::Succeeded, None),
        (RunOutcome::Unknown { error }, _) => (RunState::Unknown, Some(error)),
        (RunOutcome::Cancelled, Some(StopKind::Timeout)) => (RunState::Failed, Some(late())),
        (RunOutcome::Cancelled, _) => (RunState::Cancelled, None),
        (RunOutcome::Failed { error } | RunOutcome::Unavailable { error }, Some(StopKind::Timeout)) => {
            (RunState::Failed, Some(format!("{}: {error}", late())))
        }
        (RunOutcome::Failed { error } | RunOutcome::Unavailable { error }, _) => (RunState::Failed, Some(error)),
    }
}
