//! One step of a plan: where it runs, when, and what it keeps from others.

use serde::{Deserialize, Serialize};
use windlass_model::{
    MachineName, PoolName, RunCondition, StartTrigger, StepName,
    manifest::{LockMode, LockNeed, LockScope},
};

use crate::{
    plan::{Settings, TaskPlan},
    question::Choice,
    resource::Resource,
};

/// Longest time a run may take when its step says nothing: an hour.
pub const DEFAULT_TIMEOUT_MS: u64 = 60 * 60 * 1000;
/// Most retries a step may ask for.
pub const MAX_RETRIES: u32 = 10;

/// One step of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepPlan {
    /// Its name.
    pub name: StepName,
    /// Why it does not run at all, when it does not.
    pub skip: Option<String>,
    /// Whether it starts a group or belongs to the group of the step above.
    pub start: StartTrigger,
    /// Whether it is a child of the rolling step above: each machine takes all of them in order before it
    /// gives its place in the window to the next machine. A child has the places of its parent.
    #[serde(default)]
    pub child: bool,
    /// Under which outcome of the earlier steps it runs.
    pub condition: RunCondition,
    /// Whether it also asks for a fact, told by [`Event::FactGiven`](crate::Event::FactGiven), and runs only
    /// if that holds.
    #[serde(default)]
    pub asks_fact: bool,
    /// A person who must agree before it starts.
    #[serde(default)]
    pub approval: Option<Approval>,
    /// Machines worked on at once; the smaller of this and the general limit counts.
    pub window: Option<u32>,
    /// Where it runs.
    pub place: Where,
    /// Whether packages must be on all machines before its group starts.
    pub needs_packages: bool,
    /// What a run of it keeps from others.
    pub isolation: Isolation,
    /// How long its machine is kept: normally for the run.
    #[serde(default)]
    pub hold: LockScope,
    /// Longest time a run may take, waiting excluded. None: no limit.
    pub timeout_ms: Option<u64>,
    /// Whether its failure can be neither ignored nor avoided by leaving out the machine.
    #[serde(default)]
    pub required: bool,
    /// How often a failed run is tried again by itself.
    #[serde(default)]
    pub retries: u32,
    /// Wait before the first retry; it doubles with each one.
    #[serde(default)]
    pub backoff_ms: u64,
}

/// Where a step runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Where {
    /// Once, without a machine.
    Server,
    /// Once on each of these machines, in this order.
    Machines(Vec<MachineName>),
    /// Once, on the worker of this pool with the fewest leases when the step is ready.
    Pool(PoolName),
}

/// What a run keeps from others while it runs. On the server nothing is locked but resources.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Isolation {
    /// Its whole machine: no other step of any task runs there.
    #[default]
    Exclusive,
    /// Shares its machine with all but exclusive steps.
    Shared,
    /// Shares its machine, and locks these resources.
    Resources(Vec<LockNeed>),
}

/// A person's agreement that a step waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approval {
    /// What the person is to look at.
    pub instructions: String,
    /// Who may answer. Empty: whoever may deploy.
    #[serde(default)]
    pub responsible: Vec<String>,
    /// How long there is to answer. None: for ever.
    #[serde(default)]
    pub expires_ms: Option<u64>,
    /// What counts as the answer after that: [`Choice::Proceed`] or [`Choice::Abort`].
    pub on_expiry: Choice,
    /// Whether the task keeps its concurrency tag meanwhile.
    #[serde(default)]
    pub keeps_tag: bool,
}

/// What a claim wants of a resource.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Want {
    /// The resource.
    pub resource: Resource,
    /// How.
    pub mode: LockMode,
    /// How long.
    pub scope: LockScope,
    /// Units taken, at least 1.
    pub units: u32,
    /// Units there are in all; 0: any number.
    pub of: u32,
}

impl Want {
    /// A want without units.
    #[must_use]
    pub fn plain(resource: Resource, mode: LockMode, scope: LockScope) -> Self {
        Self { resource, mode, scope, units: 1, of: 0 }
    }

    /// What a declared need means on a machine. More units than there are count as all of them.
    #[must_use]
    pub fn from_need(machine: Option<&MachineName>, need: &LockNeed) -> Self {
        let of = need.of.unwrap_or(0);
        let units = need.units.unwrap_or(1).max(1);
        Self {
            resource: Resource::named(machine, &need.resource),
            mode: need.mode,
            scope: need.scope,
            units: if of > 0 { units.min(of) } else { units },
            of,
        }
    }
}

impl StepPlan {
    /// A step with every default: after the previous group, only on success, its machine to itself.
    #[must_use]
    pub fn new(name: StepName, place: Where) -> Self {
        Self {
            name,
            skip: None,
            start: StartTrigger::AfterPrevious,
            child: false,
            condition: RunCondition::Success,
            asks_fact: false,
            approval: None,
            window: None,
            place,
            needs_packages: false,
            isolation: Isolation::Exclusive,
            hold: LockScope::Call,
            timeout_ms: Some(DEFAULT_TIMEOUT_MS),
            required: false,
            retries: 0,
            backoff_ms: 0,
        }
    }

    /// Number of runs it has.
    #[must_use]
    pub fn runs(&self) -> usize {
        match &self.place {
            Where::Server | Where::Pool(_) => 1,
            Where::Machines(machines) => machines.len(),
        }
    }

    /// The machine of its run number `place`; none on the server, and none yet on a worker of a pool.
    #[must_use]
    pub fn machine(&self, place: usize) -> Option<&MachineName> {
        match &self.place {
            Where::Server | Where::Pool(_) => None,
            Where::Machines(machines) => machines.get(place),
        }
    }

    /// Machines worked on at once under these settings, at least one.
    #[must_use]
    pub fn window(&self, settings: &Settings, task: &TaskPlan) -> u32 {
        let general = task.max_parallelism.unwrap_or(settings.targets_at_once);
        self.window.map_or(general, |own| own.min(general)).max(1)
    }

    /// What its run on `machine` must hold beyond the machine itself.
    pub(crate) fn needs(&self) -> &[LockNeed] {
        match &self.isolation {
            Isolation::Resources(needs) => needs,
            _ => &[],
        }
    }

    /// How its run holds the machine.
    #[must_use]
    pub fn machine_mode(&self) -> LockMode {
        match self.isolation {
            Isolation::Exclusive => LockMode::Exclusive,
            _ => LockMode::Shared,
        }
    }
}
