//! The one sentence for why something waits, and everything else said about a wait.

use windlass_model::{
    TaskId,
    task::{Reason, run_node},
};

use crate::{
    cause::{Cause, Part},
    deadlock::{Edge, Node, Why},
    event::{LockRequest, RunKey, Subject},
    locks::ClaimKey,
    plan::PlanKind,
    progress::{Packages, Phase},
    reasons,
    state::{State, Task},
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
            let what = if count == 1 { format!("{what} executes,") } else { format!("{what}s execute, the oldest") };
            format!("waits for a free place: {count} {what} is {}", named(state, *oldest))
        }
        Cause::Behind { ahead } => format!("waits behind {} for a free place", named(state, *ahead)),
        Cause::Turn => "waits until its task has its turn again".to_owned(),
        Cause::Packages { there, places } => {
            format!("waits for its packages, which are on {there} of {places} machines")
        }
        Cause::Steps { most: 1 } => "waits for its turn: one step of the deployment runs at a time".to_owned(),
        Cause::Steps { most } => format!("waits for its turn: at most {most} steps of a deployment run at once"),
        Cause::Window { most } => {
            let name = step_name(state, subject);
            match most {
                1 => format!("waits for its turn: step {name} runs on one machine at a time"),
                _ => format!("waits for its turn: step {name} runs on at most {most} machines at once"),
            }
        }
        Cause::Runs { most: 1 } => "waits for its turn: the deployment has one run at a time".to_owned(),
        Cause::Runs { most } => format!("waits for its turn: the deployment has at most {most} runs at once"),
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
        Cause::Fence { resource, run, .. } => {
            let fence = state.fences.values().find(|fence| fence.run == *run && fence.want.resource == *resource);
            match fence {
                Some(fence) => format!(
                    "waits for {resource}, fenced: {} of task {} ({}) was abandoned and may still run",
                    fence.place, run.task, fence.title
                ),
                None => format!("waits for {resource}, fenced after task {}", run.task),
            }
        }
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

/// A circle of waits, every edge in words.
pub(crate) fn circle(state: &State, edges: &[Edge]) -> String {
    let mut parts = Vec::new();
    for edge in edges {
        if let (Node::Run(run), Node::Call(request)) = (edge.from, edge.to)
            && request.run == run
        {
            continue;
        }
        let (from, to) = (node(state, edge.from), node(state, edge.to));
        parts.push(match &edge.why {
            Why::Lock { resource, behind: false } => format!("{from} waits for {resource}, held by {to}"),
            Why::Lock { resource, behind: true } => format!("{from} waits for {resource} behind {to}"),
            Why::Tag => format!("{from} waits for the turn of {to} to be over"),
            Why::End => format!("{from} waits for {to} to end"),
            Why::Place => format!("{from} waits for the place in its window that {to} takes"),
            Why::Part => format!("{from} does not end before {to}"),
        });
    }
    format!("deadlock: {}", parts.join("; "))
}

fn node(state: &State, node: Node) -> String {
    let run = |key: RunKey| {
        let task = state.tasks.get(&key.task);
        let node = task.and_then(|task| Some(run_node(&task.step_plan(key.step)?.name, task.machine(key))));
        format!("step {} of {}", node.unwrap_or_default(), named(state, key.task))
    };
    match node {
        Node::Task(id) => named(state, id),
        Node::Step(id, step) => {
            let name = state.tasks.get(&id).and_then(|task| task.step_plan(step)).map_or("", |step| step.name.as_str());
            format!("step {name} of {}", named(state, id))
        }
        Node::Run(key) => run(key),
        Node::Call(request) => run(request.run),
    }
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
