//! A case: limits, plans and choices drawn from a seed, and the play that makes events of them.

mod draw;

use serde::{Deserialize, Serialize};
use windlass_model::{
    TaskId,
    manifest::{LockMode, LockScope},
};
use windlass_scheduler::{
    Answer, Ask, Event, LockRequest, LockWish, Parent, Resource, RunKey, RunOutcome, Settings, State, TaskPlan, WaitOn,
};

use crate::{common::machine, referee::Referee};

/// One choice: what kind of event, about which thing, in which way.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Choice(pub u8, pub u8, pub u8);

impl Choice {
    pub const KINDS: u8 = 32;
}

/// Everything that a play follows from.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Case {
    pub settings: Settings,
    pub plans: Vec<TaskPlan>,
    pub choices: Vec<Choice>,
    pub salt: u64,
}

/// A case as it is played.
pub struct Play<'a> {
    case: &'a Case,
    pub state: State,
    pub referee: Referee,
    pub now: u64,
    at: usize,
    queued: usize,
    closing: usize,
    opened: bool,
    /// Whether the time before the next choice has passed.
    passed: bool,
}

impl<'a> Play<'a> {
    pub fn new(case: &'a Case) -> Self {
        let (state, referee) = (State::new(case.settings.clone()), Referee::new(case.settings.clone()));
        Self { case, state, referee, now: 1000, at: 0, queued: 0, closing: 0, opened: false, passed: false }
    }

    /// What happens next. None: everything is over.
    pub fn next_event(&mut self) -> Option<Event> {
        while let Some(choice) = self.case.choices.get(self.at).copied() {
            if !std::mem::replace(&mut self.passed, true) {
                self.now += u64::from(choice.2 % 3);
            }
            // What is overdue happens first, so that the choice is made in view of it.
            if self.state.next_wake().is_some_and(|at| at < self.now) {
                return Some(Event::Tick);
            }
            (self.at, self.passed) = (self.at + 1, false);
            if let Some(event) = self.event(choice) {
                return Some(event);
            }
        }
        self.closing()
    }

    fn queue(&mut self) -> Option<Event> {
        let mut plan = self.case.plans.get(self.queued)?.clone();
        self.queued += 1;
        let task = TaskId(self.queued as u64);
        plan.parent = plan.parent.and_then(|parent| {
            let run = self.referee.parent_for(parent.run.place as usize)?;
            Some(Parent { run, detached: parent.detached })
        });
        plan.start_at_ms = plan.start_at_ms.map(|after| self.now + after);
        plan.expires_ms = plan.expires_ms.map(|after| self.now + after);
        Some(Event::TaskQueued { task, plan })
    }

    /// The event that a choice means now. None: there is nothing of that kind to choose from.
    fn event(&mut self, choice: Choice) -> Option<Event> {
        let Choice(kind, which, way) = choice;
        let pick = |count: usize| (count > 0).then(|| which as usize % count);
        match kind % Choice::KINDS {
            0..=4 => self.queue(),
            5..=11 => {
                let runs = if way >= 200 { self.referee.runs() } else { self.referee.working() };
                let run = *runs.get(pick(runs.len())?)?;
                Some(Event::RunFinished { run, outcome: outcome(way) })
            }
            12 | 13 => self.packages(which, way),
            14 => Some(Event::TaskCancelled { task: TaskId(1 + pick(self.queued)? as u64) }),
            15..=17 => self.ask(which, way),
            18 => {
                let calls = self.referee.calls();
                Some(Event::LockReleased { request: *calls.get(pick(calls.len())?)? })
            }
            19 | 20 => {
                // To the next moment at which something is due, or a little further.
                self.now = self.state.next_wake().unwrap_or(self.now).max(self.now) + u64::from(way % 4 / 3);
                Some(Event::Tick)
            }
            21 => Some(self.settings(way)),
            22 => {
                let facts = self.referee.facts();
                let (task, step) = *facts.get(pick(facts.len())?)?;
                Some(Event::FactGiven { task, step, holds: way % 3 > 0 })
            }
            23 | 24 => {
                let questions = self.referee.questions();
                let (task, question) = *questions.get(pick(questions.len())?)?;
                Some(self.answer(task, question, way))
            }
            25..=27 => self.wait(which, way),
            28 => {
                let runs = self.referee.runs();
                Some(Event::RunReady { run: *runs.get(pick(runs.len())?)? })
            }
            29 => Some(Event::TaskMovedToTop { task: TaskId(1 + pick(self.queued)? as u64) }),
            30 => self.break_lock(which, way),
            _ => {
                let workers = ["w1", "w2"].iter().take(way as usize % 3).map(|name| machine(name)).collect();
                let pool = windlass_model::PoolName::new("pool").unwrap();
                Some(Event::PoolChanged { pool, workers, lease_cap: u32::from(which % 3) })
            }
        }
    }

    fn packages(&self, which: u8, way: u8) -> Option<Event> {
        let places = self.referee.acquiring();
        let (task, machine) = places.get(which as usize % places.len().max(1))?.clone();
        let (error, unavailable) = ("disk full".to_owned(), way % 8 == 1);
        Some(match way % 8 {
            0 | 1 => Event::PackagesFailed { task, machine, error, unavailable },
            _ => Event::PackagesAcquired { task, machine },
        })
    }

    fn settings(&self, way: u8) -> Event {
        let cap = u32::from(way % 4);
        let (targets, steps) = (cap, 4 - cap);
        let settings =
            Settings { task_cap: cap, targets_at_once: targets, steps_at_once: steps, ..self.case.settings.clone() };
        Event::SettingsChanged { settings }
    }

    fn ask(&mut self, which: u8, way: u8) -> Option<Event> {
        let runs = self.referee.runs();
        let run = *runs.get(which as usize % runs.len().max(1))?;
        let resource = ["global:x", "global:y", "here", "global:gate"][way as usize % 4];
        let mut wish = LockWish::new(resource, if way & 64 == 0 { LockMode::Exclusive } else { LockMode::Shared });
        wish.wait_limit_ms = (way & 32 == 0).then_some(20);
        wish.scope =
            [LockScope::Call, LockScope::Call, LockScope::Step, LockScope::Deployment][(which >> 4) as usize % 4];
        if way & 64 != 0 && way & 16 != 0 {
            (wish.units, wish.of) = (Some(1 + u32::from(way & 1)), Some(2));
        }
        let number = self.referee.next_call(run, way & 128 != 0);
        Some(Event::LockAsked { request: LockRequest { run, number }, wish })
    }

    fn wait(&mut self, which: u8, way: u8) -> Option<Event> {
        let runs = self.referee.working();
        let run = *runs.get(which as usize % runs.len().max(1))?;
        let on = match way % 8 {
            0..=3 => {
                let others = [way / 8, way / 16].map(|n| TaskId(1 + u64::from(n) % (self.queued as u64).max(1)));
                WaitOn::Tasks(others.into_iter().filter(|task| *task != run.task).collect())
            }
            4 => WaitOn::Until(self.now + u64::from(way)),
            5 | 6 => WaitOn::Person(Box::new(Ask {
                text: "go on?".to_owned(),
                choices: vec![windlass_scheduler::Choice::Proceed, windlass_scheduler::Choice::Abort],
                responsible: vec!["ops".to_owned()],
                expiry: (way > 128).then_some((30, windlass_scheduler::Choice::Abort)),
                keeps_tag: way & 64 != 0,
            })),
            _ => WaitOn::Other("waits for the load balancer".to_owned()),
        };
        let empty = matches!(&on, WaitOn::Tasks(tasks) if tasks.is_empty());
        let on = if which.is_multiple_of(4) { on.until(self.now + u64::from(way % 50)) } else { on };
        (!empty).then_some(Event::RunWaits { run, on })
    }

    fn break_lock(&mut self, which: u8, way: u8) -> Option<Event> {
        let abandoned: Vec<RunKey> = self.referee.fences.keys().copied().collect();
        if way.is_multiple_of(2) && !abandoned.is_empty() {
            return Some(Event::RunFenced { run: abandoned[which as usize % abandoned.len()] });
        }
        let locks = self.state.locks();
        let lock = locks.get(which as usize % locks.len().max(1))?;
        let task = if way.is_multiple_of(3) { None } else { lock.holders.first().map(|holder| holder.run.task) };
        let resource = Resource::canonical(lock.resource.as_str());
        // A machine that people take away from a run that works would be no proof of anything.
        Some(Event::LockBroken { resource, task, by: "ann".to_owned(), reason: "it hangs".to_owned() })
    }

    fn answer(&self, task: TaskId, question: u64, way: u8) -> Event {
        let choices = &self.referee.tasks[&task].questions[&question].choices;
        let choice = choices[way as usize % choices.len()];
        let answer = Answer { choice, by: "ann".to_owned(), notes: String::new() };
        Event::Answered { task, question, answer }
    }

    /// What brings everything to its end.
    fn closing(&mut self) -> Option<Event> {
        self.closing += 1;
        assert!(self.closing < 20_000, "it never ends");
        if let Some(event) = self.queue() {
            return Some(event);
        }
        if !std::mem::replace(&mut self.opened, true) {
            return Some(Event::SettingsChanged {
                settings: Settings { draining: false, ..self.case.settings.clone() },
            });
        }
        if let Some((task, machine)) = self.referee.acquiring().into_iter().next() {
            return Some(Event::PackagesAcquired { task, machine });
        }
        if let Some((task, step)) = self.referee.facts().first() {
            return Some(Event::FactGiven { task: *task, step: *step, holds: true });
        }
        // Whoever works goes on first, so that people are asked as late as may be.
        if let Some(run) = self.referee.working().first() {
            return Some(Event::RunFinished { run: *run, outcome: RunOutcome::Succeeded });
        }
        let questions = self.referee.questions();
        if let Some((task, question)) = questions.get(self.closing % questions.len().max(1)) {
            // Answers that do not end it are given up in the end.
            let last = u8::from(self.closing < 5000) * (self.closing % 4) as u8;
            return Some(self.answer(*task, *question, last));
        }
        if let Some(run) = self.referee.runs().into_iter().find(|run| self.referee.waits_for_other(*run)) {
            return Some(Event::RunReady { run });
        }
        if let Some(run) = self.referee.fences.keys().next().copied() {
            return Some(Event::RunFenced { run });
        }
        if self.state.next_wake().is_some() {
            self.now = self.state.next_wake()?;
            return Some(Event::Tick);
        }
        assert_eq!(self.state.tasks().count(), 0, "nothing runs, and these still wait: {:?}", self.state.waiting());
        None
    }

    /// The whole play, told for people: as far as it goes.
    pub fn trace(mut self) -> String {
        let mut text = String::new();
        let told = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            while let Some(event) = self.next_event() {
                text.push_str(&format!("{} {}\n", self.now, serde_json::to_string(&event).unwrap()));
                self.referee.event(self.now, &event);
                let decisions = self.state.next(self.now, event.clone());
                for decision in &decisions {
                    text.push_str(&format!("      {}\n", serde_json::to_string(decision).unwrap()));
                }
                for decision in &decisions {
                    self.referee.decision(decision);
                }
                self.referee.settled(&self.state, &event);
            }
        }));
        if told.is_err() {
            text.push_str("      … and here it fails\n");
        }
        text
    }
}

fn outcome(way: u8) -> RunOutcome {
    let error = || "exit code 3".to_owned();
    match way % 16 {
        0 | 4 => RunOutcome::Failed { error: error() },
        1 => RunOutcome::Unknown { error: error() },
        2 => RunOutcome::Cancelled,
        3 => RunOutcome::Unavailable { error: error() },
        _ => RunOutcome::Succeeded,
    }
}
