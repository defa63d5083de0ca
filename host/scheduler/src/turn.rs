//! One turn of the scheduler: an event goes in, everything that follows from it comes out.
//!
//! A turn works off its lists until nothing is left: claims that were granted, tasks that may go on, tasks that
//! only wait, free seats, and waits that may have closed a circle. Nothing here recurses, so a turn cannot
//! overflow whatever a plan holds. At its end it tells the changed reasons of what waits.

use std::collections::{BTreeSet, VecDeque};

use windlass_model::{RunState, TaskId};

use crate::{
    cause::Part,
    deadlock::Node,
    decision::Decision,
    event::{Event, Subject},
    locks::ClaimKey,
    plan::Settings,
    progress::{Packages, Told},
    reasons,
    state::{State, Task},
    step::Want,
    timers::Timer,
};

pub(crate) struct Turn<'a> {
    pub state: &'a mut State,
    pub now: u64,
    out: Vec<Decision>,
    pub lists: Lists,
}

/// What is left to do in a turn.
#[derive(Debug, Clone, Default)]
pub(crate) struct Lists {
    /// Claims that hold their locks and have not been told.
    granted: VecDeque<ClaimKey>,
    /// Tasks that may be able to go on.
    ready: BTreeSet<TaskId>,
    /// Tasks in which something stopped working.
    idle: BTreeSet<TaskId>,
    /// Waits that may have closed a circle.
    suspects: Vec<Node>,
    /// What waits and may do so for another reason now.
    touched: Vec<Subject>,
    /// What one run wants, while it asks for it.
    pub wants: Vec<Want>,
}

impl<'a> Turn<'a> {
    pub fn new(state: &'a mut State) -> Self {
        let now = state.counters.now_ms;
        let lists = std::mem::take(&mut state.lists);
        Self { state, now, out: Vec::with_capacity(4), lists }
    }

    pub fn take(mut self, event: Event) -> Vec<Decision> {
        match event {
            Event::TaskQueued { task, plan } => self.queue(task, plan),
            Event::TaskCancelled { task } => self.cancel(task, None),
            Event::TaskMovedToTop { task } => self.move_to_top(task),
            Event::PackagesAcquired { task, machine } => self.packages_acquired(task, &machine),
            Event::PackagesFailed { task, machine, error, unavailable } => {
                self.packages_failed(task, machine, error, unavailable);
            }
            Event::FactGiven { task, step, holds } => self.fact_given(task, step, holds),
            Event::RunFinished { run, outcome } => self.run_finished(run, outcome),
            Event::RunWaits { run, on } => self.run_waits(run, on),
            Event::RunReady { run } => self.run_ready(run, crate::progress::Resume::default()),
            Event::LockAsked { request, wish } => self.lock_asked(request, &wish),
            Event::LockReleased { request } => self.lock_released(request),
            Event::LockBroken { resource, task, by, reason } => self.lock_broken(&resource, task, &by, &reason),
            Event::RunFenced { run } => self.unfence(run),
            Event::Answered { task, question, answer } => self.answered(task, question, answer),
            Event::PoolChanged { pool, workers, lease_cap } => self.pool_changed(pool, workers, lease_cap),
            Event::Tick => {}
            Event::SettingsChanged { settings } => self.settings(settings),
        }
        self.settle();
        self.fire_timers();
        self.tell_reasons();
        self.state.lists = self.lists;
        self.out
    }

    fn settle(&mut self) {
        loop {
            if let Some(claim) = self.lists.granted.pop_front() {
                self.claim_granted(claim);
            } else if let Some(task) = self.lists.ready.pop_first() {
                self.advance(task);
            } else if let Some(task) = self.lists.idle.pop_first() {
                self.rest(task);
            } else if let Some(task) = self.state.queue.admit(&self.state.settings) {
                self.has_turn(task);
            } else if let Some(node) = self.lists.suspects.pop() {
                self.break_deadlock(node);
            } else if !self.drop_dissolved() {
                return;
            }
        }
    }

    fn claim_granted(&mut self, claim: ClaimKey) {
        self.state.counters.token += 1;
        let token = self.state.counters.token;
        self.state.locks.set_token(claim, token);
        match claim.part {
            Part::Call(number) => self.call_granted(claim.run, number, token),
            _ => self.run_granted(claim.run, token),
        }
    }

    fn fire_timers(&mut self) {
        while let Some((at, timer)) = self.state.timers.first().filter(|(at, _)| *at <= self.now) {
            self.state.timers.pop();
            match timer {
                Timer::Start(task) => self.start_time(task),
                Timer::Expiry(task) => self.expired(task, at),
                Timer::Question(task, number) => self.question_expired(task, number, at),
                Timer::Packages(task) => self.abandon_packages(task, at),
                Timer::Run(run) => self.run_timer(run, at),
                Timer::Lock(request) => self.lock_wait_over(request, at),
            }
            self.settle();
        }
    }

    fn settings(&mut self, settings: Settings) {
        self.state.settings = settings;
        self.state.queue.touch_all();
        for id in self.state.task_ids() {
            self.lists.ready.insert(id);
            self.lists.touched.extend(self.state.subjects(id));
        }
        // Narrower windows may keep machines from going on whose step somebody waits for.
        self.suspect_all();
    }

    /// Takes note of claims that hold what they want now.
    pub fn granted(&mut self, claims: impl IntoIterator<Item = ClaimKey>) {
        self.lists.granted.extend(claims);
    }

    /// A task may be able to go on.
    pub fn ready(&mut self, task: TaskId) {
        self.lists.ready.insert(task);
    }

    /// Something of a task stopped working.
    pub fn idles(&mut self, task: TaskId) {
        self.lists.idle.insert(task);
    }

    /// A wait, or a lock taken for longer than a run, may have closed a circle.
    pub fn suspect(&mut self, node: Node) {
        self.lists.suspects.push(node);
    }

    /// The reason of `subject` may be another one now.
    pub fn touch(&mut self, subject: Subject) {
        self.lists.touched.push(subject);
    }

    pub fn say(&mut self, decision: Decision) {
        self.out.push(decision);
    }

    pub fn step_state(&mut self, task: TaskId, step: u32, state: RunState, why: Option<String>) {
        self.say(Decision::StepState { task, step, state, why });
    }

    pub fn ticket(&mut self) -> u64 {
        self.state.counters.ticket += 1;
        self.state.counters.ticket
    }

    pub fn task(&mut self, id: TaskId) -> Option<&mut Task> {
        self.state.tasks.get_mut(&id).map(Box::as_mut)
    }

    pub fn release(&mut self, claim: ClaimKey) {
        self.state.locks.release(claim, &mut self.lists.granted);
    }

    fn tell_reasons(&mut self) {
        let mut touched = std::mem::take(&mut self.lists.touched);
        touched.extend(self.state.queue.take_touched().map(Subject::Task));
        touched.extend(self.state.locks.take_touched().map(ClaimKey::subject));
        touched.sort_unstable();
        touched.dedup();
        for subject in touched.drain(..) {
            let cause = reasons::cause(self.state, subject);
            let now = self.now;
            let Some(place) = reasons::told_mut(self.state, subject) else {
                continue;
            };
            let Some(cause) = cause else {
                *place = None;
                continue;
            };
            match place {
                Some(told) if told.cause == cause => continue,
                Some(told) => told.cause = cause.clone(),
                None => *place = Some(Told { cause: cause.clone(), since_ms: now }),
            }
            self.say(Decision::Waiting { subject, cause });
        }
        self.lists.touched = touched;
    }
}

impl State {
    /// Drops timers that mean nothing any more from the head, and from everywhere when there are many.
    pub(crate) fn drop_stale_timers(&mut self) {
        while self.timers.first().is_some_and(|(at, timer)| !self.timer_means(at, timer)) {
            self.timers.pop();
        }
        if self.timers.is_crowded() {
            let mut timers = std::mem::take(&mut self.timers);
            timers.sweep(|at, timer| self.timer_means(at, timer));
            self.timers = timers;
        }
    }

    fn timer_means(&self, at: u64, timer: Timer) -> bool {
        let progress = |task| self.tasks.get(&task).map(|task| &task.progress);
        let queued = |task: TaskId| progress(task).is_some_and(|task| task.state == windlass_model::TaskState::Queued);
        match timer {
            Timer::Start(task) | Timer::Expiry(task) => queued(task),
            Timer::Question(task, number) => progress(task).is_some_and(|task| task.questions.contains_key(&number)),
            Timer::Packages(task) => progress(task).is_some_and(|task| {
                matches!(&task.packages, Packages::Acquiring(open) if open.stopping.is_some() && !open.open.is_empty())
            }),
            Timer::Run(run) => self.run(run).is_some_and(|run| run.expects(at)),
            Timer::Lock(request) => self.run(request.run).and_then(|run| run.calls.get(&request.number)).is_some_and(
                |call| call.waits() && call.until_ms == at,
            ),
        }
    }
}
