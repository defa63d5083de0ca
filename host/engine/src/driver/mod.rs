//! The driver: feeds events to the scheduler, stores what changed, then acts.
//!
//! One task owns the scheduler's state. It takes whatever waits in its queue at once, so that many runs share one
//! commit. Nothing is told, started or acknowledged before that commit is durable (invariant 2). Recovery is the same
//! machine: the stored events since the last snapshot are taken in again, then every open decision is acted on.

mod acts;
mod commit;
mod recovery;
mod telling;
mod turn;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::Duration,
};

use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, timeout_at},
};
use windlass_model::{
    TaskId,
    manifest::LockMode,
    scheduling::QuestionView,
    task::{TaskChange, TaskDetail},
};
use windlass_scheduler::{Decision, Event, LockRequest, Resource, State, StopKind, TaskPlan};
use windlass_store::{Batch, Store, StoreError};

use self::turn::Turn;
use crate::{board::Board, clock::Clock, error::EngineError, events::Hub, history::History, records::StoredOutput};

/// Events that may wait for the driver; who sends more waits.
const QUEUE: usize = 1024;
/// Events taken in with one commit.
const TOGETHER: usize = 128;
/// Changes of records after which no more events are waited for.
const CHANGES: usize = 4096;
/// How long events that nobody waits for may wait for others to share their commit.
const COMPANY: Duration = Duration::from_millis(5);

/// Something for the driver.
pub enum Input {
    /// Something that happened.
    Event(Box<Happened>),
    /// A look at the state, as it is once everything before is durable.
    Look(Look),
}

/// A look at the scheduler's state.
pub type Look = Box<dyn FnOnce(&State) + Send>;

/// Something that happened.
pub struct Happened {
    /// What happened.
    pub event: Event,
    /// View of a new task, with its event.
    pub view: Option<TaskDetail>,
    /// Records that belong into the same commit.
    pub with: Batch,
    /// Told once it is durable.
    pub done: Option<oneshot::Sender<()>>,
    /// Whether somebody waits for that.
    pub urgent: bool,
}

/// Sends events to the driver.
#[derive(Clone)]
pub struct DriverHandle(mpsc::Sender<Input>);

impl DriverHandle {
    /// Sends an event and waits until it is durable.
    ///
    /// # Errors
    /// When the driver has stopped.
    pub async fn submit(&self, event: Event, view: Option<TaskDetail>, with: Batch) -> Result<(), EngineError> {
        self.commit(event, view, with, true).await
    }

    /// The same where only tidying up comes after: unless something follows from it, it may wait a few milliseconds
    /// for the commit of others.
    ///
    /// # Errors
    /// When the driver has stopped.
    pub async fn report(&self, event: Event, with: Batch) -> Result<(), EngineError> {
        self.commit(event, None, with, false).await
    }

    async fn commit(
        &self,
        event: Event,
        view: Option<TaskDetail>,
        with: Batch,
        urgent: bool,
    ) -> Result<(), EngineError> {
        let (done, told) = oneshot::channel();
        let input = Input::Event(Box::new(Happened { event, view, with, done: Some(done), urgent }));
        let stopped = || EngineError::internal("the server is stopping");
        self.0.send(input).await.map_err(|_| stopped())?;
        told.await.map_err(|_| stopped())
    }

    /// Sends an event without waiting for its commit.
    pub async fn send(&self, event: Event) {
        self.send_with(event, Batch::new()).await;
    }

    /// The same with records that belong into its commit.
    pub async fn send_with(&self, event: Event, with: Batch) {
        // A driver that has stopped takes the event in again after the restart.
        let happened = Happened { event, view: None, with, done: None, urgent: false };
        let _ = self.0.send(Input::Event(Box::new(happened))).await;
    }

    /// Looks at the scheduler's state.
    ///
    /// # Errors
    /// When the driver has stopped.
    pub async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&State) -> T + Send + 'static,
    ) -> Result<T, EngineError> {
        let (done, told) = oneshot::channel();
        let stopped = || EngineError::internal("the server is stopping");
        let input = Input::Look(Box::new(move |state| {
            // Whoever asked may have gone away.
            let _ = done.send(look(state));
        }));
        self.0.send(input).await.map_err(|_| stopped())?;
        told.await.map_err(|_| stopped())
    }
}

/// What the scheduler's state says beside a decision.
#[derive(Debug, Clone, Default)]
pub struct Given {
    /// What has gone wrong in its task so far.
    pub error: Option<String>,
    /// The lock of its machine that a run to be started holds.
    pub lock: Option<MachineLock>,
}

/// How a run holds its machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MachineLock {
    /// The machine.
    pub resource: Resource,
    /// Whether it shares it.
    pub mode: LockMode,
    /// Fencing token, higher than that of any earlier holder.
    pub token: u64,
}

/// What the driver orders. Must not block: it spawns.
pub trait Actor: Send + Sync + 'static {
    /// Acts on a decision that is to be done.
    fn act(&self, decision: Decision, given: Given);
    /// A step put something out that none of its runs did.
    fn put_out(&self, task: TaskId, output: StoredOutput);
    /// A task is over.
    fn finished(&self, task: TaskId);
}

/// What the driver and everyone else share.
pub struct Shared {
    /// The store.
    pub store: Arc<dyn Store>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Live tasks as people may see them.
    pub board: RwLock<Board>,
    /// The event stream.
    pub hub: Hub,
    /// How long steps took so far.
    pub history: History,
    /// Grows whenever a task changes state: wakes those who wait for tasks.
    pub generation: watch::Sender<u64>,
    /// Runs that wait for a named lock.
    pub locks: Mutex<HashMap<LockRequest, oneshot::Sender<Result<u64, String>>>>,
    /// What people are asked, by number.
    pub questions: RwLock<BTreeMap<u64, QuestionView>>,
}

impl Shared {
    /// Publishes a change that needs no commit of its own, such as progress.
    pub fn publish(&self, task: TaskId, change: TaskChange) {
        let now = self.clock.now_ms();
        self.board.write().unwrap_or_else(PoisonError::into_inner).apply(task, now, &change);
        self.hub.publish(task, now, change);
    }
}

/// Owns the scheduler's state.
pub struct Driver {
    shared: Arc<Shared>,
    actor: Arc<dyn Actor>,
    inputs: mpsc::Receiver<Input>,
    state: State,
    /// The board as it will be once the current commit is durable.
    ahead: Board,
    number: u64,
    /// Plans of live tasks: the state forgets a task before its last decisions are told.
    plans: HashMap<TaskId, Arc<TaskPlan>>,
    /// The steps that open questions about an agreement belong to.
    approvals: HashMap<u64, (TaskId, u32)>,
    /// Events stored since the last snapshot, with the number of their parts.
    since: Vec<(u64, u64)>,
    /// The stored state: its number, and that of its parts.
    kept: Option<(u64, u64)>,
}

/// The driver's queue, made before the driver because its actor needs it.
#[must_use]
pub fn queue() -> (DriverHandle, mpsc::Receiver<Input>) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    (DriverHandle(sender), receiver)
}

impl Driver {
    /// Runs until the store stops or every sender is gone.
    pub async fn run(mut self) {
        let mut waiting = Vec::with_capacity(TOGETHER);
        loop {
            waiting.clear();
            let wake = self.state.next_wake();
            let now = self.shared.clock.now_ms();
            tokio::select! {
                count = self.inputs.recv_many(&mut waiting, TOGETHER) => if count == 0 { return },
                () = sleep_until(wake, now) => {}
            }
            if let Err(error) = self.take_all(&mut waiting).await {
                tracing::error!(%error, "the scheduler stopped");
                return;
            }
        }
    }

    async fn take_all(&mut self, waiting: &mut Vec<Input>) -> Result<(), StoreError> {
        let mut turn = Turn::default();
        if waiting.is_empty() {
            self.take(&mut turn, Event::Tick)?;
        }
        let (mut taken, until) = (0, Instant::now() + COMPANY);
        loop {
            taken += waiting.len();
            for input in waiting.drain(..) {
                self.take_in(&mut turn, input)?;
            }
            // Of the runs of a step that end one by one only the last has consequences: they share one commit.
            if turn.is_awaited() || taken >= TOGETHER || turn.batch.ops().len() >= CHANGES {
                break;
            }
            let more = timeout_at(until, self.inputs.recv_many(waiting, TOGETHER - taken)).await;
            if more.unwrap_or_default() == 0 {
                break;
            }
        }
        let looks = std::mem::take(&mut turn.looks);
        self.finish(turn).await?;
        for look in looks {
            look(&self.state);
        }
        Ok(())
    }

    fn take_in(&mut self, turn: &mut Turn, input: Input) -> Result<(), StoreError> {
        let happened = match input {
            Input::Event(happened) => *happened,
            Input::Look(look) => {
                turn.looks.push(look);
                return Ok(());
            }
        };
        turn.batch.append(happened.with);
        if let Some(view) = happened.view {
            self.insert(turn, view)?;
        }
        self.take(turn, happened.event)?;
        turn.done.extend(happened.done);
        turn.urgent |= happened.urgent;
        Ok(())
    }
}

async fn sleep_until(at_ms: Option<u64>, now_ms: u64) {
    match at_ms {
        Some(at) => tokio::time::sleep(Duration::from_millis(at.saturating_sub(now_ms))).await,
        None => std::future::pending().await,
    }
}

/// Why a run was told to stop, for its last words.
#[must_use]
pub fn stop_text(kind: StopKind) -> &'static str {
    match kind {
        StopKind::Cancel => "the task was cancelled",
        StopKind::Timeout => "it took longer than its step allows",
        StopKind::Kill => "it did not stop when it was told to",
    }
}
