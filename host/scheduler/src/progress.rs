//! How far a task is: everything about it that must survive, one record a task.
//!
//! A task's record is its plan, which never changes, and its progress. All indexes of the scheduler are
//! rebuilt from these records and the few tables of [`Snapshot`](crate::Snapshot).

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};
use windlass_model::{MachineName, RunState, TaskState};

use crate::{
    cause::Cause,
    event::{StopKind, WaitOn},
    plan::TaskPlan,
    question::{Answer, Question},
    resource::Resource,
    step::Want,
};

/// What changes about a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Queued, executing or cancelling; a task that is over has no progress.
    pub state: TaskState,
    /// Place in the order of queueing.
    pub ticket: u64,
    /// Set when it was moved to the top; the higher, the later that was.
    pub top: u64,
    /// Place in the order of those that want to go on.
    pub resume: u64,
    /// When it was queued.
    pub queued_ms: u64,
    /// When it started.
    pub started_ms: Option<u64>,
    /// Whether it holds its concurrency tag.
    pub tagged: bool,
    /// Whether it counts against the cap: something of it works.
    pub seated: bool,
    /// What went wrong first. Set: a step failed, and steps that want success are skipped.
    pub error: Option<String>,
    /// Where its packages are.
    pub packages: Packages,
    /// Leads of the open group that have not started.
    pub todo: BTreeSet<u32>,
    /// End of the open group.
    pub group_end: u32,
    /// Leads of the units that run.
    pub active: BTreeSet<u32>,
    /// Places taken in the windows of all its units together.
    pub lanes: u32,
    /// Machines that take part in nothing more, each with the reason.
    pub excluded: BTreeMap<MachineName, String>,
    /// What it holds longer than a run takes.
    pub holds: Vec<GroupHold>,
    /// Questions that wait for a person.
    pub questions: BTreeMap<u64, Question>,
    /// Its steps, as in the plan.
    pub steps: Vec<StepProgress>,
    /// Why it waits, as last told.
    pub told: Option<Told>,
}

/// Why something waits, and since when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// Why, as last told.
    pub cause: Cause,
    /// Since when.
    pub since_ms: u64,
}

/// A lock that is held by a step or by the whole task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupHold {
    /// The step that holds it; none: the task.
    pub step: Option<u32>,
    /// What is held.
    pub want: Want,
    /// Token of the run that took it.
    pub token: u64,
}

/// Where the packages of a task are.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Packages {
    /// No step has needed them yet.
    #[default]
    NotNeeded,
    /// They are on their way.
    Acquiring(Acquiring),
    /// They are everywhere.
    Acquired,
    /// They did not get everywhere: no step that needs one will start.
    Failed,
}

/// Packages on their way.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Acquiring {
    /// Places whose turn has not come; none stands for the server.
    pub todo: VecDeque<Option<MachineName>>,
    /// Places that have been told to be supplied and have not reported.
    pub open: Vec<Option<MachineName>>,
    /// Places that failed, and a person is asked what to do.
    pub asking: Vec<Option<MachineName>>,
    /// How many places there are in all.
    pub places: u32,
    /// Whether they will not get everywhere.
    pub failed: bool,
    /// When the transfer was told to stop.
    pub stopping: Option<u64>,
}

impl Acquiring {
    /// Whether nothing is left to wait for.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.todo.is_empty() && self.open.is_empty() && self.asking.is_empty()
    }
}

/// How far a step is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepProgress {
    /// Where it stands as a whole.
    pub state: RunState,
    /// On the lead of a unit: machines before this one have had their turn.
    pub next_place: u32,
    /// On the lead of a unit: places taken in its window.
    pub open: u32,
    /// On the lead of a unit: whether its machines wait for the task's count of runs, not for its own window.
    pub starved: bool,
    /// Runs that are over.
    pub settled: u32,
    /// Whether the fact it asks for holds. While it is not known and was asked for, the step waits.
    pub fact: Option<bool>,
    /// Whether it asked for its fact, or for its approval.
    pub asked: bool,
    /// Whether a person agreed.
    pub approved: bool,
    /// Why it waits, as last told.
    pub told: Option<Told>,
    /// Its runs, by place; empty until the step starts, and once it is over.
    pub runs: Vec<RunProgress>,
}

/// How far a run is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunProgress {
    /// Where it stands.
    pub phase: Phase,
    /// Which attempt it is, from 1.
    pub attempt: u32,
    /// Place in the queues of the locks it waits for.
    pub ticket: u64,
    /// Fencing token; 0 until it has its locks.
    pub token: u64,
    /// When it is stopped for taking too long. While it waits: the time it has left.
    pub deadline: Option<Deadline>,
    /// Set once it was told to stop.
    pub stop: Option<Stop>,
    /// What it is suspended for.
    pub waits: Option<Suspended>,
    /// Set when a person let its failure pass.
    pub pardoned: bool,
    /// How often a person had it tried again.
    pub person_retries: u32,
    /// What went wrong.
    pub error: Option<String>,
    /// What of its step's locks a person took away from it.
    pub broken: Vec<Resource>,
    /// Worker chosen from its pool.
    pub worker: Option<MachineName>,
    /// Set while it has a lease of that worker, or waits for one: how many there are; 0: any number.
    pub lease: Option<u32>,
    /// Why it waits, as last told.
    pub told: Option<Told>,
    /// Its named locks, asked for or held, by number.
    pub calls: BTreeMap<u64, Call>,
}

/// Where a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Its turn in the window has not come.
    Pending,
    /// Waits for a pool to have a worker, until this time.
    Pool(u64),
    /// Waits for its locks, until this time.
    Locks(u64),
    /// Has its locks and waits for its task's place under the cap.
    Seat,
    /// Runs, or is suspended.
    Running,
    /// Failed, and is tried again at this time.
    Backoff(u64),
    /// Failed, and a person is asked.
    Asking,
    /// Over.
    Over(RunState),
}

impl Phase {
    /// The state that people see.
    #[must_use]
    pub fn state(self) -> RunState {
        match self {
            Self::Pending => RunState::Pending,
            Self::Pool(_) | Self::Locks(_) | Self::Seat | Self::Backoff(_) | Self::Asking => RunState::Waiting,
            Self::Running => RunState::Running,
            Self::Over(state) => state,
        }
    }

    /// Whether it has taken its turn and is not over.
    #[must_use]
    pub fn is_open(self) -> bool {
        !matches!(self, Self::Pending | Self::Over(_))
    }
}

/// A run that was told to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stop {
    /// Why it was told first.
    pub why: StopKind,
    /// With what force it was told last.
    pub kind: StopKind,
    /// When more force is used.
    pub until_ms: u64,
}

/// What a run is suspended for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suspended {
    /// What it waits for.
    pub on: WaitOn,
    /// When it is resumed in any case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_ms: Option<u64>,
    /// Order of its wait among all waits.
    pub ticket: u64,
    /// It has come; the run waits for its task's place only. With what it is to be told.
    pub ready: Option<Box<Resume>>,
}

/// What a run is told when it goes on.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Resume {
    /// A person's answer.
    pub answer: Option<Answer>,
    /// Why it does not get what it waited for.
    pub error: Option<String>,
}

/// The time limit of a run. The clock stands still while the run waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Deadline {
    /// It is stopped at this time.
    At(u64),
    /// It waits, and has so many milliseconds left.
    Paused(u64),
}

/// A named lock that a run asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// What it asked for.
    pub want: Want,
    /// Place in the queue.
    pub ticket: u64,
    /// Whether it holds the lock.
    pub held: bool,
    /// The token under which it does.
    pub grant: u64,
    /// Whether a person took it away.
    pub broken: bool,
    /// Why the run does not get it; it is told once its task has its turn.
    pub refused: Option<String>,
    /// Fencing token, once the run was told.
    pub token: Option<u64>,
    /// When the wait ends without a lock.
    pub until_ms: u64,
    /// Why it waits, as last told.
    pub told: Option<Told>,
}

impl Progress {
    pub(crate) fn new(plan: &TaskPlan, ticket: u64, now_ms: u64) -> Self {
        Self {
            state: TaskState::Queued,
            ticket,
            top: 0,
            resume: 0,
            queued_ms: now_ms,
            started_ms: None,
            tagged: false,
            seated: false,
            error: None,
            packages: Packages::NotNeeded,
            todo: BTreeSet::new(),
            group_end: 0,
            active: BTreeSet::new(),
            lanes: 0,
            excluded: BTreeMap::new(),
            holds: Vec::new(),
            questions: BTreeMap::new(),
            steps: vec![StepProgress::new(); plan.steps.len()],
            told: None,
        }
    }
}

impl Call {
    /// Whether it stands in the queue of its lock.
    #[must_use]
    pub fn waits(&self) -> bool {
        !self.held && self.refused.is_none()
    }
}

impl StepProgress {
    fn new() -> Self {
        Self {
            state: RunState::Pending,
            next_place: 0,
            open: 0,
            starved: false,
            settled: 0,
            fact: None,
            asked: false,
            approved: false,
            told: None,
            runs: Vec::new(),
        }
    }
}

impl RunProgress {
    pub(crate) fn pending() -> Self {
        Self {
            phase: Phase::Pending,
            attempt: 1,
            ticket: 0,
            token: 0,
            deadline: None,
            stop: None,
            waits: None,
            pardoned: false,
            person_retries: 0,
            error: None,
            broken: Vec::new(),
            worker: None,
            lease: None,
            told: None,
            calls: BTreeMap::new(),
        }
    }

    /// Whether it waits for a named lock.
    #[must_use]
    pub fn waits_for_lock(&self) -> bool {
        self.calls.values().any(|call| call.token.is_none())
    }

    /// Whether it does something: it runs and waits for nothing.
    #[must_use]
    pub fn works(&self) -> bool {
        self.phase == Phase::Running && self.waits.is_none() && !self.waits_for_lock()
    }
}
