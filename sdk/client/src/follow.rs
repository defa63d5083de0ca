//! Following a task: its state, every change, and every line of its log exactly once, in order within its node.
//!
//! State and logs are read first, events then go on from there. Lines are counted per node: what comes twice is
//! dropped, what is missing is fetched by range. A lost connection is made again with growing pauses; the server tells
//! when events are gone for good, and then everything is read again from where each node stands.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use bytes::Bytes;
use futures::{
    StreamExt, future,
    stream::{self, BoxStream},
};
use reqwest::{Method, header};
use tokio::time::Instant;
use windlass_model::{
    RunState, TaskId,
    task::{LogLine, TaskChange, TaskDetail, TaskEvent},
    views::LogPage,
};

use crate::{
    client::Client,
    error::{ClientError, Result},
    operations::LogRange,
    sse::{Message, Parser},
};

/// Silence after which a connection counts as lost: three heartbeats of the server.
const SILENCE: Duration = Duration::from_secs(45);
/// First pause before connecting again; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// Longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How long a server may be away before following fails.
const GIVE_UP: Duration = Duration::from_secs(300);
/// Nodes whose logs are read at the same time.
const AT_ONCE: usize = 8;
/// Lines read at a time.
const PAGE: u32 = 1000;

/// What a follower learns next.
#[derive(Debug, Clone, PartialEq)]
pub enum TaskUpdate {
    /// The whole state: first of all, and again when changes were missed.
    State(Box<TaskDetail>),
    /// One change. Never of the log.
    Changed {
        /// When, milliseconds since 1970 UTC.
        at_ms: u64,
        /// What changed.
        change: TaskChange,
    },
    /// Lines of a node that follow those before without a gap.
    Lines {
        /// Node they belong to; empty for the task itself.
        node: String,
        /// The lines.
        lines: Vec<LogLine>,
    },
    /// The connection is lost and will be made again; the task goes on meanwhile.
    Reconnecting {
        /// Why.
        cause: String,
    },
    /// The task is over. Nothing comes after this.
    Ended(Box<TaskDetail>),
}

/// A task's updates; ends after [`TaskUpdate::Ended`] or an error.
pub type TaskFollower = BoxStream<'static, Result<TaskUpdate>>;

impl Client {
    /// Follows a task from its first line to its end.
    #[must_use]
    pub fn follow_task(&self, task: TaskId) -> TaskFollower {
        let follow = Follow {
            client: self.clone(),
            task,
            stage: Stage::Read,
            ready: VecDeque::new(),
            behind: VecDeque::new(),
            next: BTreeMap::new(),
            read: 0,
            after: 0,
            connection: None,
            away: None,
        };
        stream::unfold(
            Box::new(follow),
            |mut follow| async move { follow.update().await.map(|update| (update, follow)) },
        )
        .boxed()
    }
}

struct Follow {
    client: Client,
    task: TaskId,
    stage: Stage,
    /// Updates that are known already.
    ready: VecDeque<TaskUpdate>,
    /// Nodes whose logs must be read by range.
    behind: VecDeque<String>,
    /// Number of the next line, by node.
    next: BTreeMap<String, u64>,
    /// Number of the last event that the state read includes.
    read: u64,
    /// Number of the last event seen.
    after: u64,
    connection: Option<Connection>,
    /// Since when the server is away, and the next pause.
    away: Option<(Instant, Duration)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The state must be read.
    Read,
    /// Events are followed.
    Events,
    /// The task is over; its last state must be read.
    End,
    /// All is said.
    Done,
}

struct Connection {
    bytes: BoxStream<'static, reqwest::Result<Bytes>>,
    parser: Parser,
}

impl Follow {
    async fn update(&mut self) -> Option<Result<TaskUpdate>> {
        loop {
            if let Some(update) = self.ready.pop_front() {
                return Some(Ok(update));
            }
            if self.stage == Stage::Done {
                return None;
            }
            match self.advance().await {
                Ok(()) => self.away = None,
                Err(error) => {
                    if let Err(error) = self.lost(error).await {
                        self.stage = Stage::Done;
                        return Some(Err(error));
                    }
                }
            }
        }
    }

    /// Does the next thing there is to do.
    async fn advance(&mut self) -> Result<()> {
        if !self.behind.is_empty() {
            return self.catch_up().await;
        }
        match self.stage {
            Stage::Read => {
                let detail = self.client.task(self.task).await?;
                self.behind = nodes(&detail).collect();
                self.read = detail.seq;
                self.after = self.after.max(detail.seq);
                self.stage = if detail.summary.state.is_final() { Stage::End } else { Stage::Events };
                self.ready.push_back(TaskUpdate::State(Box::new(detail)));
                Ok(())
            }
            Stage::Events => self.event().await,
            Stage::End => {
                let detail = self.client.task(self.task).await?;
                self.stage = Stage::Done;
                self.ready.push_back(TaskUpdate::Ended(Box::new(detail)));
                Ok(())
            }
            Stage::Done => Ok(()),
        }
    }

    /// Reads one page of each of some nodes that are behind.
    async fn catch_up(&mut self) -> Result<()> {
        let nodes: Vec<String> = self.behind.iter().take(AT_ONCE).cloned().collect();
        let pages = nodes.iter().map(|node| {
            let range =
                LogRange { node: node.clone(), from: self.next.get(node).copied().unwrap_or(0), limit: Some(PAGE) };
            let (client, task) = (self.client.clone(), self.task);
            async move { client.log(task, &range).await }
        });
        let pages: Vec<LogPage> = future::try_join_all(pages).await?;
        self.behind.drain(..nodes.len());
        for (node, page) in nodes.into_iter().zip(pages) {
            if page.next.is_some() {
                self.behind.push_front(node.clone());
            }
            self.take_lines(node, page.items);
        }
        Ok(())
    }

    /// Waits for the next event and takes it in.
    async fn event(&mut self) -> Result<()> {
        let Some(message) = self.message().await? else {
            self.connection = None;
            return Err(self.broken("the stream of events ended early"));
        };
        match message.event.as_str() {
            "reset" => self.stage = Stage::Read,
            "end" => self.stage = Stage::End,
            "task" | "step" | "run" | "log" => {
                let event: TaskEvent = serde_json::from_str(&message.data)
                    .map_err(|error| self.client.foreign(format!("an event is not understood: {error}")))?;
                self.take_event(event);
            }
            // What later versions may add.
            _ => {}
        }
        Ok(())
    }

    async fn message(&mut self) -> Result<Option<Message>> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        loop {
            if let Some(message) = connection.parser.next() {
                self.after = connection.parser.last_id().unwrap_or(0).max(self.after);
                self.connection = Some(connection);
                return Ok(Some(message));
            }
            self.after = connection.parser.last_id().unwrap_or(0).max(self.after);
            let piece = tokio::time::timeout(SILENCE, connection.bytes.next()).await;
            let piece = piece.map_err(|_| self.broken("the server fell silent"))?;
            let Some(piece) = piece else { return Ok(None) };
            let piece = piece.map_err(|error| self.client.failed(&error))?;
            connection.parser.push(&piece).map_err(|_| self.client.foreign("an event has no end".to_owned()))?;
        }
    }

    async fn connect(&mut self) -> Result<Connection> {
        let url = self.client.url(&["tasks", &self.task.to_string(), "events"]);
        let request = self
            .client
            .request(Method::GET, url)
            .header(header::ACCEPT, "text/event-stream")
            .header("Last-Event-ID", self.after.to_string());
        let answer = tokio::time::timeout(SILENCE, self.client.check(request)).await;
        let response = answer.map_err(|_| self.broken("the server did not answer in time"))??;
        Ok(Connection { bytes: response.bytes_stream().boxed(), parser: Parser::default() })
    }

    fn take_event(&mut self, event: TaskEvent) {
        match event.change {
            TaskChange::Log { node, lines } => {
                let next = self.next.get(&node).copied().unwrap_or(0);
                if lines.first().is_some_and(|line| line.n > next) {
                    // Lines between are missing here: read them, and these with them.
                    self.behind.push_back(node);
                } else {
                    self.take_lines(node, lines);
                }
            }
            change if event.seq > self.read => self.ready.push_back(TaskUpdate::Changed { at_ms: event.at_ms, change }),
            // The state read includes it.
            _ => {}
        }
    }

    /// Passes on the lines that are new.
    fn take_lines(&mut self, node: String, mut lines: Vec<LogLine>) {
        let next = self.next.entry(node.clone()).or_default();
        lines.retain(|line| line.n >= *next);
        let Some(last) = lines.last() else { return };
        *next = last.n + 1;
        self.ready.push_back(TaskUpdate::Lines { node, lines });
    }

    /// What to do when something failed: pause and go on, or give up.
    async fn lost(&mut self, error: ClientError) -> Result<()> {
        // A server that was never reached is told of at once.
        let first = self.read == 0;
        let (since, pause) = *self.away.get_or_insert_with(|| (Instant::now(), FIRST_PAUSE));
        if first || !error.is_passing() || since.elapsed() > GIVE_UP {
            return Err(error);
        }
        self.connection = None;
        if pause == FIRST_PAUSE {
            self.ready.push_back(TaskUpdate::Reconnecting { cause: error.to_string() });
        }
        self.away = Some((since, (pause * 2).min(LONGEST_PAUSE)));
        tokio::time::sleep(pause).await;
        Ok(())
    }

    fn broken(&self, cause: &str) -> ClientError {
        ClientError::Broken { server: self.client.server().to_owned(), cause: cause.to_owned() }
    }
}

/// Nodes of a task that may have a log by now.
fn nodes(detail: &TaskDetail) -> impl Iterator<Item = String> {
    let begun = |state: RunState| !matches!(state, RunState::Pending | RunState::Skipped);
    let steps = detail.packages.iter().chain(&detail.steps).filter(move |step| begun(step.state));
    let nodes = steps.flat_map(move |step| {
        let runs = step.runs.iter().filter(move |run| begun(run.state)).map(|run| &run.node);
        std::iter::once(&step.node).chain(runs).cloned()
    });
    std::iter::once(String::new()).chain(nodes)
}
