//! A process: the steps of a deployment, as teams write them.

use std::{fmt, str::FromStr};

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{
    manifest::{LockScope, With},
    name::{EnvironmentName, MachineName, PoolName, Role, StepName},
};

/// The steps of a project, in order.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Process {
    /// Steps in the order in which they start.
    pub steps: Vec<Step>,
    /// Whether a failure asks a person what to do: fail, retry, ignore, or leave the machine out.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub guided: bool,
    /// Steps that run at once, and machines that each works on at once. Default: 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_parallelism: Option<u32>,
    /// What a machine that cannot be reached means.
    #[serde(default, skip_serializing_if = "is_default")]
    pub unavailable: OnUnavailable,
}

/// One step: which step type, where, with what, and when.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// Name, unique in the process.
    pub name: StepName,
    /// Step type and the major version it was written for.
    pub uses: PluginRef,
    /// Machines it runs on. None: once, without a machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on: Option<On>,
    /// Inputs of the step type.
    #[serde(default, skip_serializing_if = "With::is_empty")]
    pub with: With,
    /// When it starts.
    #[serde(default, skip_serializing_if = "is_default")]
    pub start: StartTrigger,
    /// Limits how many machines are worked on at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rolling: Option<Rolling>,
    /// Under which outcome of the earlier steps it runs.
    #[serde(default, skip_serializing_if = "is_default")]
    pub when: RunCondition,
    /// Environments it runs in. None: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub environments: Vec<EnvironmentName>,
    /// Longest time a run may take, in seconds. Default: an hour.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_seconds: Option<u64>,
    /// How often a failed run is tried again by itself, at most 10 times.
    #[serde(default, skip_serializing_if = "is_default")]
    #[schemars(range(max = 10))]
    pub retries: u32,
    /// Wait before the first retry, in seconds; it doubles with each one.
    #[serde(default, skip_serializing_if = "is_default")]
    pub retry_after_seconds: u64,
    /// Whether its failure can be neither ignored nor avoided by leaving out the machine.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub required: bool,
    /// What it keeps from other steps on its machine.
    #[serde(default, skip_serializing_if = "is_default")]
    pub isolation: StepIsolation,
    /// How long it keeps its machine.
    #[serde(default, skip_serializing_if = "is_default")]
    pub hold: LockScope,
    /// Kept in the process but not run.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub disabled: bool,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Which machines a step runs on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum On {
    /// Every machine of the environment with that role.
    Role(Role),
    /// One machine by name.
    Machine(MachineName),
    /// One worker of a pool.
    Pool(PoolName),
}

/// What a step keeps from other steps on its machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum StepIsolation {
    /// What its step type declares; if that is nothing, a target is its own and a worker is shared.
    #[default]
    Declared,
    /// The whole machine.
    Exclusive,
    /// Nothing: it runs beside every step that is not exclusive.
    Shared,
}

/// What a machine that cannot be reached means for a deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OnUnavailable {
    /// A failure like any other.
    #[default]
    Fail,
    /// The step is skipped there; later ones try again.
    Skip,
    /// The machine takes part in nothing later of the deployment.
    Exclude,
}

/// When a step starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum StartTrigger {
    /// Once the group before it has ended.
    #[default]
    AfterPrevious,
    /// Together with the step above it: both belong to one group.
    WithPrevious,
}

/// A sliding window over the machines of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rolling {
    /// Machines worked on at once, at least 1.
    #[schemars(range(min = 1))]
    pub window: u32,
}

/// Under which outcome of the earlier steps a step runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RunCondition {
    /// All earlier steps succeeded.
    #[default]
    Success,
    /// An earlier step failed.
    Failure,
    /// Whatever happened, except a cancel.
    Always,
}

/// `id@major`: which step type a step uses.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PluginRef {
    /// Id of the plugin.
    pub id: String,
    /// Major version; the highest installed version of it is taken when a release is created.
    pub major: u64,
}

/// A text that is no `id@major`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} names no step type: write it as id@major, such as run-script@1")]
pub struct InvalidPluginRef(String);

impl FromStr for PluginRef {
    type Err = InvalidPluginRef;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fail = || InvalidPluginRef(text.chars().take(80).collect());
        let (id, major) = text.split_once('@').ok_or_else(fail)?;
        let good = !id.is_empty()
            && id.len() <= 64
            && id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        match major.parse() {
            Ok(major) if good => Ok(Self { id: id.to_owned(), major }),
            _ => Err(fail()),
        }
    }
}

impl fmt::Display for PluginRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.id, self.major)
    }
}

impl fmt::Debug for PluginRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

impl Serialize for PluginRef {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PluginRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for PluginRef {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "PluginRef".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "pattern": "^[a-z0-9-]{1,64}@[0-9]+$", "description": "Step type and major version, such as run-script@1." })
    }
}
