//! Everything a guest can want from the world, as one closed, serializable enum.
//!
//! Handles stand for what the host granted: a guest can pass one on but not make one up, because the
//! layer that performs looks it up in the run's own table. Bulk data never travels in an effect.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use windlass_model::{manifest::LockMode, task::TaskQuery};

/// A machine that the host lent to the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SessionHandle(pub u32);

/// A package that the host lent to the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PackageHandle(pub u32);

/// A secret that the host lent to the run, by the name under which the run knows it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SecretHandle(pub String);

/// What a guest wants from the world.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "effect", rename_all = "snake_case", deny_unknown_fields)]
pub enum Effect {
    /// The time, milliseconds since 1970 UTC. Answers [`Outcome::Number`](crate::Outcome::Number).
    Now,
    /// Random bytes, at most 1,024. Answers `Bytes`.
    Random {
        /// How many.
        len: u32,
    },
    /// Waits. Answers `Done`.
    Sleep {
        /// Milliseconds.
        ms: u64,
    },
    /// A variable of the run that is no secret. Answers `MaybeText`.
    Variable {
        /// Its name.
        name: String,
    },
    /// Expands `#{…}` in a text; refused when a secret would show. Answers `Text`.
    Expand {
        /// The text.
        text: String,
    },
    /// Whether a secret of that name exists. Answers `Flag`.
    HasSecret {
        /// The name.
        name: String,
    },
    /// A secret in clear. Answers `Secret`, which is never journaled in clear.
    Reveal {
        /// Which.
        secret: SecretHandle,
    },
    /// What is known of a machine. Answers `Facts`.
    Facts {
        /// Which.
        session: SessionHandle,
    },
    /// Runs a command, streams its output to the log, waits for its end. Answers `Exit`.
    Run {
        /// Where.
        session: SessionHandle,
        /// What.
        command: Command,
    },
    /// Starts a command and answers at once. Answers `Number`, the process.
    Start {
        /// Where.
        session: SessionHandle,
        /// What.
        command: Command,
    },
    /// Reads what a started command printed; waits until there is something. Answers `Bytes`, empty at the end.
    ReadOutput {
        /// Where.
        session: SessionHandle,
        /// Which process.
        process: u64,
        /// Standard error instead of standard output.
        stderr: bool,
        /// First byte wanted.
        offset: u64,
        /// At most so many bytes.
        max: u32,
    },
    /// Waits for the end of a started command. Answers `Exit`.
    Wait {
        /// Where.
        session: SessionHandle,
        /// Which process.
        process: u64,
    },
    /// Ends a started command and all its children. Answers `Done`.
    Kill {
        /// Where.
        session: SessionHandle,
        /// Which process.
        process: u64,
    },
    /// Reads a small file. Answers `Bytes`.
    ReadFile {
        /// Where.
        session: SessionHandle,
        /// Path on the machine; `~/` and relative paths start at Windlass' folder there.
        path: String,
        /// Refused when it is larger.
        max: u32,
    },
    /// Writes a file: beside it first, then renamed. Answers `Done`.
    WriteFile {
        /// Where.
        session: SessionHandle,
        /// Path on the machine.
        path: String,
        /// What it shall hold.
        content: Content,
        /// Permissions, such as `0o644`.
        mode: u32,
    },
    /// Replaces `#{…}` in files on the machine with the run's variables. Answers `Substituted`.
    Substitute {
        /// Where.
        session: SessionHandle,
        /// Folder to look in.
        root: String,
        /// Globs relative to it.
        globs: Vec<String>,
    },
    /// Where a package lies on a machine, transferring it first if it is not there. Answers `Text`, the path.
    StagePackage {
        /// Where.
        session: SessionHandle,
        /// Which.
        package: PackageHandle,
    },
    /// What is known of a package. Answers `Package`.
    PackageInfo {
        /// Which.
        package: PackageHandle,
    },
    /// Makes an HTTP request from the server. Answers `Http`.
    Http {
        /// The request.
        request: HttpRequest,
    },
    /// Sets an output variable. Answers `Done`.
    Output {
        /// Its name.
        name: String,
        /// Its value.
        value: String,
        /// Masked wherever it shows.
        sensitive: bool,
    },
    /// Takes a named lock, waiting for it. Answers `Lock`.
    Acquire {
        /// Name of the resource, the same for all who share it.
        resource: String,
        /// How.
        mode: LockMode,
        /// Gives up after so long.
        wait_ms: u64,
    },
    /// Gives a lock back. Answers `Done`.
    Release {
        /// Its token.
        token: u64,
    },
    /// Lists tasks. Answers `Tasks`.
    Tasks {
        /// Which.
        query: TaskQuery,
    },
    /// Waits until none of the tasks that the query finds is left. Answers `Done`.
    AwaitQuiet {
        /// Which; the run's own task never counts.
        query: TaskQuery,
        /// Gives up after so long.
        wait_ms: u64,
    },
    /// Queues a deployment. Answers `Number`, the task.
    Deploy {
        /// Project.
        project: String,
        /// Environment.
        environment: String,
        /// Version of the release; none is the latest.
        version: Option<String>,
        /// Whether it goes on when the task that queues it is cancelled.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        detached: bool,
    },
    /// Waits for the end of a task. Answers `Tasks` with that one.
    AwaitTask {
        /// Which.
        task: u64,
        /// Gives up after so long.
        wait_ms: u64,
    },
}

/// What the journal promises of an effect after a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EffectClass {
    /// Answered from what the task pinned before it started: asked again on replay, never recorded.
    Pinned,
    /// Changes nothing: the recorded answer is given again.
    Observe,
    /// Changes the store only, in the same transaction as its record.
    Local,
    /// Carries a ticket that the machine knows: attached again or repeated harmlessly, never run twice.
    Ticketed,
    /// Nobody remembers it: after a crash its outcome is unknown, unless it may be repeated.
    Untracked,
    /// Ends when something else happens.
    Wait,
}

impl Effect {
    /// Its class.
    #[must_use]
    pub fn class(&self) -> EffectClass {
        use EffectClass as C;
        match self {
            Self::Variable { .. }
            | Self::Expand { .. }
            | Self::HasSecret { .. }
            | Self::Reveal { .. }
            | Self::PackageInfo { .. } => C::Pinned,
            Self::Now | Self::Random { .. } => C::Observe,
            Self::Facts { .. } | Self::ReadFile { .. } | Self::Tasks { .. } | Self::ReadOutput { .. } => C::Observe,
            Self::Output { .. } | Self::Release { .. } | Self::Deploy { .. } => C::Local,
            Self::Run { .. } | Self::Start { .. } | Self::Wait { .. } | Self::Kill { .. } => C::Ticketed,
            Self::WriteFile { .. } | Self::Substitute { .. } | Self::StagePackage { .. } => C::Ticketed,
            Self::Http { request } if request.repeatable() => C::Observe,
            Self::Http { .. } => C::Untracked,
            Self::Sleep { .. } | Self::Acquire { .. } | Self::AwaitQuiet { .. } | Self::AwaitTask { .. } => C::Wait,
        }
    }

    /// The machine it is about.
    #[must_use]
    pub fn session(&self) -> Option<SessionHandle> {
        match self {
            Self::Facts { session }
            | Self::Run { session, .. }
            | Self::Start { session, .. }
            | Self::ReadOutput { session, .. }
            | Self::Wait { session, .. }
            | Self::Kill { session, .. }
            | Self::ReadFile { session, .. }
            | Self::WriteFile { session, .. }
            | Self::Substitute { session, .. }
            | Self::StagePackage { session, .. } => Some(*session),
            _ => None,
        }
    }

    /// Its name in journals, messages and denials.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Now => "now",
            Self::Random { .. } => "random",
            Self::Sleep { .. } => "sleep",
            Self::Variable { .. } => "variable",
            Self::Expand { .. } => "expand",
            Self::HasSecret { .. } => "has_secret",
            Self::Reveal { .. } => "reveal",
            Self::Facts { .. } => "facts",
            Self::Run { .. } => "run",
            Self::Start { .. } => "start",
            Self::ReadOutput { .. } => "read_output",
            Self::Wait { .. } => "wait",
            Self::Kill { .. } => "kill",
            Self::ReadFile { .. } => "read_file",
            Self::WriteFile { .. } => "write_file",
            Self::Substitute { .. } => "substitute",
            Self::StagePackage { .. } => "stage_package",
            Self::PackageInfo { .. } => "package_info",
            Self::Http { .. } => "http",
            Self::Output { .. } => "output",
            Self::Acquire { .. } => "acquire",
            Self::Release { .. } => "release",
            Self::Tasks { .. } => "tasks",
            Self::AwaitQuiet { .. } => "await_quiet",
            Self::Deploy { .. } => "deploy",
            Self::AwaitTask { .. } => "await_task",
        }
    }
}

/// A command for a machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Command {
    /// What to run.
    pub program: Program,
    /// Environment variables.
    #[serde(default)]
    pub env: BTreeMap<String, EnvValue>,
    /// Standard input.
    #[serde(default)]
    pub stdin: Stdin,
    /// Working folder.
    #[serde(default)]
    pub cwd: Option<String>,
    /// Ended with all its children after so long. None: the run's own limit.
    #[serde(default)]
    pub timeout_ms: Option<u64>,
    /// Keep so many last bytes of each stream for the answer.
    #[serde(default)]
    pub capture: u32,
    /// Do not copy the output to the log.
    #[serde(default)]
    pub quiet: bool,
}

/// What a command runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Program {
    /// A program with its arguments, no shell between.
    Argv(Vec<String>),
    /// A script for an interpreter: `sh`, `bash`, `pwsh`, `python3`.
    Script {
        /// The interpreter.
        interpreter: String,
        /// The script.
        text: String,
        /// Its arguments.
        #[serde(default)]
        args: Vec<String>,
    },
}

/// Value of an environment variable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EnvValue {
    /// As is.
    Text(String),
    /// A secret, put in by the host.
    Secret(SecretHandle),
}

/// Value of an HTTP header.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HeaderValue {
    /// As is.
    Text(String),
    /// A prefix such as `Bearer ` and a secret, put in by the host.
    Secret {
        /// What comes before the secret.
        prefix: String,
        /// The secret.
        secret: SecretHandle,
    },
}

/// Standard input of a command.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stdin {
    /// Empty.
    #[default]
    Empty,
    /// These bytes, at most 1 MiB.
    Bytes(#[serde(with = "crate::outcome::base64_bytes")] Vec<u8>),
    /// A secret, put in by the host.
    Secret(SecretHandle),
}

/// Content of a file to write.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Content {
    /// These bytes, at most 1 MiB.
    Bytes(#[serde(with = "crate::outcome::base64_bytes")] Vec<u8>),
    /// A secret, put in by the host.
    Secret(SecretHandle),
}

/// An HTTP request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpRequest {
    /// Method in capitals.
    pub method: String,
    /// Where; http or https.
    pub url: String,
    /// Headers in order.
    #[serde(default)]
    pub headers: Vec<(String, HeaderValue)>,
    /// Body, at most 1 MiB.
    #[serde(default, with = "crate::outcome::base64_bytes")]
    pub body: Vec<u8>,
    /// Gives up after so long, at most 10 minutes.
    pub timeout_ms: u64,
    /// Keep so many bytes of the answer's body, at most 1 MiB.
    pub max_body: u32,
    /// The receiver knows repeats by this key: the request may be sent again after a crash.
    #[serde(default)]
    pub idempotency_key: Option<String>,
}

impl HttpRequest {
    /// Whether sending it twice does no harm: by its method or by its key.
    #[must_use]
    pub fn repeatable(&self) -> bool {
        self.idempotency_key.is_some() || matches!(self.method.as_str(), "GET" | "HEAD" | "OPTIONS" | "PUT" | "DELETE")
    }
}
