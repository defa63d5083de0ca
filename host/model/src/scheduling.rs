//! What the scheduler tells people: why something waits, who holds what, what would happen, what is asked.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    manifest::LockMode,
    name::MachineName,
    task::{Reason, TaskId, TaskState, TaskSummary},
};

/// Why a task, its steps and its runs wait.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WhyView {
    /// The task.
    pub task: TaskSummary,
    /// Everything of it that waits: the task itself first, then its steps and runs.
    pub waits: Vec<WaitView>,
    /// What it asks people.
    pub questions: Vec<QuestionView>,
    /// What the tasks that it waits for wait for in turn.
    pub holders: Vec<WaitView>,
}

/// Something that waits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WaitView {
    /// Its task.
    pub task: TaskId,
    /// Its node in the task's tree; empty for the task itself.
    pub node: String,
    /// Why.
    pub reason: Reason,
}

/// A resource in use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LockView {
    /// Its canonical name, such as `machine:web1` or `global:licence`.
    pub resource: String,
    /// The same in words.
    pub title: String,
    /// Who holds it.
    pub holders: Vec<LockUse>,
    /// Who waits for it, in order.
    pub queue: Vec<LockUse>,
}

/// Who holds or wants a resource.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LockUse {
    /// Its task.
    pub task: TaskId,
    /// What that task does.
    pub title: String,
    /// Node of the step or run; empty for the whole task.
    pub node: String,
    /// What ends it: `run`, `call`, `step`, `deployment`, or `fence` for what is left of an abandoned run.
    pub scope: String,
    /// How it is held.
    pub mode: LockMode,
    /// Units taken.
    pub units: u32,
    /// Units there are in all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of: Option<u32>,
    /// Fencing token, once it holds the lock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<u64>,
}

/// A lock to take away from those who hold it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BreakRequest {
    /// Its canonical name.
    pub resource: String,
    /// Only from this task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskId>,
    /// Why: it is kept.
    pub reason: String,
}

/// A lock that was taken away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BrokenLock {
    /// When, milliseconds since 1970 UTC.
    pub at_ms: u64,
    /// Its canonical name.
    pub resource: String,
    /// Who had held it.
    pub holders: Vec<LockUse>,
    /// Who broke it.
    pub by: String,
    /// Why.
    pub reason: String,
}

/// A question that waits for a person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct QuestionView {
    /// Its number.
    pub number: u64,
    /// Task that asks.
    pub task: TaskId,
    /// What that task does.
    pub title: String,
    /// What is asked.
    pub text: String,
    /// Node of the run that asks or failed; empty for a task.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub node: String,
    /// Set when nobody can know how something ended that the run did.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unknown_outcome: bool,
    /// The last lines that the run logged, when its outcome is unknown.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub last_lines: Vec<String>,
    /// The answers there are.
    pub choices: Vec<String>,
    /// Who may answer. Empty: whoever may deploy.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub responsible: Vec<String>,
    /// Asked at, milliseconds since 1970 UTC.
    pub asked_ms: u64,
    /// When it answers itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_ms: Option<u64>,
}

/// A person's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AnswerRequest {
    /// One of the choices.
    pub choice: String,
    /// Notes, kept with the answer.
    #[serde(default)]
    pub notes: String,
}

/// What a deployment would do, played forward from the server as it is now. Times count from now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PlanView {
    /// What it does.
    pub title: String,
    /// When it starts, in milliseconds from now. None: it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub starts_in_ms: Option<u64>,
    /// When it ends, in milliseconds from now. None: it waits for what nothing here brings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ends_in_ms: Option<u64>,
    /// Whether a duration had to be guessed, its own or that of something it waits for.
    pub guessed: bool,
    /// How it ends if every step succeeds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<TaskState>,
    /// What goes wrong all the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Steps that do not run, and why.
    pub skipped: Vec<PlannedSkip>,
    /// Its runs, in the order in which they start.
    pub runs: Vec<PlannedRun>,
    /// What waits for what, and how long.
    pub waits: Vec<PlannedWait>,
    /// Machines that steps with packages run on, and what has to be moved to each.
    pub deliveries: Vec<PlannedDelivery>,
    /// Bytes to be moved in all.
    pub bytes: u64,
    /// What it locks.
    pub locks: Vec<PlannedLock>,
    /// What people must answer. They are taken to agree at once.
    pub questions: Vec<PlannedQuestion>,
    /// Deadlocks that would be, of any task.
    pub deadlocks: Vec<PlannedDeadlock>,
}

/// A step that does not run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PlannedSkip {
    /// The step.
    pub step: String,
    /// Why.
    pub why: String,
}

/// One run of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PlannedRun {
    /// Its node in the tree.
    pub node: String,
    /// Its step.
    pub step: String,
    /// Its machine. None: it runs on the server, or on a worker that is not chosen yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<MachineName>,
    /// When it starts, in milliseconds from now.
    pub starts_in_ms: u64,
    /// When it ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ends_in_ms: Option<u64>,
    /// Whether its duration is known from earlier runs.
    pub learnt: bool,
}

/// A wait of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PlannedWait {
    /// What waits; empty for the task itself.
    pub node: String,
    /// The kind of the wait, as in a reason.
    pub kind: String,
    /// Why, in words.
    pub text: String,
    /// The task that holds what it waits for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holder: Option<TaskId>,
    /// What it waits for, such as the canonical name of a lock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub what: Option<String>,
    /// From when, in milliseconds from now.
    pub from_in_ms: u64,
    /// How long.
    pub for_ms: u64,
}

/// What has to be moved to a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PlannedDelivery {
    /// The machine.
    pub machine: MachineName,
    /// Packages to be moved. What the machine was last seen to hold is not among them.
    pub packages: Vec<PlannedPackage>,
    /// Their bytes.
    pub bytes: u64,
    /// Packages that it holds already.
    pub held: u32,
    /// How long it takes, in milliseconds.
    pub takes_ms: u64,
    /// Whether the speed of the way is known from earlier transfers.
    pub learnt: bool,
    /// When all is there, in milliseconds from now. None: it is not sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub there_in_ms: Option<u64>,
}

/// A package to be moved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PlannedPackage {
    /// The package.
    pub package: String,
    /// Its version.
    pub version: String,
    /// Bytes that go over the wire.
    pub bytes: u64,
}

/// A resource that a plan locks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PlannedLock {
    /// Its canonical name.
    pub resource: String,
    /// The same in words.
    pub title: String,
}

/// A question of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PlannedQuestion {
    /// What is asked.
    pub text: String,
    /// The answers there are.
    pub choices: Vec<String>,
    /// Who may answer. Empty: whoever may deploy.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub responsible: Vec<String>,
    /// When, in milliseconds from now.
    pub in_ms: u64,
}

/// A deadlock of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PlannedDeadlock {
    /// The circle, every wait in words.
    pub text: String,
    /// When, in milliseconds from now.
    pub in_ms: u64,
}
