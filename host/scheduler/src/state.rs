//! The state of the scheduler: the tasks that are not over, and the indexes made from them.
//!
//! This file owns the tables and looking at them. What happens when lives in [`turn`](crate::turn) and the
//! files beside it, storing and restoring in [`snapshot`](crate::snapshot).

mod task;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use windlass_model::{MachineName, PoolName, RunId, TaskId, task::Reason};

use crate::{
    decision::Decision,
    event::{Event, RunKey, Subject},
    hash::{ByTask, Map},
    locks::{LockView, Locks},
    plan::{PlanKind, Settings, TaskPlan},
    progress::{Progress, RunProgress},
    queue::Queue,
    step::Want,
    timers::Timers,
    turn::{Lists, Turn},
};

pub(crate) use task::Task;

/// Counters that only grow. Tokens and numbers of questions must never be given twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counters {
    /// Last place given in any queue.
    pub ticket: u64,
    /// Last fencing token given.
    pub token: u64,
    /// Last number given to a question.
    pub question: u64,
    /// Latest time seen.
    pub now_ms: u64,
}

/// What is left of an abandoned run: a resource that nobody is given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fence {
    /// The run.
    pub run: RunKey,
    /// Number among the fences of that run.
    pub number: u32,
    /// What stays held.
    pub want: Want,
    /// Token under which the run held it.
    pub token: u64,
    /// Title of the run's task.
    pub title: String,
    /// Step and machine, in words.
    pub place: String,
    /// Its machine.
    pub machine: Option<MachineName>,
    /// Since when.
    pub since_ms: u64,
}

/// The usable workers of a pool.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Pool {
    /// The workers.
    pub workers: BTreeSet<MachineName>,
    /// Runs at once on each; 0: any number.
    pub lease_cap: u32,
}

/// The scheduler. Feed it events with [`State::next`], store them, then act on the decisions.
#[derive(Debug, Clone)]
pub struct State {
    pub(crate) settings: Settings,
    pub(crate) counters: Counters,
    /// Each on its own: the table stays small, and a queued task costs what it holds.
    pub(crate) tasks: ByTask<Box<Task>>,
    pub(crate) queue: Queue,
    pub(crate) locks: Locks,
    pub(crate) timers: Timers,
    pub(crate) fences: BTreeMap<(RunKey, u32), Fence>,
    pub(crate) pools: BTreeMap<PoolName, Pool>,
    /// Runs that wait for a pool to have a worker, by pool and ticket.
    pub(crate) pool_queue: BTreeSet<(PoolName, u64, RunKey)>,
    /// Runs on each worker, waiting ones included.
    pub(crate) leases: BTreeMap<MachineName, u32>,
    /// Tasks that may be superseded, by key.
    pub(crate) superseding: Map<String, BTreeSet<TaskId>>,
    /// What people are asked about deadlocks, and of which task.
    pub(crate) asked_deadlocks: BTreeSet<(TaskId, u64)>,
    /// Runs that wait for the end of a task.
    pub(crate) awaiters: ByTask<BTreeSet<RunKey>>,
    /// What a turn works off: empty between turns, and kept so that none has to make them anew.
    pub(crate) lists: Lists,
}

impl State {
    /// A scheduler without tasks.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            counters: Counters::default(),
            tasks: ByTask::default(),
            queue: Queue::default(),
            locks: Locks::default(),
            timers: Timers::default(),
            fences: BTreeMap::new(),
            pools: BTreeMap::new(),
            pool_queue: BTreeSet::new(),
            leases: BTreeMap::new(),
            superseding: Map::default(),
            asked_deadlocks: BTreeSet::new(),
            awaiters: ByTask::default(),
            lists: Lists::default(),
        }
    }

    /// Takes one event in, and tells everything that follows from it, in order.
    ///
    /// Time may stand still between two events but never goes back. What was due before the event happens first,
    /// as if an [`Event::Tick`] had come in time.
    pub fn next(&mut self, now_ms: u64, event: Event) -> Vec<Decision> {
        self.counters.now_ms = self.counters.now_ms.max(now_ms);
        let overdue = self.next_wake().is_some_and(|at| at < self.counters.now_ms) && event != Event::Tick;
        if !overdue {
            return self.turn(event);
        }
        let mut decisions = self.turn(Event::Tick);
        decisions.append(&mut self.turn(event));
        decisions
    }

    fn turn(&mut self, event: Event) -> Vec<Decision> {
        let decisions = Turn::new(self).take(event);
        self.drop_stale_timers();
        decisions
    }

    /// When the next [`Event::Tick`] is due, if nothing happens before.
    #[must_use]
    pub fn next_wake(&self) -> Option<u64> {
        self.timers.first().map(|(at, _)| at)
    }

    /// Counters.
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
        let tasks = self.task_ids().into_iter().filter_map(|id| Some((id, self.tasks.get(&id)?)));
        tasks.map(|(id, task)| (id, &task.plan, &task.progress))
    }

    pub(crate) fn task_ids(&self) -> Vec<TaskId> {
        let mut ids: Vec<_> = self.tasks.keys().copied().collect();
        ids.sort_unstable();
        ids
    }

    /// Every resource in use: who holds it, and who waits for it, in order.
    #[must_use]
    pub fn locks(&self) -> Vec<LockView> {
        self.locks.views()
    }

    /// What is left of abandoned runs.
    pub fn fences(&self) -> impl Iterator<Item = &Fence> {
        self.fences.values()
    }

    /// The stable id of a run, by which machines and journals know it.
    #[must_use]
    pub fn run_id(&self, run: RunKey) -> Option<RunId> {
        let task = self.tasks.get(&run.task)?;
        if task.plan.kind == PlanKind::Script {
            return Some(RunId::script(run.task));
        }
        let attempt = task.run(run).map_or(1, |progress| progress.attempt);
        Some(RunId::new(run.task, run.step as usize, task.machine(run), attempt))
    }

    /// Why something waits, in full. None: it does not wait.
    #[must_use]
    pub fn reason(&self, subject: Subject) -> Option<Reason> {
        crate::words::reason(self, subject)
    }

    /// The sentence for a cause that was just told, and its kind.
    #[must_use]
    pub fn sentence(&self, subject: Subject, cause: &crate::cause::Cause) -> (&'static str, String) {
        (crate::words::kind(cause), crate::words::text(self, subject, cause))
    }

    /// Everything that waits, with the reason.
    #[must_use]
    pub fn waiting(&self) -> Vec<(Subject, Reason)> {
        let subjects = self.task_ids().into_iter().flat_map(|id| self.subjects(id));
        subjects.filter_map(|subject| Some((subject, self.reason(subject)?))).collect()
    }

    /// Everything of a task that waits, with the reason: the task, its steps, its runs and their locks.
    #[must_use]
    pub fn why(&self, task: TaskId) -> Vec<(Subject, Reason)> {
        let subjects = self.subjects(task).into_iter();
        subjects.filter_map(|subject| Some((subject, self.reason(subject)?))).collect()
    }

    /// Everything of a task that may wait.
    pub(crate) fn subjects(&self, id: TaskId) -> Vec<Subject> {
        let mut all = vec![Subject::Task(id)];
        let steps = self.tasks.get(&id).map(|task| &task.progress.steps);
        for (index, step) in steps.into_iter().flatten().enumerate() {
            all.push(Subject::Step(id, index as u32));
            for (place, run) in step.runs.iter().enumerate() {
                let run_key = RunKey { task: id, step: index as u32, place: place as u32 };
                all.push(Subject::Run(run_key));
                let request = |number: &u64| crate::event::LockRequest { run: run_key, number: *number };
                all.extend(run.calls.keys().map(|number| Subject::Lock(request(number))));
            }
        }
        all
    }

    /// Gives back the room that reading left over: lists that grew while they were read, and are what they are now.
    pub fn give_back_room(&mut self) {
        for task in self.tasks.values_mut() {
            if let Some(plan) = Arc::get_mut(&mut task.plan) {
                plan.steps.shrink_to_fit();
            }
            task.progress.steps.shrink_to_fit();
            for step in &mut task.progress.steps {
                step.runs.shrink_to_fit();
            }
        }
    }

    pub(crate) fn run_mut(&mut self, key: RunKey) -> Option<&mut RunProgress> {
        self.tasks.get_mut(&key.task)?.run_mut(key)
    }

    pub(crate) fn run(&self, key: RunKey) -> Option<&RunProgress> {
        self.tasks.get(&key.task)?.run(key)
    }
}
