//! The referee's own books: what it knows about each task, run and call.

use std::collections::{BTreeMap, BTreeSet};

use windlass_model::{
    MachineName, RunState, TaskId, TaskState,
    manifest::{LockMode, LockNeed, LockScope},
};
use windlass_scheduler::{Isolation, Question, RunKey, StepPlan, StopKind, TaskPlan, WaitOn, Where};

pub type Place = Option<MachineName>;

#[derive(Debug, Default)]
pub struct Books {
    pub plan: Option<TaskPlan>,
    /// Set when it was moved to the top; the higher, the later that was.
    pub top: u64,
    /// Place in the order of queueing.
    pub ticket: u64,
    /// It waits for people only, and others of its tag may execute.
    pub paused: bool,
    pub state: Option<TaskState>,
    pub cancelled: bool,
    /// A run failed, packages did not arrive, or a step was refused.
    pub failed: bool,
    /// Something failed and a person may have let it pass: the end may be either.
    pub excused: bool,
    pub acquired: BTreeSet<Place>,
    pub open_places: Vec<Place>,
    pub asked_places: BTreeSet<Place>,
    pub stop_places: bool,
    /// When its transfer was told to stop.
    pub stopping_since: Option<u64>,
    pub lost_packages: bool,
    pub excluded: BTreeSet<MachineName>,
    pub steps: BTreeMap<u32, RunState>,
    /// Runs that have begun, failed or not, and are not over.
    pub lanes: BTreeMap<u32, BTreeSet<u32>>,
    pub questions: BTreeMap<u64, Question>,
    pub facts: BTreeMap<u32, Option<bool>>,
    pub approved: BTreeSet<u32>,
    pub holds: Vec<Held>,
}

/// A lock held by a step or a task.
#[derive(Debug, Clone)]
pub struct Held {
    pub step: Option<u32>,
    pub need: Need,
}

#[derive(Debug, Clone)]
pub struct Running {
    pub machine: Place,
    pub token: u64,
    pub stop: Option<StopKind>,
    /// When it was told so.
    pub stopped_ms: u64,
    /// Whether that was for taking too long.
    pub late: bool,
    /// How long it has worked, waits excluded.
    pub worked_ms: u64,
    pub waits: Option<WaitOn>,
    /// When it goes on in any case.
    pub wakes_ms: Option<u64>,
    pub needs: Vec<Need>,
}

#[derive(Debug)]
pub struct Call {
    pub need: Need,
    pub order: u64,
    pub token: Option<u64>,
    /// When its wait ends without a lock.
    pub until_ms: u64,
}

/// A run that waits for its locks.
#[derive(Debug, Clone, Copy)]
pub struct Queued {
    pub order: u64,
    pub since_ms: u64,
}

/// A run that failed and is tried again.
#[derive(Debug, Clone, Copy, Default)]
pub struct Retry {
    /// How often that was by itself, and how often because a person said so.
    pub own: u32,
    pub person: u32,
    /// Not before.
    pub due_ms: u64,
}

/// What is needed of a resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Need {
    pub name: String,
    pub mode: LockMode,
    pub scope: LockScope,
    pub units: u32,
    pub of: Option<u32>,
}

pub fn exclusive(a: &Need, b: &Need) -> bool {
    a.name == b.name && (a.mode == LockMode::Exclusive || b.mode == LockMode::Exclusive)
}

/// Whether two needs may ever be in each other's way.
pub fn rivals(a: &Need, b: &Need) -> bool {
    a.name == b.name && (exclusive(a, b) || a.of.is_some() || b.of.is_some())
}

pub fn need(machine: &Place, declared: &LockNeed) -> Need {
    let name = match (machine, declared.resource.strip_prefix("global:")) {
        (_, Some(global)) => format!("global:{global}"),
        (None, None) => format!("global:{}", declared.resource),
        (Some(machine), None) => format!("machine:{}/{}", machine.key(), declared.resource),
    };
    let units = declared.units.unwrap_or(1).min(declared.of.unwrap_or(u32::MAX));
    Need { name, mode: declared.mode, scope: declared.scope, units, of: declared.of }
}

/// What a run on `machine` must hold.
pub fn needs(step: &StepPlan, machine: &Place, lease_cap: u32) -> Vec<Need> {
    let whole = |mode| {
        let name = machine.as_ref().map(|name| format!("machine:{}", name.key()));
        name.map(|name| Need { name, mode, scope: step.hold, units: 1, of: None })
    };
    let mut needs: Vec<Need> = match &step.isolation {
        Isolation::Exclusive => whole(LockMode::Exclusive).into_iter().collect(),
        Isolation::Shared => whole(LockMode::Shared).into_iter().collect(),
        Isolation::Resources(named) => {
            whole(LockMode::Shared).into_iter().chain(named.iter().map(|declared| need(machine, declared))).collect()
        }
    };
    if let (Where::Pool(_), Some(worker), 1..) = (&step.place, machine, lease_cap) {
        let name = format!("lease:{}", worker.key());
        needs.push(Need { name, mode: LockMode::Shared, scope: LockScope::Call, units: 1, of: Some(lease_cap) });
    }
    needs
}

impl Books {
    pub fn plan(&self) -> &TaskPlan {
        self.plan.as_ref().unwrap()
    }

    pub fn executes(&self) -> bool {
        matches!(self.state, Some(TaskState::Executing | TaskState::Cancelling))
    }

    pub fn step(&self, run: RunKey) -> &StepPlan {
        &self.plan().steps[run.step as usize]
    }
}

pub fn unit(plan: &TaskPlan, step: u32) -> std::ops::Range<u32> {
    let mut lead = step;
    while lead > 0 && plan.steps[lead as usize].child {
        lead -= 1;
    }
    let mut end = lead + 1;
    while (end as usize) < plan.steps.len() && plan.steps[end as usize].child {
        end += 1;
    }
    lead..end
}

pub fn children_of(tasks: &BTreeMap<TaskId, Books>, of: TaskId) -> Vec<TaskId> {
    let child = |books: &Books| books.plan().parent.is_some_and(|parent| parent.run.task == of && !parent.detached);
    tasks.iter().filter(|(_, books)| child(books)).map(|(id, _)| *id).collect()
}
