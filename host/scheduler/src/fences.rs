//! Runs that did not stop, and locks that people break.
//!
//! The rule: a run that does not end although it was killed counts as over, and everything it held stays held by a
//! *fence*. Nobody is given a fenced resource until one of three things: the run is known to be over after all,
//! its machine is proven to refuse the run's token, or a person breaks the lock and says why. When the task of
//! such a run ends, what the task held as a whole is fenced with it.

use windlass_model::{RunState, TaskId};

use crate::{
    cause::Part,
    decision::Decision,
    event::{LockRequest, RunKey, StopKind},
    locks::ClaimKey,
    progress::Phase,
    resource::Resource,
    state::Fence,
    step::Want,
    turn::Turn,
    words,
};

impl Turn<'_> {
    /// Gives a run up that did not end.
    pub fn abandon(&mut self, key: RunKey) {
        let Some(task) = self.state.tasks.get_mut(&key.task) else {
            return;
        };
        let mut held = task.wants(key);
        let Some(run) = task.run(key) else {
            return;
        };
        let token = run.token;
        let why = run.stop.map_or(StopKind::Cancel, |stop| stop.why);
        held.retain(|want| !run.broken.contains(&want.resource));
        held.extend(run.calls.values().filter(|call| call.held && !call.broken).map(|call| call.want.clone()));
        let numbers: Vec<_> = run.calls.keys().copied().collect();
        // The fence takes over before the run lets go, so that nobody comes between.
        let fenced = self.fence(key, held, token);
        for number in numbers {
            self.release(ClaimKey::call(LockRequest { run: key, number }));
        }
        self.let_go(key);
        self.drop_run_questions(key);
        self.say(Decision::AbandonRun { run: key, fenced });
        let told = if why == StopKind::Timeout { "it took too long" } else { "its task was cancelled" };
        let error = format!("{told}, it did not stop when killed, and may still run; what it held stays fenced");
        self.end_run(key, RunState::Unknown, Some(error));
    }

    fn fence(&mut self, run: RunKey, wants: Vec<Want>, token: u64) -> Vec<Resource> {
        let Some(task) = self.state.tasks.get(&run.task) else {
            return Vec::new();
        };
        let title = task.plan.title.clone();
        let machine = task.machine(run).cloned();
        let place = words::place(task, run).unwrap_or_default();
        let known: Vec<_> = self.fences_of(run).map(|fence| fence.want.resource.clone()).collect();
        let mut number = self.fences_of(run).map(|fence| fence.number + 1).max().unwrap_or(0);
        let mut fenced = Vec::new();
        for want in wants {
            if known.contains(&want.resource) || fenced.contains(&want.resource) {
                continue;
            }
            let key = ClaimKey { run, part: Part::Fence(number) };
            self.state.locks.hold(key, &want, token);
            fenced.push(want.resource.clone());
            let fence = Fence {
                run,
                number,
                want,
                token,
                title: title.clone(),
                place: place.clone(),
                machine: machine.clone(),
                since_ms: self.now,
            };
            self.state.fences.insert((run, number), fence);
            number += 1;
        }
        fenced
    }

    fn fences_of(&self, run: RunKey) -> impl Iterator<Item = &Fence> {
        self.state.fences.range((run, 0)..=(run, u32::MAX)).map(|(_, fence)| fence)
    }

    /// Fences what a task holds as a whole, if a run of it was abandoned.
    pub fn fence_holds(&mut self, id: TaskId) {
        let first = RunKey { task: id, step: 0, place: 0 };
        let last = RunKey { task: id, step: u32::MAX, place: u32::MAX };
        let Some(run) = self.state.fences.range((first, 0)..=(last, u32::MAX)).next().map(|((run, _), _)| *run) else {
            return;
        };
        let holds = self.state.tasks.get(&id).map(|task| task.progress.holds.clone()).unwrap_or_default();
        let token = holds.iter().map(|hold| hold.token).max().unwrap_or(0);
        // What one of its runs fences already is not counted twice.
        let fences = self.state.fences.range((first, 0)..=(last, u32::MAX));
        let known: Vec<_> = fences.map(|(_, fence)| fence.want.resource.clone()).collect();
        let wants = holds.into_iter().map(|hold| hold.want).filter(|want| !known.contains(&want.resource));
        self.fence(run, wants.collect(), token);
    }

    /// An abandoned run is known to do nothing any more.
    pub fn unfence(&mut self, run: RunKey) {
        let numbers: Vec<_> = self.fences_of(run).map(|fence| fence.number).collect();
        for number in numbers {
            self.state.fences.remove(&(run, number));
            self.release(ClaimKey { run, part: Part::Fence(number) });
        }
    }

    /// A person takes a lock away from those who hold it.
    pub fn lock_broken(&mut self, resource: &Resource, task: Option<TaskId>, by: &str, reason: &str) {
        let holders: Vec<_> = self
            .state
            .locks
            .holders(resource)
            .iter()
            .filter(|hold| task.is_none_or(|task| hold.key.run.task == task))
            .map(|hold| (hold.key, hold.token))
            .collect();
        for (key, token) in holders {
            if let Part::Fence(number) = key.part {
                self.state.fences.remove(&(key.run, number));
                self.release(key);
            } else if !self.give_back(key, by) {
                self.forget_hold(key, resource);
            }
            let (resource, by, reason) = (resource.clone(), by.to_owned(), reason.to_owned());
            self.say(Decision::LockBroken { resource, run: key.run, part: key.part, token, by, reason });
        }
    }

    /// Whoever has a lock and was not told yet loses it without having used it: a run waits for it again, a call
    /// is refused.
    fn give_back(&mut self, key: ClaimKey, by: &str) -> bool {
        let Some(run) = self.state.run(key.run) else {
            return false;
        };
        match key.part {
            Part::Run if run.phase == Phase::Seat => {
                self.let_go(key.run);
                self.begin(key.run);
                true
            }
            Part::Call(number) if run.calls.get(&number).is_some_and(|call| call.token.is_none()) => {
                let request = LockRequest { run: key.run, number };
                self.refuse(request, format!("{by} took it away before it was used"));
                true
            }
            _ => false,
        }
    }
}
