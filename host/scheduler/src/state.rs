//! The state of the scheduler: the tasks that are not over, and the indexes made from them.
//!
//! This file owns storing, restoring and looking. What happens when lives in [`turn`](crate::turn) and the
//! files beside it. A state that is serialized and read back is the same state: it makes the same decisions.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use windlass_model::{RunId, RunState, TaskId, TaskState, task::Reason};

use crate::{
    event::{Decision, Event, LockRequest, RunKey, Subject},
    locks::{Claim, LockView, Locks},
    plan::{PlanKind, Settings, TaskPlan},
    progress::{Deadline, Packages, Progress, RunProgress, StepProgress},
    queue::Queue,
    reasons,
    turn::Turn,
};

/// Counters that only grow. Tokens must never be given twice, so they are stored with every change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counters {
    /// Last place given in any queue.
    pub ticket: u64,
    /// Last fencing token given.
    pub token: u64,
    /// Latest time seen.
    pub now_ms: u64,
}

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
    /// Limits.
    pub settings: Settings,
    /// Counters.
    pub counters: Counters,
    /// Tasks that are not over.
    pub tasks: BTreeMap<TaskId, TaskRecord>,
}

/// The scheduler. Feed it events with [`State::next`], store what [`State::take_changed`] names, then act.
#[derive(Debug)]
pub struct State {
    pub(crate) settings: Settings,
    pub(crate) counters: Counters,
    pub(crate) tasks: BTreeMap<TaskId, Task>,
    pub(crate) queue: Queue,
    pub(crate) locks: Locks,
    pub(crate) timers: BTreeSet<(u64, Timer)>,
    pub(crate) changed: BTreeSet<TaskId>,
}

/// A task and what is indexed about it.
#[derive(Debug)]
pub(crate) struct Task {
    pub plan: Arc<TaskPlan>,
    pub progress: Progress,
    /// Its runs that run, as (step, place).
    pub running: BTreeSet<(u32, u32)>,
}

/// Something that happens by itself when its time comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    /// A run has taken too long.
    Run(RunKey),
    /// A run has waited too long for a named lock.
    Lock(LockRequest),
}

impl State {
    /// A scheduler without tasks.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            counters: Counters::default(),
            tasks: BTreeMap::new(),
            queue: Queue::default(),
            locks: Locks::default(),
            timers: BTreeSet::new(),
            changed: BTreeSet::new(),
        }
    }

    /// A scheduler as it was stored. Ask [`State::open_decisions`] what to go on with, and send a
    /// [`Event::SettingsChanged`] when the limits are other ones now.
    #[must_use]
    pub fn restore(snapshot: Snapshot) -> Self {
        let mut state = Self::new(snapshot.settings);
        state.counters = snapshot.counters;
        for (id, record) in snapshot.tasks {
            state.index(id, &record);
            let running = running(&record.progress);
            let TaskRecord { plan, progress } = record;
            state.tasks.insert(id, Task { plan, progress, running });
        }
        state.queue.take_touched();
        state
    }

    /// Takes one event in, and tells everything that follows from it, in order.
    ///
    /// Time may stand still between two events but never goes back.
    pub fn next(&mut self, now_ms: u64, event: Event) -> Vec<Decision> {
        self.counters.now_ms = self.counters.now_ms.max(now_ms);
        Turn::new(self).take(event)
    }

    /// When the next [`Event::Tick`] is due, if nothing happens before.
    #[must_use]
    pub fn next_wake(&self) -> Option<u64> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Tasks whose record changed since the last call. One that [`State::task`] no longer knows is over.
    pub fn take_changed(&mut self) -> BTreeSet<TaskId> {
        std::mem::take(&mut self.changed)
    }

    /// Counters, to be stored together with every change.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// The limits in force.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// A task that is not over.
    #[must_use]
    pub fn task(&self, task: TaskId) -> Option<(&Arc<TaskPlan>, &Progress)> {
        self.tasks.get(&task).map(|task| (&task.plan, &task.progress))
    }

    /// All tasks that are not over, by number.
    pub fn tasks(&self) -> impl Iterator<Item = (TaskId, &Arc<TaskPlan>, &Progress)> {
        self.tasks.iter().map(|(id, task)| (*id, &task.plan, &task.progress))
    }

    /// Everything that must survive.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let record = |task: &Task| TaskRecord { plan: Arc::clone(&task.plan), progress: task.progress.clone() };
        Snapshot {
            settings: self.settings.clone(),
            counters: self.counters,
            tasks: self.tasks.iter().map(|(id, task)| (*id, record(task))).collect(),
        }
    }

    /// Why something waits, computed from the state as it is. None: it does not wait.
    #[must_use]
    pub fn reason(&self, subject: Subject) -> Option<Reason> {
        let since_ms = reasons::stored(self, subject).map_or(self.counters.now_ms, |told| told.since_ms);
        reasons::cause(self, subject).map(|cause| cause.since(since_ms))
    }

    /// Everything that waits, with the reason.
    #[must_use]
    pub fn waiting(&self) -> Vec<(Subject, Reason)> {
        let subjects = self.tasks.iter().flat_map(|(id, task)| subjects(*id, task));
        subjects.filter_map(|subject| Some((subject, self.reason(subject)?))).collect()
    }

    /// Every resource in use: who holds it, and who waits for it, in order.
    #[must_use]
    pub fn locks(&self) -> Vec<LockView> {
        self.locks.views().collect()
    }

    /// The stable id of a run, by which machines and journals know it.
    #[must_use]
    pub fn run_id(&self, run: RunKey) -> Option<RunId> {
        let task = self.tasks.get(&run.task)?;
        if task.plan.kind == PlanKind::Script {
            return Some(RunId::script(run.task));
        }
        let machine = task.plan.steps.get(run.step as usize)?.machine(run.place as usize);
        let attempt = task.run(run).map_or(1, |progress| progress.attempt);
        Some(RunId::new(run.task, run.step as usize, machine, attempt))
    }

    fn index(&mut self, id: TaskId, record: &TaskRecord) {
        let TaskRecord { plan, progress } = record;
        let tag = plan.concurrency_tag.as_deref();
        if progress.state == TaskState::Queued {
            self.queue.push(id, plan.kind, tag, plan.priority, progress.ticket);
            return;
        }
        self.queue.restore_running(id, plan.kind, tag, plan.priority, progress.ticket);
        for (index, (step, steps)) in progress.steps.iter().zip(&plan.steps).enumerate() {
            for (place, run) in step.runs.iter().enumerate() {
                let key = RunKey { task: id, step: index as u32, place: place as u32 };
                let machine = steps.machine(place);
                if matches!(run.state, RunState::Waiting | RunState::Running) {
                    let claim = Claim { run: key, call: None };
                    self.locks.insert(claim, steps.wants(machine), run.ticket, run.state == RunState::Running);
                }
                if let Some(Deadline::At(at)) = run.deadline.filter(|_| run.stop.is_none()) {
                    self.timers.insert((at, Timer::Run(key)));
                }
                for (number, call) in &run.calls {
                    let request = LockRequest { run: key, number: *number };
                    let wants = vec![(call.resource.clone(), call.mode)];
                    self.locks.insert(request.into(), wants, call.ticket, call.token.is_some());
                    if call.token.is_none() {
                        self.timers.insert((call.until_ms, Timer::Lock(request)));
                    }
                }
            }
        }
    }

    /// Everything that was started and is not finished, as the decisions that started it.
    ///
    /// After a restart these are to be acted on as if they had just been made: what already
    /// happened is found out by asking the machines.
    #[must_use]
    pub fn open_decisions(&self) -> Vec<Decision> {
        let mut open = Vec::new();
        for (id, task) in &self.tasks {
            if let Packages::Acquiring { open: places, stopping, .. } = &task.progress.packages {
                open.push(Decision::Acquire {
                    task: *id,
                    machines: places.iter().flatten().cloned().collect(),
                    server: places.contains(&None),
                });
                if *stopping {
                    open.push(Decision::StopAcquire { task: *id });
                }
            }
            for (step, place) in &task.running {
                let run = RunKey { task: *id, step: *step, place: *place };
                open_run(task, run, &mut open);
            }
        }
        open
    }
}

fn open_run(task: &Task, run: RunKey, open: &mut Vec<Decision>) {
    let Some((step, progress)) = task.plan.steps.get(run.step as usize).zip(task.run(run)) else {
        return;
    };
    open.push(Decision::StartRun {
        run,
        machine: step.machine(run.place as usize).cloned(),
        attempt: progress.attempt,
        token: progress.token.unwrap_or_default(),
    });
    for (number, call) in &progress.calls {
        if let Some(token) = call.token {
            let request = LockRequest { run, number: *number };
            open.push(Decision::GrantLock { request, token });
        }
    }
    if let Some(kind) = progress.stop {
        open.push(Decision::StopRun { run, kind });
    }
}

fn running(progress: &Progress) -> BTreeSet<(u32, u32)> {
    let steps = progress.steps.iter().enumerate();
    steps
        .flat_map(|(step, progress)| {
            let runs = progress.runs.iter().enumerate();
            runs.filter(|(_, run)| run.state == RunState::Running).map(move |(place, _)| (step as u32, place as u32))
        })
        .collect()
}

/// Everything of a task that may wait.
pub(crate) fn subjects(id: TaskId, task: &Task) -> Vec<Subject> {
    let mut all = vec![Subject::Task(id)];
    for (index, step) in task.progress.steps.iter().enumerate() {
        all.push(Subject::Step(id, index as u32));
        for (place, run) in step.runs.iter().enumerate() {
            let key = RunKey { task: id, step: index as u32, place: place as u32 };
            all.push(Subject::Run(key));
            let calls = run.calls.keys();
            all.extend(calls.map(|number| Subject::Lock(LockRequest { run: key, number: *number })));
        }
    }
    all
}

impl Task {
    pub fn step(&self, step: u32) -> Option<&StepProgress> {
        self.progress.steps.get(step as usize)
    }

    pub fn run(&self, run: RunKey) -> Option<&RunProgress> {
        self.step(run.step)?.runs.get(run.place as usize)
    }

    pub fn run_mut(&mut self, run: RunKey) -> Option<&mut RunProgress> {
        let step = self.progress.steps.get_mut(run.step as usize)?;
        step.runs.get_mut(run.place as usize)
    }
}

impl Serialize for State {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.snapshot().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for State {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Snapshot::deserialize(deserializer).map(Self::restore)
    }
}
