//! What the REST API takes and gives beyond the records themselves.
//!
//! Server, client, CLI and pages share these types, so that none of them depends on another. They say
//! what travels; what it means and who may ask is the engine's and the API's business.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    manifest::Manifest,
    name::{EnvironmentName, MachineName, PackageId, ProjectName, StepName, TokenName},
    process::{Priority, Process},
    project::Project,
    task::{LogLine, TaskId, TaskState},
};

/// A list, or one page of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "{T}List")]
pub struct Items<T> {
    /// What was found.
    pub items: Vec<T>,
    /// Where the next page begins, when there may be more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
}

/// What a server says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ServerInfo {
    /// Always `windlass`.
    pub name: String,
    /// Version of the server.
    pub version: String,
    /// Lists that can be read, by operation id.
    pub links: BTreeMap<String, String>,
    /// The disk of its data folder; left out by servers that do not look at it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<DiskView>,
}

/// How full the disk of the server's data folder is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DiskView {
    /// What may be begun.
    pub level: DiskLevel,
    /// Free bytes when last looked.
    pub free_bytes: u64,
    /// Bytes of the whole disk.
    pub total_bytes: u64,
    /// Free bytes that are needed until everything may be done again.
    pub needed_bytes: u64,
    /// The same in words.
    pub message: String,
    /// One thing to do about it, unless all is well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

/// What may be begun with the space there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DiskLevel {
    /// Everything.
    Good,
    /// Everything, but somebody should look.
    Low,
    /// No tasks, releases, packages and plugins.
    Refusing,
    /// Nothing; only what runs goes on.
    Critical,
}

/// A project with its process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ProjectDetail {
    /// The project.
    #[serde(flatten)]
    pub project: Project,
    /// Its process.
    pub process: Process,
    /// Versions of its releases, newest first.
    pub releases: Vec<String>,
}

/// What is known of a machine after it was reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MachineReport {
    /// Its name.
    pub machine: MachineName,
    /// Facts by name.
    pub facts: BTreeMap<String, String>,
}

/// Which host key to trust.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TrustRequest {
    /// Fingerprint to pin, `SHA256:…`. None: only look.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
}

/// What trusting a machine did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TrustReport {
    /// Its name.
    pub machine: MachineName,
    /// Kind of its host key.
    pub algorithm: String,
    /// Fingerprint it shows.
    pub fingerprint: String,
    /// Fingerprint that was trusted before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// Whether the fingerprint is trusted now.
    pub trusted: bool,
}

/// A package version as lists show it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PackageView {
    /// Id.
    pub id: String,
    /// Version.
    pub version: String,
    /// Size of the uploaded file in bytes.
    pub size: u64,
    /// SHA-256 of the uploaded file.
    pub sha256: String,
    /// When it was pushed, milliseconds since 1970 UTC.
    pub pushed_ms: u64,
    /// What the inspection found worth saying.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// What to do with a package whose version is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PushMode {
    /// Refuse it.
    #[default]
    Fail,
    /// Take it as done when the bytes are the same, refuse it otherwise.
    IgnoreSame,
    /// Put it in the place of the earlier one.
    Replace,
}

/// What a push did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PushReport {
    /// What the repository now holds.
    #[serde(flatten)]
    pub package: PackageView,
    /// What became of the upload.
    pub outcome: PushResult,
}

/// What became of an upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PushResult {
    /// The version is new.
    Added,
    /// The same bytes were there.
    AlreadyThere,
    /// Other bytes were there, and are gone.
    Replaced,
}

/// An installed plugin.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PluginRecord {
    /// What it says of itself.
    pub manifest: Manifest,
    /// SHA-256 of the component.
    pub sha256: String,
    /// Size of the component in bytes.
    pub size: u64,
    /// When it was installed, milliseconds since 1970 UTC.
    pub installed_ms: u64,
}

/// What a release is to be made of.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ReleaseRequest {
    /// Its version. None: that of its newest package, or the next patch of the latest release.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Versions of packages by id; the newest for those not named.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(with = "BTreeMap<String, String>")]
    pub packages: BTreeMap<PackageId, String>,
    /// Notes for people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub notes: String,
}

/// A deployment to queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DeployRequest {
    /// Project.
    pub project: ProjectName,
    /// Environment.
    pub environment: EnvironmentName,
    /// Version of the release. None: the latest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Only these machines, when not empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub machines: Vec<MachineName>,
    /// Steps to leave out; a required one cannot be.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skip: Vec<StepName>,
    /// Not before this time, milliseconds since 1970 UTC; at most 30 days ahead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_at_ms: Option<u64>,
    /// Timed out if it has not started so many seconds after it could have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub expires_after_seconds: Option<u64>,
    /// Its place among those that wait for their turn. None: what its process says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<Priority>,
    /// Whether it takes the place of older ones that have not started. None: what its process says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub supersede: Option<bool>,
}

impl DeployRequest {
    /// The latest release to all machines of the environment, as soon as there is room.
    #[must_use]
    pub fn new(project: ProjectName, environment: EnvironmentName) -> Self {
        Self {
            project,
            environment,
            version: None,
            machines: Vec::new(),
            skip: Vec::new(),
            start_at_ms: None,
            expires_after_seconds: None,
            priority: None,
            supersede: None,
        }
    }
}

/// A token to make.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenRequest {
    /// Name of its owner: whoever uses it answers questions and breaks locks under that name.
    pub name: TokenName,
}

/// A token that was made. It is shown this once.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NewToken {
    /// Name of its owner.
    pub name: TokenName,
    /// The token itself.
    pub token: String,
}

/// A token as lists show it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TokenView {
    /// Name of its owner.
    pub name: String,
}

/// A script to run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ScriptRequest {
    /// Name for people.
    pub name: String,
    /// The script.
    pub text: String,
    /// Its arguments.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub arguments: BTreeMap<String, serde_json::Value>,
}

/// A range of a node's log; `next` is the number of the line after it.
pub type LogPage = Items<LogLine>;

/// The last thing a task's event stream says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StreamEnd {
    /// The task.
    pub task: TaskId,
    /// How it ended.
    pub state: TaskState,
}

/// A refusal or failure, as RFC 9457 problem details.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Problem {
    /// Names the kind of problem; made of its code.
    #[serde(rename = "type")]
    pub kind: String,
    /// The HTTP status in words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What went wrong, one sentence without its full stop.
    pub detail: String,
    /// A short stable word for programs, kebab-case.
    pub code: String,
    /// One thing to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
    /// Every single mistake, where several can be told apart.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<Mistake>,
}

/// One mistake in what was sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Mistake {
    /// Where it is: a path of keys such as `machines[2].name`, or the name of a parameter.
    pub at: String,
    /// What is wrong with it.
    pub detail: String,
}
