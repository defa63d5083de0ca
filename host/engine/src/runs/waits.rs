//! Effects that end when something else happens.
//!
//! A wait is told to the scheduler, and the run is suspended: its guest goes, and what is left is the scheduler's own
//! record. Once what it waits for has come, the run is started again and asks for the same, which is then over. What
//! cannot be seen by looking again (a person's answer, a refusal) is found under the run's name in the store.

use std::time::Duration;

use tokio::sync::oneshot;
use windlass_effects::{Answer, Attempt, CancelToken, Failure, LockGrant, Outcome};
use windlass_model::{
    TaskId, TaskState,
    manifest::LockMode,
    task::{TaskQuery, TaskSummary},
};
use windlass_scheduler::{Event, LockRequest, LockWish, WaitOn};
use windlass_store::Batch;

use super::performer::RunPerformer;
use crate::tasks;

/// Shorter sleeps keep the guest: suspending costs more.
const SHORT: u64 = 1000;
/// Tasks that one wait names. Once these have ended it looks again.
const MAX_AWAITED: usize = 200;

/// Tells the scheduler that a run does nothing until something happens.
pub(super) async fn suspend(run: &RunPerformer, on: WaitOn, until: String, cancel: &CancelToken) -> Attempt {
    suspend_with(run, on, until, Batch::new(), cancel).await
}

/// The same with records that belong into the wait's commit.
pub(super) async fn suspend_with(
    run: &RunPerformer,
    on: WaitOn,
    until: String,
    with: Batch,
    cancel: &CancelToken,
) -> Attempt {
    let told = run.services.driver.submit(Event::RunWaits { run: run.run, on }, None, with).await;
    match told {
        Err(error) => Attempt::Answered(Err(Failure::new("io", error.message))),
        // Who is being stopped waits for nothing more, and nobody would wake it.
        Ok(()) if cancel.is_cancelled() => Attempt::Answered(Err(Failure::cancelled())),
        Ok(()) => Attempt::Suspended(until),
    }
}

fn over(answer: Answer) -> Attempt {
    Attempt::Answered(answer)
}

pub(super) async fn sleep(run: &RunPerformer, ms: u64, since_ms: u64, cancel: &CancelToken) -> Attempt {
    if cancel.is_cancelled() {
        return over(Err(Failure::cancelled()));
    }
    let until = since_ms.saturating_add(ms);
    let left = until.saturating_sub(run.services.shared.clock.now_ms());
    if left == 0 {
        return over(Ok(Outcome::Done));
    }
    if ms > SHORT {
        return suspend(run, WaitOn::Until(until), format!("it has slept for {ms} ms"), cancel).await;
    }
    tokio::select! {
        () = tokio::time::sleep(Duration::from_millis(left)) => over(Ok(Outcome::Done)),
        () = cancel.cancelled() => over(Err(Failure::cancelled())),
    }
}

pub(super) async fn lock(
    run: &RunPerformer,
    request: LockRequest,
    resource: &str,
    mode: LockMode,
    until_ms: u64,
    cancel: &CancelToken,
) -> Attempt {
    if cancel.is_cancelled() {
        run.services.driver.send(Event::LockReleased { request }).await;
        return over(Err(Failure::cancelled()));
    }
    if let Some(why) = run.resumed(request.number).and_then(|resume| resume.error) {
        return over(refused(resource, &why));
    }
    let (sender, mut receiver) = oneshot::channel();
    let waiting = || run.services.shared.locks.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    waiting().insert(request, sender);
    let left = until_ms.saturating_sub(run.services.shared.clock.now_ms());
    let wish = LockWish { wait_limit_ms: Some(left), ..LockWish::new(resource, mode) };
    let asked = run.services.driver.submit(Event::LockAsked { request, wish }, None, Batch::new()).await;
    // Whoever takes the sender away sends: if it is still here there is no answer, and the next one starts the run.
    let unanswered = waiting().remove(&request).is_some();
    if let Err(error) = asked {
        return over(Err(Failure::new("io", error.message)));
    }
    if unanswered {
        if cancel.is_cancelled() {
            run.services.driver.send(Event::LockReleased { request }).await;
            return over(Err(Failure::cancelled()));
        }
        return Attempt::Suspended(format!("it has the lock {resource}"));
    }
    over(match (&mut receiver).await {
        Ok(Ok(token)) => Ok(Outcome::Lock(LockGrant { token })),
        Ok(Err(why)) => refused(resource, &why),
        Err(_) => Err(Failure::new("io", "the scheduler stopped")),
    })
}

fn refused(resource: &str, why: &str) -> Answer {
    Err(Failure::new("timeout", format!("failed to take the lock {resource}: {why}")).retryable())
}

pub(super) async fn tasks(run: &RunPerformer, query: &TaskQuery) -> Answer {
    let found = tasks::list(&run.services, query).await;
    found.map(Outcome::Tasks).map_err(|error| Failure::new("io", error.message))
}

/// Since when a wait lasts, and how long it may.
#[derive(Clone, Copy)]
pub(super) struct Limit {
    pub since_ms: u64,
    pub wait_ms: u64,
}

/// Waits until no task that the query finds is left.
pub(super) async fn quiet(
    run: &RunPerformer,
    index: u64,
    query: &TaskQuery,
    limit: Limit,
    cancel: &CancelToken,
) -> Attempt {
    let mut query = query.clone();
    query.exclude_task = Some(run.run.task);
    if query.state.is_empty() {
        query.state = vec![TaskState::Executing, TaskState::Cancelling];
    }
    // One that has ended is not left.
    query.state.retain(|state| !state.is_final());
    query.limit = u32::try_from(MAX_AWAITED).ok();
    if query.state.is_empty() {
        return over(Ok(Outcome::Done));
    }
    let found = match tasks::list(&run.services, &query).await {
        Ok(found) if found.is_empty() => return over(Ok(Outcome::Done)),
        Ok(found) => found,
        Err(error) => return over(Err(Failure::new("io", error.message))),
    };
    let whole = [TaskState::Executing, TaskState::Cancelling].iter().all(|state| query.state.contains(state));
    if whole {
        let on = WaitOn::Tasks(found.iter().map(|task| task.id).collect());
        return wait(run, index, on, in_words(&found), limit, cancel).await;
    }
    // A task may come to match no more without ending.
    let attempt = wait(run, index, WaitOn::Other(in_words(&found)), in_words(&found), limit, cancel).await;
    if matches!(attempt, Attempt::Suspended(_)) {
        run.services.watches.add(&run.services, run.run, query).await;
    }
    attempt
}

/// Waits for the end of one task.
pub(super) async fn task(run: &RunPerformer, index: u64, task: u64, limit: Limit, cancel: &CancelToken) -> Attempt {
    match tasks::summary(&run.services, TaskId(task)).await {
        Err(error) => over(Err(Failure::new("not-found", error.message))),
        Ok(summary) if summary.state.is_final() => over(Ok(Outcome::Tasks(vec![summary]))),
        Ok(summary) => {
            let text = in_words(std::slice::from_ref(&summary));
            wait(run, index, WaitOn::Tasks(vec![summary.id]), text, limit, cancel).await
        }
    }
}

async fn wait(run: &RunPerformer, index: u64, on: WaitOn, text: String, limit: Limit, cancel: &CancelToken) -> Attempt {
    if cancel.is_cancelled() {
        return over(Err(Failure::cancelled()));
    }
    if let Some(error) = run.resumed(index).and_then(|resume| resume.error) {
        return over(Err(Failure::new("deadlock", error)));
    }
    let until = limit.since_ms.saturating_add(limit.wait_ms);
    if until <= run.services.shared.clock.now_ms() {
        let message = format!("{text} for longer than {} s", limit.wait_ms / 1000);
        return over(Err(Failure::new("timeout", message).retryable()));
    }
    suspend(run, on.until(until), text, cancel).await
}

fn in_words(tasks: &[TaskSummary]) -> String {
    let names: Vec<_> = tasks.iter().take(3).map(|task| format!("task {} ({})", task.id, task.title)).collect();
    let more = tasks.len().saturating_sub(names.len());
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("waits for {}{more}", names.join(", "))
}
