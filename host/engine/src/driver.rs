//! The driver: feeds events to the scheduler, stores what changed, then acts.
//!
//! One task owns the scheduler's state. It takes whatever waits in its queue at once, so that many runs share one
//! commit. Nothing is told, started or acknowledged before that commit is durable (invariant 2). Recovery is the same
//! machine: the stored events since the last snapshot are taken in again, then every open decision is acted on.

mod acts;

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::Duration,
};

use tokio::sync::{mpsc, oneshot, watch};
use windlass_model::{
    RunState, TaskId, TaskKind,
    task::{PACKAGES_NODE, Reason, TaskChange, TaskDetail, step_node},
};
use windlass_scheduler::{Decision, Event, LockRequest, RunKey, Settings, State, StopKind, Subject};
use windlass_store::{Batch, Key, Store, StoreError};

use crate::{
    board::{Board, node_of, packages_node},
    clock::Clock,
    error::EngineError,
    events::Hub,
    points::Points,
    records::{COUNTERS, DURATIONS, EVENTS, MACHINE_TASKS, RUNS, SNAPSHOT, STEPS, StoredEvent, StoredSnapshot, TASKS},
    scheduling::{Learnt, learnt, learnt_key},
};

/// Events that may wait for the driver; who sends more waits.
const QUEUE: usize = 1024;
/// Events taken in with one commit.
const TOGETHER: usize = 128;
/// Events after which the state is stored as a whole.
const SNAPSHOT_EVERY: usize = 512;
/// The same with many tasks: these are removed in one commit.
const SNAPSHOT_LATEST: usize = 2048;

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
        let (done, told) = oneshot::channel();
        let input = Input::Event(Box::new(Happened { event, view, with, done: Some(done) }));
        let stopped = || EngineError::internal("the server is stopping");
        self.0.send(input).await.map_err(|_| stopped())?;
        told.await.map_err(|_| stopped())
    }

    /// Sends an event without waiting for its commit.
    pub async fn send(&self, event: Event) {
        // A driver that has stopped takes the event in again after the restart.
        let happened = Happened { event, view: None, with: Batch::new(), done: None };
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

/// What the driver orders. Must not block: it spawns.
pub trait Actor: Send + Sync + 'static {
    /// Acts on a decision that is to be done.
    fn act(&self, decision: Decision);
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
    /// Grows whenever a task changes state: wakes those who wait for tasks.
    pub generation: watch::Sender<u64>,
    /// Runs that wait for a named lock.
    pub locks: Mutex<HashMap<LockRequest, oneshot::Sender<Result<u64, String>>>>,
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
    /// How long steps take, by project and node.
    learnt: HashMap<(String, String), Learnt>,
    /// Events stored since the last snapshot, with the number of their parts.
    since: Vec<(u64, u64)>,
    /// The stored state: its number, and that of its parts.
    kept: Option<(u64, u64)>,
}

/// One commit in the making.
#[derive(Default)]
struct Turn {
    batch: Batch,
    changes: Vec<(TaskId, u64, TaskChange)>,
    inserted: Vec<TaskDetail>,
    acts: Vec<Decision>,
    finished: Vec<TaskId>,
    done: Vec<oneshot::Sender<()>>,
    points: Points,
}

/// The driver's queue, made before the driver because its actor needs it.
#[must_use]
pub fn queue() -> (DriverHandle, mpsc::Receiver<Input>) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    (DriverHandle(sender), receiver)
}

impl Driver {
    /// Restores the scheduler from the store.
    ///
    /// # Errors
    /// When the store stopped or holds what cannot be read.
    pub async fn restore(
        shared: Arc<Shared>,
        actor: Arc<dyn Actor>,
        inputs: mpsc::Receiver<Input>,
        settings: Settings,
    ) -> Result<Self, EngineError> {
        let store = Arc::clone(&shared.store);
        let (mut number, mut state) = match SNAPSHOT.all(&*store, Key::new()).await?.pop() {
            Some((_, stored)) => {
                let state =
                    State::restore(stored.snapshot).map_err(|error| EngineError::internal(error.to_string()))?;
                (stored.upto, state)
            }
            None => (0, State::new(settings.clone())),
        };
        for (key, stored) in EVENTS.all(&*store, Key::new()).await? {
            let Some(n) = Key::parts(&key).id() else {
                continue;
            };
            if n > number {
                state.next(stored.at_ms, stored.event);
                number = n;
            }
        }
        let mut ahead = Board::default();
        for (id, _, _) in state.tasks() {
            if let Some(detail) = crate::tasks::stored_detail(&*store, id).await? {
                ahead.insert(detail);
            }
        }
        *shared.board.write().unwrap_or_else(PoisonError::into_inner) = ahead.clone();
        let learnt = learnt(&*store).await?;
        let mut driver = Self { shared, actor, inputs, state, ahead, number, learnt, since: Vec::new(), kept: None };
        driver.recover(settings).await?;
        Ok(driver)
    }

    /// Settings may be other ones now, and everything that was open is acted on again.
    async fn recover(&mut self, settings: Settings) -> Result<(), EngineError> {
        let mut turn = Turn::default();
        if *self.state.settings() != settings {
            self.take(&mut turn, Event::SettingsChanged { settings })?;
        }
        EVENTS.clear(&*self.shared.store, &mut turn.batch).await?;
        self.since.clear();
        SNAPSHOT.clear(&*self.shared.store, &mut turn.batch).await?;
        // A number of its own: that of the old one is just being taken away.
        self.number += 1;
        self.put_snapshot(&mut turn).await?;
        turn.acts.extend(self.open_decisions());
        self.finish(turn).await.map_err(EngineError::from)
    }

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
        let mut looks = Vec::new();
        for input in waiting.drain(..) {
            let input = match input {
                Input::Event(happened) => *happened,
                Input::Look(look) => {
                    looks.push(look);
                    continue;
                }
            };
            turn.batch.append(input.with);
            if let Some(view) = input.view {
                self.insert(&mut turn, view)?;
            }
            self.take(&mut turn, input.event)?;
            turn.done.extend(input.done);
        }
        self.finish(turn).await?;
        for look in looks {
            look(&self.state);
        }
        Ok(())
    }

    fn insert(&mut self, turn: &mut Turn, view: TaskDetail) -> Result<(), StoreError> {
        let task = view.summary.id;
        TASKS.put(&mut turn.batch, task.0, &view.summary)?;
        COUNTERS.put(&mut turn.batch, "task", &task.0)?;
        let mut machines = BTreeSet::new();
        for (index, step) in view.packages.iter().chain(&view.steps).enumerate() {
            // The barrier, if there is one, is kept as the step before the first.
            let number = (index + usize::from(view.packages.is_none())) as u64;
            let mut bare = step.clone();
            bare.runs.clear();
            STEPS.put(&mut turn.batch, Key::of_id(task.0).id(number), &bare)?;
            for (place, run) in step.runs.iter().enumerate() {
                RUNS.put(&mut turn.batch, Key::of_id(task.0).id(number).id(place as u64), run)?;
                machines.extend(run.machine.iter().map(windlass_model::MachineName::key));
            }
        }
        for machine in machines {
            MACHINE_TASKS.put(&mut turn.batch, Key::of_text(&machine).id(task.0), &())?;
        }
        self.ahead.insert(view.clone());
        turn.inserted.push(view);
        Ok(())
    }

    fn take(&mut self, turn: &mut Turn, event: Event) -> Result<(), StoreError> {
        let now = self.shared.clock.now_ms();
        self.number += 1;
        turn.points.add(&self.state, &event);
        let stored = StoredEvent { at_ms: now, event: event.clone() };
        let parts = EVENTS.put(&mut turn.batch, Key::of_id(self.number), &stored)?;
        self.since.push((self.number, parts));
        // The plan of a task is gone from the state once the task is over, and its last decisions still name steps.
        let plans: HashMap<TaskId, _> = event_task(&event)
            .and_then(|task| self.state.task(task).map(|(plan, _)| (task, Arc::clone(plan))))
            .into_iter()
            .collect();
        self.tell_packages(turn, now, &event);
        for decision in self.state.next(now, event) {
            let ended = match &decision {
                Decision::RunState { run, state: RunState::Succeeded, .. } => {
                    plans.get(&run.task).and_then(|plan| node_of(plan, *run)).map(|node| (run.task, node))
                }
                _ => None,
            };
            if let Some((task, node)) = ended {
                self.learn(turn, task, now, &node)?;
            }
            self.keep_resume(turn, &decision)?;
            self.tell(turn, now, &plans, &decision);
            match decision {
                Decision::TaskFinished { task, .. } => turn.finished.push(task),
                Decision::TaskState { .. }
                | Decision::StepState { .. }
                | Decision::RunState { .. }
                | Decision::Retry { .. }
                | Decision::Waiting { .. } => {}
                act => turn.acts.push(act),
            }
        }
        Ok(())
    }

    /// Notes how far the package barrier is: the scheduler knows only that it is not open yet.
    fn tell_packages(&mut self, turn: &mut Turn, now: u64, event: &Event) {
        let (task, machine, error) = match event {
            Event::PackagesAcquired { task, machine: Some(machine) } => (*task, machine, None),
            Event::PackagesFailed { task, machine: Some(machine), error, .. } => (*task, machine, Some(error.clone())),
            _ => return,
        };
        let state = if error.is_some() { RunState::Failed } else { RunState::Succeeded };
        let node = packages_node(machine);
        self.note(turn, task, now, TaskChange::Run { node, state, reason: None, error, progress: None });
        let Some(barrier) = self.ahead.get(task).and_then(|detail| detail.packages.as_ref()) else { return };
        if barrier.runs.iter().all(|run| run.state.is_final()) {
            let failed = barrier.runs.iter().any(|run| run.state == RunState::Failed);
            let state = if failed { RunState::Failed } else { RunState::Succeeded };
            self.note(turn, task, now, TaskChange::Step { node: PACKAGES_NODE.into(), state, reason: None });
        }
    }

    /// Learns how long a step takes on a machine, for plans.
    fn learn(&mut self, turn: &mut Turn, task: TaskId, now: u64, node: &str) -> Result<(), StoreError> {
        let Some(detail) = self.ahead.get(task) else {
            return Ok(());
        };
        let TaskKind::Deployment { project, .. } = &detail.summary.what else {
            return Ok(());
        };
        let started = detail.steps.iter().flat_map(|step| &step.runs).find(|run| run.node == node);
        let Some(started) = started.and_then(|run| run.started_ms) else {
            return Ok(());
        };
        let key = (project.key(), node.to_lowercase());
        let learnt = Learnt::with(self.learnt.get(&key).copied(), now.saturating_sub(started));
        DURATIONS.put(&mut turn.batch, learnt_key(&key.0, &key.1), &learnt)?;
        self.learnt.insert(key, learnt);
        Ok(())
    }

    /// Notes a change if it is one.
    fn note(&mut self, turn: &mut Turn, task: TaskId, now: u64, change: TaskChange) {
        if self.ahead.apply(task, now, &change) {
            turn.changes.push((task, now, change));
        }
    }

    /// Notes what a decision tells people.
    fn tell(
        &mut self,
        turn: &mut Turn,
        now: u64,
        plans: &HashMap<TaskId, Arc<windlass_scheduler::TaskPlan>>,
        decision: &Decision,
    ) {
        let plan = |state: &State, task: TaskId| {
            plans.get(&task).cloned().or_else(|| state.task(task).map(|(plan, _)| Arc::clone(plan)))
        };
        let step_name = |state: &State, task, step: u32| {
            plan(state, task).and_then(|plan| plan.steps.get(step as usize).map(|step| step_node(&step.name)))
        };
        let run_name =
            |state: &State, run: windlass_scheduler::RunKey| plan(state, run.task).and_then(|plan| node_of(&plan, run));
        let why = |kind: &str, text: &String| Reason::new(kind, text.clone(), now);
        let state = &self.state;
        let told = match decision {
            Decision::TaskState { task, state } => {
                Some((*task, TaskChange::Task { state: *state, reason: None, error: None }))
            }
            Decision::TaskFinished { task, state, error } => {
                Some((*task, TaskChange::Task { state: *state, reason: None, error: error.clone() }))
            }
            Decision::StepState { task, step, state: new, why: text } => step_name(state, *task, *step).map(|node| {
                let kind = if *new == RunState::Skipped { "skipped" } else { "failed" };
                (*task, TaskChange::Step { node, state: *new, reason: text.as_ref().map(|text| why(kind, text)) })
            }),
            Decision::RunState { run, state: new, why: text } => run_name(state, *run).map(|node| {
                (run.task, TaskChange::Run { node, state: *new, reason: None, error: text.clone(), progress: None })
            }),
            Decision::StartRun { run, .. } => run_name(state, *run).map(|node| (run.task, running(node))),
            Decision::Acquire { task, .. } => {
                Some((*task, TaskChange::Step { node: PACKAGES_NODE.into(), state: RunState::Running, reason: None }))
            }
            Decision::Waiting { subject, cause } => {
                let (kind, text) = state.sentence(*subject, cause);
                let told = state.reason(*subject).filter(|reason| reason.text == text);
                let reason = told.unwrap_or_else(|| Reason::new(kind, text, now));
                self.waits(*subject, reason, step_name, run_name)
            }
            Decision::ResumeRun { run, .. } => run_name(state, *run).map(|node| (run.task, running(node))),
            Decision::GrantLock { request, .. } | Decision::RefuseLock { request, .. } => {
                run_name(state, request.run).map(|node| (request.run.task, running(node)))
            }
            _ => None,
        };
        if let Some((task, change)) = told {
            self.note(turn, task, now, change);
        }
        if let Decision::Acquire { task, machines, .. } = decision {
            for machine in machines {
                self.note(turn, *task, now, running(packages_node(machine)));
            }
        }
    }

    /// What people are shown of something that waits.
    fn waits(
        &self,
        subject: Subject,
        reason: Reason,
        step_name: impl Fn(&State, TaskId, u32) -> Option<String>,
        run_name: impl Fn(&State, RunKey) -> Option<String>,
    ) -> Option<(TaskId, TaskChange)> {
        let state = &self.state;
        let (_, progress) = state.task(subject.task())?;
        let change = match subject {
            Subject::Task(_) => TaskChange::Task { state: progress.state, reason: Some(reason), error: None },
            Subject::Step(task, step) => {
                TaskChange::Step { node: step_name(state, task, step)?, state: RunState::Waiting, reason: Some(reason) }
            }
            Subject::Run(run) => {
                // One that is suspended runs all the same.
                let known = progress.steps.get(run.step as usize).and_then(|step| step.runs.get(run.place as usize));
                waiting(run_name(state, run)?, known?.phase.state(), &reason)
            }
            Subject::Lock(request) => waiting(run_name(state, request.run)?, RunState::Running, &reason),
        };
        Some((subject.task(), change))
    }

    /// Stores the turn, then shows, acts and acknowledges.
    async fn finish(&mut self, mut turn: Turn) -> Result<(), StoreError> {
        self.put_views(&mut turn)?;
        // The more there is to store, the more seldom.
        if self.since.len() >= SNAPSHOT_EVERY.max(self.ahead.count().min(SNAPSHOT_LATEST)) {
            self.put_snapshot(&mut turn).await?;
        }
        turn.points.pass("before");
        if !turn.batch.is_empty() {
            self.shared.store.commit(std::mem::take(&mut turn.batch)).await?;
        }
        turn.points.pass("committed");
        {
            let mut board = self.shared.board.write().unwrap_or_else(PoisonError::into_inner);
            for view in turn.inserted {
                board.insert(view);
            }
            for (task, at_ms, change) in &turn.changes {
                board.apply(*task, *at_ms, change);
            }
        }
        let tasks_changed = turn.changes.iter().any(|(_, _, change)| matches!(change, TaskChange::Task { .. }));
        for (task, at_ms, change) in turn.changes {
            self.shared.hub.publish(task, at_ms, change);
        }
        for act in turn.acts {
            self.act(act);
        }
        // Whoever asked may have gone away. What their event decided is done: a run need not wait for it.
        for done in turn.done {
            let _ = done.send(());
        }
        for task in turn.finished {
            self.ahead.remove(task);
            self.shared.board.write().unwrap_or_else(PoisonError::into_inner).remove(task);
            self.actor.finished(task);
        }
        if tasks_changed {
            self.shared.generation.send_modify(|generation| *generation += 1);
        }
        Ok(())
    }

    /// Writes every view that this turn changed, once.
    fn put_views(&self, turn: &mut Turn) -> Result<(), StoreError> {
        let mut seen = BTreeSet::new();
        for (task, _, change) in &turn.changes {
            let node = match change {
                TaskChange::Task { .. } => "",
                TaskChange::Step { node, .. } | TaskChange::Run { node, .. } => node,
                TaskChange::Log { .. } => continue,
            };
            if !seen.insert((*task, node.to_owned())) {
                continue;
            }
            let Some(detail) = self.ahead.get(*task) else {
                continue;
            };
            if node.is_empty() {
                TASKS.put(&mut turn.batch, task.0, &detail.summary)?;
                continue;
            }
            for (index, step) in detail.packages.iter().chain(&detail.steps).enumerate() {
                let number = (index + usize::from(detail.packages.is_none())) as u64;
                if step.node == node {
                    let mut bare = step.clone();
                    bare.runs.clear();
                    STEPS.put(&mut turn.batch, Key::of_id(task.0).id(number), &bare)?;
                } else if let Some(place) = step.runs.iter().position(|run| run.node == node)
                    && let Some(run) = step.runs.get(place)
                {
                    RUNS.put(&mut turn.batch, Key::of_id(task.0).id(number).id(place as u64), run)?;
                }
            }
        }
        Ok(())
    }

    /// The whole state replaces the events that led to it.
    async fn put_snapshot(&mut self, turn: &mut Turn) -> Result<(), StoreError> {
        let stored = StoredSnapshot { upto: self.number, snapshot: self.state.snapshot() };
        // Thousands of tasks are more than one commit takes; what is written before counts only with the turn.
        let (before, last, parts) = SNAPSHOT.put_large(&Key::of_id(self.number), &stored)?;
        for batch in before {
            self.shared.store.commit(batch).await?;
        }
        turn.batch.append(last);
        if let Some((old, parts)) = self.kept.replace((self.number, parts)) {
            SNAPSHOT.delete(&mut turn.batch, &Key::of_id(old), parts);
        }
        for (number, parts) in self.since.drain(..) {
            EVENTS.delete(&mut turn.batch, &Key::of_id(number), parts);
        }
        Ok(())
    }
}

fn running(node: String) -> TaskChange {
    TaskChange::Run { node, state: RunState::Running, reason: None, error: None, progress: None }
}

fn waiting(node: String, state: RunState, reason: &Reason) -> TaskChange {
    TaskChange::Run { node, state, reason: Some(reason.clone()), error: None, progress: None }
}

fn event_task(event: &Event) -> Option<TaskId> {
    match event {
        Event::TaskCancelled { task }
        | Event::TaskMovedToTop { task }
        | Event::PackagesAcquired { task, .. }
        | Event::PackagesFailed { task, .. }
        | Event::FactGiven { task, .. }
        | Event::Answered { task, .. } => Some(*task),
        Event::RunFinished { run, .. }
        | Event::RunWaits { run, .. }
        | Event::RunReady { run }
        | Event::RunFenced { run } => Some(run.task),
        Event::LockAsked { request, .. } | Event::LockReleased { request } => Some(request.run.task),
        Event::TaskQueued { .. }
        | Event::LockBroken { .. }
        | Event::PoolChanged { .. }
        | Event::Tick
        | Event::SettingsChanged { .. } => None,
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
