//! `windlass:tasks`: other tasks of the server.

use std::str::FromStr;

use wasmtime::component::Resource;
use windlass_effects::{Effect, Failure, Outcome};
use windlass_model::{
    EnvironmentName, MachineName, ProjectName, TaskKind, TaskState,
    task::{TaskQuery, TaskSummary},
};

use super::{Builder, Calls, Reply, ask, check, check_name, refuse, unexpected};
use crate::bindings::windlass::tasks::{
    deploy, query,
    types::{self, TaskInfo},
};

/// Most tasks of one answer.
const MAX_TASKS: u32 = 200;

/// A filter being built; the first thing wrong with it is told when it is used.
#[derive(Default)]
pub struct Filter {
    query: TaskQuery,
    wrong: Option<Failure>,
}

impl Filter {
    fn set<T: FromStr>(&mut self, what: &str, text: &str, put: impl FnOnce(&mut TaskQuery, T))
    where
        T::Err: std::fmt::Display,
    {
        if let Err(failure) = check_name(&format!("the {what} of the filter"), text) {
            self.wrong.get_or_insert(failure);
            return;
        }
        match text.parse() {
            Ok(value) => put(&mut self.query, value),
            Err(error) => {
                let wrong = || Failure::new("invalid", format!("the {what} of the filter is wrong: {error}"));
                self.wrong.get_or_insert_with(wrong);
            }
        }
    }

    fn checked(&self) -> Result<TaskQuery, Failure> {
        match &self.wrong {
            Some(failure) => Err(failure.clone()),
            None => Ok(self.query.clone()),
        }
    }
}

impl types::Host for Calls {}

impl query::Host for Calls {
    async fn query(&mut self, filter: Resource<Filter>) -> Reply<Vec<TaskInfo>> {
        match self.table.get(&filter)?.checked() {
            Ok(query) => {
                ask!(self, Effect::Tasks { query }, Outcome::Tasks(tasks) => tasks.iter().map(info).collect())
            }
            Err(failure) => refuse(failure),
        }
    }

    async fn wait(&mut self, task: u64, wait_ms: u64) -> Reply<TaskInfo> {
        match self.ask(Effect::AwaitTask { task, wait_ms }).await? {
            Ok(Outcome::Tasks(tasks)) => match tasks.first() {
                Some(task) => Ok(Ok(info(task))),
                None => refuse(Failure::new("not-found", format!("there is no task {task}"))),
            },
            Ok(other) => Err(unexpected("await_task", &other)),
            Err(failure) => refuse(failure),
        }
    }

    async fn wait_quiet(&mut self, filter: Resource<Filter>, wait_ms: u64) -> Reply<()> {
        match self.table.get(&filter)?.checked() {
            Ok(query) => self.ask_done(Effect::AwaitQuiet { query, wait_ms }).await,
            Err(failure) => refuse(failure),
        }
    }
}

impl query::HostFilter for Calls {
    async fn new(&mut self) -> wasmtime::Result<Resource<Filter>> {
        self.hand_out(Filter::default())
    }

    async fn project(&mut self, filter: Resource<Filter>, name: String) -> wasmtime::Result<()> {
        self.table.get_mut(&filter)?.set("project", &name, |query, name: ProjectName| query.project = Some(name));
        Ok(())
    }

    async fn environment(&mut self, filter: Resource<Filter>, name: String) -> wasmtime::Result<()> {
        let put = |query: &mut TaskQuery, name: EnvironmentName| query.environment = Some(name);
        self.table.get_mut(&filter)?.set("environment", &name, put);
        Ok(())
    }

    async fn machine(&mut self, filter: Resource<Filter>, name: String) -> wasmtime::Result<()> {
        self.table.get_mut(&filter)?.set("machine", &name, |query, name: MachineName| query.machine = Some(name));
        Ok(())
    }

    async fn state(&mut self, filter: Resource<Filter>, state: String) -> wasmtime::Result<()> {
        let filter = self.table.get_mut(&filter)?;
        if let Err(failure) = check_name("the state of the filter", &state) {
            filter.wrong.get_or_insert(failure);
            return Ok(());
        }
        // The error of the parser lists the states there are.
        match serde_json::from_value::<TaskState>(state.into()) {
            Ok(state) if filter.query.state.contains(&state) => {}
            Ok(state) => filter.query.state.push(state),
            Err(error) => {
                let wrong = || Failure::new("invalid", format!("the state of the filter is wrong: {error}"));
                filter.wrong.get_or_insert_with(wrong);
            }
        }
        Ok(())
    }

    async fn limit(&mut self, filter: Resource<Filter>, count: u32) -> wasmtime::Result<()> {
        self.table.get_mut(&filter)?.query.limit = Some(count.min(MAX_TASKS));
        Ok(())
    }

    async fn drop(&mut self, filter: Resource<Filter>) -> wasmtime::Result<()> {
        self.table.delete(filter)?;
        Ok(())
    }
}

/// A deployment being described.
pub struct Deployment {
    project: String,
    environment: String,
    version: Option<String>,
    /// Bytes that the run counts for this handle.
    kept: usize,
}

impl Builder for Deployment {
    fn kept(&mut self) -> &mut usize {
        &mut self.kept
    }
}

impl deploy::Host for Calls {}

impl deploy::HostDeployment for Calls {
    async fn new(&mut self, project: String, environment: String) -> wasmtime::Result<Resource<Deployment>> {
        let bytes = project.len() + environment.len();
        let deployment = Deployment { project, environment, version: None, kept: 0 };
        self.begin(deployment, bytes)
    }

    async fn version(&mut self, deployment: Resource<Deployment>, version: String) -> wasmtime::Result<()> {
        let deployment = self.grow(&deployment, version.len())?;
        deployment.version = Some(version);
        Ok(())
    }

    async fn start(&mut self, deployment: Resource<Deployment>) -> Reply<u64> {
        let Deployment { project, environment, version, .. } = self.table.get(&deployment)?;
        check!(check_name("the project", project));
        check!(check_name("the environment", environment));
        if let Some(version) = version {
            check!(check_name("the version", version));
        }
        let (project, environment, version) = (project.clone(), environment.clone(), version.clone());
        ask!(self, Effect::Deploy { project, environment, version, detached: false }, Outcome::Number(task) => task)
    }

    async fn drop(&mut self, deployment: Resource<Deployment>) -> wasmtime::Result<()> {
        self.end(deployment)
    }
}

fn info(task: &TaskSummary) -> TaskInfo {
    let (project, environment, version) = match &task.what {
        TaskKind::Deployment { project, environment, version, .. } => {
            (project.to_string(), environment.to_string(), version.clone())
        }
        TaskKind::Script { .. } => Default::default(),
    };
    TaskInfo { id: task.id.0, project, environment, version, state: task.state.as_str().to_owned() }
}
