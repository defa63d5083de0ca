//! What goes into the scheduler and what comes out: events and decisions, both plain data.
//!
//! Events are facts, decisions are orders. An event about something that is already over is ignored,
//! so whoever drives the scheduler may repeat one after a crash.

use serde::{Deserialize, Serialize};
use windlass_model::{MachineName, RunState, TaskId, TaskState, manifest::LockMode, task::Reason};

use crate::plan::{Settings, TaskPlan};

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
    },
    /// A run ended. A script is the only run of its task.
    RunFinished {
        /// The run.
        run: RunKey,
        /// How.
        outcome: RunOutcome,
    },
    /// A run wants a named lock, and waits until it is answered.
    LockAsked {
        /// The wish.
        request: LockRequest,
        /// Name of the resource: on the run's machine, unless it starts with `global:` or there is none.
        resource: String,
        /// How it is to be held.
        mode: LockMode,
        /// How long the run is ready to wait. None: [`Settings::lock_wait_ms`].
        wait_limit_ms: Option<u64>,
    },
    /// A run gave a named lock back, or no longer wants it.
    LockReleased {
        /// The wish that was granted.
        request: LockRequest,
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
    /// It was stopped.
    Cancelled,
    /// Nobody can know.
    Unknown {
        /// What is known.
        error: String,
    },
}

/// Why a run is told to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopKind {
    /// Its task was cancelled.
    Cancel,
    /// It took longer than its step allows.
    Timeout,
}

/// What waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// A queued task.
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

/// Something to do, or to tell. Store the changed state first, then act on the decisions in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "decision")]
pub enum Decision {
    /// Do: bring all packages of a task's remaining steps to these places, and report each.
    Acquire {
        /// The task.
        task: TaskId,
        /// Machines to bring them to.
        machines: Vec<MachineName>,
        /// Whether the server itself needs them too.
        server: bool,
    },
    /// Do: stop bringing packages; report every place that is still open as failed.
    StopAcquire {
        /// The task.
        task: TaskId,
    },
    /// Do: start a run, or, on recovery, go on with it.
    StartRun {
        /// The run.
        run: RunKey,
        /// Its machine; none on the server.
        machine: Option<MachineName>,
        /// Which attempt it is, from 1.
        attempt: u32,
        /// Fencing token of the locks it holds, higher than that of any earlier holder.
        token: u64,
    },
    /// Do: stop a run, and report how it ended.
    StopRun {
        /// The run.
        run: RunKey,
        /// Why.
        kind: StopKind,
    },
    /// Do: tell a run that it has its lock.
    GrantLock {
        /// Its wish.
        request: LockRequest,
        /// Fencing token, higher than that of any earlier holder.
        token: u64,
    },
    /// Do: tell a run that it does not get its lock.
    RefuseLock {
        /// Its wish.
        request: LockRequest,
        /// Why, fit after "failed to take the lock: ".
        error: String,
    },
    /// Tell: a task has a new state that is not final.
    TaskState {
        /// The task.
        task: TaskId,
        /// The new state.
        state: TaskState,
    },
    /// Tell: a step has a new state.
    StepState {
        /// The task.
        task: TaskId,
        /// Index of the step.
        step: u32,
        /// The new state.
        state: RunState,
        /// Why it is skipped, or what went wrong.
        why: Option<String>,
    },
    /// Tell: a run ended, or never will start.
    RunState {
        /// The run.
        run: RunKey,
        /// The final state.
        state: RunState,
        /// Why it is skipped, or what went wrong.
        why: Option<String>,
    },
    /// Tell: something waits, and this is the reason now. It holds until the thing's next state.
    Waiting {
        /// What waits.
        subject: Subject,
        /// Why.
        reason: Reason,
    },
    /// Tell: a task is over and forgotten by the scheduler.
    TaskFinished {
        /// The task.
        task: TaskId,
        /// How it ended.
        state: TaskState,
        /// What went wrong first.
        error: Option<String>,
    },
}
