//! How far a task is: everything about it that must survive, one record a task.
//!
//! A task's record is its plan, which never changes, and its progress. All indexes of the scheduler are
//! rebuilt from these records, so storing the changed ones is all that durability needs.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use windlass_model::{MachineName, RunState, TaskState, manifest::LockMode, task::Reason};

use crate::{
    event::StopKind,
    plan::{Resource, TaskPlan},
};

/// What changes about a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Queued, executing or cancelling; a task that is over has no progress.
    pub state: TaskState,
    /// Place in the order of queueing.
    pub ticket: u64,
    /// When it was queued.
    pub queued_ms: u64,
    /// When it started.
    pub started_ms: Option<u64>,
    /// What went wrong first. Set: a step failed, and steps that want success are skipped.
    pub error: Option<String>,
    /// Where its packages are.
    pub packages: Packages,
    /// Steps before this one have started or ended.
    pub next_step: u32,
    /// End of the current group: the steps up to here may start.
    pub group_end: u32,
    /// Steps that run.
    pub active: BTreeSet<u32>,
    /// Its steps, as in the plan.
    pub steps: Vec<StepProgress>,
    /// Why it waits, as last told.
    pub reason: Option<Reason>,
}

/// Where the packages of a task are.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Packages {
    /// No step has needed them yet.
    #[default]
    NotNeeded,
    /// They are on their way.
    Acquiring {
        /// Places that have not reported; none stands for the server.
        open: Vec<Option<MachineName>>,
        /// How many places there are in all.
        places: usize,
        /// Whether the transfer was told to stop.
        stopping: bool,
    },
    /// They are everywhere.
    Acquired,
    /// They did not get everywhere: no step that needs one will start.
    Failed,
}

/// How far a step is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepProgress {
    /// Where it stands as a whole.
    pub state: RunState,
    /// Runs before this one have had their turn.
    pub next_place: u32,
    /// Runs that wait for locks or run.
    pub open: u32,
    /// Why it waits, as last told.
    pub reason: Option<Reason>,
    /// Its runs, by place; empty until the step starts.
    pub runs: Vec<RunProgress>,
}

/// How far a run is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunProgress {
    /// Where it stands.
    pub state: RunState,
    /// Which attempt it is, from 1.
    pub attempt: u32,
    /// Place in the queues of the locks it waits for.
    pub ticket: u64,
    /// Fencing token, once it has its locks.
    pub token: Option<u64>,
    /// When it is stopped for taking too long. While it waits for a lock: the time it has left.
    pub deadline: Option<Deadline>,
    /// Set once it was told to stop.
    pub stop: Option<StopKind>,
    /// What went wrong.
    pub error: Option<String>,
    /// Why it waits, as last told.
    pub reason: Option<Reason>,
    /// Its named locks, asked for or held, by number.
    pub calls: BTreeMap<u64, Call>,
}

/// The time limit of a run. The clock stands still while the run waits for a named lock.
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
    pub resource: Resource,
    /// How it is to be held.
    pub mode: LockMode,
    /// Place in the queue.
    pub ticket: u64,
    /// Fencing token, once granted.
    pub token: Option<u64>,
    /// When the wait ends without a lock.
    pub until_ms: u64,
    /// Why it waits, as last told.
    pub reason: Option<Reason>,
}

impl Progress {
    pub(crate) fn new(plan: &TaskPlan, ticket: u64, now_ms: u64) -> Self {
        let step = StepProgress { state: RunState::Pending, next_place: 0, open: 0, reason: None, runs: Vec::new() };
        Self {
            state: TaskState::Queued,
            ticket,
            queued_ms: now_ms,
            started_ms: None,
            error: None,
            packages: Packages::NotNeeded,
            next_step: 0,
            group_end: 0,
            active: BTreeSet::new(),
            steps: vec![step; plan.steps.len()],
            reason: None,
        }
    }
}

impl RunProgress {
    pub(crate) fn pending() -> Self {
        Self {
            state: RunState::Pending,
            attempt: 1,
            ticket: 0,
            token: None,
            deadline: None,
            stop: None,
            error: None,
            reason: None,
            calls: BTreeMap::new(),
        }
    }

    /// Whether it waits for a named lock.
    #[must_use]
    pub fn waits_for_lock(&self) -> bool {
        self.calls.values().any(|call| call.token.is_none())
    }
}
