//! A second opinion: what the scheduler may do, told from the plans, the events and the decisions alone.
//!
//! It keeps its own books (who runs, who holds what, how far packages are) and panics at the first decision that
//! breaks a rule. It shares no code with the scheduler's own books.

pub mod books;
mod clock;
mod decisions;
mod events;
pub mod graph;
mod locks;
mod order;
mod rules;
mod settled;

use std::collections::{BTreeMap, BTreeSet};

use windlass_model::{MachineName, PoolName, RunState, TaskId};
use windlass_scheduler::{Cause, Event, LockRequest, RunKey, Settings, Subject, WaitOn};

use books::{Books, Call, Held, Need, Place, Queued, Retry, Running, children_of, need, needs, unit};

#[derive(Debug, Default)]
pub struct Referee {
    pub now: u64,
    pub settings: Settings,
    /// Limits are not taken back when they are lowered, so the widest ones count.
    widest: Settings,
    pub tasks: BTreeMap<TaskId, Books>,
    pub running: BTreeMap<RunKey, Running>,
    pub calls: BTreeMap<LockRequest, Call>,
    /// Runs that were told to wait for a lock, in the order in which they were.
    queued_runs: BTreeMap<RunKey, Queued>,
    /// Runs that wait for a worker, and since when.
    worker_waits: BTreeMap<RunKey, u64>,
    /// What abandoned runs held.
    pub fences: BTreeMap<RunKey, Vec<Need>>,
    /// How runs ended that are over, while their task is not; and those that a person let pass.
    over: BTreeMap<RunKey, RunState>,
    pardoned: BTreeSet<RunKey>,
    /// Runs whose machine could not be reached, where that does not count as a failure.
    unreached: BTreeSet<RunKey>,
    retries: BTreeMap<RunKey, Retry>,
    /// Runs that ended after they were stopped for taking too long.
    late: BTreeSet<RunKey>,
    /// Workers that a pool ever had, and how many runs each may have; 0 once that was changed.
    pools: BTreeMap<PoolName, (BTreeSet<MachineName>, u32)>,
    attempts: BTreeMap<RunKey, u32>,
    asked: u64,
    /// Highest token of any holder, and of any exclusive one, by resource.
    tokens: BTreeMap<String, (u64, u64)>,
    told: BTreeMap<Subject, Cause>,
    /// The event that is judged.
    event: Option<Event>,
    /// Tasks that worked when the event came.
    worked: BTreeSet<TaskId>,
    /// Executing tasks that waited for a place only when the event came.
    resuming: BTreeSet<TaskId>,
    /// Tasks by whom each was waited for when the event came, to judge who may pass whom.
    before: BTreeMap<TaskId, BTreeSet<TaskId>>,
    deadlocks: Vec<Subject>,
    pub withdrawn: Option<LockRequest>,
    ended: BTreeSet<TaskId>,
    /// Tasks that succeeded, with their keys of superseding.
    succeeded: Vec<(TaskId, String)>,
}

impl Referee {
    pub fn new(settings: Settings) -> Self {
        Self { widest: settings.clone(), settings, ..Self::default() }
    }

    /// Runs that run, suspended or not.
    pub fn runs(&self) -> Vec<RunKey> {
        self.running.keys().copied().collect()
    }

    /// Runs that do something.
    pub fn working(&self) -> Vec<RunKey> {
        self.running.keys().copied().filter(|run| self.works(*run)).collect()
    }

    pub fn works(&self, run: RunKey) -> bool {
        let waits = self.calls.iter().any(|(request, call)| request.run == run && call.token.is_none());
        !waits && self.running.get(&run).is_some_and(|running| running.waits.is_none())
    }

    pub fn task_works(&self, task: TaskId) -> bool {
        let packages = self.tasks.get(&task).is_some_and(|books| !books.open_places.is_empty());
        packages || self.running.keys().any(|run| run.task == task && self.works(*run))
    }

    pub fn acquiring(&self) -> Vec<(TaskId, Place)> {
        let places = |(id, books): (&TaskId, &Books)| {
            books.open_places.iter().map(|place| (*id, place.clone())).collect::<Vec<_>>()
        };
        self.tasks.iter().flat_map(places).collect()
    }

    pub fn facts(&self) -> Vec<(TaskId, u32)> {
        let open = |(id, books): (&TaskId, &Books)| {
            let unknown = books.facts.iter().filter(|(_, fact)| fact.is_none());
            unknown.map(|(step, _)| (*id, *step)).collect::<Vec<_>>()
        };
        self.tasks.iter().flat_map(open).collect()
    }

    pub fn questions(&self) -> Vec<(TaskId, u64)> {
        self.tasks.iter().flat_map(|(id, books)| books.questions.keys().map(|number| (*id, *number))).collect()
    }

    pub fn calls(&self) -> Vec<LockRequest> {
        self.calls.keys().copied().collect()
    }

    pub fn next_call(&self, run: RunKey, again: bool) -> u64 {
        let last = self.calls.keys().filter(|request| request.run == run).map(|request| request.number).max();
        last.map_or(0, |last| if again { last } else { last + 1 })
    }

    /// A task that may still be named in a plan as the one whose run queued it.
    pub fn parent_for(&self, which: usize) -> Option<RunKey> {
        let runs = self.runs();
        (!runs.is_empty()).then(|| runs[which % runs.len()])
    }

    /// Whether a run waits for something that only it knows of, and not for its turn since that has come, or its end.
    pub fn waits_for_other(&self, run: RunKey) -> bool {
        let running = &self.running[&run];
        let waits = matches!(running.waits, Some(WaitOn::Other(_)));
        waits && running.stop.is_none() && self.told.get(&Subject::Run(run)) != Some(&Cause::Turn)
    }

    pub fn lease_cap(&self, run: RunKey) -> u32 {
        match &self.tasks[&run.task].step(run).place {
            windlass_scheduler::Where::Pool(pool) => self.pools.get(pool).map_or(0, |(_, cap)| *cap),
            _ => 0,
        }
    }
}
