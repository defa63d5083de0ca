//! Effects that end when something else happens.

use std::time::Duration;

use tokio::{sync::oneshot, time::Instant};
use windlass_effects::{Answer, CancelToken, Failure, LockGrant, Outcome};
use windlass_model::{
    RunState, TaskId, TaskState,
    manifest::LockMode,
    task::{Reason, TaskChange, TaskQuery, TaskSummary},
};
use windlass_scheduler::{Event, LockRequest, LockWish, WaitOn, progress::Resume};
use windlass_store::Batch;

use super::performer::RunPerformer;
use crate::{services::Services, tasks};

/// Waits shorter than this are not worth a reason.
const TOO_SHORT: Duration = Duration::from_millis(500);

pub(super) async fn sleep(run: &RunPerformer, time: Duration, cancel: &CancelToken) -> Answer {
    if time < TOO_SHORT {
        return tokio::select! {
            () = tokio::time::sleep(time) => Ok(Outcome::Done),
            () = cancel.cancelled() => Err(Failure::cancelled()),
        };
    }
    let until = run.services.shared.clock.now_ms().saturating_add(time.as_millis() as u64);
    let resumed = suspend(run, WaitOn::Until(until)).await?;
    tokio::select! {
        resume = resumed => gone_on(resume).map(|_| Outcome::Done),
        () = cancel.cancelled() => Err(Failure::cancelled()),
    }
}

/// Tells the scheduler that a run does nothing until something happens. The answer comes when it may go on.
async fn suspend(run: &RunPerformer, on: WaitOn) -> Result<oneshot::Receiver<Resume>, Failure> {
    let (sender, receiver) = oneshot::channel();
    run.services.shared.resumes.lock().unwrap_or_else(std::sync::PoisonError::into_inner).insert(run.run, sender);
    let told = run.services.driver.submit(Event::RunWaits { run: run.run, on }, None, Batch::new()).await;
    told.map_err(|error| Failure::new("io", error.message))?;
    Ok(receiver)
}

fn gone_on(resume: Result<Resume, oneshot::error::RecvError>) -> Result<Resume, Failure> {
    match resume {
        Ok(Resume { error: Some(error), .. }) => Err(Failure::new("deadlock", error)),
        Ok(resume) => Ok(resume),
        Err(_) => Err(Failure::new("io", "the scheduler stopped")),
    }
}

/// Ends a wait, and comes back once the run may go on.
async fn ready(
    run: &RunPerformer,
    resumed: &mut oneshot::Receiver<Resume>,
    cancel: &CancelToken,
) -> Result<(), Failure> {
    let told = run.services.driver.submit(Event::RunReady { run: run.run }, None, Batch::new()).await;
    told.map_err(|error| Failure::new("io", error.message))?;
    tokio::select! {
        resume = resumed => gone_on(resume).map(|_| ()),
        () = cancel.cancelled() => Err(Failure::cancelled()),
    }
}

pub(super) async fn lock(
    run: &RunPerformer,
    index: u64,
    resource: &str,
    mode: LockMode,
    wait_ms: u64,
    cancel: &CancelToken,
) -> Answer {
    let request = LockRequest { run: run.run, number: index };
    let (sender, receiver) = oneshot::channel();
    run.services.shared.locks.lock().unwrap_or_else(std::sync::PoisonError::into_inner).insert(request, sender);
    let wish = LockWish { wait_limit_ms: Some(wait_ms), ..LockWish::new(resource, mode) };
    let event = Event::LockAsked { request, wish };
    let asked = run.services.driver.submit(event, None, Batch::new()).await;
    asked.map_err(|error| Failure::new("io", error.message))?;
    tokio::select! {
        answer = receiver => match answer {
            Ok(Ok(token)) => Ok(Outcome::Lock(LockGrant { token })),
            Ok(Err(why)) => Err(Failure::new("timeout", format!("failed to take the lock {resource}: {why}")).retryable()),
            Err(_) => Err(Failure::new("io", "the scheduler stopped")),
        },
        () = cancel.cancelled() => {
            run.services.shared.locks.lock().unwrap_or_else(std::sync::PoisonError::into_inner).remove(&request);
            run.services.driver.send(Event::LockReleased { request }).await;
            Err(Failure::cancelled())
        }
    }
}

pub(super) async fn tasks(run: &RunPerformer, query: &TaskQuery) -> Answer {
    let found = tasks::list(&run.services, query).await;
    found.map(Outcome::Tasks).map_err(|error| Failure::new("io", error.message))
}

/// Waits until no task that the query finds is left.
pub(super) async fn quiet(run: &RunPerformer, query: &TaskQuery, wait_ms: u64, cancel: &CancelToken) -> Answer {
    let mut query = query.clone();
    query.exclude_task = Some(run.run.task);
    if query.state.is_empty() {
        query.state = vec![TaskState::Executing, TaskState::Cancelling];
    }
    until(run, &Awaited::Quiet(query), wait_ms, cancel).await
}

/// Waits for the end of one task.
pub(super) async fn task(run: &RunPerformer, task: u64, wait_ms: u64, cancel: &CancelToken) -> Answer {
    until(run, &Awaited::Task(TaskId(task)), wait_ms, cancel).await
}

/// What a run waits for.
enum Awaited {
    /// That no such task is left.
    Quiet(TaskQuery),
    /// The end of a task.
    Task(TaskId),
}

/// How that stands.
enum Standing {
    Over(Outcome),
    Waits(String, TaskId),
}

impl Awaited {
    fn kind(&self) -> &'static str {
        match self {
            Self::Quiet(_) => "quiet",
            Self::Task(_) => "task",
        }
    }

    /// The same for the scheduler.
    fn wait(&self, text: &str) -> WaitOn {
        match self {
            Self::Quiet(_) => WaitOn::Other(text.to_owned()),
            Self::Task(task) => WaitOn::Tasks(vec![*task]),
        }
    }

    async fn look(&self, services: &Services) -> Result<Standing, Failure> {
        match self {
            Self::Quiet(query) => {
                let found = tasks::list(services, query).await.map_err(|error| Failure::new("io", error.message))?;
                Ok(found
                    .first()
                    .map_or(Standing::Over(Outcome::Done), |first| Standing::Waits(in_words(&found), first.id)))
            }
            Self::Task(id) => {
                let summary =
                    tasks::summary(services, *id).await.map_err(|error| Failure::new("not-found", error.message))?;
                if summary.state.is_final() {
                    return Ok(Standing::Over(Outcome::Tasks(vec![summary])));
                }
                Ok(Standing::Waits(in_words(std::slice::from_ref(&summary)), *id))
            }
        }
    }
}

async fn until(run: &RunPerformer, awaited: &Awaited, wait_ms: u64, cancel: &CancelToken) -> Answer {
    let deadline = Instant::now() + Duration::from_millis(wait_ms);
    // Subscribed before the first look, so that no change falls between.
    let mut generation = run.services.shared.generation.subscribe();
    let mut resumed: Option<oneshot::Receiver<Resume>> = None;
    let mut said = String::new();
    loop {
        generation.mark_unchanged();
        let (text, holder) = match awaited.look(&run.services).await? {
            Standing::Over(outcome) => {
                if let Some(mut resumed) = resumed {
                    ready(run, &mut resumed, cancel).await?;
                }
                return Ok(outcome);
            }
            Standing::Waits(text, holder) => (text, holder),
        };
        let listening = match &mut resumed {
            Some(listening) => listening,
            None => resumed.insert(suspend(run, awaited.wait(&text)).await?),
        };
        if text != said && !said.is_empty() {
            say(run, awaited.kind(), text.clone(), Some(holder));
        }
        said = text;
        tokio::select! {
            changed = generation.changed() => if changed.is_err() {
                return Err(Failure::new("io", "the server is stopping"));
            },
            // Either what it waits for is over, or it never will be.
            resume = &mut *listening => {
                gone_on(resume)?;
                resumed = None;
            }
            () = tokio::time::sleep_until(deadline) => {
                ready(run, listening, cancel).await?;
                return Err(Failure::new("timeout", format!("{said} for longer than {} s", wait_ms / 1000)).retryable());
            }
            () = cancel.cancelled() => return Err(Failure::cancelled()),
        }
    }
}

fn in_words(tasks: &[TaskSummary]) -> String {
    let names: Vec<_> = tasks.iter().take(3).map(|task| format!("task {} ({})", task.id, task.title)).collect();
    let more = tasks.len().saturating_sub(names.len());
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("waits for {}{more}", names.join(", "))
}

fn say(run: &RunPerformer, kind: &str, text: String, holder: Option<TaskId>) {
    let since_ms = run.services.shared.clock.now_ms();
    change(run, Some(Reason { holder, ..Reason::new(kind, text, since_ms) }));
}

fn change(run: &RunPerformer, reason: Option<Reason>) {
    let node = run.node.clone();
    let change = TaskChange::Run { node, state: RunState::Running, reason, error: None, progress: None };
    run.services.shared.publish(run.run.task, change);
}
