//! What will happen: the real scheduler played forward from the state as it is, in virtual time.
//!
//! Whoever asks says how long things take. Everything is taken to succeed, every fact to hold, and every person to
//! agree. The state is copied: nothing is changed anywhere.

use std::collections::BTreeMap;

use windlass_model::{MachineName, TaskId, TaskState, task::Reason};

use crate::{
    decision::Decision,
    event::{Event, RunKey, RunOutcome, Subject},
    plan::TaskPlan,
    progress::Phase,
    question::{Answer, Choice, Question},
    resource::Resource,
    sim::{Simulator, World},
    state::State,
};

/// How long things take, in milliseconds.
pub trait Durations {
    /// A run that starts now, or the rest of one that runs already.
    fn run(&self, run: RunKey, plan: &TaskPlan, machine: Option<&MachineName>) -> u64;
    /// Bringing its packages to a machine; none is the server.
    fn packages(&self, task: TaskId, plan: &TaskPlan, machine: Option<&MachineName>) -> u64;
    /// A person's answer.
    fn person(&self, question: &Question) -> u64;
}

/// A task, a step or a run that will wait, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wait {
    /// What waits.
    pub subject: Subject,
    /// Why.
    pub reason: Reason,
    /// From when.
    pub from_ms: u64,
    /// Until when, or until another reason took its place.
    pub until_ms: u64,
}

/// A run that will be, or is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunForecast {
    /// The run.
    pub run: RunKey,
    /// Its machine; none on the server.
    pub machine: Option<MachineName>,
    /// When it starts.
    pub starts_ms: u64,
    /// When it ends. None: beyond the horizon.
    pub ends_ms: Option<u64>,
}

/// How a task will end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    /// When.
    pub at_ms: u64,
    /// How.
    pub state: TaskState,
    /// What goes wrong.
    pub error: Option<String>,
}

/// What will happen to one task.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Forecast {
    /// When it starts. None: it has started already, or never will.
    pub starts_ms: Option<u64>,
    /// How it ends. None: beyond the horizon, or it waits for something that nothing here brings.
    pub ending: Option<Ending>,
    /// When packages arrive at each place; none is the server.
    pub packages: Vec<(Option<MachineName>, u64)>,
    /// Its runs, in the order in which they start.
    pub runs: Vec<RunForecast>,
    /// What of it waits, in the order in which the waits begin. Waits that last no time are left out.
    pub waits: Vec<Wait>,
    /// What it locks, by name.
    pub locks: Vec<Resource>,
    /// What people must answer.
    pub questions: Vec<(u64, Question)>,
    /// Deadlocks that will be, of any task, in words.
    pub deadlocks: Vec<(u64, String)>,
    /// Ends of the other tasks until then.
    pub others: Vec<(TaskId, u64)>,
    /// Events that were played.
    pub events: usize,
}

/// Events played at most, unless told otherwise.
pub const HORIZON: usize = 1_000_000;

/// Plays `state` forward until `focus` is over, or nothing more happens, or `horizon` events were played.
/// `queued` is put into the queue first: the task that is asked about, when it does not exist yet.
#[must_use]
pub fn forecast(
    state: &State,
    now_ms: u64,
    focus: TaskId,
    queued: Option<TaskPlan>,
    durations: &dyn Durations,
    horizon: usize,
) -> Forecast {
    let mut plans: BTreeMap<_, _> = state.tasks().map(|(id, plan, _)| (id, plan.clone())).collect();
    plans.extend(queued.clone().map(|plan| (focus, plan.into())));
    let suspended = suspended(state);
    let world = Future { plans, durations, suspended, focus, arrivals: Vec::new() };
    let mut sim = Simulator::new(state.clone(), now_ms, world);
    if let Some(plan) = queued {
        sim.at(now_ms, Event::TaskQueued { task: focus, plan });
    }
    let mut watch = Watch { focus, found: Forecast::default(), open: BTreeMap::new(), running: BTreeMap::new() };
    watch.running_already(state, now_ms);
    for _ in 0..horizon {
        let Some(moments) = sim.step() else {
            break;
        };
        watch.found.events += 1;
        for moment in moments {
            watch.note(&sim.state, moment.at_ms, moment.decision);
        }
        if watch.found.ending.is_some() {
            break;
        }
    }
    watch.found.packages = std::mem::take(&mut sim.world.arrivals);
    watch.finish(sim.now_ms())
}

/// Runs that wait for something of their own: they go on when that has come.
fn suspended(state: &State) -> Vec<RunKey> {
    let mut runs = Vec::new();
    for id in state.task_ids() {
        let open = state.tasks.get(&id).into_iter().flat_map(|task| &task.open);
        let keys = open.map(|(step, place)| RunKey { task: id, step: *step, place: *place });
        let waits = |key: &RunKey| state.run(*key).is_some_and(|run| run.phase == Phase::Running && !run.works());
        runs.extend(keys.filter(waits));
    }
    runs
}

/// A world in which everything goes well.
struct Future<'a> {
    plans: BTreeMap<TaskId, std::sync::Arc<TaskPlan>>,
    durations: &'a dyn Durations,
    suspended: Vec<RunKey>,
    focus: TaskId,
    arrivals: Vec<(Option<MachineName>, u64)>,
}

impl Future<'_> {
    fn end(&self, run: RunKey, machine: Option<&MachineName>) -> Vec<(u64, Event)> {
        let Some(plan) = self.plans.get(&run.task) else {
            return Vec::new();
        };
        let own = || plan.steps.get(run.step as usize).and_then(|step| step.machine(run.place as usize));
        let takes = self.durations.run(run, plan, machine.or_else(own));
        vec![(takes, Event::RunFinished { run, outcome: RunOutcome::Succeeded })]
    }
}

impl World for Future<'_> {
    fn react(&mut self, now_ms: u64, decision: &Decision) -> Vec<(u64, Event)> {
        match decision {
            Decision::Acquire { task, machines, server } => {
                let Some(plan) = self.plans.get(task) else {
                    return Vec::new();
                };
                let places = machines.iter().cloned().map(Some).chain(server.then_some(None));
                let (durations, arrivals, own) = (self.durations, &mut self.arrivals, *task == self.focus);
                let arrive = |machine: Option<MachineName>| {
                    let takes = durations.packages(*task, plan, machine.as_ref());
                    if own {
                        arrivals.push((machine.clone(), now_ms.saturating_add(takes)));
                    }
                    (takes, Event::PackagesAcquired { task: *task, machine })
                };
                places.map(arrive).collect()
            }
            Decision::AskFact { task, step } => vec![(0, Event::FactGiven { task: *task, step: *step, holds: true })],
            Decision::StartRun { run, machine, .. } if !self.suspended.contains(run) => {
                self.end(*run, machine.as_ref())
            }
            Decision::ResumeRun { run, .. } => self.goes_on(*run),
            Decision::GrantLock { request, .. } | Decision::RefuseLock { request, .. } => self.goes_on(request.run),
            Decision::StopRun { run, .. } => {
                vec![(0, Event::RunFinished { run: *run, outcome: RunOutcome::Cancelled })]
            }
            Decision::Ask { task, question } => {
                let wanted = [Choice::Proceed, Choice::Ignore, Choice::Retry, Choice::Fail];
                let choice = wanted.into_iter().find(|choice| question.choices.contains(choice));
                let choice = choice.or_else(|| question.choices.first().copied());
                let answer = |choice| Answer { choice, by: "a person".to_owned(), notes: String::new() };
                let takes = self.durations.person(question);
                let event = |choice| Event::Answered { task: *task, question: question.number, answer: answer(choice) };
                choice.map(|choice| (takes, event(choice))).into_iter().collect()
            }
            _ => Vec::new(),
        }
    }
}

impl Future<'_> {
    fn goes_on(&mut self, run: RunKey) -> Vec<(u64, Event)> {
        let before = self.suspended.len();
        self.suspended.retain(|waits| *waits != run);
        if self.suspended.len() < before { self.end(run, None) } else { Vec::new() }
    }
}

/// Notes what is decided about one task.
struct Watch {
    focus: TaskId,
    found: Forecast,
    open: BTreeMap<Subject, (Reason, u64)>,
    running: BTreeMap<RunKey, usize>,
}

impl Watch {
    fn running_already(&mut self, state: &State, now_ms: u64) {
        for (subject, reason) in state.why(self.focus) {
            self.open.insert(subject, (reason, now_ms));
        }
        for decision in state.open_decisions() {
            if let Decision::StartRun { run, machine, .. } = decision
                && run.task == self.focus
            {
                self.start(run, machine, now_ms);
            }
        }
    }

    fn start(&mut self, run: RunKey, machine: Option<MachineName>, at_ms: u64) {
        self.running.insert(run, self.found.runs.len());
        self.found.runs.push(RunForecast { run, machine, starts_ms: at_ms, ends_ms: None });
    }

    fn note(&mut self, state: &State, at_ms: u64, decision: Decision) {
        match decision {
            Decision::Deadlock { text, .. } => self.found.deadlocks.push((at_ms, text)),
            Decision::TaskFinished { task, .. } if task != self.focus => self.found.others.push((task, at_ms)),
            decision if decision.task() == self.focus => self.note_own(state, at_ms, decision),
            _ => {}
        }
    }

    fn note_own(&mut self, state: &State, at_ms: u64, decision: Decision) {
        match decision {
            Decision::TaskState { task, state } => {
                self.close(Subject::Task(task), at_ms);
                if state == TaskState::Executing {
                    // One that had to give up its place meanwhile begins no second time.
                    self.found.starts_ms.get_or_insert(at_ms);
                }
            }
            Decision::StepState { task, step, .. } => self.close(Subject::Step(task, step), at_ms),
            Decision::StartRun { run, machine, .. } => {
                self.close(Subject::Run(run), at_ms);
                let held = state.locks.wants(crate::locks::ClaimKey::run(run));
                for (resource, _) in held {
                    if !self.found.locks.contains(&resource) {
                        self.found.locks.push(resource);
                    }
                }
                self.start(run, machine, at_ms);
            }
            Decision::RunState { run, .. } => {
                self.close(Subject::Run(run), at_ms);
                if let Some(at) = self.running.remove(&run)
                    && let Some(found) = self.found.runs.get_mut(at)
                {
                    found.ends_ms = Some(at_ms);
                }
            }
            Decision::ResumeRun { run, .. } => self.close(Subject::Run(run), at_ms),
            Decision::GrantLock { request, .. } | Decision::RefuseLock { request, .. } => {
                self.close(Subject::Lock(request), at_ms);
            }
            Decision::Ask { question, .. } => self.found.questions.push((at_ms, *question)),
            Decision::Waiting { subject, cause } => {
                self.close(subject, at_ms);
                let mut reason =
                    Reason::new(crate::words::kind(&cause), crate::words::text(state, subject, &cause), at_ms);
                if let Some(full) = state.reason(subject).filter(|full| full.text == reason.text) {
                    reason = full;
                }
                self.open.insert(subject, (reason, at_ms));
            }
            Decision::TaskFinished { state, error, .. } => {
                self.found.ending = Some(Ending { at_ms, state, error });
            }
            _ => {}
        }
    }

    fn close(&mut self, subject: Subject, until_ms: u64) {
        if let Some((reason, from_ms)) = self.open.remove(&subject)
            && from_ms < until_ms
        {
            self.found.waits.push(Wait { subject, reason, from_ms, until_ms });
        }
    }

    fn finish(mut self, now_ms: u64) -> Forecast {
        for subject in self.open.keys().copied().collect::<Vec<_>>() {
            self.close(subject, now_ms);
        }
        self.found.waits.sort_by_key(|wait| (wait.from_ms, wait.subject));
        self.found.locks.sort();
        self.found
    }
}
