//! What goes into the scheduler: events, as plain data.
//!
//! Events are facts. An event about something that is already over is ignored, so whoever drives the
//! scheduler may repeat one after a crash.

use serde::{Deserialize, Serialize};
use windlass_model::{
    MachineName, PoolName, TaskId,
    manifest::{LockMode, LockScope},
};

use crate::{
    plan::{Settings, TaskPlan},
    question::{Answer, Choice},
    resource::Resource,
};

/// Names a run: the place-th run of a step of a task, counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RunKey {
    /// Task it belongs to.
    pub task: TaskId,
    /// Index of its step in the plan.
    pub step: u32,
    /// Index of its machine in the step; 0 on the server.
    pub place: u32,
}

/// Names a run's wish for a named lock. The number is the run's own, such as its place in the
/// journal, so that a replayed run asks for the same lock again and is given the same answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LockRequest {
    /// Run that asks.
    pub run: RunKey,
    /// Number of the wish in the run.
    pub number: u64,
}

/// What a run asks for with a named lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockWish {
    /// Name of the resource: on the run's machine, unless it starts with `global:` or there is none.
    pub resource: String,
    /// How it is to be held.
    pub mode: LockMode,
    /// How long it is to be held.
    #[serde(default)]
    pub scope: LockScope,
    /// Units taken, when it is a counted one.
    #[serde(default)]
    pub units: Option<u32>,
    /// Units there are in all.
    #[serde(default)]
    pub of: Option<u32>,
    /// How long the run is ready to wait. None: what its task or the settings say.
    #[serde(default)]
    pub wait_limit_ms: Option<u64>,
}

impl LockWish {
    /// A whole resource, until it is given back.
    #[must_use]
    pub fn new(resource: impl Into<String>, mode: LockMode) -> Self {
        Self { resource: resource.into(), mode, scope: LockScope::Call, units: None, of: None, wait_limit_ms: None }
    }
}

/// What a suspended run waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WaitOn {
    /// The end of all these tasks. It is resumed by itself.
    Tasks(Vec<TaskId>),
    /// A moment. It is resumed by itself.
    Until(u64),
    /// A person's answer. It is resumed by itself, with the answer.
    Person(Box<Ask>),
    /// Something only the run knows of, in words. [`Event::RunReady`] ends it.
    Other(String),
    /// Any of the others, but no longer than until a moment: then it is resumed all the same.
    Limited {
        /// What it waits for.
        on: Box<WaitOn>,
        /// The moment.
        until_ms: u64,
    },
}

impl WaitOn {
    /// The same with a limit.
    #[must_use]
    pub fn until(self, until_ms: u64) -> Self {
        Self::Limited { on: Box::new(self), until_ms }
    }
}

/// A question that a run asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ask {
    /// What the person reads.
    pub text: String,
    /// The answers there are.
    pub choices: Vec<Choice>,
    /// Who may answer. Empty: whoever may deploy.
    pub responsible: Vec<String>,
    /// How long there is to answer, and what counts as the answer after that.
    pub expiry: Option<(u64, Choice)>,
    /// Whether the task keeps its concurrency tag meanwhile.
    pub keeps_tag: bool,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "event")]
pub enum Event {
    /// A task was queued.
    TaskQueued {
        /// Its number, never used before.
        task: TaskId,
        /// What it does.
        plan: TaskPlan,
    },
    /// Somebody wants a task to stop.
    TaskCancelled {
        /// The task.
        task: TaskId,
    },
    /// Somebody wants a queued task to be the next.
    TaskMovedToTop {
        /// The task.
        task: TaskId,
    },
    /// All packages of a task lie verified on a machine.
    PackagesAcquired {
        /// The task.
        task: TaskId,
        /// The machine; none: the server itself.
        machine: Option<MachineName>,
    },
    /// The packages of a task did not all reach a machine, or the transfer was stopped.
    PackagesFailed {
        /// The task.
        task: TaskId,
        /// The machine; none: the server itself.
        machine: Option<MachineName>,
        /// What went wrong.
        error: String,
        /// Whether the machine could not be reached at all.
        #[serde(default)]
        unavailable: bool,
    },
    /// Whether the fact that a step asked for holds.
    FactGiven {
        /// The task.
        task: TaskId,
        /// Index of the step.
        step: u32,
        /// Whether it holds.
        holds: bool,
    },
    /// A run ended. A script is the only run of its task.
    RunFinished {
        /// The run.
        run: RunKey,
        /// How.
        outcome: RunOutcome,
    },
    /// A run does nothing until something happens.
    RunWaits {
        /// The run.
        run: RunKey,
        /// What it waits for.
        on: WaitOn,
    },
    /// What a run waited for has come, or it no longer waits. It goes on once it is resumed.
    RunReady {
        /// The run.
        run: RunKey,
    },
    /// A run wants a named lock, and waits until it is answered.
    LockAsked {
        /// The wish.
        request: LockRequest,
        /// What it wants.
        wish: LockWish,
    },
    /// A run gave a named lock back, or no longer wants it. One of a longer scope stays held.
    LockReleased {
        /// The wish that was granted.
        request: LockRequest,
    },
    /// A person takes a lock away from its holder.
    LockBroken {
        /// The resource.
        resource: Resource,
        /// Only from this task; none: from every holder.
        task: Option<TaskId>,
        /// Who.
        by: String,
        /// Why.
        reason: String,
    },
    /// It is proven that a run which was abandoned can do nothing any more: its machine refuses its token.
    RunFenced {
        /// The run.
        run: RunKey,
    },
    /// A person answered a question.
    Answered {
        /// Task that asks.
        task: TaskId,
        /// Number of the question.
        question: u64,
        /// The answer.
        answer: Answer,
    },
    /// The workers of a pool, as they are now.
    PoolChanged {
        /// The pool.
        pool: PoolName,
        /// Its usable workers.
        workers: Vec<MachineName>,
        /// Runs at once on each worker; 0: any number.
        lease_cap: u32,
    },
    /// Time passed: [`State::next_wake`](crate::State::next_wake) was reached.
    Tick,
    /// Limits were changed. What was already given under higher ones is not taken back.
    SettingsChanged {
        /// The new ones.
        settings: Settings,
    },
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunOutcome {
    /// Well.
    Succeeded,
    /// With a failure.
    Failed {
        /// What went wrong.
        error: String,
    },
    /// Its machine could not be reached, and nothing was begun.
    Unavailable {
        /// What went wrong.
        error: String,
    },
    /// It was stopped.
    Cancelled,
    /// Nobody can know.
    Unknown {
        /// What is known.
        error: String,
    },
}

/// Why and how a run is told to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopKind {
    /// Its task was cancelled.
    Cancel,
    /// It took longer than its step allows.
    Timeout,
    /// It did not stop within the grace it was given: end it by force.
    Kill,
}

/// What waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// A task: queued, or all of it waits for its turn again.
    Task(TaskId),
    /// A step whose group has its turn.
    Step(TaskId, u32),
    /// A run whose step runs.
    Run(RunKey),
    /// A run that asked for a named lock.
    Lock(LockRequest),
}

impl Subject {
    /// Task it belongs to.
    #[must_use]
    pub fn task(self) -> TaskId {
        match self {
            Self::Task(task) | Self::Step(task, _) => task,
            Self::Run(run) | Self::Lock(LockRequest { run, .. }) => run.task,
        }
    }
}
