//! What may happen, judged when it is decided.

use std::collections::{BTreeMap, BTreeSet};

use windlass_model::{
    MachineName, RunCondition, RunState, StartTrigger, TaskId, TaskState,
    manifest::{LockMode, LockScope},
};
use windlass_scheduler::{LockRequest, PlanKind, Resource, RunKey, StopKind, WaitOn};

use super::{Books, Call, Held, Need, Place, Referee, Running, needs, unit};
use crate::referee::books::{exclusive, rivals};

impl Referee {
    /// Whoever begins to work has a place under the cap, and its tag.
    pub(super) fn check_seat(&mut self, id: TaskId) {
        let books = &self.tasks[&id];
        let kind = books.plan().kind;
        let tag = books.plan().concurrency_tag.clone();
        let works = |other: &&TaskId| self.task_works(**other);
        let same = self.tasks.keys().filter(|other| self.tasks[other].plan().kind == kind);
        let working = same.filter(works).count();
        let cap = match kind {
            PlanKind::Deployment => self.settings.task_cap,
            PlanKind::Script => self.settings.script_cap,
        };
        let was = self.worked.contains(&id);
        assert!(was || working <= cap.max(1) as usize, "task {id} works beyond the cap: {working}");
        let others = self
            .tasks
            .iter()
            .filter(|(other, books)| **other != id && tag.is_some() && books.plan().concurrency_tag == tag);
        for (other, _) in others {
            assert!(!self.task_works(*other), "tasks {id} and {other} work with one tag");
        }
    }

    pub(super) fn acquire(&mut self, id: TaskId, machines: &[MachineName], server: bool) {
        let books = self.tasks.get_mut(&id).unwrap();
        assert!(!books.cancelled && !books.stop_places && !books.lost_packages);
        let places: Vec<Place> = machines.iter().cloned().map(Some).chain(server.then_some(None)).collect();
        assert!(!places.is_empty());
        for place in &places {
            assert!(
                !books.open_places.contains(place) && !books.acquired.contains(place),
                "{place:?} is supplied twice"
            );
            assert!(place.as_ref().is_none_or(|name| !books.excluded.contains(name)), "{place:?} was left out");
        }
        books.open_places.extend(places);
        let most = books.plan().max_acquisitions.unwrap_or(self.widest.acquisitions_at_once).max(1);
        assert!(books.open_places.len() <= most as usize, "too many places are supplied at once");
        self.check_seat(id);
    }

    pub(super) fn start(&mut self, key: RunKey, machine: &Place, attempt: u32, token: u64) {
        let wanted = needs(self.tasks[&key.task].step(key), machine, self.lease_cap(key));
        self.check_start(key, machine);
        self.check_free(key, &wanted);
        self.check_order(key, &wanted, self.queued_runs.get(&key).copied());
        self.token(token, &wanted);
        let last = self.attempts.insert(key, attempt).unwrap_or(0);
        // An attempt that did not get its locks counts too.
        assert!(attempt > last, "{key:?}: attempts are counted");
        let books = self.tasks.get_mut(&key.task).unwrap();
        let lead = unit(books.plan(), key.step).start;
        books.lanes.entry(lead).or_default().insert(key.place);
        self.keep(key, &wanted);
        let running = Running { machine: machine.clone(), token, stop: None, waits: None, needs: wanted };
        self.running.insert(key, running);
        self.queued_runs.remove(&key);
        self.told.remove(&windlass_scheduler::Subject::Run(key));
        self.check_seat(key.task);
    }

    fn keep(&mut self, key: RunKey, wanted: &[Need]) {
        let books = self.tasks.get_mut(&key.task).unwrap();
        for need in wanted.iter().filter(|need| need.scope != LockScope::Call) {
            let step = (need.scope == LockScope::Step).then_some(key.step);
            books.holds.push(Held { step, need: need.clone() });
        }
    }

    /// A token is higher than that of every earlier holder that it excludes.
    fn token(&mut self, token: u64, wanted: &[Need]) {
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
    fn check_free(&self, by: RunKey, wanted: &[Need]) {
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
    fn check_order(&self, by: RunKey, wanted: &[Need], order: Option<u64>) {
        let Some(order) = order else {
            // It never waited, so whoever waits must not be its rival: a task that holds it all goes first.
            return self.check_nobody_waits(by, wanted, u64::MAX);
        };
        self.check_nobody_waits(by, wanted, order);
    }

    fn check_nobody_waits(&self, by: RunKey, wanted: &[Need], order: u64) {
        let mut earlier: Vec<(TaskId, Vec<Need>)> = Vec::new();
        for (key, asked) in self.queued_runs.iter().filter(|(key, asked)| **key != by && **asked < order) {
            let _ = asked;
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
        let calls =
            self.calls.iter().filter(|(request, call)| request.run != by && call.token.is_none() && call.order < order);
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
        if self.repeats == Some(request) && self.calls[&request].token.is_some() {
            assert_eq!(self.calls[&request].token, Some(token), "asked again, granted otherwise");
            return;
        }
        let Call { need, order, token: None } = &self.calls[&request] else {
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

    fn check_start(&self, key: RunKey, machine: &Place) {
        let books = &self.tasks[&key.task];
        let step = books.step(key);
        assert_eq!(books.state, Some(TaskState::Executing), "{key:?} starts in a task that does not execute");
        assert!(!books.cancelled, "{key:?} starts after a cancel");
        match &step.place {
            windlass_scheduler::Where::Pool(pool) => {
                assert!(self.pools.contains_key(pool) && machine.is_some(), "{key:?} has no worker");
            }
            _ => assert_eq!(step.machine(key.place as usize), machine.as_ref()),
        }
        assert!(
            machine.as_ref().is_none_or(|name| !books.excluded.contains(name)),
            "{key:?} touches a machine that was left out"
        );
        assert_eq!(books.steps.get(&key.step), Some(&RunState::Running));
        assert!(!self.running.contains_key(&key), "{key:?} starts twice");
        let plan = books.plan();
        let range = unit(plan, key.step);
        let lead = &plan.steps[range.start as usize];
        let mut lanes = books.lanes.get(&range.start).cloned().unwrap_or_default();
        lanes.insert(key.place);
        let window =
            lead.window.unwrap_or(u32::MAX).min(plan.max_parallelism.unwrap_or(self.widest.targets_at_once)).max(1);
        assert!(lanes.len() <= window as usize, "{key:?} exceeds its window");
        let total: usize =
            books.lanes.iter().filter(|(unit, _)| **unit != range.start).map(|(_, lanes)| lanes.len()).sum();
        let most = plan.max_runs.unwrap_or(self.widest.runs_at_once).max(1);
        assert!(total + lanes.len() <= most as usize, "{key:?} exceeds the runs of its task");
        for earlier in range.start..key.step {
            let over = !self.running.contains_key(&RunKey { step: earlier, ..key });
            assert!(over, "{key:?} starts before step {earlier} is over there");
        }
        self.check_packages(key, books);
    }

    fn check_packages(&self, key: RunKey, books: &Books) {
        if !books.step(key).needs_packages {
            return;
        }
        assert!(books.open_places.is_empty() && !books.lost_packages, "{key:?} starts before its packages");
        assert!(books.asked_places.is_empty(), "{key:?} starts before a person said what to do");
        let over = |index: u32| index != key.step && books.steps.get(&index).is_some_and(|state| state.is_final());
        for index in (key.step..books.plan().steps.len() as u32).filter(|index| !over(*index)) {
            let later = &books.plan().steps[index as usize];
            if !later.needs_packages {
                continue;
            }
            let mut places = (0..later.runs()).map(|place| later.machine(place).cloned());
            let out = |place: &Place| place.as_ref().is_some_and(|name| books.excluded.contains(name));
            let there = later.skip.is_some() || places.all(|place| books.acquired.contains(&place) || out(&place));
            assert!(there, "{key:?} starts before the packages of step {}", later.name);
        }
    }

    pub(super) fn task_state(&mut self, id: TaskId, state: TaskState) {
        if state == TaskState::Executing {
            self.told.remove(&windlass_scheduler::Subject::Task(id));
        }
        // One that is superseded while it waits for people is cancelled by nobody.
        if state == TaskState::Cancelling {
            let books = self.tasks.get_mut(&id).unwrap();
            assert!(books.cancelled || books.plan().supersede.is_some(), "task {id} is cancelled by nobody");
            self.cancelled(id);
        }
        self.tasks.get_mut(&id).unwrap().state = Some(state);
    }

    pub(super) fn step_state(&mut self, id: TaskId, index: u32, state: RunState) {
        if state == RunState::Running {
            self.check_step(id, index);
        }
        let books = self.tasks.get_mut(&id).unwrap();
        if state.is_final() {
            books.holds.retain(|held| held.step != Some(index));
            books.failed |=
                !books.cancelled && matches!(state, RunState::Failed | RunState::Unknown | RunState::Cancelled);
        }
        self.told.remove(&windlass_scheduler::Subject::Step(id, index));
        let before = books.steps.insert(index, state);
        assert!(!before.is_some_and(RunState::is_final), "step {index} ends twice");
    }

    fn check_step(&self, id: TaskId, index: u32) {
        let books = &self.tasks[&id];
        let plan = books.plan();
        let range = unit(plan, index);
        let step = &plan.steps[index as usize];
        assert!(step.skip.is_none() && !books.cancelled);
        assert_ne!(books.facts.get(&index), Some(&Some(false)), "step {index} starts although its fact does not hold");
        assert!(
            !step.asks_fact || books.facts.get(&index) == Some(&Some(true)),
            "step {index} starts without its fact"
        );
        if index != range.start {
            return;
        }
        assert!(step.approval.is_none() || books.approved.contains(&index), "step {index} starts unapproved");
        let running = |lead: &u32| books.steps.get(lead) == Some(&RunState::Running);
        let leads = (0..plan.steps.len() as u32).filter(|lead| unit(plan, *lead).start == *lead && *lead != index);
        let active = leads.filter(|lead| unit(plan, *lead).any(|step| running(&step))).count();
        let most = plan.max_parallelism.unwrap_or(self.widest.steps_at_once).max(1);
        assert!(active < most as usize, "too many steps at once");
        let settled = |earlier: u32| books.steps.get(&earlier).is_some_and(|state| state.is_final());
        match step.condition {
            RunCondition::Success => assert!(!books.failed, "step {index} starts after a failure"),
            RunCondition::Failure => assert!(books.failed || books.excused, "step {index} starts without a failure"),
            RunCondition::Always => {}
        }
        let first = (0..=index).rev().find(|at| {
            let step = &plan.steps[*at as usize];
            step.start == StartTrigger::AfterPrevious && !step.child
        });
        for earlier in 0..first.unwrap_or(0) {
            assert!(settled(earlier), "step {index} starts before step {earlier} ended");
        }
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
        self.fences.insert(key, left);
        self.abandoned.insert(key);
        self.tasks.get_mut(&key.task).unwrap().excused = true;
    }
}
