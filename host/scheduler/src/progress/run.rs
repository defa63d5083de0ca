//! How far one run is.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use windlass_model::{MachineName, RunState};

use super::Told;
use crate::{
    event::{StopKind, WaitOn},
    question::Answer,
    resource::Resource,
    step::Want,
};

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

impl Call {
    /// Whether it stands in the queue of its lock.
    #[must_use]
    pub fn waits(&self) -> bool {
        !self.held && self.refused.is_none()
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
