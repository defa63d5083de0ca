//! Storing the whole state and reading it back.
//!
//! A snapshot holds the tasks and the few tables that follow from nothing else; every index is rebuilt. A state
//! that is stored and restored makes the same decisions.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use windlass_model::{MachineName, PoolName, RunState, TaskId, TaskState};

use crate::{
    cause::Part,
    decision::Decision,
    event::{LockRequest, RunKey, WaitOn},
    locks::{ClaimKey, Rank},
    plan::{Settings, TaskPlan},
    progress::{Deadline, Packages, Phase, Progress, RunProgress},
    question::About,
    queue::Place,
    resource::Resource,
    state::{Counters, Fence, Pool, State, Task},
    step::Where,
    timers::Timer,
};

/// Version of the form of a snapshot.
pub const FORMAT: u32 = 2;

/// A task as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskRecord {
    /// What it does; never changes.
    pub plan: Arc<TaskPlan>,
    /// How far it is.
    pub progress: Progress,
}

/// All that must survive, in one value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Version of its form.
    pub format: u32,
    /// Limits.
    pub settings: Settings,
    /// Counters.
    pub counters: Counters,
    /// Tasks that are not over.
    pub tasks: BTreeMap<TaskId, TaskRecord>,
    /// What is left of abandoned runs.
    pub fences: Vec<Fence>,
    /// Pools as they were last told.
    pub pools: BTreeMap<PoolName, Pool>,
    /// Places in queues of locks that are not in the order of asking.
    pub ranks: Vec<OddRank>,
}

/// A place in the queue of a lock that is not in the order of asking.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OddRank {
    /// Run that waits.
    pub run: RunKey,
    /// What of it.
    pub part: Part,
    /// For what.
    pub resource: Resource,
    /// Its place.
    pub rank: Rank,
}

/// A snapshot that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the scheduler's state has format {found}, and this version reads format {FORMAT}; use the version that wrote it"
)]
pub struct UnknownFormat {
    /// Format of the snapshot.
    pub found: u32,
}

impl State {
    /// Everything that must survive.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let record = |task: &Task| TaskRecord { plan: Arc::clone(&task.plan), progress: task.progress.clone() };
        let rank = |(key, resource, rank): (ClaimKey, Resource, Rank)| OddRank {
            run: key.run,
            part: key.part,
            resource,
            rank,
        };
        Snapshot {
            format: FORMAT,
            settings: self.settings.clone(),
            counters: self.counters,
            tasks: self.tasks.iter().map(|(id, task)| (*id, record(task))).collect(),
            fences: self.fences.values().cloned().collect(),
            pools: self.pools.clone(),
            ranks: self.locks.odd_ranks().into_iter().map(rank).collect(),
        }
    }

    /// A scheduler as it was stored. Ask [`State::open_decisions`] what to go on with, and send a
    /// [`Event::SettingsChanged`](crate::Event::SettingsChanged) when the limits are other ones now.
    ///
    /// # Errors
    /// When another version wrote it.
    pub fn restore(snapshot: Snapshot) -> Result<Self, UnknownFormat> {
        if snapshot.format != FORMAT {
            return Err(UnknownFormat { found: snapshot.format });
        }
        let mut state = Self::new(snapshot.settings);
        state.counters = snapshot.counters;
        state.pools = snapshot.pools;
        let ids: Vec<_> = snapshot.tasks.keys().copied().collect();
        for (id, record) in snapshot.tasks {
            state.tasks.insert(id, Box::new(Task::new(record.plan, record.progress)));
        }
        for fence in snapshot.fences {
            let key = ClaimKey { run: fence.run, part: Part::Fence(fence.number) };
            state.locks.hold(key, &fence.want, fence.token);
            state.fences.insert((fence.run, fence.number), fence);
        }
        for id in &ids {
            state.index_holds(*id);
        }
        for id in &ids {
            state.index_waits(*id);
        }
        for id in &ids {
            state.index_task(*id);
        }
        for odd in snapshot.ranks {
            state.locks.set_rank(ClaimKey { run: odd.run, part: odd.part }, &odd.resource, odd.rank);
        }
        drop(state.queue.take_touched());
        drop(state.locks.take_touched());
        state.drop_stale_timers();
        Ok(state)
    }

    fn open_runs(&self, id: TaskId) -> Vec<(RunKey, RunProgress)> {
        let steps = self.tasks.get(&id).map(|task| &task.progress.steps);
        let mut open = Vec::new();
        for (step, progress) in steps.into_iter().flatten().enumerate() {
            for (place, run) in progress.runs.iter().enumerate().filter(|(_, run)| run.phase.is_open()) {
                open.push((RunKey { task: id, step: step as u32, place: place as u32 }, run.clone()));
            }
        }
        open
    }

    /// What is held comes first: those who wait look at it.
    fn index_holds(&mut self, id: TaskId) {
        for (key, run) in self.open_runs(id) {
            if let Some(task) = self.tasks.get_mut(&id) {
                task.open.insert((key.step, key.place));
                task.working += u32::from(run.works());
                if matches!(run.phase, Phase::Seat | Phase::Running) {
                    for want in task.wants(key).iter().filter(|want| !run.broken.contains(&want.resource)) {
                        self.locks.hold(ClaimKey::run(key), want, run.token);
                    }
                }
            }
            for (number, call) in run.calls.iter().filter(|(_, call)| call.held && !call.broken) {
                self.locks.hold(ClaimKey::call(LockRequest { run: key, number: *number }), &call.want, call.grant);
            }
            if let Some(worker) = run.worker.filter(|_| run.lease.is_some()) {
                *self.leases.entry(worker).or_default() += 1;
            }
        }
        let holds = self.tasks.get(&id).map(|task| task.progress.holds.clone());
        for hold in holds.into_iter().flatten() {
            let run = RunKey { task: id, step: hold.step.unwrap_or(0), place: 0 };
            self.locks.hold(ClaimKey::group(run, hold.step.is_some()), &hold.want, hold.token);
        }
    }

    fn index_waits(&mut self, id: TaskId) {
        for (key, run) in self.open_runs(id) {
            if let Some(task) = self.tasks.get_mut(&id) {
                if let Phase::Locks(until) = run.phase {
                    let wants = task.wants(key);
                    self.locks.wait(ClaimKey::run(key), &wants, run.ticket);
                    self.timers.set(until, Timer::Run(key));
                }
                let pool = task.step_plan(key.step).map(|step| step.place.clone());
                if let (Phase::Pool(until), Some(Where::Pool(pool))) = (run.phase, pool) {
                    self.pool_queue.insert((pool, run.ticket, key));
                    self.timers.set(until, Timer::Run(key));
                }
            }
            if let Phase::Backoff(until) = run.phase {
                self.timers.set(until, Timer::Run(key));
            }
            if let Some(Deadline::At(at)) = run.deadline {
                self.timers.set(at, Timer::Run(key));
            }
            if let Some(stop) = run.stop {
                self.timers.set(stop.until_ms, Timer::Run(key));
            }
            for (number, call) in run.calls.iter().filter(|(_, call)| call.waits()) {
                let request = LockRequest { run: key, number: *number };
                self.locks.wait(ClaimKey::call(request), std::slice::from_ref(&call.want), call.ticket);
                self.timers.set(call.until_ms, Timer::Lock(request));
            }
            if let Some(waits) = run.waits.filter(|waits| waits.ready.is_none()) {
                if let Some(until) = waits.until_ms {
                    self.timers.set(until, Timer::Run(key));
                }
                match waits.on {
                    WaitOn::Tasks(tasks) => {
                        for task in tasks {
                            self.awaiters.entry(task).or_default().insert(key);
                        }
                    }
                    WaitOn::Until(until) => self.timers.set(until, Timer::Run(key)),
                    _ => {}
                }
            }
        }
    }

    /// The place of a task in the queue, among its relatives, and its own timers.
    fn index_task(&mut self, id: TaskId) {
        let Some(task) = self.tasks.get(&id) else {
            return;
        };
        let (plan, progress) = (Arc::clone(&task.plan), &task.progress);
        self.queue.add(id, plan.kind, plan.concurrency_tag.as_deref());
        self.queue.restore(id, progress.seated, progress.tagged && progress.state != TaskState::Queued);
        if let Packages::Acquiring(acquiring) = &progress.packages
            && let Some(since) = acquiring.stopping
        {
            let limit = self.settings.grace_ms.saturating_add(self.settings.kill_ms);
            self.timers.set(since.saturating_add(limit), Timer::Packages(id));
        }
        for question in progress.questions.values() {
            if matches!(question.about, About::Deadlock(_)) {
                self.asked_deadlocks.insert((id, question.number));
            }
            if let Some((at, _)) = question.expiry {
                self.timers.set(at, Timer::Question(id, question.number));
            }
        }
        let (state, resume, top, ticket) = (progress.state, progress.resume, progress.top, progress.ticket);
        if state == TaskState::Queued {
            if let Some(at) = plan.expires_ms {
                self.timers.set(at, Timer::Expiry(id));
            }
            match plan.start_at_ms.filter(|at| *at > self.counters.now_ms) {
                Some(at) => self.timers.set(at, Timer::Start(id)),
                None => self.queue.wait(Place::queued(id, top, plan.priority, ticket)),
            }
        } else if resume > 0 {
            self.queue.wait(Place::resuming(id, resume));
        }
        if self.awaiters.contains_key(&id) {
            self.queue.set_awaited(id, true);
        }
        if let Some(key) = &plan.supersede {
            self.superseding.entry(key.clone()).or_default().insert(id);
        }
        if let Some(of) =
            plan.parent.filter(|parent| !parent.detached).and_then(|parent| self.tasks.get_mut(&parent.run.task))
        {
            of.children.insert(id);
        }
    }

    /// Everything that was started and is not finished, as the decisions that started it.
    ///
    /// After a restart these are to be acted on as if they had just been made: what already happened is found
    /// out by asking the machines.
    #[must_use]
    pub fn open_decisions(&self) -> Vec<Decision> {
        let mut open = Vec::new();
        for (id, _, progress) in self.tasks() {
            if let Packages::Acquiring(acquiring) = &progress.packages
                && !acquiring.open.is_empty()
            {
                let (machines, server): (Vec<&MachineName>, _) =
                    (acquiring.open.iter().flatten().collect(), acquiring.open.contains(&None));
                open.push(Decision::Acquire { task: id, machines: machines.into_iter().cloned().collect(), server });
                if acquiring.stopping.is_some() {
                    open.push(Decision::StopAcquire { task: id });
                }
            }
            let asked = |step: &crate::progress::StepProgress| {
                step.asked && step.fact.is_none() && step.state == RunState::Waiting
            };
            for (step, _) in progress.steps.iter().enumerate().filter(|(_, step)| asked(step)) {
                open.push(Decision::AskFact { task: id, step: step as u32 });
            }
            for (key, run) in self.open_runs(id) {
                self.open_run(key, &run, &mut open);
            }
            let questions = progress.questions.values().cloned();
            open.extend(questions.map(|question| Decision::Ask { task: id, question: Box::new(question) }));
        }
        open
    }

    fn open_run(&self, key: RunKey, run: &RunProgress, open: &mut Vec<Decision>) {
        if run.phase != Phase::Running {
            return;
        }
        let machine = self.tasks.get(&key.task).and_then(|task| task.machine(key)).cloned();
        open.push(Decision::StartRun { run: key, machine, attempt: run.attempt, token: run.token });
        for (number, call) in &run.calls {
            if let Some(token) = call.token {
                open.push(Decision::GrantLock { request: LockRequest { run: key, number: *number }, token });
            }
        }
        if let Some(stop) = run.stop {
            open.push(Decision::StopRun { run: key, kind: stop.kind });
        }
    }

    /// Tasks that end with this one.
    #[must_use]
    pub fn children(&self, task: TaskId) -> BTreeSet<TaskId> {
        self.tasks.get(&task).map(|task| task.children.clone()).unwrap_or_default()
    }
}

impl Serialize for State {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.snapshot().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for State {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::restore(Snapshot::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}
