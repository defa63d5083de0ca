//! From a request to a task in the queue: what it names is looked up and resolved once, into a plan that never changes.
//!
//! `deployment` makes the plan of a deployment, `step` that of one of its steps, `settings` reads what variables say
//! about both. When a task has its turn is the scheduler's business.

mod deployment;
mod settings;
mod step;

use sha2::{Digest, Sha256};
use windlass_model::{
    EnvironmentName, ProjectName, StepName, TaskId, TaskKind,
    task::{TaskDetail, TaskSummary},
    views::{DeployRequest, ScriptRequest},
};
use windlass_scheduler::{Event, TaskPlan};
use windlass_store::{Batch, Key};

pub use deployment::prepare_deployment;

use crate::{
    board::first_view,
    error::EngineError,
    records::{COUNTERS, SCRIPTS},
    services::Services,
};

/// Largest script, in bytes.
const MAX_SCRIPT: usize = 256 << 10;

/// A deployment request from names that a guest wrote.
///
/// # Errors
/// When a name is no name.
pub fn deployment_request(
    project: &str,
    environment: &str,
    version: Option<&str>,
) -> Result<DeployRequest, EngineError> {
    let invalid = |error: windlass_model::InvalidName| {
        EngineError::invalid("name", error.to_string()).fix("write it as windlass project list shows it")
    };
    let project = ProjectName::new(project).map_err(invalid)?;
    let environment = EnvironmentName::new(environment).map_err(invalid)?;
    Ok(DeployRequest { version: version.map(str::to_owned), ..DeployRequest::new(project, environment) })
}

/// A task with its number and plan, ready for the queue.
pub struct Prepared {
    plan: TaskPlan,
    view: TaskDetail,
    with: Batch,
    /// Held until the task is in the queue: numbers are given in the order of their commits.
    _number: tokio::sync::OwnedMutexGuard<()>,
}

impl Prepared {
    /// Its number, what it does and its plan, for looking at only: the number is free again.
    #[must_use]
    pub fn into_parts(self) -> (TaskId, TaskKind, TaskPlan) {
        (self.id(), self.view.summary.what, self.plan)
    }

    /// Makes it a child of the run that queues it: a cancel of that task reaches it too, unless it is detached.
    #[must_use]
    pub fn child_of(mut self, run: windlass_scheduler::RunKey, detached: bool) -> Self {
        self.plan.parent = Some(windlass_scheduler::Parent { run, detached });
        self
    }

    /// The task's number.
    #[must_use]
    pub fn id(&self) -> TaskId {
        self.view.summary.id
    }

    /// Queues it, in one commit with the given records.
    ///
    /// # Errors
    /// When the server is stopping.
    pub async fn queue(self, services: &Services, with: Batch) -> Result<TaskSummary, EngineError> {
        let summary = self.view.summary.clone();
        let mut batch = self.with;
        batch.append(with);
        services.driver.submit(Event::TaskQueued { task: summary.id, plan: self.plan }, Some(self.view), batch).await?;
        Ok(summary)
    }
}

async fn number(services: &Services) -> Result<(TaskId, tokio::sync::OwnedMutexGuard<()>), EngineError> {
    let guard = std::sync::Arc::clone(&services.numbers).lock_owned().await;
    let last = COUNTERS.get(&*services.shared.store, "task").await?.map_or(0, |stored| stored.value);
    Ok((TaskId(last + 1), guard))
}

/// Prepares the run of a script.
///
/// # Errors
/// When the script does not compile or is too large.
pub async fn prepare_script(services: &Services, request: ScriptRequest) -> Result<Prepared, EngineError> {
    if request.text.len() > MAX_SCRIPT {
        let message =
            format!("the script has {} bytes, more than the {MAX_SCRIPT} that are allowed", request.text.len());
        return Err(EngineError::new(crate::error::ErrorKind::TooLarge, "too-large", message)
            .fix("split it, or move what is long into a package"));
    }
    let name = StepName::new(&request.name)
        .map_err(|error| EngineError::invalid("name", error.to_string()).fix("name it like nightly-release"))?;
    windlass_script::Script::compile(&request.name, &request.text)
        .map_err(|error| EngineError::invalid("script", error.without_fix()).fix(error.fix.clone()))?;
    let sha256 = hex::encode(Sha256::digest(request.text.as_bytes()));
    let what = TaskKind::Script { name: request.name, sha256: sha256.clone(), arguments: request.arguments };
    let plan = TaskPlan::script(what.title(), name);
    let mut with = Batch::new();
    SCRIPTS.put(&mut with, Key::of_text(&sha256), &request.text)?;
    let (id, number) = number(services).await?;
    let view = first_view(id, what, &plan, &["script".to_owned()], services.shared.clock.now_ms());
    Ok(Prepared { plan, view, with, _number: number })
}
