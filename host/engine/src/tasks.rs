//! Tasks: finding them, looking at them, stopping them. How one is put into the queue is for `queueing`.

use windlass_model::{
    MachineName, TaskId, TaskKind, TaskState,
    task::{TaskDetail, TaskQuery, TaskSummary},
};
use windlass_scheduler::Event;
use windlass_store::{Batch, Key, Store};

pub use crate::queueing::{Prepared, deployment_request, prepare_deployment, prepare_script};
use crate::{
    board::Live,
    error::EngineError,
    records::{MACHINE_TASKS, RUNS, STEPS, StoredValue, TASKS, outputs, readable},
    services::Services,
};

/// Tasks in one answer, at most.
const MAX_LIST: u32 = 200;

/// A task as lists show it.
///
/// # Errors
/// When there is none, or the store stopped.
pub async fn summary(services: &Services, task: TaskId) -> Result<TaskSummary, EngineError> {
    {
        let board = services.shared.board.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(detail) = board.get(task) {
            return Ok(TaskSummary::clone(&detail.summary));
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
    let live =
        services.shared.board.read().unwrap_or_else(std::sync::PoisonError::into_inner).get(task).map(Live::detail);
    let mut detail = match live {
        Some(detail) => detail,
        None => stored_detail(&*services.shared.store, task)
            .await?
            .ok_or_else(|| EngineError::not_found("task", task).fix("windlass task list"))?,
    };
    detail.seq = seq;
    let store = &*services.shared.store;
    for output in outputs(store, task, store.last_seq()).await? {
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
        found.extend(matching.take(limit).map(|task| TaskSummary::clone(&task.summary)));
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
pub fn is_found(query: &TaskQuery, task: &Live) -> bool {
    matches(query, &task.summary) && query.machine.as_ref().is_none_or(|machine| touches(task, machine))
}

fn touches(task: &Live, machine: &MachineName) -> bool {
    let mut runs = task.all_steps().flat_map(|step| &step.runs);
    runs.any(|run| run.view.machine.as_ref() == Some(machine))
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
