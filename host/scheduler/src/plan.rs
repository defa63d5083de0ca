//! What the scheduler is told about a task before it starts: its steps, where they run, what they lock.
//!
//! A plan never changes. Whoever makes it has already resolved roles to machines and left out what does
//! not apply: a step that is disabled or not meant for the environment arrives with [`StepPlan::skip`].

use serde::{Deserialize, Serialize};
use windlass_model::{
    MachineName, RunCondition, StartTrigger, StepName,
    manifest::{LockMode, LockNeed},
};

/// Longest time a run may take when its step says nothing: an hour.
pub const DEFAULT_TIMEOUT_MS: u64 = 60 * 60 * 1000;

/// A task as it is put into the queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskPlan {
    /// One line for people, such as `deploy shop 1.0.0 to test`.
    pub title: String,
    /// Which cap it counts against.
    pub kind: PlanKind,
    /// At most one task with this tag executes at a time. Deployments: `project/environment`.
    pub concurrency_tag: Option<String>,
    /// Higher goes first; equal ones go in the order in which they were queued.
    pub priority: i32,
    /// Steps in order. A script has exactly one, on the server.
    pub steps: Vec<StepPlan>,
}

/// What kind of work a task is. Each kind has its own cap, so that scripts which wait for
/// deployments can never take all the places that those deployments need.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PlanKind {
    /// Deploys a release.
    Deployment,
    /// Runs a coordination script.
    Script,
}

/// One step of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepPlan {
    /// Its name.
    pub name: StepName,
    /// Why it does not run at all, when it does not.
    pub skip: Option<String>,
    /// Whether it starts a group or belongs to the group of the step above.
    pub start: StartTrigger,
    /// Under which outcome of the earlier steps it runs.
    pub condition: RunCondition,
    /// Machines worked on at once; the smaller of this and [`Settings::targets_at_once`] counts.
    pub window: Option<u32>,
    /// Where it runs.
    pub place: Where,
    /// Whether packages must be on all machines before its group starts.
    pub needs_packages: bool,
    /// What a run of it keeps from others.
    pub isolation: Isolation,
    /// Longest time a run may take, waiting for locks excluded. None: no limit.
    pub timeout_ms: Option<u64>,
}

/// Where a step runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Where {
    /// Once, without a machine.
    Server,
    /// Once on each of these machines, in this order.
    Machines(Vec<MachineName>),
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

/// Limits that hold for the whole server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Deployments that execute at once.
    pub task_cap: u32,
    /// Scripts that execute at once. They mostly wait, so there may be many.
    pub script_cap: u32,
    /// Steps of one deployment that run at once.
    pub steps_at_once: u32,
    /// Machines of one step that are worked on at once.
    pub targets_at_once: u32,
    /// How long a run waits for a named lock when it does not say: two hours.
    pub lock_wait_ms: u64,
}

impl Settings {
    /// The defaults for a server with so many cores.
    #[must_use]
    pub fn for_cores(cores: u32) -> Self {
        Self {
            task_cap: cores.saturating_mul(2).max(5),
            script_cap: 1000,
            steps_at_once: 10,
            targets_at_once: 10,
            lock_wait_ms: 2 * 60 * 60 * 1000,
        }
    }

    /// Tasks of that kind that may execute at once, at least one.
    #[must_use]
    pub fn cap(&self, kind: PlanKind) -> usize {
        let cap = match kind {
            PlanKind::Deployment => self.task_cap,
            PlanKind::Script => self.script_cap,
        };
        cap.max(1) as usize
    }
}

impl TaskPlan {
    /// A deployment of normal priority.
    #[must_use]
    pub fn deployment(title: impl Into<String>, tag: impl Into<String>, steps: Vec<StepPlan>) -> Self {
        Self { title: title.into(), kind: PlanKind::Deployment, concurrency_tag: Some(tag.into()), priority: 0, steps }
    }

    /// A coordination script: one run on the server, which locks nothing and has no time limit.
    #[must_use]
    pub fn script(title: impl Into<String>, name: StepName) -> Self {
        let mut step = StepPlan::new(name, Where::Server);
        step.timeout_ms = None;
        Self { title: title.into(), kind: PlanKind::Script, concurrency_tag: None, priority: 0, steps: vec![step] }
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
            condition: RunCondition::Success,
            window: None,
            place,
            needs_packages: false,
            isolation: Isolation::Exclusive,
            timeout_ms: Some(DEFAULT_TIMEOUT_MS),
        }
    }

    /// Number of runs it has.
    #[must_use]
    pub fn runs(&self) -> usize {
        match &self.place {
            Where::Server => 1,
            Where::Machines(machines) => machines.len(),
        }
    }

    /// The machine of its run number `place`; none on the server.
    #[must_use]
    pub fn machine(&self, place: usize) -> Option<&MachineName> {
        match &self.place {
            Where::Server => None,
            Where::Machines(machines) => machines.get(place),
        }
    }

    /// Machines worked on at once under these settings, at least one.
    #[must_use]
    pub fn window(&self, settings: &Settings) -> u32 {
        self.window.map_or(settings.targets_at_once, |own| own.min(settings.targets_at_once)).max(1)
    }

    /// What its run on `machine` must hold, sorted and each resource once.
    pub(crate) fn wants(&self, machine: Option<&MachineName>) -> Vec<(Resource, LockMode)> {
        let whole = |mode| machine.map(|name| (Resource::machine(name), mode));
        let mut wants: Vec<_> = match &self.isolation {
            Isolation::Exclusive => whole(LockMode::Exclusive).into_iter().collect(),
            Isolation::Shared => whole(LockMode::Shared).into_iter().collect(),
            Isolation::Resources(needs) => whole(LockMode::Shared)
                .into_iter()
                .chain(needs.iter().map(|need| (Resource::named(machine, &need.resource), need.mode)))
                .collect(),
        };
        // `Exclusive` sorts before `Shared`: of two wishes for one resource the stronger stays.
        wants.sort();
        wants.dedup_by(|later, first| later.0 == first.0);
        wants
    }
}

/// Something that can be locked, by its canonical name.
///
/// `machine:<name>` is a whole machine, `machine:<name>/<resource>` a resource on it,
/// `global:<resource>` one of the whole server.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Resource(std::sync::Arc<str>);

impl Resource {
    /// The whole machine.
    #[must_use]
    pub fn machine(name: &MachineName) -> Self {
        Self(format!("machine:{}", name.key()).into())
    }

    /// A resource by the name a manifest or a guest gives it: on the machine, unless the name
    /// starts with `global:` or there is no machine.
    #[must_use]
    pub fn named(machine: Option<&MachineName>, name: &str) -> Self {
        match (name.strip_prefix("global:"), machine) {
            (None, Some(machine)) => Self(format!("machine:{}/{name}", machine.key()).into()),
            (global, _) => Self(format!("global:{}", global.unwrap_or(name)).into()),
        }
    }

    /// Its canonical name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is a whole machine.
    #[must_use]
    pub fn is_machine(&self) -> bool {
        self.0.starts_with("machine:") && !self.0.contains('/')
    }
}

/// In words: `machine web1`, `iis:metabase on machine web1`, `lock licence`.
impl std::fmt::Display for Resource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0.split_once(':') {
            Some(("machine", rest)) => match rest.split_once('/') {
                Some((machine, resource)) => write!(f, "{resource} on machine {machine}"),
                None => write!(f, "machine {rest}"),
            },
            _ => write!(f, "lock {}", self.0.strip_prefix("global:").unwrap_or(&self.0)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources_have_one_name_and_read_well() {
        let web = MachineName::new("Web1").unwrap();
        for (resource, name, words) in [
            (Resource::machine(&web), "machine:web1", "machine web1"),
            (Resource::named(Some(&web), "iis:metabase"), "machine:web1/iis:metabase", "iis:metabase on machine web1"),
            (Resource::named(Some(&web), "dir:/srv/a"), "machine:web1/dir:/srv/a", "dir:/srv/a on machine web1"),
            (Resource::named(Some(&web), "global:licence"), "global:licence", "lock licence"),
            (Resource::named(None, "licence"), "global:licence", "lock licence"),
        ] {
            assert_eq!(resource.as_str(), name);
            assert_eq!(resource.to_string(), words);
            assert_eq!(resource.is_machine(), name == "machine:web1");
        }
    }

    #[test]
    fn the_stronger_of_two_wishes_for_one_resource_counts() {
        let web = MachineName::new("web1").unwrap();
        let need = |mode| LockNeed { resource: "global:x".to_owned(), mode };
        let mut step = StepPlan::new(StepName::new("s").unwrap(), Where::Server);
        step.isolation = Isolation::Resources(vec![need(LockMode::Shared), need(LockMode::Exclusive)]);
        let x = (Resource::named(None, "x"), LockMode::Exclusive);
        assert_eq!(step.wants(None), std::slice::from_ref(&x));
        assert_eq!(step.wants(Some(&web)), [x, (Resource::machine(&web), LockMode::Shared)]);
    }

    #[test]
    fn caps_follow_the_cores_and_are_never_nothing() {
        assert_eq!(Settings::for_cores(1).cap(PlanKind::Deployment), 5);
        assert_eq!(Settings::for_cores(8).cap(PlanKind::Deployment), 16);
        let none = Settings { task_cap: 0, targets_at_once: 0, ..Settings::for_cores(1) };
        assert_eq!(none.cap(PlanKind::Deployment), 1);
        let step = StepPlan::new(StepName::new("s").unwrap(), Where::Server);
        assert_eq!(step.window(&none), 1);
    }
}
