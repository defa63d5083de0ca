//! The referee's own books: what it knows about each task, run and call.

use std::collections::{BTreeMap, BTreeSet};

use windlass_model::{MachineName, RunState, TaskState, manifest::LockMode};
use windlass_scheduler::{Isolation, StepPlan, StopKind, TaskPlan};

pub type Place = Option<MachineName>;

#[derive(Debug, Default)]
pub struct Books {
    pub plan: Option<TaskPlan>,
    pub state: Option<TaskState>,
    pub cancelled: bool,
    /// A run failed, or packages did not arrive.
    pub failed: bool,
    pub acquired: Option<BTreeSet<Place>>,
    pub open_places: Vec<Place>,
    pub stop_places: bool,
    pub lost_packages: bool,
    pub steps: BTreeMap<u32, RunState>,
    pub failed_steps: BTreeSet<u32>,
}

#[derive(Debug)]
pub struct Running {
    pub machine: Place,
    pub token: u64,
    pub stop: Option<StopKind>,
}

#[derive(Debug)]
pub struct Call {
    pub needs: (String, LockMode),
    pub order: u64,
    pub token: Option<u64>,
}

pub fn clash(a: LockMode, b: LockMode) -> bool {
    a == LockMode::Exclusive || b == LockMode::Exclusive
}

pub fn resource(machine: &Place, name: &str) -> String {
    match (machine, name.strip_prefix("global:")) {
        (_, Some(global)) => global.to_owned(),
        (None, None) => name.to_owned(),
        (Some(machine), None) => format!("{machine}:{name}"),
    }
}

pub fn needs(step: &StepPlan, machine: &Place) -> Vec<(String, LockMode)> {
    let whole = |mode| machine.iter().map(move |name| (format!("whole {name}"), mode)).collect::<Vec<_>>();
    match &step.isolation {
        Isolation::Exclusive => whole(LockMode::Exclusive),
        Isolation::Shared => whole(LockMode::Shared),
        Isolation::Resources(named) => {
            let named = named.iter().map(|need| (resource(machine, &need.resource), need.mode));
            whole(LockMode::Shared).into_iter().chain(named).collect()
        }
    }
}

impl Books {
    pub fn plan(&self) -> &TaskPlan {
        self.plan.as_ref().unwrap()
    }

    pub fn executes(&self) -> bool {
        matches!(self.state, Some(TaskState::Executing | TaskState::Cancelling))
    }
}
