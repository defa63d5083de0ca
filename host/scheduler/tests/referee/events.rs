//! What the referee learns from events.

use windlass_model::{TaskId, manifest::LockNeed};
use windlass_scheduler::{About, Choice, Event, LockRequest, LockWish, RunKey, RunOutcome, Unavailable, WaitOn, Where};

use super::{Call, Place, Referee, children_of, need};

impl Referee {
    pub fn event(&mut self, now: u64, event: &Event) {
        self.pass(now);
        self.worked = self.tasks.keys().copied().filter(|task| self.task_works(*task)).collect();
        self.resuming = self.tasks.keys().copied().filter(|task| self.wants_seat(*task)).collect();
        self.before = self.waits_for();
        self.deadlocks.clear();
        self.ended.clear();
        self.succeeded.clear();
        self.event = Some(event.clone());
        self.take_in(event);
        // The event itself may be what somebody waits from now on.
        for (task, waits) in self.waits_for() {
            self.before.entry(task).or_default().extend(waits);
        }
    }

    fn take_in(&mut self, event: &Event) {
        match event {
            Event::TaskQueued { task, plan } => self.queued(*task, plan),
            Event::TaskCancelled { task } => self.cancelled(*task),
            Event::TaskMovedToTop { task } => self.moved_to_top(*task),
            Event::PackagesAcquired { task, machine } => {
                let books = self.tasks.get_mut(task).unwrap();
                books.open_places.retain(|place| place != machine);
                books.acquired.insert(machine.clone());
            }
            Event::PackagesFailed { task, machine, unavailable, .. } => self.place_failed(*task, machine, *unavailable),
            Event::FactGiven { task, step, holds } => {
                self.tasks.get_mut(task).unwrap().facts.insert(*step, Some(*holds));
            }
            Event::RunFinished { run, outcome } => self.finished(*run, outcome),
            Event::RunWaits { run, on } => {
                let works = self.works(*run);
                let running = self.running.get_mut(run).unwrap();
                if works && running.stop.is_none() {
                    let (on, wakes_ms) = match on {
                        WaitOn::Limited { on, until_ms } => (on.as_ref(), Some(*until_ms)),
                        on => (on, None),
                    };
                    (running.waits, running.wakes_ms) = (Some(on.clone()), wakes_ms);
                }
            }
            Event::LockAsked { request, wish } => self.asked(*request, wish),
            Event::LockReleased { request } => {
                // One that waits may be let go on only once its task has its turn: then it is refused.
                if self.calls.get(request).is_some_and(|call| call.token.is_some()) {
                    self.calls.remove(request);
                } else {
                    self.withdrawn = Some(*request);
                }
            }
            Event::RunFenced { run } => {
                self.fences.remove(run);
            }
            Event::Answered { task, question, answer } => self.answered(*task, *question, answer.choice),
            Event::PoolChanged { pool, workers, lease_cap } => {
                // A run keeps the count under which it was given its lease, so only one that never changed is judged.
                let same = self.pools.values().all(|(_, cap)| cap == lease_cap);
                let known = self.pools.entry(pool.clone()).or_default();
                known.0.extend(workers.iter().cloned());
                known.1 = if same { *lease_cap } else { 0 };
                if !workers.is_empty() {
                    self.worker_waits.clear();
                }
            }
            Event::SettingsChanged { settings } => {
                self.widest.targets_at_once = self.widest.targets_at_once.max(settings.targets_at_once);
                self.widest.steps_at_once = self.widest.steps_at_once.max(settings.steps_at_once);
                self.widest.runs_at_once = self.widest.runs_at_once.max(settings.runs_at_once);
                self.widest.acquisitions_at_once = self.widest.acquisitions_at_once.max(settings.acquisitions_at_once);
                self.settings = settings.clone();
            }
            Event::RunReady { .. } | Event::LockBroken { .. } | Event::Tick => {}
        }
    }

    fn asked(&mut self, request: LockRequest, wish: &LockWish) {
        if self.calls.contains_key(&request) {
            return;
        }
        let machine = self.running[&request.run].machine.clone();
        let declared = LockNeed {
            resource: wish.resource.clone(),
            mode: wish.mode,
            scope: wish.scope,
            units: wish.units,
            of: wish.of,
        };
        let limit = wish.wait_limit_ms.or(self.tasks[&request.run.task].plan().lock_wait_ms);
        let until_ms = self.now + limit.unwrap_or(self.settings.lock_wait_ms);
        self.asked += 1;
        let call = Call { need: need(&machine, &declared), order: self.asked, token: None, until_ms };
        self.calls.insert(request, call);
    }

    pub(super) fn cancelled(&mut self, task: TaskId) {
        let Some(books) = self.tasks.get_mut(&task).filter(|books| !books.cancelled) else {
            return;
        };
        books.cancelled = true;
        books.stop_places |= !books.open_places.is_empty();
        for child in children_of(&self.tasks, task) {
            self.cancelled(child);
        }
    }

    fn place_failed(&mut self, task: TaskId, machine: &Place, unavailable: bool) {
        let books = self.tasks.get_mut(&task).unwrap();
        books.open_places.retain(|place| place != machine);
        let policy = books.plan().unavailable;
        match machine {
            Some(name) if unavailable && policy != Unavailable::Fail && !books.stop_places => {
                books.excluded.insert(name.clone());
            }
            Some(name) if books.excluded.contains(name) => {}
            _ if books.plan().guided && !books.stop_places => {
                books.asked_places.insert(machine.clone());
            }
            _ => self.lost(task),
        }
    }

    fn lost(&mut self, task: TaskId) {
        let books = self.tasks.get_mut(&task).unwrap();
        books.lost_packages = true;
        books.failed |= !books.cancelled;
        books.asked_places.clear();
        books.stop_places |= !books.open_places.is_empty();
    }

    fn finished(&mut self, key: RunKey, outcome: &RunOutcome) {
        self.fences.remove(&key);
        let Some(running) = self.running.remove(&key) else {
            return;
        };
        self.calls.retain(|request, _| request.run != key);
        if *outcome == RunOutcome::Succeeded {
            return;
        }
        if running.late {
            self.late.insert(key);
        }
        let books = self.tasks.get_mut(&key.task).unwrap();
        let policy = books.plan().unavailable;
        let unavailable = matches!(outcome, RunOutcome::Unavailable { .. }) && running.stop.is_none();
        // A worker that cannot be reached is no target.
        let target = matches!(books.step(key).place, Where::Machines(_));
        if unavailable && target && policy != Unavailable::Fail && !books.cancelled {
            self.pardoned.insert(key);
            self.unreached.insert(key);
            if policy == Unavailable::Exclude {
                books.excluded.extend(running.machine);
            }
        }
        // Whether it counts as a failure is told by how the run is said to end.
        books.excused = true;
    }

    pub(super) fn answered(&mut self, task: TaskId, number: u64, choice: Choice) {
        let books = self.tasks.get_mut(&task).unwrap();
        let Some(question) = books.questions.get(&number).filter(|question| question.choices.contains(&choice)) else {
            return;
        };
        match (&question.about, choice) {
            (About::Deadlock(_), Choice::Wait) => {}
            (About::Failure(run), Choice::Exclude) => {
                let machine = books.plan().steps[run.step as usize].machine(run.place as usize).cloned();
                self.pardoned.insert(*run);
                books.excluded.extend(machine);
            }
            (About::Failure(run), Choice::Ignore) => drop(self.pardoned.insert(*run)),
            (About::Failure(run), Choice::Retry) => {
                let retry = self.retries.entry(*run).or_default();
                retry.person += 1;
                retry.due_ms = self.now;
            }
            (About::Packages(machine), choice) => {
                let machine = machine.clone();
                books.asked_places.remove(&machine);
                match (choice, machine) {
                    (Choice::Exclude, Some(machine)) => {
                        books.excluded.insert(machine);
                    }
                    (Choice::Retry, _) => {}
                    _ => self.lost(task),
                }
            }
            (About::Approval(step), Choice::Proceed) => {
                books.approved.insert(*step);
            }
            (About::Approval(_), _) => books.failed = true,
            _ => {}
        }
    }
}
