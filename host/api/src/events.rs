//! Live events as server-sent events, resumable by number.
//!
//! Every event carries its number as id, and so does the heartbeat: a follower of one task then resumes where the
//! server's stream is, not where its own task last spoke. `reset` says that events are missing and the state must be
//! read again; `end` that nothing more will come. A slow reader is held back by its own connection, and reset once it
//! lags too far: it costs the server nothing but its place.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response, Sse, sse::Event},
};
use futures::stream;
use schemars::SchemaGenerator;
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Instant, Interval, MissedTickBehavior},
};
use tokio_util::sync::CancellationToken;
use windlass_engine::{Followed, Follower};
use windlass_model::{
    TaskId,
    task::{TaskChange, TaskEvent},
    views::StreamEnd,
};

use crate::{
    app::App,
    fault::Fault,
    input::{Answer, Content},
};

/// A sign of life comes at least that often.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// How long a client should wait before it connects again.
const RETRY: Duration = Duration::from_secs(1);

/// The number after which a client wants to go on.
pub fn resume_after(headers: &HeaderMap, after: Option<u64>) -> Result<Option<u64>, Fault> {
    let Some(value) = headers.get("last-event-id") else { return Ok(after) };
    let parsed = value.to_str().ok().and_then(|text| text.trim().parse().ok());
    parsed.map(Some).ok_or_else(|| {
        Fault::invalid("last-event-id", "the header Last-Event-ID is no number of an event")
            .fix("send the id of the last event, or leave it out")
    })
}

/// Events of all tasks.
pub fn of_all(app: &Arc<App>, after: Option<u64>) -> Result<EventStream, Fault> {
    EventStream::new(app, None, after)
}

/// Events of one task, up to its end.
pub async fn of_task(app: &Arc<App>, task: TaskId, after: Option<u64>) -> Result<EventStream, Fault> {
    // Followed before it is looked at: what happens in between is in the stream.
    let mut stream = EventStream::new(app, Some(task), after)?;
    let detail = app.engine.task(task).await?;
    let state = detail.summary.state;
    if state.is_final() {
        stream.over = Some(Over { seq: detail.seq, end: StreamEnd { task, state } });
        if after.is_none() {
            stream.seen = detail.seq;
        }
    }
    Ok(stream)
}

/// A stream of events on its way to one client.
pub struct EventStream {
    follower: Follower,
    only: Option<TaskId>,
    closing: CancellationToken,
    heartbeat: Interval,
    /// Number of the last event seen, of whatever task.
    seen: u64,
    /// Set when the task was over before the stream began.
    over: Option<Over>,
    /// What to say last.
    end: Option<StreamEnd>,
    started: bool,
    ended: bool,
    _place: OwnedSemaphorePermit,
}

/// A task that is over already.
struct Over {
    /// No event of it comes after this one.
    seq: u64,
    end: StreamEnd,
}

impl EventStream {
    fn new(app: &Arc<App>, only: Option<TaskId>, after: Option<u64>) -> Result<Self, Fault> {
        let place = Arc::clone(&app.streams).try_acquire_owned().map_err(|_| {
            Fault::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "too-many-streams",
                "as many event streams are open as the server allows",
            )
            .fix("close one, or follow all tasks over one stream: GET /api/v1/events")
        })?;
        let mut heartbeat = tokio::time::interval_at(Instant::now() + HEARTBEAT, HEARTBEAT);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Self {
            follower: app.engine.events(after),
            only,
            closing: app.closing.clone(),
            heartbeat,
            seen: after.unwrap_or(0),
            over: None,
            end: None,
            started: false,
            ended: false,
            _place: place,
        })
    }

    /// What to send next; none when all is said.
    async fn next(&mut self) -> Option<Event> {
        if !std::mem::replace(&mut self.started, true) {
            // Said at once: clients and proxies then know that the stream stands.
            return Some(Event::default().retry(RETRY).comment("windlass events"));
        }
        loop {
            if self.ended {
                return None;
            }
            if let Some(end) = self.end.take() {
                self.ended = true;
                return Some(event("end", &end));
            }
            if let Some(over) = &self.over
                && self.seen >= over.seq
                && !self.follower.reset
            {
                self.end = Some(over.end);
                continue;
            }
            tokio::select! {
                biased;
                () = self.closing.cancelled() => return None,
                _ = self.heartbeat.tick() => return Some(self.sign_of_life()),
                followed = self.follower.next() => match followed {
                    Followed::Event(found) => if let Some(event) = self.take(&found) { return Some(event) },
                    Followed::Reset => {
                        // The client reads the state again, which is final for a task that is over.
                        self.end = self.over.as_ref().map(|over| over.end);
                        return Some(Event::default().event("reset").data("{}"));
                    }
                    Followed::End => return None,
                },
            }
        }
    }

    fn take(&mut self, found: &TaskEvent) -> Option<Event> {
        self.seen = found.seq;
        if self.only.is_some_and(|task| task != found.task) {
            return None;
        }
        let name = match &found.change {
            TaskChange::Task { state, .. } => {
                if self.only.is_some() && state.is_final() {
                    self.end = Some(StreamEnd { task: found.task, state: *state });
                }
                "task"
            }
            TaskChange::Step { .. } => "step",
            TaskChange::Run { .. } => "run",
            TaskChange::Worker { .. } => "worker",
            TaskChange::Log { .. } => "log",
        };
        Some(event(name, found).id(found.seq.to_string()))
    }

    fn sign_of_life(&self) -> Event {
        let event = Event::default().comment("heartbeat");
        if self.seen > 0 { event.id(self.seen.to_string()) } else { event }
    }
}

fn event(name: &str, data: &impl serde::Serialize) -> Event {
    let event = Event::default().event(name);
    event.json_data(data).unwrap_or_else(|error| {
        tracing::error!(%error, "an event does not serialize");
        Event::default().event("reset").data("{}")
    })
}

impl Answer for EventStream {
    fn describe(_: &mut SchemaGenerator) -> (StatusCode, Vec<Content>) {
        (StatusCode::OK, vec![Content { media: "text/event-stream", schema: None, required: true }])
    }

    fn respond(self) -> Response {
        let events = stream::unfold(Box::new(self), |mut stream| async move {
            stream.next().await.map(|event| (Ok::<_, Infallible>(event), stream))
        });
        let mut response = Sse::new(events).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
        response
    }
}
