//! What a step type says of itself: the manifest that `describe` returns and that lies beside a component.
//!
//! The core knows no step kind by name (invariant 3). Everything it must know to schedule, grant and
//! validate a step is here: inputs, outputs, capabilities, locks and where the step may run.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::process::PluginRef;

/// A step type's own description. Its JSON form is the plugin contract's `describe`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Id by which a process names it: `uses: <id>@<major>`.
    pub id: String,
    /// Semantic version of the plugin, three numbers.
    pub version: String,
    /// A few words for lists.
    pub title: String,
    /// What it does, one paragraph.
    #[serde(default)]
    pub description: String,
    /// Inputs by name, in the order in which a form shows them.
    #[serde(default)]
    pub inputs: Vec<Input>,
    /// Output variables it sets.
    #[serde(default)]
    pub outputs: Vec<Output>,
    /// What it asks the host for, beyond the harmless basics.
    #[serde(default)]
    pub capabilities: Vec<Capability>,
    /// Named resources it needs to itself. None: the step locks its whole target.
    #[serde(default)]
    pub locks: Vec<LockNeed>,
    /// Where it may run.
    #[serde(default)]
    pub runs_on: RunsOn,
}

/// One input of a step type.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// Key under `with:`.
    pub name: String,
    /// What kind of value it takes.
    #[serde(default, rename = "type")]
    pub kind: InputKind,
    /// Label of the form field.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub title: String,
    /// What it means, with its unit.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Refused without a value.
    #[serde(default)]
    pub required: bool,
    /// Value when none is given. May hold `#{…}` expressions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<serde_json::Value>,
    /// The only values allowed, when not empty.
    #[serde(default, rename = "enum", skip_serializing_if = "Vec::is_empty")]
    pub choices: Vec<serde_json::Value>,
}

/// Kinds of input values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum InputKind {
    /// Text; `#{…}` is expanded before the step sees it.
    #[default]
    Text,
    /// A whole number.
    Integer,
    /// `true` or `false`.
    Boolean,
    /// A list of texts.
    List,
    /// A map of texts.
    Map,
    /// A secret: the step gets a handle, never the text in its inputs.
    Secret,
    /// The id of a package: acquired on the machine before the step, handed over as a handle.
    Package,
}

/// One output variable of a step type.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Output {
    /// Name under which later steps read it.
    pub name: String,
    /// What it holds.
    #[serde(default)]
    pub description: String,
}

/// What a guest may ask for. Each names interfaces of the contract; what is not granted is not linked.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Capability {
    /// Run commands and touch files on the machine of the step.
    Machine,
    /// Be handed packages.
    Package,
    /// Make HTTP requests.
    Http,
    /// See tasks and machines' activity.
    TasksRead,
    /// Queue deployments.
    TasksDeploy,
    /// Take named locks.
    Lock,
    /// Read secrets in clear instead of handing them on by handle.
    SecretReveal,
}

impl Capability {
    /// Every capability, in the order of the documentation.
    pub const ALL: [Self; 7] =
        [Self::Machine, Self::Package, Self::Http, Self::TasksRead, Self::TasksDeploy, Self::Lock, Self::SecretReveal];

    /// Its name in manifests and messages.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Machine => "machine",
            Self::Package => "package",
            Self::Http => "http",
            Self::TasksRead => "tasks-read",
            Self::TasksDeploy => "tasks-deploy",
            Self::Lock => "lock",
            Self::SecretReveal => "secret-reveal",
        }
    }

    /// What granting it means, for the person who grants.
    #[must_use]
    pub fn meaning(&self) -> &'static str {
        match self {
            Self::Machine => "runs commands and changes files on the machine of its step",
            Self::Package => "reads the packages of its step",
            Self::Http => "makes HTTP requests from the server",
            Self::TasksRead => "sees which tasks run and where",
            Self::TasksDeploy => "queues deployments of other projects",
            Self::Lock => "takes named locks that make others wait",
            Self::SecretReveal => "reads the secrets of its step in clear",
        }
    }
}

impl std::fmt::Display for Capability {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A named resource that a step needs while it runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LockNeed {
    /// Resource name, per machine unless it starts with `global:`. `{input}` stands for an input's value.
    pub resource: String,
    /// How it is held.
    #[serde(default)]
    pub mode: LockMode,
    /// How long it is held.
    #[serde(default, skip_serializing_if = "is_call")]
    pub scope: LockScope,
    /// Units that a shared holder takes. Default: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub units: Option<u32>,
    /// Units there are in all: shared holders never take more together. None: any number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub of: Option<u32>,
}

impl LockNeed {
    /// A whole resource for as long as a run takes.
    #[must_use]
    pub fn new(resource: impl Into<String>, mode: LockMode) -> Self {
        Self { resource: resource.into(), mode, scope: LockScope::Call, units: None, of: None }
    }
}

fn is_call(scope: &LockScope) -> bool {
    *scope == LockScope::Call
}

/// How long a lock is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LockScope {
    /// Until it is given back, at the latest to the end of the run.
    #[default]
    Call,
    /// To the end of the step, on all its machines.
    Step,
    /// To the end of the deployment.
    Deployment,
}

/// How a lock is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LockMode {
    /// By one holder.
    #[default]
    Exclusive,
    /// Together with other shared holders.
    Shared,
}

/// Where a step type may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RunsOn {
    /// Once per machine that the step's `on` selects.
    #[default]
    Machine,
    /// Per machine when `on` selects some, else once without a machine.
    Anywhere,
}

impl Manifest {
    /// The input of that name.
    #[must_use]
    pub fn input(&self, name: &str) -> Option<&Input> {
        self.inputs.iter().find(|input| input.name == name)
    }

    /// Names of the inputs that hold package ids.
    pub fn package_inputs(&self) -> impl Iterator<Item = &str> {
        self.inputs.iter().filter(|input| input.kind == InputKind::Package).map(|input| input.name.as_str())
    }

    /// Major version, the number that `uses: id@1` pins.
    #[must_use]
    pub fn major(&self) -> Option<u64> {
        self.version.split('.').next().and_then(|major| major.parse().ok())
    }
}

impl Manifest {
    /// The plugin that a step gets: of the installed ones with its id and major version, the newest.
    #[must_use]
    pub fn newest<'m>(installed: impl IntoIterator<Item = &'m Self>, uses: &PluginRef) -> Option<&'m Self> {
        installed.into_iter().filter(|m| m.id == uses.id && m.major() == Some(uses.major)).max_by_key(|m| m.numbers())
    }

    fn numbers(&self) -> Vec<u64> {
        self.version.split('.').map(|number| number.parse().unwrap_or(0)).collect()
    }
}

/// Values of a step's `with:`, as written.
pub type With = BTreeMap<String, serde_json::Value>;
