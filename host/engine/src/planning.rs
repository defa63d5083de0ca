//! What a deployment would do: the real scheduler played forward over the state as it is, in virtual time.
//!
//! Nothing is changed and no machine is asked. How long steps take comes from `history`, what machines hold and how
//! fast they are reached from `holdings`, what goes where from the package barrier itself.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use windlass_model::{
    MachineName, RunState, TaskId,
    scheduling::{
        PlanView, PlannedDeadlock, PlannedDelivery, PlannedLock, PlannedPackage, PlannedQuestion, PlannedRun,
        PlannedSkip, PlannedWait,
    },
    task::run_node,
    views::DeployRequest,
};
use windlass_packages::digest::Sha256;
use windlass_scheduler::{
    Question, RunKey, State, TaskPlan,
    forecast::{Durations, Forecast, HORIZON, RunForecast, Wait, forecast},
};

use crate::{
    barrier::{self, Needs},
    board::packages_node,
    catalog,
    error::EngineError,
    holdings,
    machines::address,
    packages::{form, pinned},
    runs,
    scheduling::subject_node,
    services::Services,
    tasks,
};

/// A run that was never seen is taken to last so long.
const UNKNOWN_RUN_MS: u64 = 30_000;
/// Packages of another task that were never brought are taken to need so long.
const UNKNOWN_PACKAGES_MS: u64 = 5_000;
/// What is overdue is taken to need this much longer.
const OVERDUE_MS: u64 = 1_000;

/// What a deployment would do, if it were queued now. Nothing is changed.
///
/// # Errors
/// When something it names does not exist, or there is nothing to do.
pub async fn plan(services: &Arc<Services>, request: DeployRequest) -> Result<PlanView, EngineError> {
    let (next, what, plan) = tasks::prepare_deployment(services, request).await?.into_parts();
    let context = runs::gather(services, next, what).await?;
    let needs = barrier::needs(services, &context, &plan).await?;
    let deliveries = deliveries(services, &needs).await?;
    let now = services.shared.clock.now_ms();
    let state = services.driver.look(State::clone).await?;
    // Another task may have got the number meanwhile: a plan keeps none for itself.
    let id = (next.0..).map(TaskId).find(|id| state.task(*id).is_none()).unwrap_or(next);
    let expected = Expected::new(Arc::clone(services), id, &deliveries, now);
    let work = tokio::task::spawn_blocking(move || {
        let found = forecast(&state, now, id, Some(plan.clone()), &expected, HORIZON);
        view(&plan, now, found, deliveries, &expected)
    });
    work.await.map_err(|error| EngineError::internal(error.to_string()))
}

/// What has to be moved to each machine, as far as this server knows.
async fn deliveries(services: &Services, needs: &Needs) -> Result<Vec<PlannedDelivery>, EngineError> {
    let store = &*services.shared.store;
    let machines = catalog::machines(services).await?;
    let connections: HashMap<_, _> = machines.iter().map(|machine| (&machine.name, &machine.connection)).collect();
    // Each package is looked up once, however many machines it goes to.
    let mut records = BTreeMap::new();
    let mut found = Vec::new();
    for (machine, wanted) in needs {
        let Some(connection) = connections.get(machine) else {
            continue;
        };
        let (place, form) = (holdings::place(connection), form(&address(connection)));
        let (mut packages, mut held) = (Vec::new(), 0);
        for need in wanted {
            if !records.contains_key(&need.sha256) {
                let digest: Sha256 = need.sha256.parse().map_err(EngineError::internal)?;
                records.insert(need.sha256.clone(), pinned(services, &digest).await?);
            }
            let Some((_, blob)) = records.get(&need.sha256).map(|record| record.payload.choose(form)) else {
                continue;
            };
            if holdings::holds(store, &place, &blob.sha256).await? {
                held += 1;
                continue;
            }
            let (package, version) = (need.package.clone(), need.version.clone());
            packages.push(PlannedPackage { package, version, bytes: blob.size });
        }
        let sizes: Vec<_> = packages.iter().map(|package| package.bytes).collect();
        let (takes_ms, learnt) = services.rates.expected_ms(&place, &sizes);
        let bytes = sizes.iter().sum();
        found.push(PlannedDelivery {
            machine: machine.clone(),
            packages,
            bytes,
            held,
            takes_ms,
            learnt,
            there_in_ms: None,
        });
    }
    Ok(found)
}

/// How long things are expected to take.
struct Expected {
    services: Arc<Services>,
    own: TaskId,
    /// How long packages of the planned task need to each machine.
    moving: HashMap<MachineName, u64>,
    /// How long what runs now has been running, by task and node.
    running: HashMap<(TaskId, String), u64>,
    /// Whether anything had to be guessed, of this task or of one that it waits for.
    guessed: AtomicBool,
}

impl Expected {
    fn new(services: Arc<Services>, own: TaskId, deliveries: &[PlannedDelivery], now_ms: u64) -> Self {
        let moving = deliveries.iter().map(|delivery| (delivery.machine.clone(), delivery.takes_ms)).collect();
        let mut running = HashMap::new();
        {
            let board = services.shared.board.read().unwrap_or_else(PoisonError::into_inner);
            for detail in board.newest_first().filter(|detail| detail.summary.started_ms.is_some()) {
                let runs = detail.all_steps().flat_map(|step| &step.runs).map(|run| &run.view);
                for run in runs.filter(|run| run.state == RunState::Running) {
                    if let Some(started) = run.started_ms {
                        running.insert((detail.summary.id, run.node.clone()), now_ms.saturating_sub(started));
                    }
                }
            }
        }
        let guessed = AtomicBool::new(deliveries.iter().any(|to| !to.learnt && !to.packages.is_empty()));
        Self { services, own, moving, running, guessed }
    }

    /// How long a node took so far, if it was seen before.
    fn seen(&self, plan: &TaskPlan, node: &str) -> Option<u64> {
        let project = plan.concurrency_tag.as_ref()?.split('/').next()?;
        self.services.shared.history.of(project, node)
    }

    /// The same, or a guess.
    fn seen_or(&self, plan: &TaskPlan, node: &str, guess_ms: u64) -> u64 {
        self.seen(plan, node).unwrap_or_else(|| {
            self.guessed.store(true, Ordering::Relaxed);
            guess_ms
        })
    }

    /// What is left of it, if it runs already.
    fn rest(&self, task: TaskId, node: String, takes_ms: u64) -> u64 {
        match self.running.get(&(task, node)) {
            Some(elapsed) => takes_ms.saturating_sub(*elapsed).max(OVERDUE_MS.min(takes_ms)),
            None => takes_ms,
        }
    }
}

impl Durations for Expected {
    fn run(&self, run: RunKey, plan: &TaskPlan, machine: Option<&MachineName>) -> u64 {
        let Some(step) = plan.steps.get(run.step as usize) else {
            return UNKNOWN_RUN_MS;
        };
        let node = run_node(&step.name, machine);
        let takes = self.seen_or(plan, &node, UNKNOWN_RUN_MS);
        self.rest(run.task, node, takes)
    }

    fn packages(&self, task: TaskId, plan: &TaskPlan, machine: Option<&MachineName>) -> u64 {
        let Some(machine) = machine else {
            // The server is where they come from.
            return 0;
        };
        if task == self.own {
            return self.moving.get(machine).copied().unwrap_or_default();
        }
        let node = packages_node(machine);
        let takes = self.seen_or(plan, &node, UNKNOWN_PACKAGES_MS);
        self.rest(task, node, takes)
    }

    fn person(&self, _: &Question) -> u64 {
        0
    }
}

fn view(
    plan: &TaskPlan,
    now: u64,
    found: Forecast,
    mut deliveries: Vec<PlannedDelivery>,
    expected: &Expected,
) -> PlanView {
    let after = |at: u64| at.saturating_sub(now);
    let arrivals: HashMap<_, _> = found.packages.into_iter().filter_map(|(place, at)| Some((place?, at))).collect();
    for delivery in &mut deliveries {
        delivery.there_in_ms = arrivals.get(&delivery.machine).copied().map(after);
    }
    let skipped =
        plan.steps.iter().filter_map(|step| Some(PlannedSkip { step: step.name.to_string(), why: step.skip.clone()? }));
    let question = |(at, question): (u64, Question)| PlannedQuestion {
        text: question.text,
        choices: question.choices.iter().map(|choice| choice.as_str().to_owned()).collect(),
        responsible: question.responsible,
        in_ms: after(at),
    };
    let lock = |resource: &windlass_scheduler::Resource| PlannedLock {
        resource: resource.as_str().to_owned(),
        title: resource.to_string(),
    };
    PlanView {
        title: plan.title.clone(),
        starts_in_ms: found.starts_ms.map(after),
        ends_in_ms: found.ending.as_ref().map(|ending| after(ending.at_ms)),
        guessed: expected.guessed.load(Ordering::Relaxed),
        state: found.ending.as_ref().map(|ending| ending.state),
        error: found.ending.as_ref().and_then(|ending| ending.error.clone()),
        skipped: skipped.collect(),
        runs: found.runs.iter().map(|run| planned_run(plan, run, now, expected)).collect(),
        waits: found.waits.into_iter().map(|wait| planned_wait(plan, wait, now)).collect(),
        bytes: deliveries.iter().map(|delivery| delivery.bytes).sum(),
        deliveries,
        locks: found.locks.iter().map(lock).collect(),
        questions: found.questions.into_iter().map(question).collect(),
        deadlocks: found.deadlocks.into_iter().map(|(at, text)| PlannedDeadlock { text, in_ms: after(at) }).collect(),
    }
}

fn planned_run(plan: &TaskPlan, run: &RunForecast, now: u64, expected: &Expected) -> PlannedRun {
    let step = plan.steps.get(run.run.step as usize).map(|step| &step.name);
    let node = step.map(|step| run_node(step, run.machine.as_ref())).unwrap_or_default();
    PlannedRun {
        learnt: expected.seen(plan, &node).is_some(),
        node,
        step: step.map(ToString::to_string).unwrap_or_default(),
        machine: run.machine.clone(),
        starts_in_ms: run.starts_ms.saturating_sub(now),
        ends_in_ms: run.ends_ms.map(|ends| ends.saturating_sub(now)),
    }
}

fn planned_wait(plan: &TaskPlan, wait: Wait, now: u64) -> PlannedWait {
    PlannedWait {
        node: subject_node(plan, wait.subject),
        kind: wait.reason.kind,
        text: wait.reason.text,
        holder: wait.reason.holder,
        what: wait.reason.what,
        from_in_ms: wait.from_ms.saturating_sub(now),
        for_ms: wait.until_ms.saturating_sub(wait.from_ms),
    }
}
