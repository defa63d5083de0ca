//! A second opinion: what the scheduler may do, told from the plans, the events and the decisions alone.
//!
//! It keeps its own books (who runs, who holds what, how far packages are) and panics at the first decision that
//! breaks a rule. It shares no code with the scheduler's own books.

pub mod books;
pub mod graph;
mod rules;
mod settled;

use std::collections::{BTreeMap, BTreeSet};

use windlass_model::{MachineName, PoolName, RunState, TaskId, TaskState};
use windlass_scheduler::{
    About, Cause, Choice, Decision, Event, LockRequest, Part, Resource, RunKey, RunOutcome, Settings, Subject,
    Unavailable,
};

use books::{Books, Call, Held, Need, Place, Running, children_of, need, needs, unit};

#[derive(Debug)]
pub struct Referee {
    pub settings: Settings,
    /// Limits are not taken back when they are lowered, so the widest ones count.
    widest: Settings,
    pub tasks: BTreeMap<TaskId, Books>,
    pub running: BTreeMap<RunKey, Running>,
    pub calls: BTreeMap<LockRequest, Call>,
    /// Runs that were told to wait for a lock, in the order in which they were.
    queued_runs: BTreeMap<RunKey, u64>,
    /// What abandoned runs held.
    pub fences: BTreeMap<RunKey, Vec<Need>>,
    /// Runs that ended by being given up.
    pub abandoned: BTreeSet<RunKey>,
    pools: BTreeMap<PoolName, (BTreeSet<MachineName>, u32)>,
    attempts: BTreeMap<RunKey, u32>,
    asked: u64,
    /// Highest token of any holder, and of any exclusive one, by resource.
    tokens: BTreeMap<String, (u64, u64)>,
    told: BTreeMap<Subject, Cause>,
    /// Tasks that worked when the event came.
    worked: BTreeSet<TaskId>,
    /// Tasks by whom each was waited for when the event came, to judge who may pass whom.
    before: BTreeMap<TaskId, BTreeSet<TaskId>>,
    repeats: Option<LockRequest>,
    deadlocks: Vec<Subject>,
    pub withdrawn: Option<LockRequest>,
    ready: BTreeSet<RunKey>,
    ended: BTreeSet<TaskId>,
}

impl Referee {
    pub fn new(settings: Settings) -> Self {
        Self {
            widest: settings.clone(),
            settings,
            tasks: BTreeMap::new(),
            running: BTreeMap::new(),
            calls: BTreeMap::new(),
            queued_runs: BTreeMap::new(),
            fences: BTreeMap::new(),
            abandoned: BTreeSet::new(),
            pools: BTreeMap::new(),
            attempts: BTreeMap::new(),
            asked: 0,
            tokens: BTreeMap::new(),
            told: BTreeMap::new(),
            worked: BTreeSet::new(),
            before: BTreeMap::new(),
            repeats: None,
            deadlocks: Vec::new(),
            withdrawn: None,
            ready: BTreeSet::new(),
            ended: BTreeSet::new(),
        }
    }

    /// Runs that run, suspended or not.
    pub fn runs(&self) -> Vec<RunKey> {
        self.running.keys().copied().collect()
    }

    /// Runs that do something.
    pub fn working(&self) -> Vec<RunKey> {
        self.running.keys().copied().filter(|run| self.works(*run)).collect()
    }

    pub fn works(&self, run: RunKey) -> bool {
        let waits = self.calls.iter().any(|(request, call)| request.run == run && call.token.is_none());
        !waits && self.running.get(&run).is_some_and(|running| running.waits.is_none())
    }

    pub fn task_works(&self, task: TaskId) -> bool {
        let packages = self.tasks.get(&task).is_some_and(|books| !books.open_places.is_empty());
        packages || self.running.keys().any(|run| run.task == task && self.works(*run))
    }

    pub fn acquiring(&self) -> Vec<(TaskId, Place)> {
        let places = |(id, books): (&TaskId, &Books)| {
            books.open_places.iter().map(|place| (*id, place.clone())).collect::<Vec<_>>()
        };
        self.tasks.iter().flat_map(places).collect()
    }

    pub fn facts(&self) -> Vec<(TaskId, u32)> {
        let open = |(id, books): (&TaskId, &Books)| {
            let unknown = books.facts.iter().filter(|(_, fact)| fact.is_none());
            unknown.map(|(step, _)| (*id, *step)).collect::<Vec<_>>()
        };
        self.tasks.iter().flat_map(open).collect()
    }

    pub fn questions(&self) -> Vec<(TaskId, u64)> {
        self.tasks.iter().flat_map(|(id, books)| books.questions.keys().map(|number| (*id, *number))).collect()
    }

    pub fn calls(&self) -> Vec<LockRequest> {
        self.calls.keys().copied().collect()
    }

    pub fn next_call(&self, run: RunKey, again: bool) -> u64 {
        let last = self.calls.keys().filter(|request| request.run == run).map(|request| request.number).max();
        last.map_or(0, |last| if again { last } else { last + 1 })
    }

    /// A task that may still be named in a plan as the one whose run queued it.
    pub fn parent_for(&self, which: usize) -> Option<RunKey> {
        let runs = self.runs();
        (!runs.is_empty()).then(|| runs[which % runs.len()])
    }

    pub fn lease_cap(&self, run: RunKey) -> u32 {
        match &self.tasks[&run.task].step(run).place {
            windlass_scheduler::Where::Pool(pool) => self.pools.get(pool).map_or(0, |(_, cap)| *cap),
            _ => 0,
        }
    }

    pub fn event(&mut self, event: &Event) {
        self.take_in(event);
        // The event itself may be what somebody waits from now on.
        for (task, waits) in self.waits_for() {
            self.before.entry(task).or_default().extend(waits);
        }
    }

    fn take_in(&mut self, event: &Event) {
        self.worked = self.tasks.keys().copied().filter(|task| self.task_works(*task)).collect();
        self.before = self.waits_for();
        self.repeats = None;
        self.deadlocks.clear();
        self.ended.clear();
        match event {
            Event::TaskQueued { task, plan } => {
                self.tasks.insert(*task, Books { plan: Some(plan.clone()), ..Books::default() });
                let parent =
                    plan.parent.filter(|parent| !parent.detached).and_then(|parent| self.tasks.get(&parent.run.task));
                if parent.is_some_and(|parent| parent.cancelled) {
                    self.cancelled(*task);
                }
            }
            Event::TaskCancelled { task } => self.cancelled(*task),
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
                    running.waits = Some(on.clone());
                }
            }
            Event::LockAsked { request, wish } => {
                let machine = self.running[&request.run].machine.clone();
                let declared = windlass_model::manifest::LockNeed {
                    resource: wish.resource.clone(),
                    mode: wish.mode,
                    scope: wish.scope,
                    units: wish.units,
                    of: wish.of,
                };
                if self.calls.contains_key(request) {
                    self.repeats = Some(*request);
                } else {
                    self.asked += 1;
                    let call = Call { need: need(&machine, &declared), order: self.asked, token: None };
                    self.calls.insert(*request, call);
                }
            }
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
                let cap = if same { *lease_cap } else { 0 };
                self.pools.insert(pool.clone(), (workers.iter().cloned().collect(), cap));
            }
            Event::SettingsChanged { settings } => {
                self.widest.targets_at_once = self.widest.targets_at_once.max(settings.targets_at_once);
                self.widest.steps_at_once = self.widest.steps_at_once.max(settings.steps_at_once);
                self.widest.runs_at_once = self.widest.runs_at_once.max(settings.runs_at_once);
                self.widest.acquisitions_at_once = self.widest.acquisitions_at_once.max(settings.acquisitions_at_once);
                self.settings = settings.clone();
            }
            Event::RunReady { .. } | Event::TaskMovedToTop { .. } | Event::LockBroken { .. } | Event::Tick => {}
        }
    }

    fn cancelled(&mut self, task: TaskId) {
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
        self.ready.remove(&key);
        if *outcome == RunOutcome::Succeeded {
            return;
        }
        let books = self.tasks.get_mut(&key.task).unwrap();
        let policy = books.plan().unavailable;
        let unavailable = matches!(outcome, RunOutcome::Unavailable { .. }) && running.stop.is_none();
        if unavailable && policy == Unavailable::Exclude && !books.cancelled {
            books.excluded.extend(running.machine);
        }
        // Whether it counts as a failure is told by how the run is said to end.
        books.excused = true;
    }

    fn answered(&mut self, task: TaskId, number: u64, choice: Choice) {
        let books = self.tasks.get_mut(&task).unwrap();
        let Some(question) = books.questions.get(&number).filter(|question| question.choices.contains(&choice)) else {
            return;
        };
        match (&question.about, choice) {
            (About::Deadlock(_), Choice::Wait) => {}
            (About::Failure(run), Choice::Exclude) => {
                let machine = books.plan().steps[run.step as usize].machine(run.place as usize).cloned();
                books.excluded.extend(machine);
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

    pub fn decision(&mut self, decision: &Decision) {
        match decision {
            Decision::Acquire { task, machines, server } => self.acquire(*task, machines, *server),
            Decision::StopAcquire { task } => assert!(self.tasks[task].stop_places),
            Decision::AbandonAcquire { task } => {
                let books = self.tasks.get_mut(task).unwrap();
                assert!(books.stop_places && !std::mem::take(&mut books.open_places).is_empty());
                books.failed |= !books.cancelled;
            }
            Decision::AskFact { task, step } => {
                let before = self.tasks.get_mut(task).unwrap().facts.insert(*step, None);
                assert_eq!(before, None, "a fact is asked for twice");
            }
            Decision::StartRun { run, machine, attempt, token } => self.start(*run, machine, *attempt, *token),
            Decision::ResumeRun { run, .. } => {
                let waits = self.running.get_mut(run).unwrap().waits.take();
                assert!(waits.is_some(), "{run:?} did not wait");
                self.ready.remove(run);
                self.check_seat(run.task);
            }
            Decision::StopRun { run, kind } => {
                let books = self.running.get_mut(run).unwrap();
                assert_ne!(books.stop, Some(*kind), "{run:?} is stopped so twice");
                books.stop = Some(*kind);
            }
            Decision::AbandonRun { run, fenced } => self.abandon(*run, fenced),
            Decision::GrantLock { request, token } => self.granted(*request, *token),
            Decision::RefuseLock { request, .. } => {
                assert!(self.calls.remove(request).unwrap().token.is_none());
            }
            Decision::LockBroken { resource, run, part, .. } => self.broken(resource, *run, *part),
            Decision::Ask { task, question } => {
                let choices = &question.choices;
                if let About::Failure(run) = &question.about {
                    let required = self.tasks[task].step(*run).required;
                    let hidden = choices.contains(&Choice::Ignore) || choices.contains(&Choice::Exclude);
                    assert!(!required || !hidden, "a required step can be ignored");
                    self.queued_runs.remove(run);
                }
                self.tasks.get_mut(task).unwrap().questions.insert(question.number, (**question).clone());
            }
            Decision::QuestionOver { task, question, answer } => {
                if let Some(answer) = answer.as_ref().filter(|answer| answer.by == "the time limit") {
                    self.answered(*task, *question, answer.choice);
                }
                assert!(self.tasks.get_mut(task).unwrap().questions.remove(question).is_some());
            }
            Decision::TaskState { task, state } => self.task_state(*task, *state),
            Decision::StepState { task, step, state, .. } => self.step_state(*task, *step, *state),
            Decision::RunState { run, state, .. } => self.run_state(*run, *state),
            Decision::Retry { run, attempt, .. } => {
                let step = self.tasks[&run.task].step(*run);
                assert!(*attempt > 1 && step.retries > 0, "{run:?} is tried again unasked");
                self.queued_runs.remove(run);
                self.told.remove(&Subject::Run(*run));
            }
            Decision::Excluded { task, machine, .. } => {
                assert!(self.tasks[task].excluded.contains(machine), "{machine} is left out for no reason");
            }
            Decision::Waiting { subject, cause } => {
                let before = self.told.insert(*subject, cause.clone());
                assert_ne!(before.as_ref(), Some(cause), "told twice");
                if let (Subject::Run(run), Cause::Lock { .. } | Cause::Fence { .. } | Cause::Turn) = (subject, cause) {
                    // One that runs and is to go on wants no lock.
                    if !self.running.contains_key(run) {
                        self.asked += 1;
                        self.queued_runs.entry(*run).or_insert(self.asked);
                    }
                }
            }
            Decision::Deadlock { victim, .. } => self.deadlocks.push(*victim),
            Decision::TaskFinished { task, state, .. } => self.task_finished(*task, *state),
        }
    }

    fn broken(&mut self, resource: &Resource, run: RunKey, part: Part) {
        let gone = |need: &Need| need.name == resource.as_str();
        match part {
            Part::Fence(_) => self.fences.entry(run).or_default().retain(|need| !gone(need)),
            Part::Run => match self.running.get_mut(&run) {
                Some(running) => running.needs.retain(|need| !gone(need)),
                // Whoever had it and had not begun waits anew.
                None => drop(self.told.remove(&Subject::Run(run))),
            },
            Part::Call(number) => {
                if let Some(call) = self.calls.get_mut(&LockRequest { run, number }) {
                    call.need.name = format!("broken:{resource}");
                }
            }
            Part::Step | Part::Task => {
                let step = (part == Part::Step).then_some(run.step);
                let holds = self.tasks.get_mut(&run.task).map(|books| &mut books.holds);
                holds.into_iter().for_each(|holds| holds.retain(|held| held.step != step || !gone(&held.need)));
            }
        }
    }

    fn task_finished(&mut self, id: TaskId, state: TaskState) {
        let books = self.tasks.remove(&id).unwrap();
        self.ended.insert(id);
        assert!(!self.running.keys().any(|run| run.task == id), "a run outlives its task");
        assert!(books.questions.is_empty(), "a question outlives its task");
        let queued = books.state == Some(TaskState::Queued);
        match state {
            TaskState::Cancelled => assert!(books.cancelled || books.plan().supersede.is_some()),
            TaskState::TimedOut => assert!(queued && books.plan().expires_ms.is_some()),
            TaskState::Failed => assert!(
                books.failed
                    || (queued && self.deadlocks.contains(&Subject::Task(id)))
                    || (queued && books.plan().on_deadlock == windlass_scheduler::OnDeadlock::Ask),
                "task {id} failed without a failure"
            ),
            TaskState::Succeeded => assert!(!books.failed && !books.cancelled, "task {id} succeeded in spite of all"),
            other => panic!("task {id} ended as {other}"),
        }
        self.told.retain(|subject, _| subject.task() != id);
        self.queued_runs.retain(|run, _| run.task != id);
    }

    fn run_state(&mut self, run: RunKey, state: RunState) {
        assert!(state.is_final() && !self.running.contains_key(&run), "{run:?} ended while it runs");
        self.told.remove(&Subject::Run(run));
        self.queued_runs.remove(&run);
        let books = self.tasks.get_mut(&run.task).unwrap();
        let range = unit(books.plan(), run.step);
        let off = |step: u32| books.steps.get(&step) == Some(&RunState::Skipped);
        let last = (run.step + 1..range.end).all(off);
        if last && let Some(lanes) = books.lanes.get_mut(&range.start) {
            lanes.remove(&run.place);
        }
        let pardoned = |question: &windlass_scheduler::Question| question.about == About::Failure(run);
        assert!(!books.questions.values().any(pardoned), "{run:?} ended before its question");
    }
}
