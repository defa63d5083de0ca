//! The choices that a process has: where and when a step runs, what its failure, a deadlock or an absent machine means.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::is_default;
use crate::name::{MachineName, PoolName, Role};

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

/// A person's agreement that a step waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Approval {
    /// What the person is to look at. May hold #{…} expressions.
    pub instructions: String,
    /// Names of the tokens of those who may answer. None: whoever may deploy.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub responsible: Vec<String>,
    /// How long there is to answer, in seconds. None: for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub expires_after_seconds: Option<u64>,
    /// What counts as the answer after that.
    #[serde(default, skip_serializing_if = "is_default")]
    pub on_expiry: OnExpiry,
    /// Whether no other deployment of the project to that environment starts meanwhile.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub block_concurrent: bool,
}

/// What counts as the answer when nobody answered in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OnExpiry {
    /// A refusal: the step fails.
    #[default]
    Abort,
    /// An agreement.
    Proceed,
}

/// What becomes of a deadlock in which a deployment has the youngest wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OnDeadlock {
    /// That wait fails and says why.
    #[default]
    Fail,
    /// A person is asked.
    Ask,
}

/// Place of a deployment among those that wait for their turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Priority {
    /// After all others.
    Low,
    /// In the order of queueing.
    #[default]
    Normal,
    /// Before all others.
    High,
}
