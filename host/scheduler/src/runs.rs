//! One run: waiting for its locks, starting, stopping, ending, being tried again.

use std::sync::Arc;

use windlass_model::{MachineName, PoolName, RunState, TaskState};

use crate::{
    deadlock::Node,
    decision::Decision,
    event::{LockRequest, RunKey, RunOutcome, StopKind, Subject},
    lanes::in_full,
    locks::ClaimKey,
    plan::Unavailable,
    progress::{Deadline, Phase, Resume, RunProgress, Stop},
    question::Choice,
    reasons,
    state::Pool,
    step::{MAX_RETRIES, Where},
    timers::Timer,
    turn::Turn,
    words::in_words,
};

impl RunProgress {
    /// Whether something is due for the run at this time.
    pub(crate) fn expects(&self, at: u64) -> bool {
        let phase = match self.phase {
            Phase::Pool(until) | Phase::Locks(until) | Phase::Backoff(until) => until == at,
            _ => false,
        };
        let wakes = self.waits.as_ref().is_some_and(|waits| {
            let comes = matches!(waits.on, crate::event::WaitOn::Until(until) if until == at);
            waits.ready.is_none() && (comes || waits.until_ms == Some(at))
        });
        phase
            || wakes
            || self.deadline == Some(Deadline::At(at))
            || (self.phase == Phase::Running && self.stop.is_some_and(|stop| stop.until_ms == at))
    }
}

impl Turn<'_> {
    /// A run has its turn: it needs a machine, then its locks.
    pub fn begin(&mut self, key: RunKey) {
        let ticket = self.ticket();
        let Some(task) = self.task(key.task) else {
            return;
        };
        task.open.insert((key.step, key.place));
        let pool = task.step_plan(key.step).and_then(|step| match &step.place {
            Where::Pool(pool) => Some(pool.clone()),
            _ => None,
        });
        let Some(run) = task.run_mut(key) else {
            return;
        };
        run.ticket = ticket;
        run.told = None;
        run.broken.clear();
        match pool.filter(|_| run.lease.is_none()) {
            Some(pool) => self.choose_worker(key, pool),
            None => self.claim(key),
        }
    }

    /// The worker with the fewest leases, of these the first by name. One that was tried already comes last.
    fn choose_worker(&mut self, key: RunKey, pool: PoolName) {
        let known = self.state.pools.get(&pool);
        let (workers, cap) = (known.map(|pool| &pool.workers), known.map_or(0, |pool| pool.lease_cap));
        let leases = |worker: &&MachineName| self.state.leases.get(*worker).copied().unwrap_or(0);
        let task = self.state.tasks.get(&key.task);
        let in_use = |worker: &&MachineName| task.is_some_and(|task| !task.progress.excluded.contains_key(*worker));
        let tried = task.and_then(|task| task.run(key)?.worker.as_ref());
        let cost = |worker: &&MachineName| (tried == Some(*worker), leases(worker));
        let worker = workers.into_iter().flatten().filter(in_use).min_by_key(cost).cloned();
        let until = self.now.saturating_add(self.state.settings.pool_wait_ms);
        let Some(run) = self.state.run_mut(key) else {
            return;
        };
        if let Some(worker) = worker {
            (run.worker, run.lease) = (Some(worker.clone()), Some(cap));
            *self.state.leases.entry(worker).or_default() += 1;
            return self.claim(key);
        }
        run.phase = Phase::Pool(until);
        let ticket = run.ticket;
        self.state.pool_queue.insert((pool, ticket, key));
        self.state.timers.set(until, Timer::Run(key));
        self.touch(Subject::Run(key));
    }

    pub fn pool_changed(&mut self, pool: PoolName, workers: Vec<MachineName>, lease_cap: u32) {
        let known = Pool { workers: workers.into_iter().collect(), lease_cap };
        let usable = !known.workers.is_empty();
        self.state.pools.insert(pool.clone(), known);
        let waiting: Vec<_> =
            self.state.pool_queue.iter().filter(|(name, ..)| *name == pool && usable).cloned().collect();
        for entry in waiting {
            self.state.pool_queue.remove(&entry);
            // It asks for its locks now, and not when it began to wait for a worker.
            let ticket = self.ticket();
            if let Some(run) = self.state.run_mut(entry.2) {
                run.ticket = ticket;
            }
            self.choose_worker(entry.2, pool.clone());
        }
    }

    fn claim(&mut self, key: RunKey) {
        let now = self.now;
        let default = self.state.settings.lock_wait_ms;
        let Some(task) = self.state.tasks.get_mut(&key.task) else {
            return;
        };
        let until = now.saturating_add(task.plan.lock_wait_ms.unwrap_or(default));
        let wants = task.wants(key);
        let Some(run) = task.run_mut(key) else {
            return;
        };
        run.phase = Phase::Locks(until);
        let claim = ClaimKey::run(key);
        if self.state.locks.ask(claim, &wants, run.ticket, 0) {
            self.granted([claim]);
        } else {
            self.state.timers.set(until, Timer::Run(key));
            self.touch(Subject::Run(key));
            self.suspect(Node::Run(key));
        }
    }

    /// A run holds its locks: it starts once its task has its turn.
    pub fn run_granted(&mut self, key: RunKey, token: u64) {
        let Some(run) = self.state.run_mut(key).filter(|run| matches!(run.phase, Phase::Locks(_))) else {
            return;
        };
        run.token = token;
        run.phase = Phase::Seat;
        self.wait_over(Subject::Run(key));
        self.keep_for_group(key, token);
        if self.seat(key.task) {
            self.start_run(key);
        } else {
            self.touch(Subject::Run(key));
        }
    }

    pub fn start_run(&mut self, key: RunKey) {
        let now = self.now;
        let Some(task) = self.task(key.task) else {
            return;
        };
        let limit = task.step_plan(key.step).and_then(|plan| plan.timeout_ms);
        let machine = task.machine(key).cloned();
        let deadline = limit.map(|limit| now.saturating_add(limit));
        task.working += 1;
        let Some(run) = task.run_mut(key) else {
            return;
        };
        run.phase = Phase::Running;
        run.told = None;
        run.deadline = deadline.map(Deadline::At);
        let (attempt, token) = (run.attempt, run.token);
        if let Some(at) = deadline {
            self.state.timers.set(at, Timer::Run(key));
        }
        self.say(Decision::StartRun { run: key, machine, attempt, token });
        self.state.queue.activity_changed(key.task);
    }

    /// Something is due for a run.
    pub fn run_timer(&mut self, key: RunKey, at: u64) {
        let Some(run) = self.state.run(key).filter(|run| run.expects(at)) else {
            return;
        };
        match run.phase {
            Phase::Pool(_) => {
                let waited = in_words(self.state.settings.pool_wait_ms);
                self.never_started(key, format!("after {waited} its pool still has no worker"));
            }
            Phase::Locks(_) => {
                let waits = reasons::cause(self.state, Subject::Run(key));
                let waits = waits.map(|cause| crate::words::text(self.state, Subject::Run(key), &cause));
                let since = run.told.as_ref().map_or(self.now, |told| told.since_ms);
                let waited = in_words(self.now.saturating_sub(since));
                self.never_started(
                    key,
                    format!("after {waited} it still {}", waits.unwrap_or_else(|| "waits".to_owned())),
                );
            }
            Phase::Backoff(_) => {
                if let Some(run) = self.state.run_mut(key) {
                    run.attempt += 1;
                }
                self.begin(key);
            }
            Phase::Running if run.stop.is_some_and(|stop| stop.until_ms == at) => self.press(key),
            Phase::Running if run.deadline == Some(Deadline::At(at)) => self.stop_run(key, StopKind::Timeout),
            Phase::Running => self.run_ready(key, Resume::default()),
            _ => {}
        }
    }

    /// Tells a running run to stop. It is over once it says so, or once it is abandoned.
    pub fn stop_run(&mut self, key: RunKey, kind: StopKind) {
        let until_ms = self.now.saturating_add(self.state.settings.grace_ms);
        let Some(run) = self.state.run_mut(key).filter(|run| run.phase == Phase::Running) else {
            return;
        };
        if let Some(stop) = &mut run.stop {
            // It is stopped already; a cancel only changes what that means.
            if kind == StopKind::Cancel {
                stop.why = kind;
            }
            return;
        }
        run.stop = Some(Stop { why: kind, kind, until_ms });
        run.deadline = None;
        self.state.timers.set(until_ms, Timer::Run(key));
        self.say(Decision::StopRun { run: key, kind });
        self.touch(Subject::Run(key));
    }

    /// A run that was told to stop did not: it is killed, then abandoned.
    fn press(&mut self, key: RunKey) {
        let until_ms = self.now.saturating_add(self.state.settings.kill_ms);
        let Some(stop) = self.state.run_mut(key).and_then(|run| run.stop.as_mut()) else {
            return;
        };
        if stop.kind == StopKind::Kill {
            return self.abandon(key);
        }
        stop.kind = StopKind::Kill;
        stop.until_ms = until_ms;
        self.state.timers.set(until_ms, Timer::Run(key));
        self.say(Decision::StopRun { run: key, kind: StopKind::Kill });
    }

    /// Gives back all that a run holds or waits for.
    pub fn let_go(&mut self, key: RunKey) {
        self.wait_over(Subject::Run(key));
        let Some(task) = self.state.tasks.get_mut(&key.task) else {
            return;
        };
        let pool = task.step_plan(key.step).and_then(|step| match &step.place {
            Where::Pool(pool) => Some(pool.clone()),
            _ => None,
        });
        let Some(run) = task.run_mut(key) else {
            return;
        };
        let worked = run.works();
        let calls = std::mem::take(&mut run.calls);
        let waits = run.waits.take();
        let worker = run.worker.clone().filter(|_| run.lease.take().is_some());
        let ticket = run.ticket;
        run.deadline = None;
        task.working -= u32::from(worked);
        if let Some(pool) = pool {
            self.state.pool_queue.remove(&(pool, ticket, key));
        }
        if let Some(count) = worker.and_then(|worker| self.state.leases.get_mut(&worker)) {
            *count = count.saturating_sub(1);
        }
        if let Some(waits) = waits {
            self.forget_wait(key, &waits.on);
        }
        for number in calls.into_keys() {
            self.release(ClaimKey::call(LockRequest { run: key, number }));
        }
        self.release(ClaimKey::run(key));
        self.state.queue.activity_changed(key.task);
        self.idles(key.task);
    }

    /// A run is over.
    pub fn run_finished(&mut self, key: RunKey, outcome: RunOutcome) {
        let Some(task) = self.state.tasks.get(&key.task) else {
            return self.unfence(key);
        };
        let (Some(run), Some(plan)) = (task.run(key), task.step_plan(key.step)) else {
            return self.unfence(key);
        };
        if run.phase != Phase::Running {
            return self.unfence(key);
        }
        let stop = run.stop.map(|stop| stop.why);
        // What was told to stop did begin.
        let unavailable = stop.is_none() && matches!(outcome, RunOutcome::Unavailable { .. });
        let (state, why) = judge(outcome, stop, plan.timeout_ms);
        // A worker that cannot be reached is no target: the step can do without this one, not without any.
        let target = matches!(plan.place, Where::Machines(_));
        let policy = if target { task.plan.unavailable } else { Unavailable::Fail };
        let executes = task.progress.state == TaskState::Executing;
        let machine = task.machine(key).cloned();
        // A worker that was chosen stays in the words about what went wrong.
        self.let_go(key);
        self.drop_run_questions(key);
        match (state, why) {
            (RunState::Failed, Some(why)) if unavailable && executes && policy != Unavailable::Fail => {
                self.skip_unavailable(key, machine, &why, policy);
            }
            (RunState::Failed | RunState::Unknown, Some(why)) if executes => self.attempt_failed(key, state, why),
            (state, why) => self.end_run(key, state, why),
        }
    }

    fn skip_unavailable(&mut self, key: RunKey, machine: Option<MachineName>, why: &str, policy: Unavailable) {
        let why = format!("it could not be reached: {why}");
        self.settle_run(key, RunState::Skipped, Some(why.clone()));
        if let Some(machine) = machine.filter(|_| policy == Unavailable::Exclude) {
            self.exclude(key.task, &machine, &why);
        }
        self.go_on(key);
    }

    /// A run that waits cannot go on.
    pub fn never_started(&mut self, key: RunKey, error: String) {
        self.let_go(key);
        self.attempt_failed(key, RunState::Failed, error);
    }

    /// An attempt failed: it is tried again, or a person is asked, or the run failed.
    fn attempt_failed(&mut self, key: RunKey, state: RunState, error: String) {
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
fn judge(outcome: RunOutcome, stop: Option<StopKind>, limit_ms: Option<u64>) -> (RunState, Option<String>) {
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
