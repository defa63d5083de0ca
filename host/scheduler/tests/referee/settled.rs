//! What must hold between two events.

use std::collections::{BTreeMap, BTreeSet};

use windlass_model::{
    RunState, TaskState,
    manifest::{LockMode, LockScope},
    task::Reason,
};
use windlass_scheduler::{About, Cause, Event, LockHolder, LockView, Part, RunKey, State, Subject, progress::Phase};

use super::{Referee, graph, graph::covers, unit};

impl Referee {
    /// Nothing is stuck, every wait has a told and true reason, and what is open is known.
    pub fn settled(&mut self, state: &State, event: &Event) {
        if matches!(event, Event::SettingsChanged { .. }) {
            self.worked.clear();
        }
        if let Some(request) = self.withdrawn.take()
            && !state.why(request.run.task).iter().any(|(subject, _)| *subject == Subject::Lock(request))
        {
            self.calls.remove(&request);
        }
        self.check_table(state);
        self.check_deadlocks(state);
        self.check_clock();
        self.check_tasks();
        let waiting: BTreeMap<_, _> = state.waiting().into_iter().collect();
        for (subject, reason) in &waiting {
            let cause = self.told.get(subject).unwrap_or_else(|| panic!("{subject:?} waits untold: {reason:?}"));
            let (kind, text) = state.sentence(*subject, cause);
            let timed = matches!(kind, "sleep" | "scheduled" | "retry" | "task-cap");
            assert_eq!(kind, reason.kind, "{subject:?} was told otherwise");
            assert!(timed || text == reason.text, "{subject:?} was told «{text}», and it {}", reason.text);
            self.check_reason(state, *subject, reason);
        }
        for (id, books) in &self.tasks {
            let queued = books.state == Some(TaskState::Queued);
            assert!(!queued || waiting.contains_key(&Subject::Task(*id)), "task {id} waits without a reason");
        }
        for (id, _, progress) in state.tasks() {
            for (step, steps) in progress.steps.iter().enumerate() {
                let (step, waits) = (step as u32, steps.state == RunState::Waiting && steps.runs.is_empty());
                assert!(
                    !waits || waiting.contains_key(&Subject::Step(id, step)),
                    "step {step} of task {id} waits untold"
                );
                for (place, run) in steps.runs.iter().enumerate() {
                    let key = RunKey { task: id, step, place: place as u32 };
                    let waits = run.phase.is_open() && run.phase != Phase::Running;
                    assert!(
                        !waits || waiting.contains_key(&Subject::Run(key)),
                        "{key:?} waits untold: {:?}",
                        run.phase
                    );
                }
            }
        }
        for (request, call) in &self.calls {
            assert_eq!(waiting.contains_key(&Subject::Lock(*request)), call.token.is_none(), "{request:?}");
        }
        for (run, running) in &self.running {
            let told = waiting.contains_key(&Subject::Run(*run));
            assert_eq!(told, running.waits.is_some() && running.stop.is_none(), "{run:?}: {:?}", running.waits);
        }
        self.told.retain(|subject, _| waiting.contains_key(subject));
    }

    /// The table of locks keeps the rules, and knows of all that runs.
    fn check_table(&self, state: &State) {
        let views = state.locks();
        for view in &views {
            check_compatible(view);
        }
        for (run, running) in &self.running {
            for need in &running.needs {
                let view = views.iter().find(|view| view.resource.as_str() == need.name);
                let holds = view.is_some_and(|view| {
                    view.holders.iter().any(|holder| holder.run == *run && holder.part == Part::Run)
                });
                assert!(holds, "{run:?} runs without {}", need.name);
            }
        }
        for (run, needs) in &self.fences {
            for need in needs {
                let fenced = state.fences().any(|fence| fence.run == *run && fence.want.resource.as_str() == need.name);
                assert!(fenced, "{} is no longer fenced", need.name);
            }
        }
        for fence in state.fences() {
            let known = self.fences.iter().filter(|(run, _)| run.task == fence.run.task).flat_map(|(_, needs)| needs);
            let mut names = known.map(|need| need.name.as_str());
            let name = fence.want.resource.as_str();
            // How many leases a worker had when the run began is not known here.
            let lease = name.starts_with("lease:");
            // A run that had its locks and waited for its task's turn took this for its task, and never began.
            let kept = fence.want.scope == LockScope::Deployment;
            assert!(lease || kept || names.any(|known| known == name), "{fence:?} is of no use any more");
        }
    }

    /// Every circle is found at once, and none is invented.
    fn check_deadlocks(&mut self, state: &State) {
        let mut asked = BTreeSet::new();
        for books in self.tasks.values() {
            asked.extend(books.questions.values().filter_map(|question| match question.about {
                About::Deadlock(subject) => Some(subject),
                _ => None,
            }));
        }
        let left = graph::stuck(state, &asked);
        assert!(left.is_empty(), "these wait for ever, and nobody says so: {left:?}");
        if self.deadlocks.is_empty() {
            return;
        }
        let stuck = graph::stuck(state, &BTreeSet::new());
        for victim in &self.deadlocks {
            if asked.contains(victim) {
                assert!(stuck.contains(victim), "{victim:?} is no part of a deadlock");
            }
        }
    }

    fn check_reason(&self, state: &State, subject: Subject, reason: &Reason) {
        let behind = reason.text.contains(" behind ");
        let books = &self.tasks[&subject.task()];
        let holder = reason.holder.map(|holder| self.tasks.get(&holder));
        match reason.kind.as_str() {
            "concurrency" => {
                let holder = holder.flatten().expect("a holder that is there");
                assert_eq!(holder.plan().concurrency_tag, books.plan().concurrency_tag);
                assert!(behind || holder.executes(), "{reason:?}");
            }
            "task-cap" => {
                let holder = holder.flatten().expect("a holder that is there");
                assert!(behind || self.task_works(reason.holder.unwrap()), "{reason:?} does not work");
                assert_eq!(holder.plan().kind, books.plan().kind);
            }
            "target-busy" | "lock" => {
                let what = reason.what.as_deref().expect("what is waited for");
                let holder = reason.holder.expect("a holder");
                let views = state.locks();
                let view = views.iter().find(|view| view.resource.as_str() == what).expect("a known resource");
                let holds = view.holders.iter().any(|by| by.run.task == holder);
                let ahead = view.queue.iter().any(|by| by.run.task == holder);
                assert!(holds || (behind && ahead), "{subject:?} {reason:?}: task {holder} has nothing of it");
                let at = view.queue.iter().position(|waiter| waiter.subject() == subject).expect("it is in the queue");
                assert_eq!(reason.position, Some(at as u32 + 1), "{reason:?}");
            }
            "fenced" => {
                let what = reason.what.as_deref().expect("what is waited for");
                let fenced = state.fences().any(|fence| fence.want.resource.as_str() == what);
                assert!(fenced, "{reason:?}");
            }
            "packages" => assert!(
                !(books.open_places.is_empty() && books.asked_places.is_empty() && !reason_open(state, subject))
            ),
            "person" => assert!(!books.questions.is_empty(), "{reason:?}"),
            "condition" => assert!(books.facts.values().any(Option::is_none), "{reason:?}"),
            "task" => assert!(holder.flatten().is_some(), "{reason:?} names nobody"),
            "scheduled" => assert!(books.plan().start_at_ms.is_some()),
            "draining" => assert!(self.settings.draining),
            "retry" => assert!(matches!(subject, Subject::Run(_))),
            "window" | "step-window" | "run-window" => {
                assert_eq!(reason.holder, Some(subject.task()));
                self.check_full(subject, &reason.kind);
            }
            "turn" => assert_eq!(reason.holder, Some(subject.task())),
            "pool" | "sleep" | "other" => {}
            other => panic!("unknown kind {other}"),
        }
    }

    /// Whoever waits for a place in a window does so because it is full.
    fn check_full(&self, subject: Subject, kind: &str) {
        let books = &self.tasks[&subject.task()];
        let plan = books.plan();
        let (step, general) = match subject {
            Subject::Step(_, step) | Subject::Run(RunKey { step, .. }) => {
                (step, plan.max_parallelism.unwrap_or(self.settings.targets_at_once))
            }
            _ => panic!("{subject:?} has no window"),
        };
        let range = unit(plan, step);
        let begun = self.told.iter().filter_map(|(subject, cause)| match (subject, cause) {
            (Subject::Run(_), Cause::Window { .. } | Cause::Runs { .. }) => None,
            (Subject::Run(run), _) if run.task == subject.task() => Some(*run),
            _ => None,
        });
        let open: BTreeSet<RunKey> =
            begun.chain(self.running.keys().copied()).filter(|run| run.task == subject.task()).collect();
        let (taken, most) = match kind {
            "window" => {
                let own = plan.steps[range.start as usize].window.unwrap_or(u32::MAX);
                (open.iter().filter(|run| range.contains(&run.step)).count(), own.min(general))
            }
            "run-window" => (open.len(), plan.max_runs.unwrap_or(self.settings.runs_at_once)),
            _ => {
                let running = |lead: &u32| {
                    unit(plan, *lead).start == *lead
                        && unit(plan, *lead).any(|step| books.steps.get(&step) == Some(&RunState::Running))
                };
                let active = (0..plan.steps.len() as u32).filter(running).count();
                (active, plan.max_parallelism.unwrap_or(self.settings.steps_at_once))
            }
        };
        assert!(taken >= most.max(1) as usize, "{subject:?} waits for a place, and one is free: {taken} of {most}");
    }

    /// What must be acted on again after a restart: exactly what was started and is not over.
    pub fn check_open(&self, state: &State) {
        let mut runs: BTreeSet<RunKey> = self.running.keys().copied().collect();
        let mut places = self.acquiring().len();
        for decision in state.open_decisions() {
            match decision {
                windlass_scheduler::Decision::StartRun { run, token, .. } => {
                    assert_eq!(self.running[&run].token, token);
                    assert!(runs.remove(&run));
                }
                windlass_scheduler::Decision::Acquire { machines, server, .. } => {
                    places -= machines.len() + usize::from(server)
                }
                _ => {}
            }
        }
        assert!(runs.is_empty() && places == 0, "{runs:?} are forgotten");
    }
}

/// Places of a transfer whose turn has not come keep it open too.
fn reason_open(state: &State, subject: Subject) -> bool {
    use windlass_scheduler::progress::Packages;
    state
        .task(subject.task())
        .is_some_and(|(_, progress)| matches!(&progress.packages, Packages::Acquiring(left) if !left.todo.is_empty()))
}

/// No two holders exclude each other, and no count is exceeded.
fn check_compatible(view: &LockView) {
    for (at, one) in view.holders.iter().enumerate() {
        for other in &view.holders[at + 1..] {
            let related = covers(one, other.run) || covers(other, one.run);
            let same_run = one.run == other.run;
            let exclusive = one.mode == LockMode::Exclusive || other.mode == LockMode::Exclusive;
            // A fence beside the task that held the same is what the task left.
            let fence = |holder: &LockHolder| matches!(holder.part, Part::Fence(_)) && one.run.task == other.run.task;
            assert!(!exclusive || related || same_run || fence(one) || fence(other), "two exclusive holders: {view:?}");
        }
    }
    let limit = view.holders.iter().map(|holder| holder.of).filter(|of| *of > 0).min();
    let single = |holder: &&LockHolder| matches!(holder.part, Part::Run | Part::Call(_) | Part::Fence(_));
    let units: u32 = view.holders.iter().filter(single).map(|holder| holder.units).sum();
    assert!(limit.is_none_or(|limit| units <= limit), "more units than there are: {view:?}");
}
