//! Named locks that a run asks for while it runs: waiting for them, being granted and refused.
//!
//! While a run waits, its own time limit stands still: a wait is not slowness. The wait has a limit of its
//! own. When a run ends, so do its locks.

use windlass_model::{RunState, manifest::LockMode};

use crate::{
    event::{Decision, LockRequest, RunKey, Subject},
    plan::Resource,
    progress::{Call, Deadline, RunProgress},
    reasons::{self, in_words},
    state::Timer,
    turn::Turn,
};

/// Named locks that one run may hold or wait for at once.
pub const MAX_LOCKS_PER_RUN: usize = 64;

impl Turn<'_> {
    pub fn lock_asked(&mut self, request: LockRequest, name: &str, mode: LockMode, limit: Option<u64>) {
        let machine = self.state.tasks.get(&request.run.task).and_then(|task| {
            let step = task.plan.steps.get(request.run.step as usize)?;
            step.machine(request.run.place as usize)
        });
        let resource = Resource::named(machine, name);
        let Some(run) = self.running(request.run) else {
            let error = "the run does not run".to_owned();
            return self.say(Decision::RefuseLock { request, error });
        };
        if let Some(call) = run.calls.get(&request.number) {
            if let Some(token) = call.token {
                self.say(Decision::GrantLock { request, token });
            }
            return;
        }
        if let Err(error) = self.may_ask(request, &resource, mode) {
            return self.say(Decision::RefuseLock { request, error });
        }
        let limit = limit.unwrap_or(self.state.settings.lock_wait_ms);
        let call = Call {
            resource: resource.clone(),
            mode,
            ticket: self.ticket(),
            token: None,
            until_ms: self.now.saturating_add(limit),
            reason: None,
        };
        let (ticket, until) = (call.ticket, call.until_ms);
        self.pause(request.run);
        if let Some(run) = self.running(request.run) {
            run.calls.insert(request.number, call);
        }
        self.state.timers.insert((until, Timer::Lock(request)));
        self.changed(request.run.task);
        if self.state.locks.ask(request.into(), vec![(resource, mode)], ticket) {
            self.granted(request.into());
        } else {
            self.touch(Subject::Lock(request));
        }
    }

    fn may_ask(&mut self, request: LockRequest, resource: &Resource, mode: LockMode) -> Result<(), String> {
        let run = self.running(request.run);
        if run.as_ref().is_some_and(|run| run.stop.is_some()) {
            return Err("the run is being stopped".to_owned());
        }
        if run.is_some_and(|run| run.calls.len() >= MAX_LOCKS_PER_RUN) {
            return Err(format!("a run holds at most {MAX_LOCKS_PER_RUN} locks at once; release one first"));
        }
        if self.state.locks.own_conflict(request.into(), resource, mode) {
            return Err(format!("this run holds {resource} already, and would wait for itself for ever"));
        }
        Ok(())
    }

    /// A call of a run holds its lock.
    pub fn call_granted(&mut self, key: RunKey, number: u64) {
        let token = self.state.counters.token + 1;
        let Some(run) = self.running(key) else {
            return;
        };
        let Some(call) = run.calls.get_mut(&number).filter(|call| call.token.is_none()) else {
            return;
        };
        call.token = Some(token);
        call.reason = None;
        let until = call.until_ms;
        let request = LockRequest { run: key, number };
        self.state.counters.token = token;
        self.state.timers.remove(&(until, Timer::Lock(request)));
        self.resume(key);
        self.say(Decision::GrantLock { request, token });
    }

    /// A run gives a lock back, or stops waiting for it.
    pub fn lock_released(&mut self, request: LockRequest) {
        let Some(call) = self.running(request.run).and_then(|run| run.calls.remove(&request.number)) else {
            return;
        };
        self.state.timers.remove(&(call.until_ms, Timer::Lock(request)));
        self.resume(request.run);
        self.changed(request.run.task);
        let freed = self.state.locks.release(request.into());
        self.freed(freed);
    }

    /// A run waited for a lock as long as it was ready to.
    pub fn lock_wait_over(&mut self, request: LockRequest) {
        let waits = reasons::cause(self.state, Subject::Lock(request)).map(|cause| cause.text);
        let since = reasons::stored(self.state, Subject::Lock(request)).map_or(self.now, |told| told.since_ms);
        let waited = in_words(self.now.saturating_sub(since));
        self.lock_released(request);
        let waits = waits.unwrap_or_else(|| "waits".to_owned());
        let error = format!("after {waited} it still {waits}");
        self.say(Decision::RefuseLock { request, error });
    }

    fn running(&mut self, key: RunKey) -> Option<&mut RunProgress> {
        let run = self.state.tasks.get_mut(&key.task)?.run_mut(key)?;
        (run.state == RunState::Running).then_some(run)
    }

    /// Stops the clock of a run that begins to wait.
    fn pause(&mut self, key: RunKey) {
        let now = self.now;
        if let Some(run) = self.running(key)
            && let Some(Deadline::At(at)) = run.deadline
        {
            run.deadline = Some(Deadline::Paused(at.saturating_sub(now)));
            self.state.timers.remove(&(at, Timer::Run(key)));
        }
    }

    /// Starts the clock of a run again that waits for nothing more.
    fn resume(&mut self, key: RunKey) {
        let now = self.now;
        if let Some(run) = self.running(key).filter(|run| !run.waits_for_lock())
            && let Some(Deadline::Paused(left)) = run.deadline
        {
            let at = now.saturating_add(left);
            run.deadline = Some(Deadline::At(at));
            self.state.timers.insert((at, Timer::Run(key)));
        }
    }
}
