//! One turn of the scheduler: an event goes in, everything that follows from it comes out.
//!
//! A turn works off three lists until nothing is left: claims that were granted, tasks that may go on, and
//! free places in the queue. Nothing here recurses, so a turn cannot overflow whatever a plan holds. At its
//! end it tells the changed reasons of what waits.

use std::collections::{BTreeSet, VecDeque};

use windlass_model::{RunState, TaskId, TaskState};

use crate::{
    event::{Decision, Event, RunKey, StopKind, Subject},
    locks::{Claim, Freed},
    plan::{Settings, TaskPlan},
    progress::{Packages, Progress},
    reasons,
    state::{State, Task, Timer, subjects},
};

pub(crate) struct Turn<'a> {
    pub state: &'a mut State,
    pub now: u64,
    out: Vec<Decision>,
    /// Claims that hold their locks and have not been told.
    granted: VecDeque<Claim>,
    /// Tasks that may be able to go on.
    ready: BTreeSet<TaskId>,
    /// What waits and may do so for another reason now.
    touched: BTreeSet<Subject>,
}

impl<'a> Turn<'a> {
    pub fn new(state: &'a mut State) -> Self {
        let now = state.counters.now_ms;
        Self { state, now, out: Vec::new(), granted: VecDeque::new(), ready: BTreeSet::new(), touched: BTreeSet::new() }
    }

    pub fn take(mut self, event: Event) -> Vec<Decision> {
        match event {
            Event::TaskQueued { task, plan } => self.queue(task, plan),
            Event::TaskCancelled { task } => self.cancel(task),
            Event::PackagesAcquired { task, machine } => self.packages(task, machine, None),
            Event::PackagesFailed { task, machine, error } => self.packages(task, machine, Some(error)),
            Event::RunFinished { run, outcome } => self.run_finished(run, outcome),
            Event::LockAsked { request, resource, mode, wait_limit_ms } => {
                self.lock_asked(request, &resource, mode, wait_limit_ms);
            }
            Event::LockReleased { request } => self.lock_released(request),
            Event::Tick => {}
            Event::SettingsChanged { settings } => self.settings(settings),
        }
        self.settle();
        self.fire_timers();
        self.tell_reasons();
        self.out
    }

    fn settle(&mut self) {
        loop {
            if let Some(claim) = self.granted.pop_front() {
                match claim.call {
                    None => self.start_run(claim.run),
                    Some(number) => self.call_granted(claim.run, number),
                }
            } else if let Some(task) = self.ready.pop_first() {
                self.advance(task);
            } else if let Some(task) = self.state.queue.admit(&self.state.settings) {
                self.start_task(task);
            } else {
                return;
            }
        }
    }

    fn fire_timers(&mut self) {
        while let Some((_, timer)) = self.state.timers.first().copied().filter(|(at, _)| *at <= self.now) {
            self.state.timers.pop_first();
            match timer {
                Timer::Run(run) => self.stop_run(run, StopKind::Timeout),
                Timer::Lock(request) => self.lock_wait_over(request),
            }
            self.settle();
        }
    }

    fn queue(&mut self, id: TaskId, plan: TaskPlan) {
        if self.state.tasks.contains_key(&id) {
            return;
        }
        let ticket = self.ticket();
        let tag = plan.concurrency_tag.as_deref();
        self.state.queue.push(id, plan.kind, tag, plan.priority, ticket);
        let progress = Progress::new(&plan, ticket, self.now);
        let task = Task { plan: plan.into(), progress, running: BTreeSet::new() };
        self.state.tasks.insert(id, task);
        self.say(Decision::TaskState { task: id, state: TaskState::Queued });
    }

    fn start_task(&mut self, id: TaskId) {
        let now = self.now;
        let Some(task) = self.state.tasks.get_mut(&id) else {
            return;
        };
        task.progress.state = TaskState::Executing;
        task.progress.started_ms = Some(now);
        task.progress.reason = None;
        self.say(Decision::TaskState { task: id, state: TaskState::Executing });
        self.ready.insert(id);
    }

    fn cancel(&mut self, id: TaskId) {
        let Some(task) = self.state.tasks.get_mut(&id) else {
            return;
        };
        if task.progress.state != TaskState::Executing {
            if task.progress.state == TaskState::Queued {
                self.finish_task(id, TaskState::Cancelled);
            }
            return;
        }
        task.progress.state = TaskState::Cancelling;
        let stop_packages = match &mut task.progress.packages {
            Packages::Acquiring { stopping, .. } => !std::mem::replace(stopping, true),
            _ => false,
        };
        let running: Vec<_> = task.running.iter().copied().collect();
        self.say(Decision::TaskState { task: id, state: TaskState::Cancelling });
        if stop_packages {
            self.say(Decision::StopAcquire { task: id });
        }
        for (step, place) in running {
            self.stop_run(RunKey { task: id, step, place }, StopKind::Cancel);
        }
        self.drop_steps(id);
        self.ready.insert(id);
    }

    fn settings(&mut self, settings: Settings) {
        self.state.settings = settings;
        self.state.queue.touch_heads();
        let executing = self.state.tasks.iter().filter(|(_, task)| task.progress.state != TaskState::Queued);
        for (id, task) in executing {
            self.ready.insert(*id);
            self.touched.extend(subjects(*id, task));
        }
    }

    /// Ends a task: nothing of it runs any more.
    pub fn finish_task(&mut self, id: TaskId, state: TaskState) {
        self.state.queue.remove(id);
        if let Some(task) = self.state.tasks.remove(&id) {
            let error = task.progress.error;
            self.say(Decision::TaskFinished { task: id, state, error });
        }
    }

    /// Takes note of what a released claim led to.
    pub fn freed(&mut self, freed: Freed) {
        self.granted.extend(freed.granted);
        self.touched.extend(freed.touched.into_iter().map(Claim::subject));
    }

    pub fn ready(&mut self, task: TaskId) {
        self.ready.insert(task);
    }

    pub fn granted(&mut self, claim: Claim) {
        self.granted.push_back(claim);
    }

    /// The reason of `subject` may be another one now.
    pub fn touch(&mut self, subject: Subject) {
        self.touched.insert(subject);
    }

    /// What a task does at the moment changed: a task that waits for it says so.
    pub fn activity_changed(&mut self, task: TaskId) {
        let waiter = self.state.queue.waits_for_tag_of(task);
        self.touched.extend(waiter.map(Subject::Task));
    }

    pub fn say(&mut self, decision: Decision) {
        let task = match &decision {
            Decision::Acquire { task, .. }
            | Decision::StopAcquire { task }
            | Decision::TaskState { task, .. }
            | Decision::StepState { task, .. }
            | Decision::TaskFinished { task, .. } => *task,
            Decision::StartRun { run, .. } | Decision::StopRun { run, .. } | Decision::RunState { run, .. } => run.task,
            Decision::GrantLock { request, .. } | Decision::RefuseLock { request, .. } => request.run.task,
            Decision::Waiting { subject, .. } => subject.task(),
        };
        self.state.changed.insert(task);
        self.out.push(decision);
    }

    /// The record of a task changed although nothing is to be told about it.
    pub fn changed(&mut self, task: TaskId) {
        self.state.changed.insert(task);
    }

    pub fn step_state(&mut self, task: TaskId, step: u32, state: RunState, why: Option<String>) {
        self.say(Decision::StepState { task, step, state, why });
    }

    pub fn ticket(&mut self) -> u64 {
        self.state.counters.ticket += 1;
        self.state.counters.ticket
    }

    fn tell_reasons(&mut self) {
        let queued = self.state.queue.take_touched();
        self.touched.extend(queued.into_iter().map(Subject::Task));
        for subject in std::mem::take(&mut self.touched) {
            let Some(cause) = reasons::cause(self.state, subject) else {
                continue;
            };
            let told = reasons::stored(self.state, subject);
            if told.is_some_and(|told| cause.is(told)) {
                continue;
            }
            let since_ms = told.map_or(self.now, |told| told.since_ms);
            let reason = cause.since(since_ms);
            if let Some(place) = reasons::stored_mut(self.state, subject) {
                *place = Some(reason.clone());
            }
            self.say(Decision::Waiting { subject, reason });
        }
    }
}
