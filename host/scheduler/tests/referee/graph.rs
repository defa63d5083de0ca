//! The referee's own search for waits that can never end, from the public view of the locks and its own books.
//!
//! It rubs out everything that will end until nothing more can be rubbed out. What is left never ends.

use std::collections::{BTreeMap, BTreeSet};

use windlass_model::{TaskId, TaskState, manifest::LockMode};
use windlass_scheduler::{LockHolder, LockRequest, LockView, Part, RunKey, State, Subject, WaitOn, progress::Phase};

/// Waits that can never end. `spared` are taken to end.
pub fn stuck(state: &State, spared: &BTreeSet<Subject>) -> BTreeSet<Subject> {
    let locks = state.locks();
    let mut waiting: BTreeSet<Subject> = BTreeSet::new();
    let mut open: BTreeMap<TaskId, Vec<RunKey>> = BTreeMap::new();
    for (id, plan, progress) in state.tasks() {
        // One that is not to start yet waits for nothing but time: it may even expire.
        let scheduled = plan.start_at_ms.is_some_and(|at| at > state.counters().now_ms);
        if (progress.state == TaskState::Queued && !scheduled) || progress.resume > 0 {
            waiting.insert(Subject::Task(id));
        }
        for (step, steps) in progress.steps.iter().enumerate() {
            for (place, run) in steps.runs.iter().enumerate().filter(|(_, run)| run.phase.is_open()) {
                let key = RunKey { task: id, step: step as u32, place: place as u32 };
                open.entry(id).or_default().push(key);
                let tasks = run
                    .waits
                    .as_ref()
                    .is_some_and(|waits| waits.ready.is_none() && matches!(waits.on, WaitOn::Tasks(_)));
                if matches!(run.phase, Phase::Locks(_)) || (tasks && run.stop.is_none()) {
                    waiting.insert(Subject::Run(key));
                }
                let calls = run.calls.iter().filter(|(_, call)| call.waits() && run.stop.is_none());
                waiting.extend(calls.map(|(number, _)| Subject::Lock(LockRequest { run: key, number: *number })));
            }
        }
    }
    let mut stuck = waiting.clone();
    loop {
        let ends = |subject: &Subject| spared.contains(subject) || can_end(state, &locks, &stuck, &open, *subject);
        let Some(next) = stuck.iter().copied().find(ends) else {
            return stuck;
        };
        stuck.remove(&next);
    }
}

fn run_ends(state: &State, stuck: &BTreeSet<Subject>, run: RunKey) -> bool {
    let cancelling = state.task(run.task).is_none_or(|(_, progress)| progress.state == TaskState::Cancelling);
    let own = |subject: &Subject| match subject {
        Subject::Run(other) => *other == run,
        Subject::Lock(request) => request.run == run,
        _ => false,
    };
    cancelling || !stuck.iter().any(own)
}

fn task_ends(state: &State, stuck: &BTreeSet<Subject>, open: &BTreeMap<TaskId, Vec<RunKey>>, task: TaskId) -> bool {
    let runs = open.get(&task).into_iter().flatten();
    !stuck.contains(&Subject::Task(task)) && runs.into_iter().all(|run| run_ends(state, stuck, *run))
}

fn holder_ends(
    state: &State,
    stuck: &BTreeSet<Subject>,
    open: &BTreeMap<TaskId, Vec<RunKey>>,
    holder: &LockHolder,
) -> bool {
    match holder.part {
        Part::Fence(_) => true,
        Part::Task => task_ends(state, stuck, open, holder.run.task),
        Part::Step => {
            let runs = open.get(&holder.run.task).into_iter().flatten().filter(|run| run.step == holder.run.step);
            runs.into_iter().all(|run| run_ends(state, stuck, *run))
        }
        Part::Run | Part::Call(_) => run_ends(state, stuck, holder.run),
    }
}

fn covers(holder: &LockHolder, run: RunKey) -> bool {
    match holder.part {
        Part::Task => holder.run.task == run.task,
        Part::Step => (holder.run.task, holder.run.step) == (run.task, run.step),
        _ => false,
    }
}

/// Whether a wait ends once everything ends that is not stuck.
fn can_end(
    state: &State,
    locks: &[LockView],
    stuck: &BTreeSet<Subject>,
    open: &BTreeMap<TaskId, Vec<RunKey>>,
    subject: Subject,
) -> bool {
    match subject {
        Subject::Task(id) => tag_free(state, stuck, open, id),
        Subject::Run(run) => {
            let tasks = state.task(run.task).and_then(|(_, progress)| {
                let run = &progress.steps[run.step as usize].runs[run.place as usize];
                run.waits.clone().filter(|_| run.phase == Phase::Running)
            });
            match tasks.map(|waits| waits.on) {
                Some(WaitOn::Tasks(tasks)) => {
                    let live = |task: &TaskId| state.task(*task).is_none() || task_ends(state, stuck, open, *task);
                    tasks.iter().all(live)
                }
                _ => claim_free(state, locks, stuck, open, subject),
            }
        }
        _ => claim_free(state, locks, stuck, open, subject),
    }
}

fn tag_free(state: &State, stuck: &BTreeSet<Subject>, open: &BTreeMap<TaskId, Vec<RunKey>>, id: TaskId) -> bool {
    let (plan, progress) = state.task(id).unwrap();
    let Some(tag) = &plan.concurrency_tag else {
        return true;
    };
    if progress.tagged {
        return true;
    }
    // Whoever has the tag must end. Those before it in the line wait for the same, so they need no look.
    let holder = state.tasks().find(|(_, other, progress)| {
        progress.tagged && progress.state != TaskState::Queued && other.concurrency_tag.as_ref() == Some(tag)
    });
    holder.is_none_or(|(holder, ..)| task_ends(state, stuck, open, holder))
}

fn claim_free(
    state: &State,
    locks: &[LockView],
    stuck: &BTreeSet<Subject>,
    open: &BTreeMap<TaskId, Vec<RunKey>>,
    subject: Subject,
) -> bool {
    let wanted = locks.iter().filter_map(|lock| {
        let at = lock.queue.iter().position(|waiter| waiter.subject() == subject)?;
        Some((lock, at))
    });
    wanted.into_iter().all(|(lock, at)| {
        let own = &lock.queue[at];
        let left: Vec<_> = lock
            .holders
            .iter()
            .filter(|holder| !covers(holder, own.run) && !holder_ends(state, stuck, open, holder))
            .collect();
        let exclusive = |holder: &&&LockHolder| holder.mode == LockMode::Exclusive || own.mode == LockMode::Exclusive;
        let limit = left.iter().map(|holder| holder.of).chain([own.of]).filter(|of| *of > 0).min();
        let all: Vec<_> =
            lock.holders.iter().filter(|holder| covers(holder, own.run) || left.contains(holder)).collect();
        let with: Vec<_> = all.iter().copied().chain([own]).collect();
        let single = |holder: &&&LockHolder| !matches!(holder.part, Part::Step | Part::Task);
        let really: u32 = with.iter().filter(single).map(|holder| holder.units).sum();
        let room = limit.is_none_or(|limit| used(&with) <= limit || (used(&with) == used(&all) && really <= limit));
        // Being behind somebody who never ends is being stuck, unless the queue is put in another order.
        let behind = lock.queue[..at].iter().any(|earlier| {
            let bars =
                earlier.mode == LockMode::Exclusive || own.mode == LockMode::Exclusive || earlier.of > 0 || own.of > 0;
            bars && stuck.contains(&earlier.subject())
        });
        left.iter().find(exclusive).is_none() && room && !behind
    })
}

/// Units in use: of a group what it holds, or what its members use if that is more.
pub fn used(all: &[&LockHolder]) -> u32 {
    let sum = |some: &mut dyn Iterator<Item = &&LockHolder>| -> u32 { some.map(|holder| holder.units).sum() };
    let fence = |holder: &LockHolder| matches!(holder.part, Part::Fence(_));
    let mut total = sum(&mut all.iter().filter(|holder| fence(holder)));
    let tasks: BTreeSet<TaskId> = all.iter().filter(|holder| !fence(holder)).map(|holder| holder.run.task).collect();
    for task in tasks {
        let own: Vec<&LockHolder> =
            all.iter().copied().filter(|holder| holder.run.task == task && !fence(holder)).collect();
        let whole = sum(&mut own.iter().filter(|holder| holder.part == Part::Task));
        let steps: BTreeSet<u32> =
            own.iter().filter(|holder| holder.part != Part::Task).map(|holder| holder.run.step).collect();
        let mut parts = 0;
        for step in steps {
            let of = |holder: &&&LockHolder| holder.part != Part::Task && holder.run.step == step;
            let held = sum(&mut own.iter().filter(of).filter(|holder| holder.part == Part::Step));
            let members = sum(&mut own.iter().filter(of).filter(|holder| holder.part != Part::Step));
            parts += held.max(members);
        }
        total += whole.max(parts);
    }
    total
}
