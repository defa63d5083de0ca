//! A small stage for scheduler tests: plans in one line, a scripted world, and traces as text.

#![allow(dead_code, reason = "each test binary uses its own part")]

mod stage;

use windlass_model::{
    MachineName, RunCondition, StartTrigger, StepName, TaskId,
    manifest::{LockMode, LockNeed, LockScope},
};
use windlass_scheduler::{
    Choice, Decision, Event, Isolation, LockRequest, LockWish, RunKey, RunOutcome, Settings, State, StepPlan, TaskPlan,
    WaitOn, Where,
    sim::{Moment, Simulator},
};

use stage::{Deed, Stage};

pub fn machine(name: &str) -> MachineName {
    MachineName::new(name).unwrap()
}

pub fn run(task: u64, step: u32, place: u32) -> RunKey {
    RunKey { task: TaskId(task), step, place }
}

/// A step on machines named in one text, such as `"web1 web2"`; `"server"` is the server.
pub fn step(name: &str, place: &str) -> StepPlan {
    let place = match place {
        "server" => Where::Server,
        names => Where::Machines(names.split_whitespace().map(machine).collect()),
    };
    StepPlan::new(StepName::new(name).unwrap(), place)
}

/// Words for what makes a step special.
pub trait StepWords {
    fn with_previous(self) -> Self;
    fn window(self, window: u32) -> Self;
    fn packages(self) -> Self;
    fn on(self, condition: RunCondition) -> Self;
    fn isolation(self, isolation: Isolation) -> Self;
    fn locks(self, resource: &str, mode: LockMode) -> Self;
    fn skipped(self, why: &str) -> Self;
    fn timeout(self, ms: u64) -> Self;
    fn child(self) -> Self;
    fn hold(self, scope: LockScope) -> Self;
    fn tries(self, retries: u32, backoff_ms: u64) -> Self;
}

impl StepWords for StepPlan {
    fn with_previous(mut self) -> Self {
        self.start = StartTrigger::WithPrevious;
        self
    }
    fn window(mut self, window: u32) -> Self {
        self.window = Some(window);
        self
    }
    fn packages(mut self) -> Self {
        self.needs_packages = true;
        self
    }
    fn on(mut self, condition: RunCondition) -> Self {
        self.condition = condition;
        self
    }
    fn isolation(mut self, isolation: Isolation) -> Self {
        self.isolation = isolation;
        self
    }
    fn locks(self, resource: &str, mode: LockMode) -> Self {
        self.isolation(Isolation::Resources(vec![LockNeed::new(resource, mode)]))
    }
    fn skipped(mut self, why: &str) -> Self {
        self.skip = Some(why.to_owned());
        self
    }
    fn timeout(mut self, ms: u64) -> Self {
        self.timeout_ms = Some(ms);
        self
    }
    fn child(mut self) -> Self {
        self.child = true;
        self
    }
    fn hold(mut self, scope: LockScope) -> Self {
        self.hold = scope;
        self
    }
    fn tries(mut self, retries: u32, backoff_ms: u64) -> Self {
        (self.retries, self.backoff_ms) = (retries, backoff_ms);
        self
    }
}

pub fn deploy(project: &str, version: &str, steps: Vec<StepPlan>) -> TaskPlan {
    TaskPlan::deployment(format!("deploy {project} {version} to test"), format!("{project}/test"), steps)
}

/// A scene: tasks, what befalls them, and the trace of what was decided.
pub struct Scene {
    sim: Simulator<Stage>,
}

impl Scene {
    pub fn new() -> Self {
        Self::with(Settings::for_cores(2))
    }

    pub fn with(settings: Settings) -> Self {
        Self { sim: Simulator::new(State::new(settings), 0, Stage::default()) }
    }

    pub fn task(mut self, at_ms: u64, task: u64, plan: TaskPlan) -> Self {
        self.sim.world.plans.insert(TaskId(task), plan.clone());
        self.at(at_ms, Event::TaskQueued { task: TaskId(task), plan })
    }

    pub fn cancel(self, at_ms: u64, task: u64) -> Self {
        self.at(at_ms, Event::TaskCancelled { task: TaskId(task) })
    }

    pub fn ask(self, at_ms: u64, run: RunKey, number: u64, resource: &str, mode: LockMode) -> Self {
        self.ask_for(at_ms, run, number, resource, mode, None)
    }

    pub fn ask_for(
        self,
        at_ms: u64,
        run: RunKey,
        number: u64,
        resource: &str,
        mode: LockMode,
        wait_limit_ms: Option<u64>,
    ) -> Self {
        let request = LockRequest { run, number };
        let wish = LockWish { wait_limit_ms, ..LockWish::new(resource, mode) };
        self.at(at_ms, Event::LockAsked { request, wish })
    }

    pub fn release(self, at_ms: u64, run: RunKey, number: u64) -> Self {
        self.at(at_ms, Event::LockReleased { request: LockRequest { run, number } })
    }

    pub fn at(mut self, at_ms: u64, event: Event) -> Self {
        self.sim.at(at_ms, event);
        self
    }

    /// How long a run takes, named by its node such as `web/web1`.
    pub fn takes(mut self, node: &str, takes_ms: u64) -> Self {
        let deed = Deed { takes_ms, outcome: RunOutcome::Succeeded };
        self.sim.world.deeds.insert(node.to_owned(), deed);
        self
    }

    /// How a run ends, after 10 ms.
    pub fn ends(mut self, node: &str, outcome: RunOutcome) -> Self {
        let deed = Deed { takes_ms: 10, outcome };
        self.sim.world.deeds.insert(node.to_owned(), deed);
        self
    }

    pub fn fails(self, node: &str) -> Self {
        self.ends(node, RunOutcome::Failed { error: "exit code 3".to_owned() })
    }

    /// How the next attempt ends, after 10 ms; several calls add up.
    pub fn first(mut self, node: &str, outcome: RunOutcome) -> Self {
        let deed = Deed { takes_ms: 10, outcome };
        self.sim.world.first.entry(node.to_owned()).or_default().push(deed);
        self
    }

    pub fn first_fails(self, node: &str) -> Self {
        self.first(node, RunOutcome::Failed { error: "exit code 3".to_owned() })
    }

    pub fn deaf(mut self, node: &str) -> Self {
        self.sim.world.deaf.push(node.to_owned());
        self
    }

    pub fn fact_fails(mut self, step: &str) -> Self {
        self.sim.world.false_facts.push(step.to_owned());
        self
    }

    /// The next question is answered so, after a time.
    pub fn answer(mut self, after_ms: u64, choice: Choice) -> Self {
        self.sim.world.answers.push(Some((after_ms, choice)));
        self
    }

    pub fn waits(self, at_ms: u64, run: RunKey, on: WaitOn) -> Self {
        self.at(at_ms, Event::RunWaits { run, on })
    }

    pub fn loses_packages(mut self, machine: &str) -> Self {
        self.sim.world.lost_packages.insert(machine.to_owned(), "disk full".to_owned());
        self
    }

    /// Plays to the end. Each line: when, what, and the decision itself.
    pub fn play(mut self) -> Vec<(u64, String, Decision)> {
        let mut told = Vec::new();
        for _ in 0..100_000 {
            let Some(moments) = self.sim.step() else {
                assert_eq!(self.sim.state.tasks().count(), 0, "a task never ended");
                return told;
            };
            for Moment { at_ms, decision } in moments {
                told.push((at_ms, self.sim.world.words(&self.sim.state, &decision), decision));
            }
        }
        panic!("it never ended");
    }

    /// Plays up to a moment, and tells why each thing waits then.
    pub fn why(mut self, upto_ms: u64) -> String {
        while self.sim.next_ms().is_some_and(|at| at <= upto_ms) {
            self.sim.step();
        }
        let mut text = String::new();
        for (subject, reason) in self.sim.state.waiting() {
            let reason = serde_json::to_string(&reason).unwrap();
            text.push_str(&format!("{}\n    {reason}\n", self.sim.world.subject(subject)));
        }
        text
    }

    fn text(self, wanted: impl Fn(&Decision) -> bool) -> String {
        let mut last = None;
        let mut text = String::new();
        for (at_ms, words, decision) in self.play() {
            if wanted(&decision) {
                let time = if last == Some(at_ms) { String::new() } else { format!("{at_ms}") };
                last = Some(at_ms);
                text.push_str(&format!("{time:>5}  {words}\n"));
            }
        }
        text
    }

    /// Everything that is decided.
    pub fn trace(self) -> String {
        self.text(|_| true)
    }

    /// What is to be done, and how tasks and steps end; no reasons and no waiting.
    pub fn deeds(self) -> String {
        use windlass_model::RunState::{Running, Succeeded};
        self.text(|decision| match decision {
            Decision::Waiting { .. } | Decision::TaskState { .. } => false,
            Decision::StepState { state, .. } => !matches!(state, Running | Succeeded),
            Decision::RunState { state, .. } => *state != Succeeded,
            _ => true,
        })
    }

    /// Reasons only.
    pub fn reasons(self) -> String {
        self.text(|decision| matches!(decision, Decision::Waiting { .. }))
    }
}
