//! The tasks that are not over, as people see them.
//!
//! The driver keeps one board ahead of the store to know what to write, and publishes to a second one once that is
//! durable: nobody is shown what a power cut could take back. Finished tasks live in the store alone.

use std::collections::BTreeMap;

use windlass_model::{
    MachineName, RunId, RunState, TaskId, TaskKind, TaskState,
    task::{
        PACKAGES_NODE, Progress, Reason, RunView, StepView, TaskChange, TaskDetail, TaskSummary, pool_node, run_node,
        step_node,
    },
};
use windlass_scheduler::{RunKey, StepPlan, TaskPlan, Where};

/// Live tasks by number.
#[derive(Debug, Default, Clone)]
pub struct Board(BTreeMap<TaskId, TaskDetail>);

impl Board {
    /// Adds a task.
    pub fn insert(&mut self, detail: TaskDetail) {
        self.0.insert(detail.summary.id, detail);
    }

    /// Forgets a task.
    pub fn remove(&mut self, task: TaskId) -> Option<TaskDetail> {
        self.0.remove(&task)
    }

    /// A task.
    #[must_use]
    pub fn get(&self, task: TaskId) -> Option<&TaskDetail> {
        self.0.get(&task)
    }

    /// All tasks, newest first.
    pub fn newest_first(&self) -> impl Iterator<Item = &TaskDetail> {
        self.0.values().rev()
    }

    /// Applies one change. Returns whether it changed anything.
    pub fn apply(&mut self, task: TaskId, at_ms: u64, change: &TaskChange) -> bool {
        let Some(detail) = self.0.get_mut(&task) else {
            return false;
        };
        match change {
            TaskChange::Task { state, reason, error } => apply_task(&mut detail.summary, at_ms, *state, reason, error),
            TaskChange::Step { node, state, reason } => {
                let Some(step) = step_mut(detail, node) else {
                    return false;
                };
                let changed = (step.state, &step.reason) != (*state, reason);
                (step.state, step.reason) = (*state, reason.clone());
                changed
            }
            TaskChange::Run { node, state, reason, error, progress } => {
                let Some(run) = run_mut(detail, node) else {
                    return false;
                };
                let before = run.clone();
                if *state == RunState::Running && run.started_ms.is_none() {
                    run.started_ms = Some(at_ms);
                }
                if state.is_final() && !run.state.is_final() && run.started_ms.is_some() {
                    run.ended_ms = Some(at_ms);
                }
                run.state = *state;
                run.reason.clone_from(reason);
                run.error.clone_from(error);
                if progress.is_some() {
                    run.progress.clone_from(progress);
                }
                *run != before
            }
            TaskChange::Worker { node, machine, run: id } => {
                let Some(run) = run_mut(detail, node) else {
                    return false;
                };
                let changed = run.machine.as_ref() != Some(machine) || run.run != *id;
                (run.machine, run.run) = (Some(machine.clone()), id.clone());
                changed
            }
            TaskChange::Log { .. } => true,
        }
    }
}

fn apply_task(
    summary: &mut TaskSummary,
    at_ms: u64,
    state: TaskState,
    reason: &Option<Reason>,
    error: &Option<String>,
) -> bool {
    let before = summary.clone();
    if state == TaskState::Executing && summary.started_ms.is_none() {
        summary.started_ms = Some(at_ms);
    }
    if state.is_final() && !summary.state.is_final() {
        summary.ended_ms = Some(at_ms);
    }
    summary.state = state;
    summary.reason.clone_from(reason);
    summary.error.clone_from(error);
    *summary != before
}

fn step_mut<'a>(detail: &'a mut TaskDetail, node: &str) -> Option<&'a mut StepView> {
    detail.packages.iter_mut().chain(&mut detail.steps).find(|step| step.node == node)
}

fn run_mut<'a>(detail: &'a mut TaskDetail, node: &str) -> Option<&'a mut RunView> {
    let (step, _) = node.rsplit_once('/')?;
    step_mut(detail, step)?.runs.iter_mut().find(|run| run.node == node)
}

/// The first view of a task that is queued.
#[must_use]
pub fn first_view(id: TaskId, what: TaskKind, plan: &TaskPlan, uses: &[String], created_ms: u64) -> TaskDetail {
    let summary = TaskSummary {
        id,
        title: what.title(),
        what,
        state: TaskState::Queued,
        reason: None,
        error: None,
        created_ms,
        started_ms: None,
        ended_ms: None,
    };
    let steps = plan
        .steps
        .iter()
        .enumerate()
        .map(|(index, step)| step_view(id, index, step, uses.get(index).cloned().unwrap_or_default()))
        .collect();
    let packages = packages_view(id, plan);
    TaskDetail { summary, packages, steps, seq: 0 }
}

fn step_view(task: TaskId, index: usize, step: &StepPlan, uses: String) -> StepView {
    let runs = (0..step.runs())
        .map(|place| {
            let machine = step.machine(place);
            run_view(node(step, machine), RunId::new(task, index, machine, 1), machine.cloned())
        })
        .collect();
    StepView {
        node: step_node(&step.name),
        name: step.name.to_string(),
        uses,
        state: RunState::Pending,
        reason: None,
        runs,
    }
}

/// The package barrier has one row per machine that any step with packages runs on. A worker of a pool fetches what
/// it needs once it is chosen.
fn packages_view(task: TaskId, plan: &TaskPlan) -> Option<StepView> {
    let mut machines: Vec<&MachineName> = Vec::new();
    for step in plan.steps.iter().filter(|step| step.needs_packages && step.skip.is_none()) {
        for machine in (0..step.runs()).filter_map(|place| step.machine(place)) {
            if !machines.contains(&machine) {
                machines.push(machine);
            }
        }
    }
    if machines.is_empty() {
        return None;
    }
    let runs = machines
        .into_iter()
        .map(|machine| run_view(packages_node(machine), RunId::packages(task, machine), Some(machine.clone())))
        .collect();
    Some(StepView {
        node: PACKAGES_NODE.to_owned(),
        name: "packages".to_owned(),
        uses: String::new(),
        state: RunState::Pending,
        reason: None,
        runs,
    })
}

fn run_view(node: String, run: RunId, machine: Option<MachineName>) -> RunView {
    RunView {
        node,
        run,
        machine,
        state: RunState::Pending,
        reason: None,
        error: None,
        progress: None::<Progress>,
        started_ms: None,
        ended_ms: None,
        outputs: BTreeMap::new(),
    }
}

/// Node of a machine's part of the package barrier.
#[must_use]
pub fn packages_node(machine: &MachineName) -> String {
    format!("{PACKAGES_NODE}/{machine}")
}

/// Nodes of a task's steps and runs, by the scheduler's numbers.
#[must_use]
pub fn node_of(plan: &TaskPlan, run: RunKey) -> Option<String> {
    let step = plan.steps.get(run.step as usize)?;
    Some(node(step, step.machine(run.place as usize)))
}

/// Node of a step on a machine. One on a pool keeps its name when its worker is chosen, and when it is another.
fn node(step: &StepPlan, machine: Option<&MachineName>) -> String {
    match &step.place {
        Where::Pool(pool) => pool_node(&step.name, pool),
        _ => run_node(&step.name, machine),
    }
}
