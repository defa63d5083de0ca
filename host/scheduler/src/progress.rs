//! How far a task is: everything about it that must survive, one record a task.
//!
//! A task's record is its plan, which never changes, and its progress. All indexes of the scheduler are
//! rebuilt from these records and the few tables of [`Snapshot`](crate::Snapshot).

mod run;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};
use windlass_model::{MachineName, RunState, TaskState};

use crate::{cause::Cause, plan::TaskPlan, question::Question, step::Want};
pub use run::{Call, Deadline, Phase, Resume, RunProgress, Stop, Suspended};

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
