//! Tasks, runs and their states, and the views of them that API, CLI and pages share.

use std::{collections::BTreeMap, fmt, str::FromStr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::name::{EnvironmentName, MachineName, PoolName, ProjectName, StepName};

/// Number of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct TaskId(pub u64);

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl FromStr for TaskId {
    type Err = std::num::ParseIntError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.trim_start_matches('#').parse().map(Self)
    }
}

/// One step on one machine: `<task>.<step index>.<machine or "server">.<attempt>`.
///
/// It is also the first part of every ticket that a machine sees, so it is stored before anything starts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct RunId(String);

impl RunId {
    /// The run of a step (by index in the process) on a machine, first attempt being 1.
    #[must_use]
    pub fn new(task: TaskId, step: usize, machine: Option<&MachineName>, attempt: u32) -> Self {
        let place = machine.map_or_else(|| "server".to_owned(), |name| format!("m-{}", name.key()));
        Self(format!("{task}.{step}.{place}.{attempt}"))
    }

    /// The part of a task's package barrier that concerns one machine.
    #[must_use]
    pub fn packages(task: TaskId, machine: &MachineName) -> Self {
        Self(format!("{task}.packages.m-{}.1", machine.key()))
    }

    /// The run of a script task.
    #[must_use]
    pub fn script(task: TaskId) -> Self {
        Self(format!("{task}.script.1"))
    }

    /// Its text form: letters, digits, `-`, `_` and `.` only.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// State of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TaskState {
    /// Waits for its turn.
    Queued,
    /// Runs, or waits in the midst of running.
    Executing,
    /// Was told to stop, and stops.
    Cancelling,
    /// Stopped on request.
    Cancelled,
    /// Ended with a failure.
    Failed,
    /// Did not start before it expired.
    TimedOut,
    /// Ended well.
    Succeeded,
}

impl TaskState {
    /// Whether nothing more will happen to the task.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(self, Self::Cancelled | Self::Failed | Self::TimedOut | Self::Succeeded)
    }

    /// The word for people and for filters.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Executing => "executing",
            Self::Cancelling => "cancelling",
            Self::Cancelled => "cancelled",
            Self::Failed => "failed",
            Self::TimedOut => "timed_out",
            Self::Succeeded => "succeeded",
        }
    }
}

impl fmt::Display for TaskState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// State of a run, and of a step as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// Not started yet.
    Pending,
    /// Could start but for something it waits for; the reason says what.
    Waiting,
    /// Runs.
    Running,
    /// Ended well.
    Succeeded,
    /// Ended with a failure.
    Failed,
    /// Not run, and never will be in this task.
    Skipped,
    /// Stopped on request.
    Cancelled,
    /// Started, and nobody can know how it ended: a person decides.
    Unknown,
}

impl RunState {
    /// Whether nothing more will happen to the run by itself.
    #[must_use]
    pub fn is_final(self) -> bool {
        !matches!(self, Self::Pending | Self::Waiting | Self::Running)
    }

    /// The word for people and for filters.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
            Self::Cancelled => "cancelled",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for RunState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What a task does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum TaskKind {
    /// Deploys a release to an environment.
    Deployment {
        /// Project of the release.
        project: ProjectName,
        /// Version of the release.
        version: String,
        /// Environment it goes to.
        environment: EnvironmentName,
        /// Only these machines, when not empty.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        machines: Vec<MachineName>,
        /// Steps that were left out on request.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        skip: Vec<StepName>,
    },
    /// Runs a coordination script.
    Script {
        /// Name of the script, for people.
        name: String,
        /// SHA-256 of its text.
        sha256: String,
        /// Arguments it was given.
        #[serde(default)]
        arguments: BTreeMap<String, serde_json::Value>,
    },
}

impl TaskKind {
    /// One line for lists and titles.
    #[must_use]
    pub fn title(&self) -> String {
        match self {
            Self::Deployment { project, version, environment, .. } => {
                format!("deploy {project} {version} to {environment}")
            }
            Self::Script { name, .. } => format!("script {name}"),
        }
    }
}

/// Why something waits: data for programs, and the one sentence that every surface shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Reason {
    /// Kind of wait, kebab-case: `task-cap`, `target-busy`, `packages`, `lock`, `task`, `sleep` ….
    pub kind: String,
    /// The sentence.
    pub text: String,
    /// What is waited for, by its canonical name, such as `machine:web1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub what: Option<String>,
    /// Task that holds what is waited for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holder: Option<TaskId>,
    /// Place in the queue for it, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<u32>,
    /// Since when, milliseconds since 1970 UTC.
    pub since_ms: u64,
    /// What will end the wait, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ends: Option<String>,
}

impl Reason {
    /// A reason that names nothing but a kind and a sentence.
    #[must_use]
    pub fn new(kind: impl Into<String>, text: impl Into<String>, since_ms: u64) -> Self {
        let (kind, text) = (kind.into(), text.into());
        Self { kind, text, what: None, holder: None, position: None, since_ms, ends: None }
    }
}

/// A task as lists show it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TaskSummary {
    /// Its number.
    pub id: TaskId,
    /// What it does.
    pub what: TaskKind,
    /// One line for people.
    pub title: String,
    /// Where it stands.
    pub state: TaskState,
    /// Why it waits, when it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// What went wrong, when it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Queued at, milliseconds since 1970 UTC.
    pub created_ms: u64,
    /// Started at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_ms: Option<u64>,
    /// Ended at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_ms: Option<u64>,
}

/// A task with its tree: steps, and runs on machines.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TaskDetail {
    /// What lists show.
    #[serde(flatten)]
    pub summary: TaskSummary,
    /// The package barrier, when the task has packages to move.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packages: Option<StepView>,
    /// Steps in order.
    pub steps: Vec<StepView>,
    /// Sequence number of the last event this view includes: follow the events from here.
    pub seq: u64,
}

/// A step of a task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StepView {
    /// Log node, `<step>`; `@packages` is the package barrier.
    pub node: String,
    /// Its name.
    pub name: String,
    /// Step type, for steps.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uses: String,
    /// Where it stands as a whole.
    pub state: RunState,
    /// Why it waits, or why it was skipped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// Its runs, by machine.
    pub runs: Vec<RunView>,
}

/// One step on one machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RunView {
    /// Log node, `<step>/<machine>` or `<step>/server`.
    pub node: String,
    /// Run id.
    pub run: RunId,
    /// Machine, none for a run on the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<MachineName>,
    /// Where it stands.
    pub state: RunState,
    /// Why it waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// What went wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// How far it says it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
    /// Started at, milliseconds since 1970 UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_ms: Option<u64>,
    /// Ended at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_ms: Option<u64>,
    /// Output variables; sensitive ones show `********`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub outputs: BTreeMap<String, String>,
}

/// How far something is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Progress {
    /// Done, in any unit.
    pub done: u64,
    /// Of how much; 0 when unknown.
    pub total: u64,
    /// What is being done.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
}

/// Which tasks to list. Empty fields do not filter.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TaskQuery {
    /// Tasks that have work on this machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub machine: Option<MachineName>,
    /// States to include.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub state: Vec<TaskState>,
    /// Only tasks of this project.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub project: Option<ProjectName>,
    /// Only tasks of this environment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub environment: Option<EnvironmentName>,
    /// Never this task: a script that waits for others excludes its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exclude_task: Option<TaskId>,
    /// At most so many, newest first. Default 50, at most 200.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// Only tasks older than this one: the next page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<TaskId>,
}

/// A line of a task's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LogLine {
    /// Number of the line in its node, from 0.
    pub n: u64,
    /// When, milliseconds since 1970 UTC.
    pub at_ms: u64,
    /// How it is meant.
    pub level: LogLevel,
    /// Its text, masked, without control sequences.
    pub text: String,
}

/// How a log line is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogLevel {
    /// For plugin authors.
    Debug,
    /// Standard output, and what a step reports.
    Info,
    /// Standard error: no failure by itself.
    Stderr,
    /// Worth a look.
    Warning,
    /// What went wrong.
    Error,
}

/// One thing that happened to a task, in the order of `seq`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TaskEvent {
    /// Position in the server's stream of events; resume after it.
    pub seq: u64,
    /// Task it belongs to.
    pub task: TaskId,
    /// When, milliseconds since 1970 UTC.
    pub at_ms: u64,
    /// What happened.
    pub change: TaskChange,
}

/// What happened to a task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", tag = "type")]
pub enum TaskChange {
    /// The task's state or reason changed.
    Task {
        /// New state.
        state: TaskState,
        /// Why it waits.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<Reason>,
        /// What went wrong.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<String>,
    },
    /// A step's state or reason changed.
    Step {
        /// Its node.
        node: String,
        /// New state.
        state: RunState,
        /// Why it waits or was skipped.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<Reason>,
    },
    /// A run's state, reason or progress changed.
    Run {
        /// Its node.
        node: String,
        /// New state.
        state: RunState,
        /// Why it waits.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<Reason>,
        /// What went wrong.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<String>,
        /// How far it is.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        progress: Option<Progress>,
    },
    /// A worker was chosen for a run of a pool.
    Worker {
        /// Its node.
        node: String,
        /// The worker.
        machine: MachineName,
        /// Id of the run there.
        run: RunId,
    },
    /// Lines were added to a node.
    Log {
        /// Node they belong to; empty for the task itself.
        node: String,
        /// The lines, in order.
        lines: Vec<LogLine>,
    },
}

/// Names of the log nodes of a step.
#[must_use]
pub fn step_node(step: &StepName) -> String {
    step.as_str().to_owned()
}

/// Name of the log node of a run.
#[must_use]
pub fn run_node(step: &StepName, machine: Option<&MachineName>) -> String {
    format!("{step}/{}", machine.map_or("server", MachineName::as_str))
}

/// Name of the log node of a run whose worker is chosen once it is ready.
#[must_use]
pub fn pool_node(step: &StepName, pool: &PoolName) -> String {
    format!("{step}/{pool}")
}

/// Log node of the package barrier.
pub const PACKAGES_NODE: &str = "@packages";
