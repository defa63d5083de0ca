//! A process: the steps of a deployment, as teams write them.

mod options;
mod plugin_ref;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use options::{
    Approval, On, OnDeadlock, OnExpiry, OnUnavailable, Priority, Rolling, RunCondition, StartTrigger, StepIsolation,
};
pub use plugin_ref::{InvalidPluginRef, PluginRef};

use crate::{
    manifest::{LockNeed, LockScope, With},
    name::{EnvironmentName, StepName},
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
    /// Runs of one deployment at once in all. Default: 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_runs: Option<u32>,
    /// Machines that are sent packages at once. Default: 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_acquisitions: Option<u32>,
    /// What a machine that cannot be reached means.
    #[serde(default, skip_serializing_if = "is_default")]
    pub unavailable: OnUnavailable,
    /// What becomes of a deadlock in which a deployment has the youngest wait.
    #[serde(default, skip_serializing_if = "is_default")]
    pub on_deadlock: OnDeadlock,
    /// How long a lock is waited for, in seconds. Default: two hours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub lock_wait_seconds: Option<u64>,
    /// What a step that does not say so itself keeps from other steps on its machine.
    #[serde(default, skip_serializing_if = "is_default")]
    pub isolation: StepIsolation,
    /// Place of its deployments among those that wait for their turn.
    #[serde(default, skip_serializing_if = "is_default")]
    pub priority: Priority,
    /// Whether a new deployment cancels older ones to the same environment that have not started, and takes their place.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub supersede: bool,
    /// At most one deployment with this text runs at a time; it may hold #{…} expressions. Default: project and environment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency_tag: Option<String>,
}

/// One step: which step type, where, with what, and when. It does something of its own (`uses`), asks a person
/// (`approval`), does both, or holds child steps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// Name, unique in the process.
    pub name: StepName,
    /// Step type and the major version it was written for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uses: Option<PluginRef>,
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
    /// It also needs this to be true: anything but nothing, `0`, `no` and `false`. Holds #{…} expressions.
    #[serde(default, rename = "if", skip_serializing_if = "Option::is_none")]
    pub condition: Option<String>,
    /// A person who must agree before it starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<Approval>,
    /// Child steps: each machine goes through all of them in order before the next machine has its place.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<Step>,
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
    /// Named resources that it needs, beside those of its step type. It then shares its machine.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub locks: Vec<LockNeed>,
    /// How long it keeps its machine.
    #[serde(default, skip_serializing_if = "is_default")]
    pub hold: LockScope,
    /// Kept in the process but not run.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub disabled: bool,
}

impl Step {
    /// What it does, in a word: its step type, or that it asks a person, or holds child steps.
    #[must_use]
    pub fn does(&self) -> String {
        match (&self.uses, &self.approval) {
            (Some(uses), _) => uses.to_string(),
            (None, Some(_)) if self.steps.is_empty() => "approval".to_owned(),
            (None, _) => "steps".to_owned(),
        }
    }
}

/// A step at its place in the process.
#[derive(Debug, Clone, Copy)]
pub struct Placed<'p> {
    /// The step.
    pub step: &'p Step,
    /// The step that it is a child of.
    pub parent: Option<&'p Step>,
    /// Its place in the list, and for a child its place among the children.
    pub place: (usize, Option<usize>),
}

impl std::ops::Deref for Placed<'_> {
    type Target = Step;

    fn deref(&self) -> &Step {
        self.step
    }
}

impl<'p> Placed<'p> {
    /// Where it runs: a child runs where its parent does.
    #[must_use]
    pub fn on(&self) -> Option<&'p On> {
        self.parent.unwrap_or(self.step).on.as_ref()
    }
}

impl Process {
    /// Every step in the order in which steps are numbered: each with its child steps behind it.
    pub fn all_steps(&self) -> impl Iterator<Item = Placed<'_>> {
        self.steps.iter().enumerate().flat_map(|(at, parent)| {
            let lead = Placed { step: parent, parent: None, place: (at, None) };
            let children = parent.steps.iter().enumerate();
            let child = move |(n, step)| Placed { step, parent: Some(parent), place: (at, Some(n)) };
            std::iter::once(lead).chain(children.map(child))
        })
    }

    /// The step of that number.
    #[must_use]
    pub fn step(&self, number: usize) -> Option<Placed<'_>> {
        self.all_steps().nth(number)
    }
}

/// Whether a value needs not be written.
pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
