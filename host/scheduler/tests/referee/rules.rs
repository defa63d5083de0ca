//! What may happen, judged when it is decided.

use windlass_model::{MachineName, RunCondition, RunState, StartTrigger, TaskId, TaskState};
use windlass_scheduler::{PlanKind, RunKey};

use super::{Books, Place, Referee, Running, needs, unit};

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
        self.check_order(key, &wanted, self.queued_runs.get(&key).map(|queued| queued.order));
        self.check_due(key);
        self.token(token, &wanted);
        let last = self.attempts.insert(key, attempt).unwrap_or(0);
        // An attempt that did not get its locks counts too.
        assert!(attempt > last, "{key:?}: attempts are counted");
        let books = self.tasks.get_mut(&key.task).unwrap();
        let lead = unit(books.plan(), key.step).start;
        books.lanes.entry(lead).or_default().insert(key.place);
        self.keep(key, &wanted);
        let running = Running {
            machine: machine.clone(),
            token,
            stop: None,
            stopped_ms: 0,
            late: false,
            worked_ms: 0,
            waits: None,
            wakes_ms: None,
            needs: wanted,
        };
        self.running.insert(key, running);
        self.queued_runs.remove(&key);
        self.late.remove(&key);
        self.told.remove(&windlass_scheduler::Subject::Run(key));
        self.check_seat(key.task);
    }

    fn check_start(&self, key: RunKey, machine: &Place) {
        let books = &self.tasks[&key.task];
        let step = books.step(key);
        assert_eq!(books.state, Some(TaskState::Executing), "{key:?} starts in a task that does not execute");
        assert!(!books.cancelled, "{key:?} starts after a cancel");
        match &step.place {
            windlass_scheduler::Where::Pool(pool) => {
                let workers = self.pools.get(pool).map(|(workers, _)| workers);
                let one = workers.zip(machine.as_ref()).is_some_and(|(workers, name)| workers.contains(name));
                assert!(one, "{key:?} has no worker of its pool");
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
        self.check_lane(key, books);
        self.check_packages(key, books);
    }

    /// On its way through a unit a machine takes one step after another, and none begins once another has failed.
    fn check_lane(&self, key: RunKey, books: &Books) {
        let range = unit(books.plan(), key.step);
        let bad = |run: &RunKey| {
            let state = self.over.get(run);
            matches!(state, Some(RunState::Failed | RunState::Unknown)) && !self.pardoned.contains(run)
        };
        let mut failed = false;
        for earlier in range.start..key.step {
            let run = RunKey { step: earlier, ..key };
            let off = books.steps.get(&earlier) == Some(&RunState::Skipped);
            assert!(off || self.over.contains_key(&run), "{key:?} starts before step {earlier} is over there");
            failed |= bad(&run);
        }
        if key.step == range.start {
            let first = !self.retries.contains_key(&key);
            let others = self.over.keys().filter(|run| run.task == key.task && range.contains(&run.step));
            let stopped = others.filter(|run| bad(run)).count() > 0;
            assert!(!first || !stopped, "{key:?} begins although its step has failed elsewhere");
            return;
        }
        match books.step(key).condition {
            RunCondition::Success => assert!(!failed, "{key:?} starts after a failure on its machine"),
            RunCondition::Failure => assert!(failed, "{key:?} starts without a failure on its machine"),
            RunCondition::Always => {}
        }
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
            self.check_turn(id);
            self.told.remove(&windlass_scheduler::Subject::Task(id));
            self.tasks.get_mut(&id).unwrap().paused = false;
        }
        // One that is superseded while it waits for people is cancelled by nobody.
        if state == TaskState::Cancelling {
            let books = &self.tasks[&id];
            assert!(books.cancelled || self.is_superseded(id, books), "task {id} is cancelled by nobody");
            assert!(books.executes(), "task {id} had not started");
            self.cancelled(id);
            self.told.remove(&windlass_scheduler::Subject::Task(id));
        }
        self.tasks.get_mut(&id).unwrap().state = Some(state);
    }

    pub(super) fn step_state(&mut self, id: TaskId, index: u32, state: RunState) {
        if state == RunState::Running {
            self.check_step(id, index);
        }
        self.check_verdict(id, index, state);
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

    /// A step succeeds unless a run of it went wrong and nobody let that pass.
    fn check_verdict(&self, id: TaskId, index: u32, state: RunState) {
        if !state.is_final() {
            return;
        }
        let runs: Vec<_> = self.over.iter().filter(|(run, _)| run.task == id && run.step == index).collect();
        let bad = |(run, state): &&(&RunKey, &RunState)| {
            matches!(state, RunState::Failed | RunState::Unknown | RunState::Cancelled) && !self.pardoned.contains(run)
        };
        match state {
            RunState::Succeeded => {
                assert!(!runs.is_empty() && !runs.iter().any(|run| bad(&run)), "step {index} succeeded: {runs:?}");
                assert_eq!(runs.len(), self.tasks[&id].plan().steps[index as usize].runs(), "step {index} is not over");
            }
            RunState::Skipped => {
                let skipped = runs.iter().all(|(_, state)| **state == RunState::Skipped);
                assert!(skipped, "step {index} ran, and counts as skipped: {runs:?}");
            }
            state if !runs.is_empty() => {
                let same = runs.iter().any(|(run, own)| **own == state && !self.pardoned.contains(run));
                assert!(same, "step {index} ended as {state}: {runs:?}");
            }
            _ => {}
        }
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
}
