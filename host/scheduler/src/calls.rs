//! Named locks that a run asks for while it runs, and locks that outlive the run which took them.
//!
//! While a run waits, its own time limit stands still: a wait is not slowness. The wait has a limit of its
//! own. When a run ends, so do its locks, except those it took for its step or for the whole deployment.

use windlass_model::{TaskId, manifest::LockScope};

use crate::{
    deadlock::Node,
    decision::Decision,
    event::{LockRequest, LockWish, RunKey, Subject},
    locks::ClaimKey,
    progress::{Call, Deadline, GroupHold, Phase, RunProgress},
    reasons,
    resource::Resource,
    step::Want,
    timers::Timer,
    turn::Turn,
    words::{in_words, text},
};

/// Named locks that one run may hold or wait for at once.
pub const MAX_LOCKS_PER_RUN: usize = 64;

impl Turn<'_> {
    pub fn lock_asked(&mut self, request: LockRequest, wish: &LockWish) {
        let machine = self.state.tasks.get(&request.run.task).and_then(|task| task.machine(request.run)).cloned();
        let need = windlass_model::manifest::LockNeed {
            resource: wish.resource.clone(),
            mode: wish.mode,
            scope: wish.scope,
            units: wish.units,
            of: wish.of,
        };
        let want = Want::from_need(machine.as_ref(), &need);
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
        if let Err(error) = self.may_ask(request, &want) {
            return self.say(Decision::RefuseLock { request, error });
        }
        let default = self.state.settings.lock_wait_ms;
        let own = self.state.tasks.get(&request.run.task).and_then(|task| task.plan.lock_wait_ms);
        let until_ms = self.now.saturating_add(wish.wait_limit_ms.or(own).unwrap_or(default));
        let ticket = self.ticket();
        let call = Call {
            want: want.clone(),
            ticket,
            held: false,
            grant: 0,
            broken: false,
            refused: None,
            token: None,
            until_ms,
            told: None,
        };
        self.change_run(request.run, |run| {
            run.calls.insert(request.number, call);
        });
        let claim = ClaimKey::call(request);
        if self.state.locks.ask(claim, &[want], ticket, 0) {
            self.granted([claim]);
        } else {
            self.state.timers.set(until_ms, Timer::Lock(request));
            self.touch(Subject::Lock(request));
            self.suspect(Node::Call(request));
            self.idles(request.run.task);
        }
    }

    fn may_ask(&mut self, request: LockRequest, want: &Want) -> Result<(), String> {
        let run = self.running(request.run);
        if run.as_ref().is_some_and(|run| run.stop.is_some()) {
            return Err("the run is being stopped".to_owned());
        }
        if run.as_ref().is_some_and(|run| !run.works()) {
            return Err("the run waits for something else already".to_owned());
        }
        if run.is_some_and(|run| run.calls.len() >= MAX_LOCKS_PER_RUN) {
            return Err(format!("a run holds at most {MAX_LOCKS_PER_RUN} locks at once; release one first"));
        }
        if self.state.locks.own_conflict(request.run, want) {
            return Err(format!("this run holds {} already, and would wait for itself for ever", want.resource));
        }
        Ok(())
    }

    /// A call of a run holds its lock. The run is told once its task has its turn.
    pub fn call_granted(&mut self, key: RunKey, number: u64, token: u64) {
        let request = LockRequest { run: key, number };
        let Some(call) = self.running(key).and_then(|run| run.calls.get_mut(&number)) else {
            return;
        };
        (call.held, call.grant) = (true, token);
        let want = call.want.clone();
        self.wait_over(Subject::Lock(request));
        self.keep_wants(key, std::slice::from_ref(&want), token);
        if self.seat(key.task) {
            self.tell_grant(key, number);
        } else {
            self.touch(Subject::Lock(request));
        }
    }

    pub fn tell_grant(&mut self, key: RunKey, number: u64) {
        let call = self.state.run(key).and_then(|run| run.calls.get(&number));
        let Some(token) = call.filter(|call| call.held).map(|call| call.grant) else {
            return;
        };
        self.change_run(key, |run| {
            if let Some(call) = run.calls.get_mut(&number) {
                (call.token, call.told) = (Some(token), None);
            }
        });
        self.say(Decision::GrantLock { request: LockRequest { run: key, number }, token });
    }

    /// A run gives a lock back, or stops waiting for it.
    pub fn lock_released(&mut self, request: LockRequest) {
        let call = self.running(request.run).and_then(|run| run.calls.get(&request.number));
        let Some(waits) = call.map(|call| call.token.is_none()) else {
            return;
        };
        if waits && !self.seat(request.run.task) {
            // It would go on without its task's turn.
            return self.refuse(request, "the run no longer wants it".to_owned());
        }
        self.forget_call(request);
    }

    fn forget_call(&mut self, request: LockRequest) {
        self.change_run(request.run, |run| {
            run.calls.remove(&request.number);
        });
        self.release(ClaimKey::call(request));
        self.idles(request.run.task);
    }

    /// A run waited for a lock as long as it was ready to.
    pub fn lock_wait_over(&mut self, request: LockRequest, at: u64) {
        let call = self.state.run(request.run).and_then(|run| run.calls.get(&request.number));
        let Some(call) = call.filter(|call| call.waits() && call.until_ms == at) else {
            return;
        };
        let since = call.told.as_ref().map_or(self.now, |told| told.since_ms);
        let subject = Subject::Lock(request);
        let waits = reasons::cause(self.state, subject).map(|cause| text(self.state, subject, &cause));
        let waited = in_words(self.now.saturating_sub(since));
        let waits = waits.unwrap_or_else(|| "waits".to_owned());
        self.refuse(request, format!("after {waited} it still {waits}"));
    }

    /// Tells a run that it does not get a lock it waits for, once its task has its turn: then it goes on.
    pub fn refuse(&mut self, request: LockRequest, error: String) {
        if self.seat(request.run.task) {
            self.forget_call(request);
            return self.say(Decision::RefuseLock { request, error });
        }
        self.change_run(request.run, |run| {
            if let Some(call) = run.calls.get_mut(&request.number) {
                (call.held, call.refused) = (false, Some(error));
            }
        });
        self.release(ClaimKey::call(request));
        self.wait_over(Subject::Lock(request));
        self.touch(Subject::Lock(request));
    }

    /// The task of a run has its turn: the run is told what it does not get.
    pub fn tell_refusal(&mut self, request: LockRequest) {
        let call = self.state.run(request.run).and_then(|run| run.calls.get(&request.number));
        if let Some(error) = call.and_then(|call| call.refused.clone()) {
            self.forget_call(request);
            self.say(Decision::RefuseLock { request, error });
        }
    }

    pub fn running(&mut self, key: RunKey) -> Option<&mut RunProgress> {
        self.state.run_mut(key).filter(|run| run.phase == Phase::Running)
    }

    /// Changes what a run waits for: its clock stands still meanwhile, and its task may have nothing that works.
    pub fn change_run(&mut self, key: RunKey, change: impl FnOnce(&mut RunProgress)) {
        let now = self.now;
        let Some(task) = self.state.tasks.get_mut(&key.task) else {
            return;
        };
        let Some(run) = task.run_mut(key) else {
            return;
        };
        let before = run.works();
        change(run);
        let after = run.works();
        match (before, after, run.deadline) {
            (true, false, Some(Deadline::At(at))) => run.deadline = Some(Deadline::Paused(at.saturating_sub(now))),
            (false, true, Some(Deadline::Paused(left))) => {
                let at = now.saturating_add(left);
                run.deadline = Some(Deadline::At(at));
                self.state.timers.set(at, Timer::Run(key));
            }
            _ => {}
        }
        task.working = task.working + u32::from(after) - u32::from(before);
    }

    /// Lets the step or the task of a run hold what the run took for longer than itself.
    pub fn keep_for_group(&mut self, key: RunKey, token: u64) {
        let Some(task) = self.state.tasks.get_mut(&key.task) else {
            return;
        };
        let long = |plan: &crate::step::StepPlan| {
            plan.hold != LockScope::Call || plan.needs().iter().any(|need| need.scope != LockScope::Call)
        };
        if task.step_plan(key.step).is_some_and(long) {
            let wants = task.wants(key);
            self.keep_wants(key, &wants, token);
        }
    }

    fn keep_wants(&mut self, key: RunKey, wants: &[Want], token: u64) {
        for want in wants.iter().filter(|want| want.scope != LockScope::Call) {
            let step = (want.scope == LockScope::Step).then_some(key.step);
            let group = ClaimKey::group(key, step.is_some());
            self.state.locks.hold(group, want, token);
            if let Some(task) = self.task(key.task) {
                let holds = &mut task.progress.holds;
                match holds.iter_mut().find(|hold| hold.step == step && hold.want.resource == want.resource) {
                    Some(hold) => {
                        hold.want.mode = hold.want.mode.min(want.mode);
                        hold.want.units = hold.want.units.max(want.units);
                        hold.want.of = limit(hold.want.of, want.of);
                    }
                    None => holds.push(GroupHold { step, want: want.clone(), token }),
                }
            }
            let granted = self.state.locks.prefer_members(group, &want.resource);
            self.granted(granted);
            if self.state.locks.is_awaited(group) {
                self.suspect(Node::Task(key.task));
            }
        }
    }

    /// Gives back what a step held, or what a whole task held.
    pub fn release_group(&mut self, id: TaskId, step: Option<u32>) {
        let Some(task) = self.task(id) else {
            return;
        };
        let before = task.progress.holds.len();
        task.progress.holds.retain(|hold| step.is_some() && hold.step != step);
        if task.progress.holds.len() == before {
            return;
        }
        let run = RunKey { task: id, step: step.unwrap_or(0), place: 0 };
        self.release(ClaimKey::group(run, step.is_some()));
    }

    /// What a group or a run holds of a resource is taken away by a person.
    pub fn forget_hold(&mut self, key: ClaimKey, resource: &Resource) {
        let group = matches!(key.part, crate::cause::Part::Step | crate::cause::Part::Task);
        if let Some(task) = self.task(key.run.task) {
            if group {
                let step = (key.part == crate::cause::Part::Step).then_some(key.run.step);
                task.progress.holds.retain(|hold| hold.step != step || hold.want.resource != *resource);
            } else if let Some(run) = task.run_mut(key.run) {
                match key.part {
                    crate::cause::Part::Call(number) => {
                        run.calls.entry(number).and_modify(|call| call.broken = true);
                    }
                    _ => run.broken.push(resource.clone()),
                }
            }
        }
        let granted = self.state.locks.take_away(key, resource);
        self.granted(granted);
    }
}

/// The tighter of two counts, where 0 means none.
pub(crate) fn limit(a: u32, b: u32) -> u32 {
    if a == 0 || b == 0 { a.max(b) } else { a.min(b) }
}
