//! Why something waits: found in the state as it is.
//!
//! Nothing here is remembered but what was told last, so a reason cannot grow stale unnoticed.

use windlass_model::{RunState, TaskId, TaskState};

use crate::{
    cause::{Cause, Part},
    event::{LockRequest, RunKey, Subject, WaitOn},
    lanes::has_place,
    locks::{Blocker, ClaimKey},
    progress::{Packages, Phase, Told},
    question::{About, Question},
    queue::QueueBlocker,
    state::{State, Task},
    step::Where,
};

/// Why something waits. None: it does not.
pub(crate) fn cause(state: &State, subject: Subject) -> Option<Cause> {
    let id = subject.task();
    let task = state.tasks.get(&id)?;
    match subject {
        Subject::Task(_) => task_waits(state, id, task),
        Subject::Step(_, step) => step_waits(state, task, step),
        Subject::Run(run) => run_waits(state, task, run),
        Subject::Lock(request) => {
            let call = task.run(request.run)?.calls.get(&request.number)?;
            if call.refused.is_some() {
                return Some(Cause::Turn);
            }
            match (call.held, call.token) {
                (true, Some(_)) => None,
                (true, None) => Some(Cause::Turn),
                (false, _) => locked(state, ClaimKey::call(request), task, Subject::Lock(request)),
            }
        }
    }
}

fn task_waits(state: &State, id: TaskId, task: &Task) -> Option<Cause> {
    let blocker = state.queue.blocker(id, &state.settings);
    let cause = match blocker {
        Some(QueueBlocker::Tag { holder }) => {
            let running = state.tasks.get(&holder).into_iter().flat_map(|task| task.running(holder));
            let count = running.clone().count() as u32;
            Cause::Tag { holder, runs: running.min(), others: count.saturating_sub(1) }
        }
        Some(QueueBlocker::BehindTag { ahead }) => Cause::BehindTag { ahead },
        Some(QueueBlocker::Behind { ahead }) => Cause::Behind { ahead },
        Some(QueueBlocker::Cap { oldest }) => Cause::Cap { oldest },
        Some(QueueBlocker::Draining) => Cause::Draining,
        None => {
            let at_ms = task.plan.start_at_ms.filter(|_| task.progress.state == TaskState::Queued)?;
            Cause::Scheduled { at_ms }
        }
    };
    Some(cause)
}

fn asked(task: &Task, about: impl Fn(&Question) -> bool) -> Option<Cause> {
    let question = task.progress.questions.values().find(|question| about(question))?;
    Some(Cause::Person { question: question.number })
}

fn step_waits(state: &State, task: &Task, index: u32) -> Option<Cause> {
    let step = task.step(index)?;
    if step.state != RunState::Waiting || !step.runs.is_empty() {
        return None;
    }
    let lead = task.plan.lead(index);
    if let Packages::Acquiring(acquiring) = &task.progress.packages {
        let left = acquiring.todo.len() + acquiring.open.len() + acquiring.asking.len();
        let there = acquiring.places.saturating_sub(left as u32);
        return Some(Cause::Packages { there, places: acquiring.places });
    }
    let unknown = |step: u32| {
        let asks = task.step_plan(step).is_some_and(|plan| plan.asks_fact);
        asks && task.step(step).is_some_and(|step| step.fact.is_none())
    };
    if (lead..task.plan.unit_end(lead)).any(unknown) {
        return Some(Cause::Fact);
    }
    if let Some(cause) = asked(task, |question| question.about == About::Approval(lead)) {
        return Some(cause);
    }
    if !task.has_turn() {
        return Some(Cause::Turn);
    }
    Some(Cause::Steps { most: task.plan.steps_at_once(&state.settings) as u32 })
}

fn run_waits(state: &State, task: &Task, key: RunKey) -> Option<Cause> {
    let run = task.run(key)?;
    match run.phase {
        Phase::Pending => {
            let lead = task.plan.lead(key.step);
            // Runs of child steps wait for nothing but their own machine's earlier steps.
            let plan = task.step_plan(key.step).filter(|_| lead == key.step)?;
            if !task.has_turn() && has_place(task, &state.settings, lead) {
                return Some(Cause::Turn);
            }
            let starved = task.step(lead).is_some_and(|step| step.starved);
            Some(if starved {
                Cause::Runs { most: task.plan.runs_at_once(&state.settings) }
            } else {
                Cause::Window { most: plan.window(&state.settings, &task.plan) }
            })
        }
        Phase::Pool(_) => match &task.step_plan(key.step)?.place {
            Where::Pool(pool) => Some(Cause::Pool { pool: pool.clone() }),
            _ => None,
        },
        Phase::Locks(_) => locked(state, ClaimKey::run(key), task, Subject::Run(key)),
        Phase::Seat => Some(Cause::Turn),
        Phase::Backoff(until_ms) => Some(Cause::Backoff { until_ms, attempt: run.attempt + 1 }),
        Phase::Asking => asked(task, |question| question.about == About::Failure(key)),
        Phase::Running => {
            // One that is being stopped waits for nothing more.
            let waits = run.waits.as_ref().filter(|_| run.stop.is_none())?;
            if waits.ready.is_some() {
                return Some(Cause::Turn);
            }
            match &waits.on {
                WaitOn::Tasks(tasks) => {
                    let first = *tasks.first()?;
                    Some(Cause::Tasks { first, others: tasks.len() as u32 - 1 })
                }
                WaitOn::Until(until_ms) => Some(Cause::Sleep { until_ms: *until_ms }),
                WaitOn::Person(_) => asked(task, |question| question.about == About::Run(key)),
                WaitOn::Other(text) => Some(Cause::Other { text: text.clone() }),
                WaitOn::Limited { .. } => None,
            }
        }
        Phase::Over(_) => None,
    }
}

fn locked(state: &State, claim: ClaimKey, task: &Task, subject: Subject) -> Option<Cause> {
    if let Some(cause) = asked(task, |question| question.about == About::Deadlock(subject)) {
        return Some(cause);
    }
    let Blocker { resource, key, ahead, others } = state.locks.blocker(claim)?;
    if let Part::Fence(number) = key.part {
        let machine = state.fences.get(&(key.run, number)).and_then(|fence| fence.machine.clone());
        return Some(Cause::Fence { resource: resource.clone(), run: key.run, machine });
    }
    Some(Cause::Lock { resource: resource.clone(), by: key.run, part: key.part, ahead, others })
}

/// Where the reason that was told last is kept.
pub(crate) fn told_mut(state: &mut State, subject: Subject) -> Option<&mut Option<Told>> {
    let task = state.tasks.get_mut(&subject.task())?;
    match subject {
        Subject::Task(_) => Some(&mut task.progress.told),
        Subject::Step(_, step) => Some(&mut task.progress.steps.get_mut(step as usize)?.told),
        Subject::Run(run) => Some(&mut task.run_mut(run)?.told),
        Subject::Lock(LockRequest { run, number }) => Some(&mut task.run_mut(run)?.calls.get_mut(&number)?.told),
    }
}

/// The reason that was told last.
pub(crate) fn told(state: &State, subject: Subject) -> Option<&Told> {
    let task = state.tasks.get(&subject.task())?;
    match subject {
        Subject::Task(_) => task.progress.told.as_ref(),
        Subject::Step(_, step) => task.step(step)?.told.as_ref(),
        Subject::Run(run) => task.run(run)?.told.as_ref(),
        Subject::Lock(LockRequest { run, number }) => task.run(run)?.calls.get(&number)?.told.as_ref(),
    }
}
