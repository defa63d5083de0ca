//! Why something waits: found in the state as it is, said in one sentence.
//!
//! Nothing here is remembered but what was told last, so a reason cannot grow stale unnoticed. Whoever is
//! first in a queue names the holder; everybody behind names the one just ahead. So a change concerns few
//! waiters however long the queue is, and following the holders leads to the one that works.

use windlass_model::{RunState, TaskId, TaskState, task::Reason};

use crate::{
    event::{LockRequest, RunKey, Subject},
    locks::{Blocker, Claim},
    plan::PlanKind,
    progress::Packages,
    queue::QueueBlocker,
    state::{State, Task},
};

/// A reason without its date.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cause {
    pub kind: &'static str,
    pub text: String,
    pub holder: TaskId,
}

impl Cause {
    pub fn since(self, since_ms: u64) -> Reason {
        Reason { kind: self.kind.to_owned(), text: self.text, holder: Some(self.holder), since_ms }
    }

    pub fn is(&self, told: &Reason) -> bool {
        told.kind == self.kind && told.text == self.text && told.holder == Some(self.holder)
    }
}

/// Why something waits. None: it does not.
pub(crate) fn cause(state: &State, subject: Subject) -> Option<Cause> {
    let id = subject.task();
    let task = state.tasks.get(&id)?;
    match subject {
        Subject::Task(_) if task.progress.state == TaskState::Queued => queued(state, id),
        Subject::Task(_) => None,
        Subject::Step(_, step) => step_waits(state, id, task, step),
        Subject::Run(run) => match task.run(run)?.state {
            RunState::Pending => window(state, task, run),
            RunState::Waiting => locked(state, Claim { run, call: None }),
            _ => None,
        },
        Subject::Lock(request) => locked(state, request.into()),
    }
}

fn queued(state: &State, id: TaskId) -> Option<Cause> {
    let (kind, text, holder) = match state.queue.blocker(id)? {
        QueueBlocker::Tag { holder } => {
            let doing = state.tasks.get(&holder).map(activity).unwrap_or_default();
            let text = format!("waits for {}{doing}", named(state, holder));
            ("concurrency", text, holder)
        }
        QueueBlocker::BehindTag { ahead, tag } => {
            let text = format!("waits behind {} for {tag}", named(state, ahead));
            ("concurrency", text, ahead)
        }
        QueueBlocker::Behind { ahead } => {
            let text = format!("waits behind {} for a free place", named(state, ahead));
            ("task-cap", text, ahead)
        }
        QueueBlocker::Cap { running, oldest } => {
            let what = match state.tasks.get(&id).map(|task| task.plan.kind) {
                Some(PlanKind::Script) => "scripts",
                _ => "deployments",
            };
            let oldest_name = named(state, oldest);
            let text = format!("waits for a free place: {running} {what} execute, the oldest is {oldest_name}");
            ("task-cap", text, oldest)
        }
    };
    Some(Cause { kind, text, holder })
}

fn step_waits(state: &State, id: TaskId, task: &Task, step: u32) -> Option<Cause> {
    if task.step(step)?.state != RunState::Waiting {
        return None;
    }
    let (kind, text) = if let Packages::Acquiring { open, places, .. } = &task.progress.packages {
        let there = places.saturating_sub(open.len());
        ("packages", format!("waits for its packages, which are on {there} of {places} machines"))
    } else {
        let most = state.settings.steps_at_once.max(1);
        ("step-window", format!("waits for its turn: at most {most} steps of a deployment run at once"))
    };
    Some(Cause { kind, text, holder: id })
}

fn window(state: &State, task: &Task, run: RunKey) -> Option<Cause> {
    let plan = task.plan.steps.get(run.step as usize)?;
    let most = plan.window(&state.settings);
    let name = &plan.name;
    let text = match most {
        1 => format!("waits for its turn: step {name} runs on one machine at a time"),
        _ => format!("waits for its turn: step {name} runs on at most {most} machines at once"),
    };
    Some(Cause { kind: "window", text, holder: run.task })
}

fn locked(state: &State, claim: Claim) -> Option<Cause> {
    let Blocker { resource, claim: blocker, ahead, others } = state.locks.blocker(claim)?;
    let holder = blocker.run.task;
    let machine = resource.is_machine();
    let kind = if machine { "target-busy" } else { "lock" };
    let own = holder == claim.run.task;
    let task = if own { "this task".to_owned() } else { named(state, holder) };
    let owner = state.tasks.get(&holder);
    let step = owner.and_then(|task| words(task, blocker.run.step, blocker.run.place));
    let step = step.unwrap_or_default();
    let plan = owner.and_then(|task| task.plan.steps.get(blocker.run.step as usize));
    let name = plan.map_or("", |plan| plan.name.as_str());
    let more = match others {
        0 => String::new(),
        1 => ", and for one other".to_owned(),
        _ => format!(", and for {others} others"),
    };
    let text = match (ahead, machine) {
        (true, true) => format!("waits for {resource} behind step {name} of {task}"),
        (true, false) => format!("waits for {resource} behind {step} of {task}"),
        (false, true) if own => format!("waits for {step} of this task{more}"),
        (false, true) => format!("waits for {task}, which runs {step}{more}"),
        (false, false) => format!("waits for {resource}, held by {step} of {task}{more}"),
    };
    Some(Cause { kind, text, holder })
}

/// `task 12 (deploy shop 1.0.0 to test)`.
fn named(state: &State, id: TaskId) -> String {
    match state.tasks.get(&id) {
        Some(task) => format!("task {id} ({})", task.plan.title),
        None => format!("task {id}"),
    }
}

/// What a task does at the moment: `, which runs step web on machine web1 and 3 more`.
fn activity(task: &Task) -> String {
    let first = task.running.first().and_then(|(step, place)| words(task, *step, *place));
    match (first, task.running.len().saturating_sub(1)) {
        (Some(place), 0) => format!(", which runs {place}"),
        (Some(place), more) => format!(", which runs {place} and {more} more"),
        (None, _) => match task.progress.packages {
            Packages::Acquiring { .. } => ", which brings packages to its machines".to_owned(),
            _ => ", which waits itself".to_owned(),
        },
    }
}

/// `step web on machine web1`.
fn words(task: &Task, step: u32, place: u32) -> Option<String> {
    let plan = task.plan.steps.get(step as usize)?;
    Some(match plan.machine(place as usize) {
        Some(machine) => format!("step {} on machine {machine}", plan.name),
        None => format!("step {} on the server", plan.name),
    })
}

/// A span of time for people: `90 s`, `5 min`, `2 h`.
pub(crate) fn in_words(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..120_000 => format!("{} s", ms / 1_000),
        120_000..7_200_000 => format!("{} min", ms / 60_000),
        _ => format!("{} h", ms / 3_600_000),
    }
}

/// The reason that was told last.
pub(crate) fn stored(state: &State, subject: Subject) -> Option<&Reason> {
    let task = state.tasks.get(&subject.task())?;
    match subject {
        Subject::Task(_) => task.progress.reason.as_ref(),
        Subject::Step(_, step) => task.step(step)?.reason.as_ref(),
        Subject::Run(run) => task.run(run)?.reason.as_ref(),
        Subject::Lock(LockRequest { run, number }) => task.run(run)?.calls.get(&number)?.reason.as_ref(),
    }
}

/// Where the reason that was told last is kept.
pub(crate) fn stored_mut(state: &mut State, subject: Subject) -> Option<&mut Option<Reason>> {
    let task = state.tasks.get_mut(&subject.task())?;
    match subject {
        Subject::Task(_) => Some(&mut task.progress.reason),
        Subject::Step(_, step) => Some(&mut task.progress.steps.get_mut(step as usize)?.reason),
        Subject::Run(run) => Some(&mut task.run_mut(run)?.reason),
        Subject::Lock(LockRequest { run, number }) => Some(&mut task.run_mut(run)?.calls.get_mut(&number)?.reason),
    }
}
