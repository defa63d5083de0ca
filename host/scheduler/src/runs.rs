//! One run: waiting for its locks, starting, stopping, ending, being tried again.
//!
//! Choosing its worker is in `workers`, stopping it in `stops`, and what follows from its end in `attempts`.

mod attempts;
mod stops;
mod workers;

use windlass_model::{RunState, TaskState};

use crate::{
    deadlock::Node,
    decision::Decision,
    event::{LockRequest, RunKey, RunOutcome, StopKind, Subject},
    locks::ClaimKey,
    plan::Unavailable,
    progress::{Deadline, Phase, Resume, RunProgress},
    reasons,
    step::Where,
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

    fn claim(&mut self, key: RunKey) {
        let now = self.now;
        let default = self.state.settings.lock_wait_ms;
        let Some(task) = self.state.tasks.get_mut(&key.task) else {
            return;
        };
        let until = now.saturating_add(task.plan.lock_wait_ms.unwrap_or(default));
        let wants = &mut self.lists.wants;
        task.add_wants(key, wants);
        let Some(run) = task.run_mut(key) else {
            return wants.clear();
        };
        run.phase = Phase::Locks(until);
        let claim = ClaimKey::run(key);
        let free = self.state.locks.ask(claim, wants, run.ticket, 0);
        wants.clear();
        if free {
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
        let (state, why) = attempts::judge(outcome, stop, plan.timeout_ms);
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
}
