//! Deployments, scripts, and the tasks they become: lists, trees, logs, events, cancel.

use std::sync::Arc;

use axum::{
    body::Body,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures::stream;
use schemars::{JsonSchema, SchemaGenerator};
use serde::{Deserialize, Deserializer, de};
use windlass_model::{
    EnvironmentName, MachineName, ProjectName, TaskId, TaskState,
    replay::ReplayView,
    task::{LogLine, TaskDetail, TaskQuery, TaskSummary},
    views::{DeployRequest, Items, LogPage, ScriptRequest},
};

use crate::{
    app::App,
    events::{self, EventStream},
    fault::Fault,
    input::{Answer, Content, Created, Json, Nothing, json},
    operation::Call,
};

/// Lines in one page of a log unless asked otherwise, and at most.
const PAGE: (u32, u32) = (500, 2000);
/// Tasks in one page unless asked otherwise, and at most.
const TASKS: (u32, u32) = (50, 200);

/// Which task.
#[derive(Deserialize, JsonSchema)]
pub struct TaskPath {
    /// Its number.
    task: TaskId,
}

/// Which run.
#[derive(Deserialize, JsonSchema)]
pub struct RunPath {
    /// Its id, such as `12.0.m-web1.1`, or the number of a task that has only one.
    run: String,
}

/// Which tasks. What is left out does not filter.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TasksQuery {
    /// Tasks that have work on this machine.
    machine: Option<MachineName>,
    /// States to include, separated by commas.
    #[serde(default, deserialize_with = "separated")]
    state: Vec<TaskState>,
    /// Only tasks of this project.
    project: Option<ProjectName>,
    /// Only tasks of this environment.
    environment: Option<EnvironmentName>,
    /// Never this task.
    exclude_task: Option<TaskId>,
    /// At most so many, newest first. Default 50, at most 200.
    limit: Option<u32>,
    /// Only tasks older than this one: the next page.
    before: Option<TaskId>,
}

/// Which lines.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LogQuery {
    /// Node of the task's tree, such as `web/shop-1`. Left out: the task's own.
    #[serde(default)]
    node: String,
    /// Number of the first line.
    #[serde(default)]
    from: u64,
    /// At most so many lines. Default 500, at most 2000; as text, all unless given.
    limit: Option<u32>,
}

/// Where to go on.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EventsQuery {
    /// Number of the last event seen; the header `Last-Event-ID` wins.
    after: Option<u64>,
}

fn separated<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<TaskState>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    parts.map(|part| TaskState::deserialize(de::value::StrDeserializer::<D::Error>::new(part))).collect()
}

pub fn created(task: TaskSummary) -> Created<TaskSummary> {
    Created { location: format!("/api/v1/tasks/{}", task.id), value: task }
}

pub async fn deploy(call: Call<Nothing, Nothing, Json<DeployRequest>>) -> Result<Created<TaskSummary>, Fault> {
    Ok(created(call.app.engine.once(call.once).deploy(call.body.0).await?))
}

pub async fn run_script(call: Call<Nothing, Nothing, Json<ScriptRequest>>) -> Result<Created<TaskSummary>, Fault> {
    Ok(created(call.app.engine.once(call.once).run_script(call.body.0).await?))
}

pub async fn tasks(call: Call<Nothing, TasksQuery>) -> Result<Json<Items<TaskSummary>>, Fault> {
    let TasksQuery { machine, state, project, environment, exclude_task, limit, before } = call.query;
    let limit = limit.unwrap_or(TASKS.0).clamp(1, TASKS.1);
    let query = TaskQuery { machine, state, project, environment, exclude_task, limit: Some(limit), before };
    let items = call.app.engine.tasks(&query).await?;
    let next = items.last().filter(|_| items.len() == limit as usize).map(|task| task.id.0);
    Ok(Json(Items { items, next }))
}

pub async fn task(call: Call<TaskPath>) -> Result<Json<TaskDetail>, Fault> {
    Ok(Json(call.app.engine.task(call.path.task).await?))
}

pub async fn cancel(call: Call<TaskPath>) -> Result<Json<TaskSummary>, Fault> {
    Ok(Json(call.app.engine.cancel(call.path.task).await?))
}

pub async fn replay(call: Call<RunPath>) -> Result<Json<ReplayView>, Fault> {
    Ok(Json(call.app.engine.replay(&call.path.run).await?))
}

/// A log as JSON lines with their numbers, or as plain text.
pub enum Log {
    Page(LogPage),
    Text(Body),
}

impl Answer for Log {
    fn describe(schemas: &mut SchemaGenerator) -> (StatusCode, Vec<Content>) {
        let text = Content { media: "text/plain", schema: None, required: true };
        (StatusCode::OK, vec![json::<LogPage>(schemas), text])
    }

    fn respond(self) -> Response {
        match self {
            Self::Page(page) => axum::Json(page).into_response(),
            Self::Text(body) => {
                let plain = HeaderValue::from_static("text/plain; charset=utf-8");
                ([(header::CONTENT_TYPE, plain)], body).into_response()
            }
        }
    }
}

pub async fn log(call: Call<TaskPath, LogQuery>) -> Result<Log, Fault> {
    let (task, LogQuery { node, from, limit }) = (call.path.task, call.query);
    if wants_text(&call.headers) {
        // The first page is read here so that an unknown task is refused with its own status.
        let left = limit.map_or(u64::MAX, u64::from);
        let reader = LogReader { app: call.app, task, node, from, left };
        let (first, reader) = reader.page().await?;
        return Ok(Log::Text(Body::from_stream(as_text(first, reader))));
    }
    let limit = limit.unwrap_or(PAGE.0).clamp(1, PAGE.1) as usize;
    let items = call.app.engine.log(task, &node, from, limit).await?;
    let next = items.last().filter(|_| items.len() == limit).map(|line| line.n + 1);
    Ok(Log::Page(Items { items, next }))
}

fn wants_text(headers: &HeaderMap) -> bool {
    let accepted = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    accepted.split(',').any(|media| media.split(';').next().is_some_and(|media| media.trim() == "text/plain"))
}

/// Reads a log page by page, as fast as the client takes it.
struct LogReader {
    app: Arc<App>,
    task: TaskId,
    node: String,
    from: u64,
    left: u64,
}

impl LogReader {
    async fn page(mut self) -> Result<(Vec<LogLine>, Option<Self>), Fault> {
        let limit = self.left.min(u64::from(PAGE.1));
        let lines = self.app.engine.log(self.task, &self.node, self.from, usize::try_from(limit).unwrap_or(1)).await?;
        let full = lines.len() as u64 == limit;
        self.left = self.left.saturating_sub(lines.len() as u64);
        self.from = lines.last().map_or(self.from, |line| line.n + 1);
        let more = full && self.left > 0 && !lines.is_empty();
        Ok((lines, more.then_some(self)))
    }
}

fn as_text(
    first: Vec<LogLine>,
    reader: Option<LogReader>,
) -> impl futures::Stream<Item = Result<Bytes, std::io::Error>> {
    stream::try_unfold((Some(first), reader), |(ready, reader)| async move {
        if let Some(lines) = ready {
            return Ok(Some((text(&lines), (None, reader))));
        }
        let Some(reader) = reader else { return Ok(None) };
        let (lines, reader) = reader.page().await.map_err(|fault| std::io::Error::other(format!("{fault:?}")))?;
        Ok(Some((text(&lines), (None, reader))))
    })
}

fn text(lines: &[LogLine]) -> Bytes {
    let mut out = String::with_capacity(lines.iter().map(|line| line.text.len() + 1).sum());
    for line in lines {
        out.push_str(&line.text);
        out.push('\n');
    }
    out.into()
}

pub async fn task_events(call: Call<TaskPath, EventsQuery>) -> Result<EventStream, Fault> {
    let after = events::resume_after(&call.headers, call.query.after)?;
    events::of_task(&call.app, call.path.task, after).await
}

pub async fn all_events(call: Call<Nothing, EventsQuery>) -> Result<EventStream, Fault> {
    let after = events::resume_after(&call.headers, call.query.after)?;
    events::of_all(&call.app, after)
}
