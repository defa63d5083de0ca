//! Everything that is said about a wait beside its sentence: what, who holds it, which place, what ends it.

use windlass_model::{TaskId, task::Reason};

use super::{in_words, kind, text};
use crate::{
    cause::{Cause, Part},
    event::{LockRequest, RunKey, Subject},
    locks::ClaimKey,
    progress::Phase,
    reasons,
    state::State,
};

/// Why something waits, in full. None: it does not.
pub(crate) fn reason(state: &State, subject: Subject) -> Option<Reason> {
    let cause = reasons::cause(state, subject)?;
    let since_ms = reasons::told(state, subject).map_or(state.counters.now_ms, |told| told.since_ms);
    let mut reason = Reason::new(kind(&cause), text(state, subject, &cause), since_ms);
    reason.holder = holder(state, subject, &cause);
    reason.ends = Some(ends(state, subject, &cause));
    let claim = match subject {
        Subject::Run(run) => ClaimKey::run(run),
        Subject::Lock(request) => ClaimKey::call(request),
        Subject::Task(_) | Subject::Step(..) => {
            ClaimKey::group(RunKey { task: subject.task(), step: 0, place: 0 }, false)
        }
    };
    match &cause {
        Cause::Lock { resource, .. } | Cause::Fence { resource, .. } => {
            reason.what = Some(resource.as_str().to_owned());
            reason.position = state.locks.position(claim, resource);
        }
        Cause::Tag { .. } | Cause::BehindTag { .. } => {
            let tag = state.tasks.get(&subject.task()).and_then(|task| task.plan.concurrency_tag.clone());
            reason.what = tag.map(|tag| format!("tag:{tag}"));
            reason.position = state.queue.position(subject.task());
        }
        Cause::Cap { .. } | Cause::Behind { .. } | Cause::Draining => {
            reason.position = state.queue.position(subject.task())
        }
        Cause::Person { question } => reason.what = Some(format!("question:{question}")),
        Cause::Pool { pool } => reason.what = Some(format!("pool:{pool}")),
        _ => {}
    }
    Some(reason)
}

/// The task that holds what is waited for; for one that waits only for its own task, that task.
fn holder(state: &State, subject: Subject, cause: &Cause) -> Option<TaskId> {
    match cause {
        Cause::Tag { holder, .. } => Some(*holder),
        Cause::BehindTag { ahead } => {
            let tag = state.tasks.get(&subject.task())?.plan.concurrency_tag.as_ref()?;
            state.queue.holder(tag).or(Some(*ahead))
        }
        Cause::Cap { oldest } => Some(*oldest),
        Cause::Behind { ahead } => Some(*ahead),
        Cause::Lock { resource, by, ahead, .. } => {
            let held = state.locks.holders(resource).first().filter(|_| *ahead);
            Some(held.map_or(by.task, |hold| hold.key.run.task))
        }
        Cause::Fence { run, .. } => Some(run.task),
        Cause::Tasks { first, .. } => Some(*first),
        Cause::Packages { .. } | Cause::Steps { .. } | Cause::Window { .. } | Cause::Runs { .. } | Cause::Turn => {
            Some(subject.task())
        }
        _ => None,
    }
}

/// What will end the wait.
fn ends(state: &State, subject: Subject, cause: &Cause) -> String {
    match cause {
        Cause::Scheduled { .. } | Cause::Sleep { .. } | Cause::Backoff { .. } => "time".to_owned(),
        Cause::Draining => "the server starting tasks again".to_owned(),
        Cause::Tag { holder, .. } => format!("the end of task {holder}"),
        Cause::BehindTag { ahead } | Cause::Behind { ahead } => format!("task {ahead} having had its turn"),
        Cause::Cap { .. } => "a task ending, or having to wait itself".to_owned(),
        Cause::Turn => "a free place for its task".to_owned(),
        Cause::Packages { .. } => "the packages arriving".to_owned(),
        Cause::Steps { .. } => "a step of this task ending".to_owned(),
        Cause::Window { .. } | Cause::Runs { .. } => "a machine being done".to_owned(),
        Cause::Fact => "the condition being evaluated".to_owned(),
        Cause::Person { .. } => "a person's answer".to_owned(),
        Cause::Lock { by, part, .. } => {
            let limit = match subject {
                Subject::Run(run) => state.run(run).and_then(|run| match run.phase {
                    Phase::Locks(until) => Some(until),
                    _ => None,
                }),
                Subject::Lock(LockRequest { run, number }) => {
                    state.run(run).and_then(|run| run.calls.get(&number)).map(|call| call.until_ms)
                }
                _ => None,
            };
            let left = limit.map(|limit| in_words(limit.saturating_sub(state.counters.now_ms)));
            let left = left.map(|left| format!(", or its wait limit in {left}")).unwrap_or_default();
            let what = match part {
                Part::Task => format!("the end of task {}", by.task),
                Part::Step => format!("the end of that step of task {}", by.task),
                Part::Call(_) => "the lock being given back".to_owned(),
                _ => "the end of that run".to_owned(),
            };
            format!("{what}{left}")
        }
        Cause::Pool { .. } => "a worker that can be used".to_owned(),
        Cause::Tasks { first, others: 0 } => format!("the end of task {first}"),
        Cause::Tasks { .. } => "the end of those tasks".to_owned(),
        Cause::Other { .. } => "what it waits for".to_owned(),
        Cause::Fence { resource, .. } => {
            format!("proof that the run is over, or: windlass lock break {}", resource.as_str())
        }
    }
}
