//! What the scheduler is told about a task before it starts, and the limits of the server.
//!
//! A plan never changes. Whoever makes it has already resolved roles to machines and left out what does
//! not apply: a step that is disabled or not meant for the environment arrives with [`StepPlan::skip`].

use serde::{Deserialize, Serialize};
use windlass_model::StepName;

use crate::{
    event::RunKey,
    step::{StepPlan, Where},
};

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
    /// Not before this time.
    #[serde(default)]
    pub start_at_ms: Option<u64>,
    /// Timed out if it has not started by this time.
    #[serde(default)]
    pub expires_ms: Option<u64>,
    /// It takes the place of older queued tasks of the same key. None: neither that, nor is it superseded.
    #[serde(default)]
    pub supersede: Option<String>,
    /// The run that waits for it or started it.
    #[serde(default)]
    pub parent: Option<Parent>,
    /// Overrides both windows: steps at once, and machines at once in each step.
    #[serde(default)]
    pub max_parallelism: Option<u32>,
    /// Overrides the runs that it may have at once in all.
    #[serde(default)]
    pub max_runs: Option<u32>,
    /// Overrides how many machines are sent packages at once.
    #[serde(default)]
    pub max_acquisitions: Option<u32>,
    /// Overrides how long a lock is waited for.
    #[serde(default)]
    pub lock_wait_ms: Option<u64>,
    /// Whether a failure asks a person what to do.
    #[serde(default)]
    pub guided: bool,
    /// What a machine that cannot be reached means.
    #[serde(default)]
    pub unavailable: Unavailable,
    /// What a deadlock means when this task has the youngest wait in it.
    #[serde(default)]
    pub on_deadlock: OnDeadlock,
}

/// What kind of work a task is. Each kind has its own cap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PlanKind {
    /// Deploys a release.
    Deployment,
    /// Runs a coordination script.
    Script,
}

/// Where a task comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parent {
    /// The run that queued it.
    pub run: RunKey,
    /// Whether it goes on when that task is cancelled.
    #[serde(default)]
    pub detached: bool,
}

/// What a machine that cannot be reached means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unavailable {
    /// A failure like any other.
    #[default]
    Fail,
    /// The step is skipped there; later ones try again.
    Skip,
    /// The machine takes part in nothing later of the task.
    Exclude,
}

/// What becomes of a deadlock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnDeadlock {
    /// The youngest wait fails and says why.
    #[default]
    Fail,
    /// A person is asked.
    Ask,
}

/// Limits that hold for the whole server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// Deployments that work at once. One in which everything waits does not count.
    pub task_cap: u32,
    /// Scripts that work at once.
    pub script_cap: u32,
    /// Steps of one deployment that run at once.
    pub steps_at_once: u32,
    /// Machines of one step that are worked on at once.
    pub targets_at_once: u32,
    /// Runs of one deployment that run or wait for locks at once.
    pub runs_at_once: u32,
    /// Machines of one deployment that are sent packages at once.
    pub acquisitions_at_once: u32,
    /// How long a lock is waited for when nobody says otherwise: two hours.
    pub lock_wait_ms: u64,
    /// How long a pool without workers is waited for: 15 minutes.
    pub pool_wait_ms: u64,
    /// How long a run that is told to stop has before it is killed: 10 s.
    pub grace_ms: u64,
    /// How long a run that is killed has before it is abandoned: 20 s.
    pub kill_ms: u64,
    /// How often a person may retry one run: 10 times.
    pub guided_retries: u32,
    /// Whether nothing new starts.
    pub draining: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self::for_cores(1)
    }
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
            runs_at_once: 100,
            acquisitions_at_once: 10,
            lock_wait_ms: 2 * 60 * 60 * 1000,
            pool_wait_ms: 15 * 60 * 1000,
            grace_ms: 10_000,
            kill_ms: 20_000,
            guided_retries: 10,
            draining: false,
        }
    }

    /// Tasks of that kind that may work at once, at least one.
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
        Self::new(title.into(), PlanKind::Deployment, Some(tag.into()), steps)
    }

    /// A coordination script: one run on the server, which locks nothing and has no time limit.
    #[must_use]
    pub fn script(title: impl Into<String>, name: StepName) -> Self {
        let mut step = StepPlan::new(name, Where::Server);
        step.timeout_ms = None;
        Self::new(title.into(), PlanKind::Script, None, vec![step])
    }

    fn new(title: String, kind: PlanKind, concurrency_tag: Option<String>, steps: Vec<StepPlan>) -> Self {
        Self {
            title,
            kind,
            concurrency_tag,
            priority: 0,
            steps,
            start_at_ms: None,
            expires_ms: None,
            supersede: None,
            parent: None,
            max_parallelism: None,
            max_runs: None,
            max_acquisitions: None,
            lock_wait_ms: None,
            guided: false,
            unavailable: Unavailable::Fail,
            on_deadlock: OnDeadlock::Fail,
        }
    }

    /// Where the unit that starts with step `lead` ends: itself and its child steps.
    #[must_use]
    pub fn unit_end(&self, lead: u32) -> u32 {
        let rest = self.steps.get(lead as usize + 1..).unwrap_or_default();
        lead + 1 + rest.iter().take_while(|step| step.child).count() as u32
    }

    /// The step that leads the unit of `step`.
    #[must_use]
    pub fn lead(&self, step: u32) -> u32 {
        let upto = self.steps.get(..=step as usize).unwrap_or_default();
        // A child without a parent leads itself.
        step.saturating_sub(upto.iter().rev().take_while(|step| step.child).count() as u32)
    }

    pub(crate) fn steps_at_once(&self, settings: &Settings) -> usize {
        self.max_parallelism.unwrap_or(settings.steps_at_once).max(1) as usize
    }

    pub(crate) fn runs_at_once(&self, settings: &Settings) -> u32 {
        self.max_runs.unwrap_or(settings.runs_at_once).max(1)
    }

    pub(crate) fn acquisitions_at_once(&self, settings: &Settings) -> usize {
        self.max_acquisitions.unwrap_or(settings.acquisitions_at_once).max(1) as usize
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn caps_follow_the_cores_and_are_never_nothing() {
        assert_eq!(Settings::for_cores(1).cap(PlanKind::Deployment), 5);
        assert_eq!(Settings::for_cores(8).cap(PlanKind::Deployment), 16);
        let none = Settings { task_cap: 0, targets_at_once: 0, ..Settings::for_cores(1) };
        assert_eq!(none.cap(PlanKind::Deployment), 1);
        let step = StepPlan::new(StepName::new("s").unwrap(), Where::Server);
        let mut task = TaskPlan::deployment("t", "tag", vec![step.clone()]);
        assert_eq!(step.window(&none, &task), 1);
        task.max_parallelism = Some(3);
        assert_eq!(step.window(&none, &task), 3);
    }

    #[test]
    fn a_unit_is_a_step_and_its_children() {
        let step = |child| StepPlan { child, ..StepPlan::new(StepName::new("s").unwrap(), Where::Server) };
        let steps = [false, true, true, false].map(step).to_vec();
        let plan = TaskPlan::deployment("t", "tag", steps);
        assert_eq!([0, 3].map(|lead| plan.unit_end(lead)), [3, 4]);
        assert_eq!([0, 1, 2, 3].map(|step| plan.lead(step)), [0, 0, 0, 3]);
    }
}
