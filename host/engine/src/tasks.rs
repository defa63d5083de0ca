//! Tasks: queueing them, finding them, looking at them.

use sha2::{Digest, Sha256};
use windlass_model::{
    EnvironmentName, Machine, MachineName, Manifest, On, ProjectName, Release, Step, StepName, TaskId, TaskKind,
    TaskState,
    manifest::RunsOn,
    process::{OnUnavailable, StepIsolation},
    task::{TaskDetail, TaskQuery, TaskSummary},
    views::{DeployRequest, ScriptRequest},
};
use windlass_scheduler::{Event, Isolation, StepPlan, TaskPlan, Unavailable, Where};
use windlass_store::{Batch, Key, Store};

use crate::{
    board::first_view,
    catalog,
    error::EngineError,
    records::{COUNTERS, MACHINE_TASKS, OUTPUTS, RUNS, SCRIPTS, STEPS, StoredValue, TASKS, all, readable},
    releases,
    services::Services,
};

/// Tasks in one answer, at most.
const MAX_LIST: u32 = 200;
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
    Ok(DeployRequest {
        project: ProjectName::new(project).map_err(invalid)?,
        environment: EnvironmentName::new(environment).map_err(invalid)?,
        version: version.map(str::to_owned),
        machines: Vec::new(),
    })
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

    /// Makes it a child of the run that queues it: a cancel of that task reaches it too.
    #[must_use]
    pub fn child_of(mut self, run: windlass_scheduler::RunKey) -> Self {
        self.plan.parent = Some(windlass_scheduler::Parent { run, detached: false });
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

/// Plans a deployment.
///
/// # Errors
/// When something it names does not exist, or nothing matches.
pub async fn prepare_deployment(services: &Services, request: DeployRequest) -> Result<Prepared, EngineError> {
    let environment = catalog::environment(services, &request.environment).await?.name;
    let project = catalog::project(services, &request.project).await?.name;
    let release = releases::get(services, &project, request.version.as_deref()).await?;
    let machines = catalog::machines(services).await?;
    for name in &request.machines {
        if !machines.iter().any(|machine| machine.name == *name) {
            return Err(EngineError::not_found("machine", name).fix("windlass machine list"));
        }
    }
    let mut steps = Vec::new();
    for step in &release.process.steps {
        let manifest = manifest(services, &release, step).await?;
        steps.push(plan_step(step, &manifest, &environment, &machines, &request.machines)?);
    }
    if steps.iter().all(|step| step.skip.is_some()) {
        return Err(EngineError::invalid(
            "nothing-to-do",
            format!("no step of {project} has anything to do in {environment}"),
        )
        .fix("give machines of that environment the roles that the steps ask for"));
    }
    let what = TaskKind::Deployment {
        project: project.clone(),
        version: release.version.clone(),
        environment: environment.clone(),
        machines: request.machines,
    };
    let tag = format!("{}/{}", project.key(), environment.key());
    let mut plan = TaskPlan::deployment(what.title(), tag, steps);
    plan.guided = release.process.guided;
    plan.max_parallelism = release.process.max_parallelism;
    plan.unavailable = match release.process.unavailable {
        OnUnavailable::Fail => Unavailable::Fail,
        OnUnavailable::Skip => Unavailable::Skip,
        OnUnavailable::Exclude => Unavailable::Exclude,
    };
    let uses: Vec<String> = release.process.steps.iter().map(|step| step.uses.to_string()).collect();
    let (id, number) = number(services).await?;
    let view = first_view(id, what, &plan, &uses, services.shared.clock.now_ms());
    Ok(Prepared { plan, view, with: Batch::new(), _number: number })
}

async fn manifest(services: &Services, release: &Release, step: &Step) -> Result<Manifest, EngineError> {
    let pinned = release.guests.get(&step.uses).ok_or_else(|| {
        EngineError::not_found("plugin", &step.uses).fix(format!("windlass release create {}", release.project))
    })?;
    let plugin = services.plugins.load(services, &pinned.sha256).await?;
    Ok((**plugin.manifest()).clone())
}

/// What one step means for the scheduler.
fn plan_step(
    step: &Step,
    manifest: &Manifest,
    environment: &EnvironmentName,
    machines: &[Machine],
    only: &[MachineName],
) -> Result<StepPlan, EngineError> {
    let usable = |machine: &&Machine| !machine.disabled && (only.is_empty() || only.contains(&machine.name));
    let in_environment = |machine: &&Machine| machine.environments.contains(environment);
    let mut skip = None;
    let place = match &step.on {
        None if manifest.runs_on == RunsOn::Machine => {
            return Err(EngineError::invalid(
                "no-machines",
                format!("step {} runs on machines, and does not say which", step.name),
            )
            .fix("add on: { role: … } to the step"));
        }
        None => Where::Server,
        Some(On::Role(role)) => {
            let plays = |machine: &&Machine| machine.roles.contains(role);
            let found: Vec<_> = machines
                .iter()
                .filter(usable)
                .filter(in_environment)
                .filter(plays)
                .map(|machine| machine.name.clone())
                .collect();
            if found.is_empty() {
                skip = Some(format!("no machine of {environment} has the role {role}"));
            }
            Where::Machines(found)
        }
        Some(On::Machine(name)) => {
            let found = machines.iter().filter(usable).find(|machine| machine.name == *name);
            if found.is_none() {
                skip = Some(format!("the machine {name} does not exist, is disabled or left out"));
            }
            Where::Machines(found.map(|machine| machine.name.clone()).into_iter().collect())
        }
        Some(On::Pool(pool)) => {
            let found =
                machines.iter().filter(|machine| !machine.disabled).find(|machine| machine.pools.contains(pool));
            if found.is_none() {
                skip = Some(format!("the pool {pool} has no machine"));
            }
            Where::Machines(found.map(|machine| machine.name.clone()).into_iter().collect())
        }
    };
    if step.disabled {
        skip = Some("it is disabled".to_owned());
    } else if !step.environments.is_empty() && !step.environments.contains(environment) {
        skip = Some(format!("it is not meant for {environment}"));
    }
    let mut plan = StepPlan::new(step.name.clone(), place);
    plan.skip = skip;
    plan.start = step.start;
    plan.condition = step.when;
    plan.window = step.rolling.map(|rolling| rolling.window);
    plan.needs_packages = manifest.package_inputs().any(|input| step.with.contains_key(input));
    plan.isolation = match (step.isolation, &step.on) {
        (StepIsolation::Exclusive, _) => Isolation::Exclusive,
        (StepIsolation::Shared, _) => Isolation::Shared,
        (StepIsolation::Declared, Some(On::Pool(_))) if manifest.locks.is_empty() => Isolation::Shared,
        (StepIsolation::Declared, _) if manifest.locks.is_empty() => Isolation::Exclusive,
        _ => Isolation::Resources(manifest.locks.iter().map(|need| filled(need, step)).collect()),
    };
    plan.hold = step.hold;
    plan.required = step.required;
    plan.retries = step.retries;
    plan.backoff_ms = step.retry_after_seconds.saturating_mul(1000);
    if let Some(seconds) = step.timeout_seconds {
        plan.timeout_ms = Some(seconds.saturating_mul(1000));
    }
    Ok(plan)
}

/// A lock's name with the step's inputs in place of `{input}`.
fn filled(need: &windlass_model::manifest::LockNeed, step: &Step) -> windlass_model::manifest::LockNeed {
    let mut resource = need.resource.clone();
    for (name, value) in &step.with {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        resource = resource.replace(&format!("{{{name}}}"), &text);
    }
    windlass_model::manifest::LockNeed { resource, ..need.clone() }
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

/// A task as lists show it.
///
/// # Errors
/// When there is none, or the store stopped.
pub async fn summary(services: &Services, task: TaskId) -> Result<TaskSummary, EngineError> {
    {
        let board = services.shared.board.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(detail) = board.get(task) {
            return Ok(detail.summary.clone());
        }
    }
    let stored = TASKS.get(&*services.shared.store, task.0).await?;
    stored.map(|stored| stored.value).ok_or_else(|| EngineError::not_found("task", task).fix("windlass task list"))
}

/// A task with its tree.
///
/// # Errors
/// When there is none, or the store stopped.
pub async fn detail(services: &Services, task: TaskId) -> Result<TaskDetail, EngineError> {
    let seq = services.shared.hub.seq();
    let live = services.shared.board.read().unwrap_or_else(std::sync::PoisonError::into_inner).get(task).cloned();
    let mut detail = match live {
        Some(detail) => detail,
        None => stored_detail(&*services.shared.store, task)
            .await?
            .ok_or_else(|| EngineError::not_found("task", task).fix("windlass task list"))?,
    };
    detail.seq = seq;
    let outputs = OUTPUTS.starting_with(task.0);
    for output in all(&*services.shared.store, &OUTPUTS, outputs).await? {
        let run = detail
            .steps
            .iter_mut()
            .filter(|step| step.name == output.step)
            .flat_map(|step| &mut step.runs)
            .find(|run| run.machine.as_ref().map(ToString::to_string) == output.machine);
        if let Some(run) = run {
            let text = match output.value {
                StoredValue::Text(text) => text,
                StoredValue::Secret(_) => windlass_effects::MASK.to_owned(),
            };
            run.outputs.insert(output.name, text);
        }
    }
    Ok(detail)
}

/// A task's tree as stored, without the nodes that cannot be read.
///
/// # Errors
/// When the store stopped, or the task's own record does not decode.
pub async fn stored_detail(store: &dyn Store, task: TaskId) -> Result<Option<TaskDetail>, EngineError> {
    let Some(summary) = TASKS.get(store, task.0).await? else {
        return Ok(None);
    };
    let mut steps = readable(store, &STEPS, STEPS.starting_with(task.0)).await?;
    for run in readable(store, &RUNS, RUNS.starting_with(task.0)).await? {
        let step = run.node.rsplit_once('/').and_then(|(step, _)| steps.iter_mut().find(|view| view.node == step));
        if let Some(step) = step {
            step.runs.push(run);
        }
    }
    let barrier = steps.first().is_some_and(|step| step.node == windlass_model::task::PACKAGES_NODE);
    let packages = barrier.then(|| steps.remove(0));
    Ok(Some(TaskDetail { summary: summary.value, packages, steps, seq: 0 }))
}

/// Tasks that match, newest first.
///
/// # Errors
/// When the store stopped.
pub async fn list(services: &Services, query: &TaskQuery) -> Result<Vec<TaskSummary>, EngineError> {
    let limit = query.limit.unwrap_or(50).clamp(1, MAX_LIST) as usize;
    let mut found = Vec::new();
    let live_only = !query.state.is_empty() && query.state.iter().all(|state| !state.is_final());
    if live_only {
        let board = services.shared.board.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        let matching = board.newest_first().filter(|detail| is_found(query, detail));
        found.extend(matching.take(limit).map(|detail| detail.summary.clone()));
        return Ok(found);
    }
    let store = &*services.shared.store;
    if let Some(machine) = &query.machine {
        let prefix = Key::of_text(&machine.key());
        let mut scan = MACHINE_TASKS.starting_with(prefix.clone()).descending();
        loop {
            let page = MACHINE_TASKS.scan(store, scan.clone().limit(200)).await?;
            for record in &page.records {
                let mut parts = Key::parts(&record.key);
                let (_, Some(id)) = (parts.text(), parts.id()) else {
                    continue;
                };
                let summary = summary(services, TaskId(id)).await?;
                if matches(query, &summary) {
                    found.push(summary);
                }
                if found.len() == limit {
                    return Ok(found);
                }
            }
            match page.records.last() {
                Some(last) if page.more => scan = scan.after(last.key.clone()),
                _ => return Ok(found),
            }
        }
    }
    let mut scan = TASKS.all().descending();
    if let Some(before) = query.before {
        scan = scan.after(Key::of_id(before.0));
    }
    loop {
        // One that is damaged must not hide all others.
        let (page, last, damaged) = TASKS.scan_readable(store, scan.clone().limit(200)).await?;
        for error in damaged {
            tracing::error!(%error, "a task is left out of a list: windlass store check tells more");
        }
        for stored in page.records {
            // The board knows the latest reason of a live task.
            let summary = summary(services, stored.value.id).await?;
            if matches(query, &summary) {
                found.push(summary);
            }
            if found.len() == limit {
                return Ok(found);
            }
        }
        match last {
            Some(last) if page.more => scan = scan.after(last),
            _ => return Ok(found),
        }
    }
}

/// Whether a query finds a live task.
#[must_use]
pub fn is_found(query: &TaskQuery, detail: &TaskDetail) -> bool {
    matches(query, &detail.summary) && query.machine.as_ref().is_none_or(|machine| touches(detail, machine))
}

fn touches(detail: &TaskDetail, machine: &MachineName) -> bool {
    detail
        .packages
        .iter()
        .chain(&detail.steps)
        .flat_map(|step| &step.runs)
        .any(|run| run.machine.as_ref() == Some(machine))
}

fn matches(query: &TaskQuery, task: &TaskSummary) -> bool {
    let (project, environment) = match &task.what {
        TaskKind::Deployment { project, environment, .. } => (Some(project), Some(environment)),
        TaskKind::Script { .. } => (None, None),
    };
    (query.state.is_empty() || query.state.contains(&task.state))
        && query.exclude_task != Some(task.id)
        && query.before.is_none_or(|before| task.id < before)
        && (query.project.is_none() || query.project.as_ref() == project)
        && (query.environment.is_none() || query.environment.as_ref() == environment)
}

/// Asks a task to stop.
///
/// # Errors
/// When there is none, or it is over already.
pub async fn cancel(services: &Services, task: TaskId) -> Result<TaskSummary, EngineError> {
    let summary = summary(services, task).await?;
    if summary.state.is_final() {
        return Err(EngineError::conflict("task-over", format!("task {task} is over: it {}", past(summary.state)))
            .fix(format!("windlass task show {task}")));
    }
    services.driver.submit(Event::TaskCancelled { task }, None, Batch::new()).await?;
    self::summary(services, task).await
}

fn past(state: TaskState) -> &'static str {
    match state {
        TaskState::Succeeded => "succeeded",
        TaskState::Cancelled => "was cancelled",
        TaskState::TimedOut => "did not start in time",
        _ => "failed",
    }
}
