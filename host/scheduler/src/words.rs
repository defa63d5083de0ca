//! The one sentence for why something waits, and everything else said about a wait.

mod circle;
mod reason;

use windlass_model::TaskId;

use crate::{
    cause::{Cause, Part},
    event::{RunKey, Subject},
    plan::PlanKind,
    progress::Packages,
    reasons,
    resource::Resource,
    state::{State, Task},
};
pub(crate) use circle::circle;
pub(crate) use reason::reason;

/// The kind of a wait, for programs.
pub(crate) fn kind(cause: &Cause) -> &'static str {
    match cause {
        Cause::Scheduled { .. } => "scheduled",
        Cause::Draining => "draining",
        Cause::Tag { .. } | Cause::BehindTag { .. } => "concurrency",
        Cause::Cap { .. } | Cause::Behind { .. } => "task-cap",
        Cause::Turn => "turn",
        Cause::Packages { .. } => "packages",
        Cause::Steps { .. } => "step-window",
        Cause::Window { .. } => "window",
        Cause::Runs { .. } => "run-window",
        Cause::Fact => "condition",
        Cause::Person { .. } => "person",
        Cause::Lock { resource, .. } if resource.is_machine() => "target-busy",
        Cause::Lock { .. } => "lock",
        Cause::Pool { .. } => "pool",
        Cause::Tasks { .. } => "task",
        Cause::Sleep { .. } => "sleep",
        Cause::Backoff { .. } => "retry",
        Cause::Other { .. } => "other",
        Cause::Fence { .. } => "fenced",
    }
}

/// The sentence.
pub(crate) fn text(state: &State, subject: Subject, cause: &Cause) -> String {
    let id = subject.task();
    // Counted from the beginning of the wait: the sentence stays true while it lasts.
    let since = reasons::told(state, subject).map_or(state.counters.now_ms, |told| told.since_ms);
    let span = |until: &u64| in_words(until.saturating_sub(since));
    match cause {
        Cause::Scheduled { at_ms } => {
            format!("is not to start before {} have passed", span(at_ms))
        }
        Cause::Draining => "waits: this server starts nothing new".to_owned(),
        Cause::Tag { holder, runs, others } => {
            format!("waits for {}{}", named(state, *holder), activity(state, *holder, *runs, *others))
        }
        Cause::BehindTag { ahead } => {
            let tag = state.tasks.get(&id).and_then(|task| task.plan.concurrency_tag.as_deref());
            format!("waits behind {} for {}", named(state, *ahead), tag.unwrap_or_default())
        }
        Cause::Cap { oldest } => {
            let kind = state.tasks.get(&id).map_or(PlanKind::Deployment, |task| task.plan.kind);
            let what = if kind == PlanKind::Script { "script" } else { "deployment" };
            let count = state.queue.seated(kind);
            let what =
                if count == 1 { format!("{what} executes, which") } else { format!("{what}s execute, the oldest") };
            format!("waits for a free place: {count} {what} is {}", named(state, *oldest))
        }
        Cause::Behind { ahead } => format!("waits behind {} for a free place", named(state, *ahead)),
        Cause::Turn => "waits until its task has its turn again".to_owned(),
        Cause::Packages { there, places } => {
            format!("waits for its packages, which are on {there} of {places} machines")
        }
        Cause::Steps { .. } | Cause::Window { .. } | Cause::Runs { .. } => window(state, subject, cause),
        Cause::Fact => "waits until it is known whether its condition holds".to_owned(),
        Cause::Person { question } => person(state, id, *question),
        Cause::Lock { .. } => locked(state, id, cause),
        Cause::Pool { pool } => format!("waits for a worker: pool {pool} has none that can be used"),
        Cause::Tasks { first, others } => match others {
            0 => format!("waits for {}", named(state, *first)),
            1 => format!("waits for {} and one other task", named(state, *first)),
            _ => format!("waits for {} and {others} other tasks", named(state, *first)),
        },
        Cause::Sleep { until_ms } => {
            format!("sleeps for {}", span(until_ms))
        }
        Cause::Backoff { until_ms, attempt } => {
            format!("failed, and attempt {attempt} follows after {}", span(until_ms))
        }
        Cause::Other { text } => text.clone(),
        Cause::Fence { resource, run, .. } => fenced(state, resource, *run),
    }
}

/// A window that is full.
fn window(state: &State, subject: Subject, cause: &Cause) -> String {
    let full = match cause {
        Cause::Steps { most: 1 } => "one step of the deployment runs at a time".to_owned(),
        Cause::Steps { most } => format!("at most {most} steps of a deployment run at once"),
        Cause::Window { most: 1 } => format!("step {} runs on one machine at a time", step_name(state, subject)),
        Cause::Window { most } => {
            format!("step {} runs on at most {most} machines at once", step_name(state, subject))
        }
        Cause::Runs { most: 1 } => "the deployment has one run at a time".to_owned(),
        Cause::Runs { most } => format!("the deployment has at most {most} runs at once"),
        _ => return String::new(),
    };
    format!("waits for its turn: {full}")
}

fn fenced(state: &State, resource: &Resource, run: RunKey) -> String {
    let fence = state.fences.values().find(|fence| fence.run == run && fence.want.resource == *resource);
    match fence {
        Some(fence) => format!(
            "waits for {resource}, fenced: {} of task {} ({}) was abandoned and may still run",
            fence.place, run.task, fence.title
        ),
        None => format!("waits for {resource}, fenced after task {}", run.task),
    }
}

fn locked(state: &State, id: TaskId, cause: &Cause) -> String {
    let Cause::Lock { resource, by, part, ahead, others } = cause else {
        return String::new();
    };
    let own = by.task == id;
    let task = if own { "this task".to_owned() } else { named(state, by.task) };
    let owner = state.tasks.get(&by.task);
    let more = match others {
        0 => String::new(),
        1 => ", and for one other".to_owned(),
        _ => format!(", and for {others} others"),
    };
    let name = owner.and_then(|task| task.step_plan(by.step)).map_or("", |step| step.name.as_str());
    let run = owner.and_then(|task| place(task, *by)).unwrap_or_default();
    let who = match part {
        Part::Task => task.clone(),
        Part::Step => format!("step {name} of {task}"),
        _ if *ahead && resource.is_machine() => format!("step {name} of {task}"),
        _ => format!("{run} of {task}"),
    };
    match (ahead, resource.is_machine(), part) {
        (true, ..) => format!("waits for {resource} behind {who}"),
        (false, true, Part::Task | Part::Step) => {
            format!("waits for {resource}, which {who} keeps until it ends{more}")
        }
        (false, true, _) if own => format!("waits for {who}{more}"),
        (false, true, _) => format!("waits for {task}, which runs {run}{more}"),
        (false, false, _) => format!("waits for {resource}, held by {who}{more}"),
    }
}

fn person(state: &State, id: TaskId, number: u64) -> String {
    let question = state.tasks.get(&id).and_then(|task| task.progress.questions.get(&number));
    let Some(question) = question else {
        return "waits for a person".to_owned();
    };
    let who = match question.responsible.as_slice() {
        [] => "a person".to_owned(),
        some => some.join(" or "),
    };
    format!("waits for {who} to answer: {}", question.text)
}

fn step_name(state: &State, subject: Subject) -> String {
    let step = match subject {
        Subject::Step(_, step) | Subject::Run(RunKey { step, .. }) => step,
        Subject::Lock(request) => request.run.step,
        Subject::Task(_) => return String::new(),
    };
    let task = state.tasks.get(&subject.task());
    task.and_then(|task| task.step_plan(step)).map(|step| step.name.to_string()).unwrap_or_default()
}

/// `task 12 (deploy shop 1.0.0 to test)`.
pub(crate) fn named(state: &State, id: TaskId) -> String {
    match state.tasks.get(&id) {
        Some(task) => format!("task {id} ({})", task.plan.title),
        None => format!("task {id}"),
    }
}

/// What a task does at the moment: `, which runs step web on machine web1 and 3 more`.
fn activity(state: &State, id: TaskId, runs: Option<RunKey>, others: u32) -> String {
    let Some(task) = state.tasks.get(&id) else {
        return String::new();
    };
    match (runs.and_then(|key| place(task, key)), others) {
        (Some(place), 0) => format!(", which runs {place}"),
        (Some(place), more) => format!(", which runs {place} and {more} more"),
        (None, _) => match task.progress.packages {
            Packages::Acquiring(_) => ", which brings packages to its machines".to_owned(),
            _ => ", which waits itself".to_owned(),
        },
    }
}

/// `step web on machine web1`.
pub(crate) fn place(task: &Task, key: RunKey) -> Option<String> {
    let plan = task.step_plan(key.step)?;
    Some(match task.machine(key) {
        Some(machine) => format!("step {} on machine {machine}", plan.name),
        None => format!("step {} on the server", plan.name),
    })
}

/// A span of time for people, to the nearest: `90 s`, `5 min`, `2 h`.
pub(crate) fn in_words(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..120_000 => format!("{} s", (ms + 500) / 1_000),
        120_000..7_200_000 => format!("{} min", (ms + 30_000) / 60_000),
        _ => format!("{} h", (ms + 1_800_000) / 3_600_000),
    }
}
