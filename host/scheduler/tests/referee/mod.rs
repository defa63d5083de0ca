//! A second opinion: what the scheduler may do, told from the plans and the decisions alone.
//!
//! It keeps its own books (who runs, who holds what, how far packages are) and panics at the first
//! decision that breaks a rule. It shares no code with the scheduler's own books.

mod books;

use std::collections::{BTreeMap, BTreeSet};

use windlass_model::{RunCondition, RunState, StartTrigger, TaskId, TaskState, manifest::LockMode, task::Reason};
use windlass_scheduler::{Decision, Event, LockRequest, PlanKind, RunKey, RunOutcome, Settings, State, Subject};

use books::{Books, Call, Place, Running, clash, needs, resource};

#[derive(Debug)]
pub struct Referee {
    settings: Settings,
    /// A place in a window is not taken back when limits are lowered, so the widest one counts.
    widest: u32,
    tasks: BTreeMap<TaskId, Books>,
    running: BTreeMap<RunKey, Running>,
    started: BTreeSet<RunKey>,
    calls: BTreeMap<LockRequest, Call>,
    asked: u64,
    last_token: u64,
    told: BTreeMap<Subject, Reason>,
    /// A wish that was uttered before: it is answered as it was then.
    repeats: Option<LockRequest>,
}

impl Referee {
    pub fn new(settings: Settings) -> Self {
        Self {
            widest: settings.targets_at_once,
            settings,
            tasks: BTreeMap::new(),
            running: BTreeMap::new(),
            started: BTreeSet::new(),
            calls: BTreeMap::new(),
            asked: 0,
            last_token: 0,
            told: BTreeMap::new(),
            repeats: None,
        }
    }

    pub fn running(&self) -> Vec<RunKey> {
        self.running.keys().copied().collect()
    }

    pub fn acquiring(&self) -> Vec<(TaskId, Place)> {
        let all = self.tasks.iter();
        all.flat_map(|(id, books)| books.open_places.iter().map(|place| (*id, place.clone()))).collect()
    }

    pub fn calls(&self) -> Vec<LockRequest> {
        self.calls.keys().copied().collect()
    }

    /// A number for a new call of a run, or of one it made already.
    pub fn next_call(&self, run: RunKey, again: bool) -> u64 {
        let made = self.calls.keys().filter(|request| request.run == run).map(|request| request.number);
        if again { made.min().unwrap_or(self.asked) } else { self.asked }
    }

    pub fn event(&mut self, event: &Event) {
        self.repeats = None;
        match event {
            Event::TaskQueued { task, plan } => {
                let books = Books { plan: Some(plan.clone()), ..Books::default() };
                assert!(self.tasks.insert(*task, books).is_none());
            }
            Event::TaskCancelled { task } => {
                if let Some(books) = self.tasks.get_mut(task).filter(|books| !books.cancelled) {
                    books.cancelled = true;
                    books.stop_places |= !books.open_places.is_empty();
                }
            }
            Event::PackagesAcquired { task, machine } => self.place(*task, machine, false),
            Event::PackagesFailed { task, machine, .. } => self.place(*task, machine, true),
            Event::RunFinished { run, outcome } => self.finished(*run, outcome),
            Event::LockAsked { request, resource: name, mode, .. } => {
                let machine = self.running[&request.run].machine.clone();
                if self.calls.contains_key(request) {
                    self.repeats = Some(*request);
                } else {
                    self.asked += 1;
                    let needs = (resource(&machine, name), *mode);
                    self.calls.insert(*request, Call { needs, order: self.asked, token: None });
                }
            }
            Event::LockReleased { request } => {
                self.calls.remove(request);
            }
            Event::Tick => {}
            Event::SettingsChanged { settings } => {
                self.widest = self.widest.max(settings.targets_at_once);
                self.settings = settings.clone();
            }
        }
    }

    fn place(&mut self, task: TaskId, machine: &Place, failed: bool) {
        let books = self.tasks.get_mut(&task).unwrap();
        books.open_places.retain(|place| place != machine);
        if failed {
            books.lost_packages = true;
            books.failed = true;
            books.stop_places |= !books.open_places.is_empty();
        } else {
            books.acquired.as_mut().unwrap().insert(machine.clone());
        }
    }

    fn finished(&mut self, key: RunKey, outcome: &RunOutcome) {
        self.running.remove(&key).unwrap();
        self.calls.retain(|request, _| request.run != key);
        if *outcome != RunOutcome::Succeeded {
            let books = self.tasks.get_mut(&key.task).unwrap();
            books.failed = true;
            books.failed_steps.insert(key.step);
        }
    }

    /// Everything held now, but by the asker itself: resource, mode, holding task.
    fn held(&self) -> impl Iterator<Item = (Option<LockRequest>, RunKey, String, LockMode)> {
        let runs = self.running.iter().flat_map(|(key, run)| {
            let step = &self.tasks[&key.task].plan().steps[key.step as usize];
            needs(step, &run.machine).into_iter().map(|(name, mode)| (None, *key, name, mode))
        });
        let calls = self.calls.iter().filter(|(_, call)| call.token.is_some());
        runs.chain(calls.map(|(request, call)| (Some(*request), request.run, call.needs.0.clone(), call.needs.1)))
    }

    fn check_free(&self, wants: &[(String, LockMode)], by: &str) {
        for (_, holder, name, mode) in self.held() {
            let taken = wants.iter().any(|(wanted, how)| *wanted == name && clash(*how, mode));
            assert!(!taken, "{by} takes {name}, which {holder:?} holds");
        }
    }

    fn token(&mut self, token: u64) {
        assert!(token > self.last_token, "token {token} after {}", self.last_token);
        self.last_token = token;
    }

    pub fn decision(&mut self, decision: &Decision) {
        match decision {
            Decision::Acquire { task, machines, server } => {
                let books = self.tasks.get_mut(task).unwrap();
                assert!(books.acquired.is_none() && !books.cancelled, "packages are acquired once");
                books.open_places = machines.iter().cloned().map(Some).chain(server.then_some(None)).collect();
                assert!(!books.open_places.is_empty());
                books.acquired = Some(BTreeSet::new());
            }
            Decision::StopAcquire { task } => assert!(self.tasks[task].stop_places),
            Decision::StartRun { run, machine, attempt, token } => {
                assert_eq!(*attempt, 1);
                self.check_start(*run, machine);
                self.token(*token);
                let run_books = Running { machine: machine.clone(), token: *token, stop: None };
                assert!(self.started.insert(*run), "{run:?} starts twice");
                self.running.insert(*run, run_books);
            }
            Decision::StopRun { run, kind } => {
                let books = self.running.get_mut(run).unwrap();
                assert_eq!(books.stop, None, "{run:?} is stopped twice");
                books.stop = Some(*kind);
            }
            Decision::GrantLock { request, token } => self.granted(*request, *token),
            Decision::RefuseLock { request, .. } => {
                assert!(self.calls.remove(request).unwrap().token.is_none());
            }
            Decision::TaskState { task, state } => self.task_state(*task, *state),
            Decision::StepState { task, step, state, .. } => self.step_state(*task, *step, *state),
            Decision::RunState { run, state, .. } => {
                assert!(state.is_final() && !self.running.contains_key(run));
            }
            Decision::Waiting { subject, reason } => {
                let before = self.told.insert(*subject, reason.clone());
                assert_ne!(before.as_ref(), Some(reason), "told twice");
            }
            Decision::TaskFinished { task, state, .. } => {
                let books = self.tasks.remove(task).unwrap();
                assert!(!self.running.keys().any(|run| run.task == *task), "a run outlives its task");
                assert!(books.open_places.is_empty(), "a transfer outlives its task");
                let expected = match (books.cancelled, books.failed) {
                    (true, _) => TaskState::Cancelled,
                    (_, true) => TaskState::Failed,
                    _ => TaskState::Succeeded,
                };
                assert_eq!(*state, expected);
            }
        }
    }

    fn granted(&mut self, request: LockRequest, token: u64) {
        if self.repeats == Some(request) && self.calls[&request].token.is_some() {
            assert_eq!(self.calls[&request].token, Some(token), "asked again, granted otherwise");
            return;
        }
        let Call { needs, order, token: None } = &self.calls[&request] else {
            panic!("{request:?} is granted twice");
        };
        self.check_free(std::slice::from_ref(needs), "a call");
        for (other, call) in &self.calls {
            let overtaken =
                call.token.is_none() && call.order < *order && call.needs.0 == needs.0 && clash(call.needs.1, needs.1);
            assert!(!overtaken, "{request:?} overtakes {other:?}");
        }
        self.token(token);
        self.calls.get_mut(&request).unwrap().token = Some(token);
    }

    fn check_start(&self, key: RunKey, machine: &Place) {
        let books = &self.tasks[&key.task];
        let step = &books.plan().steps[key.step as usize];
        assert_eq!(books.state, Some(TaskState::Executing), "{key:?} starts in a task that does not execute");
        assert_eq!(step.machine(key.place as usize), machine.as_ref());
        assert_eq!(books.steps.get(&key.step), Some(&RunState::Running));
        assert!(!books.failed_steps.contains(&key.step), "{key:?} starts although its step failed elsewhere");
        let siblings = self.running.keys().filter(|run| (run.task, run.step) == (key.task, key.step));
        let window = step.window.unwrap_or(u32::MAX).min(self.widest).max(1);
        assert!(siblings.count() < window as usize, "{key:?} exceeds its window");
        self.check_free(&needs(step, machine), "a run");
        if step.needs_packages {
            assert!(books.open_places.is_empty() && !books.lost_packages, "{key:?} starts before its packages");
            let acquired = books.acquired.as_ref().expect("packages were acquired");
            for later in books.plan().steps[key.step as usize..].iter().filter(|step| step.needs_packages) {
                let mut places = (0..later.runs()).map(|place| later.machine(place).cloned());
                let there = later.skip.is_some() || places.all(|place| acquired.contains(&place));
                assert!(there, "{key:?} starts before the packages of step {}", later.name);
            }
        }
    }

    fn task_state(&mut self, id: TaskId, state: TaskState) {
        let kind = self.tasks[&id].plan().kind;
        let tag = self.tasks[&id].plan().concurrency_tag.clone();
        if state == TaskState::Executing {
            let cap = match kind {
                PlanKind::Deployment => self.settings.task_cap,
                PlanKind::Script => self.settings.script_cap,
            };
            let others = || self.tasks.values().filter(|books| books.executes());
            assert!(others().filter(|books| books.plan().kind == kind).count() < cap.max(1) as usize, "over the cap");
            let same_tag = |books: &&Books| tag.is_some() && books.plan().concurrency_tag == tag;
            assert_eq!(others().filter(same_tag).count(), 0, "two tasks with one tag");
            self.told.remove(&Subject::Task(id));
        }
        self.tasks.get_mut(&id).unwrap().state = Some(state);
    }

    fn step_state(&mut self, id: TaskId, index: u32, state: RunState) {
        if state == RunState::Running {
            let books = &self.tasks[&id];
            let step = &books.plan().steps[index as usize];
            let active = books.steps.values().filter(|state| **state == RunState::Running).count();
            assert!(active < self.settings.steps_at_once.max(1) as usize, "too many steps at once");
            assert!(step.skip.is_none() && !books.cancelled);
            match step.condition {
                RunCondition::Success => {
                    assert!(!books.failed, "step {index} starts after a failure")
                }
                RunCondition::Failure => {
                    assert!(books.failed, "step {index} starts without a failure")
                }
                RunCondition::Always => {}
            }
            let steps = &books.plan().steps;
            let first = (0..=index as usize).rev().find(|at| steps[*at].start == StartTrigger::AfterPrevious);
            for earlier in 0..first.unwrap_or(0) as u32 {
                let ended = books.steps.get(&earlier).is_some_and(|state| state.is_final());
                assert!(ended, "step {index} starts before step {earlier} ended");
            }
        }
        let books = self.tasks.get_mut(&id).unwrap();
        let before = books.steps.insert(index, state);
        assert!(!before.is_some_and(RunState::is_final), "step {index} ends twice");
    }

    /// Between two events: nothing is stuck, every wait has a told and true reason, and what is open is known.
    pub fn settled(&self, state: &State) {
        let idle = self.running.is_empty() && self.tasks.values().all(|books| books.open_places.is_empty());
        assert!(!idle || self.tasks.is_empty(), "nothing runs, and {:?} still wait", self.tasks.keys());
        let waiting: BTreeMap<_, _> = state.waiting().into_iter().collect();
        for (subject, reason) in &waiting {
            assert_eq!(Some(reason), self.told.get(subject), "{subject:?} was told otherwise");
            self.check_reason(*subject, reason, &waiting);
        }
        for (id, books) in &self.tasks {
            let queued = books.state == Some(TaskState::Queued);
            assert_eq!(waiting.contains_key(&Subject::Task(*id)), queued, "task {id}");
        }
        for (request, call) in &self.calls {
            assert_eq!(waiting.contains_key(&Subject::Lock(*request)), call.token.is_none(), "{request:?}");
        }
        assert_eq!(state.open_decisions(), self.open());
    }

    fn check_reason(&self, subject: Subject, reason: &Reason, waiting: &BTreeMap<Subject, Reason>) {
        let holder = reason.holder.expect("a holder");
        let books = self.tasks.get(&holder).unwrap_or_else(|| panic!("{reason:?} names nobody"));
        let behind = reason.text.contains(" behind ");
        let own = || self.tasks[&subject.task()].plan().concurrency_tag.clone();
        match reason.kind.as_str() {
            "concurrency" => {
                assert_eq!(books.plan().concurrency_tag, own());
                assert_eq!(books.executes(), !behind, "{reason:?}");
            }
            "task-cap" => assert_eq!(books.executes(), !behind, "{reason:?}"),
            "target-busy" | "lock" if behind => {
                assert!(waiting.keys().any(|other| *other != subject && other.task() == holder), "{reason:?}");
            }
            "target-busy" | "lock" => {
                let wants = self.wants(subject);
                let holds = self.held().any(|(_, run, name, mode)| {
                    run.task == holder && wants.iter().any(|(want, how)| *want == name && clash(*how, mode))
                });
                assert!(holds, "{subject:?} {reason:?}: task {holder} does not hold it");
            }
            "packages" => assert!(!books.open_places.is_empty()),
            "window" | "step-window" => assert_eq!(holder, subject.task()),
            other => panic!("unknown kind {other}"),
        }
    }

    fn wants(&self, subject: Subject) -> Vec<(String, LockMode)> {
        match subject {
            Subject::Run(key) => {
                let step = &self.tasks[&key.task].plan().steps[key.step as usize];
                needs(step, &step.machine(key.place as usize).cloned())
            }
            Subject::Lock(request) => vec![self.calls[&request].needs.clone()],
            _ => Vec::new(),
        }
    }

    /// What was started and is not over, in the order in which recovery names it.
    fn open(&self) -> Vec<Decision> {
        let mut open = Vec::new();
        for (id, books) in &self.tasks {
            if !books.open_places.is_empty() {
                open.push(Decision::Acquire {
                    task: *id,
                    machines: books.open_places.iter().flatten().cloned().collect(),
                    server: books.open_places.contains(&None),
                });
                if books.stop_places {
                    open.push(Decision::StopAcquire { task: *id });
                }
            }
            for (key, run) in self.running.iter().filter(|(key, _)| key.task == *id) {
                let (machine, token) = (run.machine.clone(), run.token);
                open.push(Decision::StartRun { run: *key, machine, attempt: 1, token });
                for (request, call) in self.calls.iter().filter(|(request, _)| request.run == *key) {
                    let token = call.token.into_iter();
                    open.extend(token.map(|token| Decision::GrantLock { request: *request, token }));
                }
                open.extend(run.stop.map(|kind| Decision::StopRun { run: *key, kind }));
            }
        }
        open
    }
}
