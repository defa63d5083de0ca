//! Acts on the scheduler's decisions: starts and stops runs and transfers, and reports how they ended.

use std::{
    collections::{BTreeSet, HashMap},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    task,
};

use tokio::task::{JoinError, JoinHandle};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use windlass_effects::CancelToken;
use windlass_model::{MachineName, TaskId};
use windlass_scheduler::{Decision, Event, RunKey, RunOutcome, StopKind};
use windlass_store::failpoint;

use crate::{
    barrier,
    driver::{Actor, Given, stop_text},
    error::EngineError,
    facts, fences,
    maps::give_back_room,
    records::StoredOutput,
    runs::{self, Ended, Execution, Over, Settled, TaskContext},
    services::Services,
};

/// Starts what the scheduler decides.
#[derive(Default)]
pub struct Hands {
    services: OnceLock<Arc<Services>>,
    live: Mutex<Live>,
    /// Everything that is spawned and has not ended: what has ended is let go at once.
    work: TaskTracker,
    /// Ends it.
    closing: CancellationToken,
}

/// What is going on.
#[derive(Default)]
struct Live {
    /// Runs that have a guest.
    runs: HashMap<RunKey, LiveRun>,
    /// Suspended runs that are to stop, until they are started to do so.
    stopped: HashMap<RunKey, StopKind>,
    /// Transfers of a task, each to some machines.
    transfers: HashMap<TaskId, Vec<CancelToken>>,
    /// Set once the server stops: nothing new is started.
    closed: bool,
}

/// A run that has a guest.
struct LiveRun {
    attempt: u32,
    cancel: CancelToken,
    /// Why it was told to stop.
    stopped: Option<StopKind>,
    /// It is to go on at once when it comes to be suspended.
    wanted: bool,
}

impl Hands {
    /// Gives the hands what they work with; before that nothing is acted on.
    pub fn equip(&self, services: Arc<Services>) {
        // A second call would be a bug that the first value survives.
        let _ = self.services.set(services);
    }

    /// Starts nothing more; what runs goes on.
    pub fn start_nothing_more(&self) {
        self.lock().closed = true;
    }

    /// Ends what runs here. What runs on machines goes on there and is picked up at the next start.
    pub async fn close(&self) {
        self.start_nothing_more();
        self.closing.cancel();
        self.work.close();
        self.work.wait().await;
    }

    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.work.spawn(self.closing.clone().run_until_cancelled_owned(work));
    }

    /// Whether a run goes on in this process.
    #[must_use]
    pub fn is_at_work(&self, run: RunKey) -> bool {
        self.lock().runs.contains_key(&run)
    }

    fn lock(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a run, or has one that is being suspended started again.
    fn start_run(self: &Arc<Self>, start: Execution) {
        let (run, attempt) = (start.run, start.attempt);
        let Some(services) = self.services.get().cloned() else {
            return;
        };
        let execution = Execution { cancel: CancelToken::new(), ..start };
        {
            let cancel = &execution.cancel;
            let mut live = self.lock();
            if live.closed {
                return;
            }
            // An attempt that has just ended may not be cleared away yet when the next one starts.
            if let Some(known) = live.runs.get_mut(&run).filter(|known| known.attempt >= attempt) {
                known.wanted = known.attempt == attempt;
                return;
            }
            let stopped = live.stopped.remove(&run);
            if stopped.is_some() {
                cancel.cancel();
            }
            live.runs.insert(run, LiveRun { attempt, cancel: cancel.clone(), stopped, wanted: false });
        }
        let hands = Arc::clone(self);
        self.spawn(async move {
            match hands.run_out(&services, execution.clone()).await {
                Ended::Suspended(settled) => {
                    hands.suspended(&services, execution);
                    settle(run, settled).await;
                }
                Ended::Over(over) => hands.over(&services, run, attempt, *over).await,
            }
        });
    }

    /// Executes a run, whatever becomes of it.
    async fn run_out(&self, services: &Arc<Services>, execution: Execution) -> Ended {
        let run = execution.run;
        let work = tokio::spawn({
            let services = Arc::clone(services);
            async move {
                let context = context(&services, run.task).await.map_err(|error| error.message)?;
                Ok::<_, String>(runs::execute(&services, &context, execution).await)
            }
        });
        let failed = |error: String| Ended::early(RunOutcome::Failed { error });
        match AbortOnDrop(work).await {
            Ok(Ok(ended)) => ended,
            Ok(Err(error)) => failed(error),
            // A bug in the server ends this run, not the server.
            Err(panic) => {
                tracing::error!(?run, %panic, "a run panicked");
                failed("the server failed while it ran this step; its log tells more".to_owned())
            }
        }
    }

    /// A run waits: nothing is left of it here. If what it waits for has come already, it goes on.
    fn suspended(self: &Arc<Self>, services: &Arc<Services>, execution: Execution) {
        let run = execution.run;
        let wanted = {
            let mut live = self.lock();
            let Some(known) = live.runs.remove(&run) else { return };
            give_back_room(&mut live.runs);
            if known.wanted
                && let Some(kind) = known.stopped
            {
                live.stopped.insert(run, kind);
            }
            if !known.wanted && !live.runs.keys().any(|other| other.task == run.task) {
                let mut contexts = services.contexts.lock().unwrap_or_else(PoisonError::into_inner);
                contexts.remove(&run.task);
                give_back_room(&mut contexts);
            }
            known.wanted
        };
        if wanted {
            self.start_run(execution);
        }
    }

    /// A run is over: that is told, and its machine may forget it once that is durable.
    async fn over(&self, services: &Arc<Services>, run: RunKey, attempt: u32, over: Over) {
        let own = |known: &LiveRun| (known.attempt == attempt).then_some(known.stopped).flatten();
        let stopped = self.lock().runs.get(&run).and_then(own);
        let outcome = match (over.outcome, stopped) {
            (RunOutcome::Cancelled, Some(StopKind::Timeout)) => {
                RunOutcome::Failed { error: stop_text(StopKind::Timeout).to_owned() }
            }
            (outcome, _) => outcome,
        };
        let told = services.driver.report(Event::RunFinished { run, outcome }, over.with).await;
        {
            let mut live = self.lock();
            live.stopped.remove(&run);
            if live.runs.get(&run).is_some_and(|known| known.attempt == attempt) {
                live.runs.remove(&run);
                give_back_room(&mut live.runs);
            }
        }
        if told.is_ok() {
            settle(run, over.settled).await;
        }
    }

    fn stop_run(&self, run: RunKey, kind: StopKind) {
        let mut live = self.lock();
        match live.runs.get_mut(&run) {
            Some(known) => {
                // More force changes nothing about why it is stopped.
                known.stopped.get_or_insert(kind);
                known.cancel.cancel();
            }
            // It is suspended, and is started to stop in good order.
            None => {
                live.stopped.entry(run).or_insert(kind);
            }
        }
    }

    /// Tells the scheduler whether the condition of a step holds.
    fn ask_fact(self: &Arc<Self>, task: TaskId, step: u32, error: Option<String>) {
        let Some(services) = self.services.get().cloned() else {
            return;
        };
        self.spawn(async move {
            let holds = match context(&services, task).await {
                Ok(context) => facts::holds(&services, &context, step, error).await,
                Err(error) => {
                    tracing::warn!(%task, step, %error, "a condition cannot be told, and counts as false");
                    false
                }
            };
            services.driver.send(Event::FactGiven { task, step, holds }).await;
        });
    }

    /// Watches what is left of runs that were abandoned before the server's last start.
    ///
    /// # Errors
    /// When the driver has stopped.
    pub async fn watch_fences(self: &Arc<Self>, services: &Arc<Services>) -> Result<(), EngineError> {
        let fenced =
            services.driver.look(|state| state.fences().map(|fence| fence.run).collect::<BTreeSet<_>>()).await?;
        for run in fenced {
            self.spawn(fences::watch(Arc::clone(services), Arc::clone(self), run));
        }
        Ok(())
    }

    fn acquire(self: &Arc<Self>, task: TaskId, machines: Vec<MachineName>) {
        let Some(services) = self.services.get().cloned() else {
            return;
        };
        let cancel = CancelToken::new();
        {
            let mut live = self.lock();
            if live.closed {
                return;
            }
            live.transfers.entry(task).or_default().push(cancel.clone());
        }
        self.spawn(async move {
            match context(&services, task).await {
                Ok(context) => barrier::acquire(Arc::clone(&services), context, machines, cancel).await,
                Err(error) => {
                    for machine in machines {
                        let error = error.message.clone();
                        let failed = Event::PackagesFailed { task, machine: Some(machine), error, unavailable: false };
                        services.driver.send(failed).await;
                    }
                }
            }
        });
    }
}

/// Lets the machine forget results whose consequences are durable here.
async fn settle(run: RunKey, settled: Settled) {
    let Some((machine, tickets)) = settled else { return };
    for ticket in tickets {
        failpoint::pass(|| format!("ack/{}.{}", run.step, run.place));
        if let Err(error) = machine.ack(&ticket).await {
            tracing::debug!(%ticket, %error, "a result stays on its machine for now");
        }
    }
}

/// What the runs of a task share, gathered once.
async fn context(services: &Arc<Services>, task: TaskId) -> Result<Arc<TaskContext>, EngineError> {
    let cell = {
        let mut contexts = services.contexts.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(contexts.entry(task).or_default())
    };
    cell.get_or_try_init(async || runs::load(services, task).await.map(Arc::new)).await.cloned()
}

/// The actor that the driver holds.
pub struct HandsActor(pub Arc<Hands>);

impl Actor for HandsActor {
    fn act(&self, decision: Decision, given: Given) {
        let Given { error, lock } = given;
        match decision {
            Decision::StartRun { run, machine, attempt, .. } => {
                self.0.start_run(Execution { run, machine, attempt, cancel: CancelToken::new(), error, lock });
            }
            Decision::AskFact { task, step } => self.0.ask_fact(task, step, error),
            Decision::AbandonRun { run, fenced } if !fenced.is_empty() => {
                if let Some(services) = self.0.services.get().cloned() {
                    self.0.spawn(fences::watch(services, Arc::clone(&self.0), run));
                }
            }
            Decision::StopRun { run, kind } => self.0.stop_run(run, kind),
            Decision::Acquire { task, machines, server } => {
                if server && let Some(services) = self.0.services.get().cloned() {
                    // The server has every package already: it is where they come from.
                    tokio::spawn(
                        async move { services.driver.send(Event::PackagesAcquired { task, machine: None }).await },
                    );
                }
                if !machines.is_empty() {
                    self.0.acquire(task, machines);
                }
            }
            Decision::StopAcquire { task } => {
                for cancel in self.0.lock().transfers.get(&task).into_iter().flatten() {
                    cancel.cancel();
                }
            }
            _ => {}
        }
    }

    fn put_out(&self, task: TaskId, output: StoredOutput) {
        let Some(services) = self.0.services.get() else {
            return;
        };
        let contexts = services.contexts.lock().unwrap_or_else(PoisonError::into_inner);
        // A task whose context is gathered later reads it from the store.
        if let Some(context) = contexts.get(&task).and_then(|cell| cell.get()) {
            context.note(output);
        }
    }

    fn finished(&self, task: TaskId) {
        let Some(services) = self.0.services.get().cloned() else {
            return;
        };
        {
            let mut live = self.0.lock();
            live.transfers.remove(&task);
            live.stopped.retain(|run, _| run.task != task);
        }
        services.contexts.lock().unwrap_or_else(PoisonError::into_inner).remove(&task);
        tokio::spawn(async move {
            services.logs.flush().await;
            services.logs.forget(task);
        });
    }
}

/// A task that does not outlive who waits for it.
struct AbortOnDrop<T>(JoinHandle<T>);

impl<T> Future for AbortOnDrop<T> {
    type Output = Result<T, JoinError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> task::Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx)
    }
}

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
