//! The first view of a task, and the names of its nodes.

use std::collections::BTreeMap;

use windlass_model::{
    MachineName, RunId, RunState, TaskId, TaskKind, TaskState,
    task::{PACKAGES_NODE, Progress, RunView, StepView, TaskDetail, TaskSummary, pool_node, run_node, step_node},
};
use windlass_scheduler::{RunKey, StepPlan, TaskPlan, Where};

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
