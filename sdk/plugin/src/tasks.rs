//! Other tasks of the server: looking at them (capability `tasks-read`) and starting them (`tasks-deploy`).

use std::time::Duration;

use crate::Result;
use crate::bindings::windlass::tasks::{deploy as raw_deploy, query as raw};
use crate::clock::millis;

pub use crate::bindings::windlass::tasks::types::TaskInfo;

/// Which tasks are wanted. Every condition that is set must hold.
pub struct Filter {
    raw: raw::Filter,
}

impl Default for Filter {
    fn default() -> Self {
        Self::new()
    }
}

impl Filter {
    /// All tasks.
    pub fn new() -> Self {
        Self { raw: raw::Filter::new() }
    }

    /// Only tasks of this project.
    pub fn project(self, name: &str) -> Self {
        self.raw.project(name);
        self
    }

    /// Only tasks in this environment.
    pub fn environment(self, name: &str) -> Self {
        self.raw.environment(name);
        self
    }

    /// Only tasks that run, or will run, on this machine.
    pub fn machine(self, name: &str) -> Self {
        self.raw.machine(name);
        self
    }

    /// Only tasks in this state; several calls mean any of them.
    pub fn state(self, state: &str) -> Self {
        self.raw.state(state);
        self
    }

    /// At most so many, newest first; 50 unless set.
    pub fn limit(self, count: u32) -> Self {
        self.raw.limit(count);
        self
    }

    /// Waits until no task matches that has not ended; the task of this run never counts.
    pub fn wait_quiet(&self, limit: Duration) -> Result<()> {
        Ok(raw::wait_quiet(&self.raw, millis(limit))?)
    }

    /// The tasks that match.
    pub fn query(&self) -> Result<Vec<TaskInfo>> {
        Ok(raw::query(&self.raw)?)
    }
}

/// Waits until a task has ended, for at most `limit`. The run is suspended meanwhile.
pub fn wait(task: u64, limit: Duration) -> Result<TaskInfo> {
    Ok(raw::wait(task, millis(limit))?)
}

/// Queues a deployment of a project's newest release, or of the given version: the number of its task.
pub fn deploy(project: &str, environment: &str, version: Option<&str>) -> Result<u64> {
    let deployment = raw_deploy::Deployment::new(project, environment);
    if let Some(version) = version {
        deployment.version(version);
    }
    Ok(deployment.start()?)
}
