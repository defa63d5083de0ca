//! The referee's own search for waits that can never end, from the public view of the locks and its own books.
//!
//! It rubs out everything that will end until nothing more can be rubbed out. What is left never ends.

use std::collections::{BTreeMap, BTreeSet};

use windlass_model::{TaskId, TaskState, manifest::LockMode};
use windlass_scheduler::{LockHolder, LockRequest, LockView, Part, RunKey, State, Subject, WaitOn, progress::Phase};

use super::books::unit;

/// Waits that can never end. `spared` are taken to end.
pub fn stuck(state: &State, spared: &BTreeSet<Subject>) -> BTreeSet<Subject> {
    let mut search = Search { state, locks: state.locks(), stuck: BTreeSet::new(), open: BTreeMap::new() };
    search.gather();
    loop {
        let ends = |subject: &Subject| spared.contains(subject) || search.can_end(*subject);
        let Some(next) = search.stuck.iter().copied().find(ends) else {
            return search.stuck;
        };
        search.stuck.remove(&next);
    }
}

struct Search<'a> {
    state: &'a State,
    locks: Vec<LockView>,
    /// Waits that are not known to end.
    stuck: BTreeSet<Subject>,
    /// Runs that have had their turn and are not over.
    open: BTreeMap<TaskId, Vec<RunKey>>,
}

impl Search<'_> {
    fn gather(&mut self) {
        for (id, plan, progress) in self.state.tasks() {
            // One that is not to start yet waits for nothing but time: it may even expire.
            let scheduled = plan.start_at_ms.is_some_and(|at| at > self.state.counters().now_ms);
            if (progress.state == TaskState::Queued && !scheduled) || progress.resume > 0 {
                self.stuck.insert(Subject::Task(id));
            }
            for (step, steps) in progress.steps.iter().enumerate() {
                for (place, run) in steps.runs.iter().enumerate().filter(|(_, run)| run.phase.is_open()) {
                    let key = RunKey { task: id, step: step as u32, place: place as u32 };
                    self.open.entry(id).or_default().push(key);
                    let suspended = run.waits.as_ref().filter(|waits| waits.ready.is_none() && run.stop.is_none());
                    let tasks = suspended.is_some_and(|waits| matches!(waits.on, WaitOn::Tasks(_)));
                    if matches!(run.phase, Phase::Locks(_)) || tasks {
                        self.stuck.insert(Subject::Run(key));
                    }
                    let calls = run.calls.iter().filter(|(_, call)| call.waits() && run.stop.is_none());
                    let request = |number: &u64| LockRequest { run: key, number: *number };
                    self.stuck.extend(calls.map(|(number, _)| Subject::Lock(request(number))));
                }
            }
        }
    }

    fn open(&self, task: TaskId) -> impl Iterator<Item = RunKey> {
        self.open.get(&task).into_iter().flatten().copied()
    }

    /// Whether a wait ends once everything ends that is not stuck.
    fn can_end(&self, subject: Subject) -> bool {
        match subject {
            Subject::Task(id) => self.tag_free(id),
            Subject::Run(run) => match self.awaited(run) {
                Some(tasks) => tasks.into_iter().all(|task| self.state.task(task).is_none() || self.task_ends(task)),
                None => self.claim_free(subject),
            },
            _ => self.claim_free(subject),
        }
    }

    /// The tasks whose ends a run that runs waits for.
    fn awaited(&self, key: RunKey) -> Option<Vec<TaskId>> {
        let (_, progress) = self.state.task(key.task)?;
        let run = &progress.steps[key.step as usize].runs[key.place as usize];
        match &run.waits.as_ref().filter(|_| run.phase == Phase::Running)?.on {
            WaitOn::Tasks(tasks) => Some(tasks.clone()),
            _ => None,
        }
    }

    fn cancels(&self, task: TaskId) -> bool {
        self.state.task(task).is_none_or(|(_, progress)| progress.state == TaskState::Cancelling)
    }

    fn run_ends(&self, run: RunKey) -> bool {
        let own = |subject: &Subject| match subject {
            Subject::Run(other) => *other == run,
            Subject::Lock(request) => request.run == run,
            _ => false,
        };
        self.cancels(run.task) || !self.stuck.iter().any(own)
    }

    fn task_ends(&self, task: TaskId) -> bool {
        self.cancels(task)
            || (!self.stuck.contains(&Subject::Task(task)) && self.open(task).all(|run| self.run_ends(run)))
    }

    /// A step ends once all its machines are through it. Those whose turn has not come need a place in the window of
    /// the unit and among the runs of the task.
    fn step_ends(&self, task: TaskId, step: u32) -> bool {
        let Some((plan, progress)) = self.state.task(task).filter(|_| !self.cancels(task)) else {
            return true;
        };
        let range = unit(plan, step);
        let mut before = self.open(task).filter(|run| (range.start..=step).contains(&run.step));
        if !before.all(|run| self.run_ends(run)) {
            return false;
        }
        let lead = &progress.steps[range.start as usize];
        let pending = lead.runs.iter().any(|run| run.phase == Phase::Pending);
        let held = |only: bool| {
            let lanes = self.open(task).filter(|run| !only || range.contains(&run.step));
            lanes.filter(|run| !self.run_ends(*run)).count() as u32
        };
        let settings = self.state.settings();
        let general = plan.max_parallelism.unwrap_or(settings.targets_at_once);
        let window = plan.steps[range.start as usize].window.map_or(general, |own| own.min(general)).max(1);
        let most = plan.max_runs.unwrap_or(settings.runs_at_once).max(1);
        !pending || (held(true) < window && held(false) < most)
    }

    fn holder_ends(&self, holder: &LockHolder) -> bool {
        match holder.part {
            Part::Fence(_) => true,
            Part::Task => self.task_ends(holder.run.task),
            Part::Step => self.step_ends(holder.run.task, holder.run.step),
            Part::Run | Part::Call(_) => self.run_ends(holder.run),
        }
    }

    fn tag_free(&self, id: TaskId) -> bool {
        let (plan, progress) = self.state.task(id).unwrap();
        let Some(tag) = &plan.concurrency_tag else {
            return true;
        };
        if progress.tagged {
            return true;
        }
        // Whoever has the tag must end. Those before it in the line wait for the same, so they need no look.
        let holder = self.state.tasks().find(|(_, other, progress)| {
            progress.tagged && progress.state != TaskState::Queued && other.concurrency_tag.as_ref() == Some(tag)
        });
        holder.is_none_or(|(holder, ..)| self.task_ends(holder))
    }

    fn claim_free(&self, subject: Subject) -> bool {
        let wanted = self.locks.iter().filter_map(|lock| {
            let at = lock.queue.iter().position(|waiter| waiter.subject() == subject)?;
            Some((lock, at))
        });
        wanted.into_iter().all(|(lock, at)| self.lock_free(lock, at))
    }

    /// Whether the waiter at this place of a queue gets the lock once everything ends that is not stuck.
    fn lock_free(&self, lock: &LockView, at: usize) -> bool {
        let own = &lock.queue[at];
        let stays = |holder: &&LockHolder| !covers(holder, own.run) && !self.holder_ends(holder);
        let left: Vec<_> = lock.holders.iter().filter(stays).collect();
        let exclusive = |holder: &&&LockHolder| holder.mode == LockMode::Exclusive || own.mode == LockMode::Exclusive;
        let all: Vec<_> =
            lock.holders.iter().filter(|holder| covers(holder, own.run) || left.contains(holder)).collect();
        let limit = all.iter().map(|holder| holder.of).chain([own.of]).filter(|of| *of > 0).min();
        let with: Vec<_> = all.iter().copied().chain([own]).collect();
        let single = |holder: &&&LockHolder| !matches!(holder.part, Part::Step | Part::Task);
        let really: u32 = with.iter().filter(single).map(|holder| holder.units).sum();
        let room = limit.is_none_or(|limit| used(&with) <= limit || (used(&with) == used(&all) && really <= limit));
        // Being behind somebody who never ends is being stuck, unless the queue is put in another order.
        let behind = lock.queue[..at].iter().any(|earlier| {
            let bars =
                earlier.mode == LockMode::Exclusive || own.mode == LockMode::Exclusive || earlier.of > 0 || own.of > 0;
            bars && self.stuck.contains(&earlier.subject())
        });
        left.iter().find(exclusive).is_none() && room && !behind
    }
}

/// Whether what a step or a task holds is held for this run too.
pub fn covers(holder: &LockHolder, run: RunKey) -> bool {
    match holder.part {
        Part::Task => holder.run.task == run.task,
        Part::Step => (holder.run.task, holder.run.step) == (run.task, run.step),
        _ => false,
    }
}

/// Units in use: of a group what it holds, or what its members use if that is more.
fn used(all: &[&LockHolder]) -> u32 {
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
