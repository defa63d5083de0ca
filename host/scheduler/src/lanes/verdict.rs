//! How a step ended, and the words for it.

use windlass_model::{MachineName, RunState, task::run_node};

use crate::{
    plan::TaskPlan,
    progress::{Phase, StepProgress},
};

/// How a step ended: as its worst run did. What a person let pass does not count.
pub(super) fn verdict(step: &StepProgress, plan: &TaskPlan, index: u32) -> (RunState, Option<String>) {
    let worst = [RunState::Unknown, RunState::Failed, RunState::Cancelled];
    let found = worst.into_iter().find_map(|state| {
        let mut runs = step.runs.iter().enumerate();
        runs.find(|(_, run)| run.phase == Phase::Over(state) && !run.pardoned)
    });
    if let Some((place, run)) = found {
        let state = run.phase.state();
        return (state, Some(in_full(plan, index, place, run.worker.as_ref(), state, run.error.as_deref())));
    }
    let pardoned = step.runs.iter().filter(|run| run.pardoned).count();
    let why = (pardoned > 0).then(|| format!("{pardoned} failed and a person let it pass"));
    if step.runs.iter().all(|run| run.phase == Phase::Over(RunState::Skipped)) {
        let why = step.runs.first().and_then(|run| run.error.clone());
        return (RunState::Skipped, why);
    }
    (RunState::Succeeded, why)
}

/// What went wrong, with the place: `step web/web1 failed: exit code 3`.
pub(crate) fn in_full(
    plan: &TaskPlan,
    step: u32,
    place: usize,
    worker: Option<&MachineName>,
    state: RunState,
    why: Option<&str>,
) -> String {
    let node = plan
        .steps
        .get(step as usize)
        .map_or_else(String::new, |step| run_node(&step.name, step.machine(place).or(worker)));
    let what = match state {
        RunState::Unknown => "has an unknown outcome",
        RunState::Cancelled => "was cancelled",
        _ => "failed",
    };
    match why {
        Some(why) => format!("step {node} {what}: {why}"),
        None => format!("step {node} {what}"),
    }
}
