//! Tasks: looking at them, waiting for them, queueing deployments.

use std::{fmt, sync::Arc};

use rhai::{Dynamic, Engine, Map, NativeCallContext};
use windlass_effects::{Effect, Failure, Outcome};
use windlass_model::{
    TaskId, TaskKind, TaskState, nearest,
    task::{TaskQuery, TaskSummary},
};

use super::{DEFAULT_WAIT, answer, failure, host_fn, natural, number};
use crate::{
    options::{Options, invalid, ms, to_span},
    state::{Fallible, RunState},
};

/// A task as it was when the script asked.
#[derive(Debug, Clone)]
pub(super) struct Task(Arc<TaskSummary>);

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "task {} ({}, {})", self.0.id, self.0.title, self.0.state)
    }
}

impl Task {
    fn deployed(&self, part: impl Fn(&str, &str, &str) -> String) -> Dynamic {
        match &self.0.what {
            TaskKind::Deployment { project, environment, version, .. } => {
                part(project.as_str(), environment.as_str(), version).into()
            }
            TaskKind::Script { .. } => Dynamic::UNIT,
        }
    }
}

pub(super) fn register(engine: &mut Engine, state: &Arc<RunState>, own: Option<TaskId>) {
    register_type(engine);
    host_fn!(engine, state, "tasks", |ctx| list(&state, ctx, own, Map::new()));
    host_fn!(engine, state, "tasks", |ctx, options: Map| list(&state, ctx, own, options));
    host_fn!(engine, state, "await_quiet", |ctx, options: Map| await_quiet(&state, ctx, own, options));
    host_fn!(engine, state, "await_task", |ctx, task: Dynamic| await_task(&state, ctx, &task, DEFAULT_WAIT.into()));
    host_fn!(engine, state, "await_task", |ctx, task: Dynamic, timeout: Dynamic| await_task(
        &state, ctx, &task, timeout
    ));
    host_fn!(engine, state, "deploy", |ctx, options: Map| deploy(&state, ctx, options));
}

fn register_type(engine: &mut Engine) {
    let seconds = |ms: Option<u64>| ms.map_or(Dynamic::UNIT, |ms| number(ms / 1_000).into());
    let text = |text: Option<String>| text.map_or(Dynamic::UNIT, Dynamic::from);
    engine
        .register_type_with_name::<Task>("task")
        .register_get("id", |task: &mut Task| number(task.0.id.0))
        .register_get("title", |task: &mut Task| task.0.title.clone())
        .register_get("state", |task: &mut Task| task.0.state.as_str())
        .register_get("project", |task: &mut Task| task.deployed(|project, _, _| project.to_owned()))
        .register_get("environment", |task: &mut Task| task.deployed(|_, environment, _| environment.to_owned()))
        .register_get("version", |task: &mut Task| task.deployed(|_, _, version| version.to_owned()))
        .register_get("succeeded", |task: &mut Task| task.0.state == TaskState::Succeeded)
        .register_get("has_ended", |task: &mut Task| task.0.state.is_final())
        .register_get("reason", move |task: &mut Task| text(task.0.reason.as_ref().map(|reason| reason.text.clone())))
        .register_get("error", move |task: &mut Task| text(task.0.error.clone()))
        .register_get("created", |task: &mut Task| number(task.0.created_ms / 1_000))
        .register_get("started", move |task: &mut Task| seconds(task.0.started_ms))
        .register_get("ended", move |task: &mut Task| seconds(task.0.ended_ms))
        .register_fn("to_string", |task: &mut Task| task.to_string())
        .register_fn("to_debug", |task: &mut Task| task.to_string());
}

const FILTERS: [&str; 6] = ["machine", "state", "project", "environment", "limit", "include_self"];

/// Reads the filters of a query. The script's own task does not count unless it asks for it.
fn query(ctx: &NativeCallContext, options: &mut Options, own: Option<TaskId>) -> Fallible<TaskQuery> {
    let limit = options.number("limit")?;
    let exclude_task = if options.flag("include_self")? { None } else { own };
    Ok(TaskQuery {
        machine: options.name("machine")?,
        state: states(ctx, &options.texts("state")?)?,
        project: options.name("project")?,
        environment: options.name("environment")?,
        exclude_task,
        limit: limit.map(|limit| u32::try_from(limit).unwrap_or(u32::MAX)),
        before: None,
    })
}

fn states(ctx: &NativeCallContext, words: &[String]) -> Fallible<Vec<TaskState>> {
    use TaskState as S;
    let all = [S::Queued, S::Executing, S::Cancelling, S::Cancelled, S::Failed, S::TimedOut, S::Succeeded];
    let find = |word: &String| {
        all.into_iter().find(|state| state.as_str() == word).ok_or_else(|| {
            let names = all.map(S::as_str);
            let fix = match nearest(word, names) {
                Some(near) => format!("did you mean {near}?"),
                None => format!("the states are {}", names.join(", ")),
            };
            let word: String = word.chars().take(40).collect();
            invalid(ctx, format!("no task can be in the state {word:?}"), fix)
        })
    };
    words.iter().map(find).collect()
}

fn list(state: &RunState, ctx: &NativeCallContext, own: Option<TaskId>, options: Map) -> Fallible<Vec<Dynamic>> {
    let mut options = Options::new(ctx, options, &FILTERS)?;
    let query = query(ctx, &mut options, own)?;
    let found = answer!(ctx, state.ask(ctx, Effect::Tasks { query })?, Outcome::Tasks(tasks) => tasks)?;
    Ok(found.into_iter().map(|task| Dynamic::from(Task(task.into()))).collect())
}

fn await_quiet(state: &RunState, ctx: &NativeCallContext, own: Option<TaskId>, options: Map) -> Fallible<()> {
    let mut options = Options::new(ctx, options, &["machine", "project", "environment", "timeout"])?;
    let wait = match options.span("timeout")? {
        Some(span) => span,
        None => to_span(ctx, DEFAULT_WAIT.into())?,
    };
    let query = query(ctx, &mut options, own)?;
    if query.machine.is_none() && query.project.is_none() && query.environment.is_none() {
        return Err(invalid(
            ctx,
            "await_quiet is told nothing that could become quiet",
            "name a machine, a project or an environment",
        ));
    }
    let effect = Effect::AwaitQuiet { query, wait_ms: ms(wait) };
    answer!(ctx, state.ask(ctx, effect)?, Outcome::Done => ())
}

fn await_task(state: &RunState, ctx: &NativeCallContext, task: &Dynamic, timeout: Dynamic) -> Fallible<Task> {
    let task = match (task.read_lock::<Task>(), task.as_int()) {
        (Some(task), _) => task.0.id.0,
        (None, Ok(id)) => natural(ctx, "the number of a task", id)?,
        (None, Err(kind)) => {
            return Err(invalid(ctx, format!("a {kind} is no task"), "give the number that deploy answered"));
        }
    };
    let effect = Effect::AwaitTask { task, wait_ms: ms(to_span(ctx, timeout)?) };
    let found = answer!(ctx, state.ask(ctx, effect)?, Outcome::Tasks(tasks) => tasks)?;
    let missing = || Failure::new("not-found", format!("there is no task {task}"));
    found
        .into_iter()
        .next()
        .map(|task| Task(task.into()))
        .ok_or_else(|| failure(ctx, missing().fix("list the tasks: windlass task list")))
}

fn deploy(state: &RunState, ctx: &NativeCallContext, options: Map) -> Fallible<i64> {
    let mut options = Options::new(ctx, options, &["project", "environment", "version", "detached"])?;
    let effect = Effect::Deploy {
        project: options.need_text("project")?,
        environment: options.need_text("environment")?,
        version: options.text("version")?,
        detached: options.flag("detached")?,
    };
    answer!(ctx, state.ask(ctx, effect)?, Outcome::Number(task) => number(task))
}
