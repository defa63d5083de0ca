//! Who may hold what, and who may pass whom.

use std::collections::{BTreeMap, BTreeSet};

use windlass_model::{
    TaskId,
    manifest::{LockMode, LockScope},
};
use windlass_scheduler::{Event, LockRequest, Resource, RunKey, StopKind, WaitOn};

use super::books::{exclusive, rivals};
use super::{Call, Held, Need, Referee, needs};

impl Referee {
    pub(super) fn keep(&mut self, key: RunKey, wanted: &[Need]) {
        let books = self.tasks.get_mut(&key.task).unwrap();
        for need in wanted.iter().filter(|need| need.scope != LockScope::Call) {
            let step = (need.scope == LockScope::Step).then_some(key.step);
            books.holds.push(Held { step, need: need.clone() });
        }
    }

    /// A token is higher than that of every earlier holder that it excludes.
    pub(super) fn token(&mut self, token: u64, wanted: &[Need]) {
        for want in wanted {
            let (any, alone) = self.tokens.entry(want.name.clone()).or_default();
            let exclusive = want.mode == LockMode::Exclusive;
            let least = if exclusive { *any } else { *alone };
            assert!(token > least, "token {token} for {} after {least}", want.name);
            *any = token.max(*any);
            if exclusive {
                *alone = token.max(*alone);
            }
        }
    }

    /// Everything held that may be in the way of a run: what other runs, steps and tasks hold, and fences.
    fn held(&self, by: RunKey) -> Vec<(TaskId, Need)> {
        let mut held = Vec::new();
        for (key, running) in self.running.iter().filter(|(key, _)| **key != by) {
            held.extend(running.needs.iter().map(|need| (key.task, need.clone())));
        }
        let calls = self.calls.iter().filter(|(request, call)| request.run != by && call.token.is_some());
        held.extend(calls.map(|(request, call)| (request.run.task, call.need.clone())));
        for (id, books) in &self.tasks {
            let foreign = |held: &&Held| *id != by.task || held.step.is_some_and(|step| step != by.step);
            held.extend(books.holds.iter().filter(foreign).map(|held| (*id, held.need.clone())));
        }
        let fences = self.fences.iter();
        held.extend(fences.flat_map(|(key, needs)| needs.iter().map(|need| (key.task, need.clone()))));
        held
    }

    /// Nobody holds what is taken, and no count is exceeded.
    pub(super) fn check_free(&self, by: RunKey, wanted: &[Need]) {
        let held = self.held(by);
        for want in wanted {
            for (holder, need) in &held {
                assert!(!exclusive(want, need), "{by:?} takes {}, which task {holder} holds", want.name);
            }
            let runs = self.running.values().flat_map(|running| &running.needs);
            let calls = self.calls.values().filter(|call| call.token.is_some()).map(|call| &call.need);
            let fences = self.fences.values().flatten();
            let all: Vec<_> = runs.chain(calls).chain(fences).filter(|need| need.name == want.name).collect();
            let limit = all.iter().filter_map(|need| need.of).chain(want.of).min();
            let units: u32 = all.iter().map(|need| need.units).sum();
            assert!(limit.is_none_or(|limit| units + want.units <= limit), "{by:?} exceeds the units of {}", want.name);
        }
    }

    /// Nobody who asked earlier for the same and waits still is passed, unless it waits for who passes it.
    pub(super) fn check_order(&self, by: RunKey, wanted: &[Need], order: Option<u64>) {
        let Some(order) = order else {
            // It never waited, so whoever waits must not be its rival: a task that holds it all goes first.
            return self.check_nobody_waits(by, wanted, u64::MAX);
        };
        self.check_nobody_waits(by, wanted, order);
    }

    fn check_nobody_waits(&self, by: RunKey, wanted: &[Need], order: u64) {
        let mut earlier: Vec<(TaskId, Vec<Need>)> = Vec::new();
        for key in
            self.queued_runs.iter().filter(|(key, queued)| **key != by && queued.order < order).map(|(key, _)| key)
        {
            // One that waits for its task's turn has its locks.
            if matches!(self.told.get(&windlass_scheduler::Subject::Run(*key)), Some(windlass_scheduler::Cause::Turn)) {
                continue;
            }
            let books = &self.tasks[&key.task];
            let step = books.step(*key);
            // The worker for which a run of a pool waits is not known here, and so neither is what it wants.
            if matches!(step.place, windlass_scheduler::Where::Pool(_)) {
                continue;
            }
            let machine = step.machine(key.place as usize).cloned();
            earlier.push((key.task, needs(step, &machine, 0)));
        }
        // One that is only to be told that it does not get the lock has left the queue.
        let turn = |request: &LockRequest| {
            matches!(self.told.get(&windlass_scheduler::Subject::Lock(*request)), Some(windlass_scheduler::Cause::Turn))
        };
        let calls = self.calls.iter().filter(|(request, call)| {
            request.run != by && call.token.is_none() && call.order < order && !turn(request)
        });
        earlier.extend(calls.map(|(request, call)| (request.run.task, vec![call.need.clone()])));
        for (task, needs) in earlier {
            let rival = wanted.iter().any(|want| needs.iter().any(|need| rivals(want, need)));
            let may = task == by.task || self.before.get(&task).is_some_and(|all| all.contains(&by.task));
            assert!(!rival || may, "{by:?} passes a wait of task {task} that came earlier");
        }
    }

    /// Which tasks each task waits for, however indirectly.
    pub(super) fn waits_for(&self) -> BTreeMap<TaskId, BTreeSet<TaskId>> {
        let mut direct: BTreeMap<TaskId, BTreeSet<TaskId>> = BTreeMap::new();
        let mut wants: Vec<(RunKey, Vec<Need>)> = Vec::new();
        for key in self.queued_runs.keys() {
            let step = self.tasks[&key.task].step(*key);
            wants.push((*key, needs(step, &step.machine(key.place as usize).cloned(), 0)));
        }
        let waiting = self.calls.iter().filter(|(_, call)| call.token.is_none());
        wants.extend(waiting.map(|(request, call)| (request.run, vec![call.need.clone()])));
        for (key, needs) in &wants {
            let mut held = self.held(*key);
            // Who waits for the same may be ahead.
            held.extend(wants.iter().flat_map(|(other, needs)| needs.iter().map(|need| (other.task, need.clone()))));
            for (holder, have) in held {
                if holder != key.task && needs.iter().any(|want| rivals(want, &have)) {
                    direct.entry(key.task).or_default().insert(holder);
                }
            }
        }
        for (key, running) in &self.running {
            if let Some(WaitOn::Tasks(tasks)) = &running.waits {
                direct.entry(key.task).or_default().extend(tasks.iter().copied());
            }
        }
        for (id, books) in &self.tasks {
            let tag = &books.plan().concurrency_tag;
            let same = self
                .tasks
                .iter()
                .filter(|(other, books)| *other != id && tag.is_some() && books.plan().concurrency_tag == *tag);
            direct.entry(*id).or_default().extend(same.map(|(other, _)| *other));
        }
        let mut all = direct.clone();
        for _ in 0..direct.len() {
            for reached in all.values_mut() {
                let next: Vec<_> =
                    reached.iter().flat_map(|task| direct.get(task).into_iter().flatten()).copied().collect();
                reached.extend(next);
            }
        }
        all
    }

    pub(super) fn granted(&mut self, request: LockRequest, token: u64) {
        let repeats = matches!(&self.event, Some(Event::LockAsked { request: asked, .. }) if *asked == request);
        if repeats && self.calls[&request].token.is_some() {
            assert_eq!(self.calls[&request].token, Some(token), "asked again, granted otherwise");
            return;
        }
        let Call { need, order, token: None, .. } = &self.calls[&request] else {
            panic!("{request:?} is granted twice");
        };
        let (need, order) = (need.clone(), *order);
        self.check_free(request.run, std::slice::from_ref(&need));
        self.check_order(request.run, std::slice::from_ref(&need), Some(order));
        self.token(token, std::slice::from_ref(&need));
        self.keep(request.run, std::slice::from_ref(&need));
        self.calls.get_mut(&request).unwrap().token = Some(token);
        self.told.remove(&windlass_scheduler::Subject::Lock(request));
        self.check_seat(request.run.task);
    }

    pub(super) fn abandon(&mut self, key: RunKey, fenced: &[Resource]) {
        let running = self.running.remove(&key).expect("who is abandoned runs");
        assert_eq!(running.stop, Some(StopKind::Kill), "{key:?} was not killed");
        let calls = self.calls.iter().filter(|(request, call)| request.run == key && call.token.is_some());
        let mut left: Vec<_> = running.needs.into_iter().chain(calls.map(|(_, call)| call.need.clone())).collect();
        left.retain(|need| !need.name.starts_with("broken:"));
        for need in &left {
            assert!(
                fenced.iter().any(|resource| resource.as_str() == need.name),
                "{} is given away unfenced",
                need.name
            );
        }
        self.calls.retain(|request, _| request.run != key);
        assert!(running.stopped_ms + self.settings.kill_ms <= self.now, "{key:?} is given up too early");
        self.fences.insert(key, left);
        self.tasks.get_mut(&key.task).unwrap().excused = true;
    }

    /// What a task with an abandoned run held as a whole is fenced with it.
    pub(super) fn fence_holds(&mut self, id: TaskId, books: &super::Books) {
        let own = |(key, needs): &(&RunKey, &Vec<Need>)| key.task == id && !needs.is_empty();
        let Some(first) = self.fences.iter().find(own).map(|(key, _)| *key) else {
            return;
        };
        let known: BTreeSet<String> =
            self.fences.iter().filter(own).flat_map(|(_, needs)| needs).map(|need| need.name.clone()).collect();
        let holds = books.holds.iter().filter(|held| held.step.is_none() && !known.contains(&held.need.name));
        let mut left: Vec<Need> = holds.map(|held| held.need.clone()).collect();
        left.sort_by(|a, b| a.name.cmp(&b.name));
        left.dedup_by(|a, b| a.name == b.name);
        self.fences.entry(first).or_default().extend(left);
    }
}
