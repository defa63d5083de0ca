//! A live task in as little memory as may be: what two boards agree about, they share.

use std::sync::Arc;

use windlass_model::{
    RunState, TaskState,
    task::{Progress, Reason, RunView, StepView, TaskChange, TaskDetail, TaskSummary},
};

/// A live task.
#[derive(Debug, Clone)]
pub struct Live {
    /// What lists show.
    pub summary: Arc<TaskSummary>,
    /// The package barrier.
    packages: Option<Box<LiveStep>>,
    steps: Box<[LiveStep]>,
}

/// A step of a live task.
#[derive(Debug, Clone)]
pub struct LiveStep {
    /// The step without its runs.
    pub view: Arc<StepView>,
    /// Its runs, by place.
    pub runs: Box<[LiveRun]>,
}

/// A run of a live task.
#[derive(Debug, Clone)]
pub struct LiveRun {
    /// The run.
    pub view: Arc<RunView>,
    /// How far it says it is: shown, and never stored.
    progress: Option<Box<Progress>>,
}

/// A node of a task.
#[derive(Debug, Clone, Copy)]
pub enum Node<'a> {
    /// A step and its number.
    Step(u64, &'a LiveStep),
    /// A run with the number of its step and its place in it.
    Run(u64, u64, &'a LiveRun),
}

/// Where a node is in its task.
#[derive(Debug, Clone, Copy)]
struct Place {
    /// The step; none is the package barrier.
    step: Option<usize>,
    /// The run, if it is one.
    run: Option<usize>,
}

/// The number under which a step is stored; none is the package barrier, the one before the first.
fn number(step: Option<usize>) -> u64 {
    step.map_or(0, |step| step as u64 + 1)
}

impl Live {
    /// The package barrier if there is one, then all steps in order.
    pub fn all_steps(&self) -> impl Iterator<Item = &LiveStep> {
        self.packages.as_deref().into_iter().chain(&self.steps)
    }

    /// The same, each with its number.
    pub fn numbered_steps(&self) -> impl Iterator<Item = (u64, &LiveStep)> {
        let steps = self.steps.iter().enumerate().map(|(index, step)| (number(Some(index)), step));
        self.packages.as_deref().map(|step| (number(None), step)).into_iter().chain(steps)
    }

    /// The package barrier.
    #[must_use]
    pub fn packages(&self) -> Option<&LiveStep> {
        self.packages.as_deref()
    }

    /// The task with its tree, as people see it.
    #[must_use]
    pub fn detail(&self) -> TaskDetail {
        let packages = self.packages.as_ref().map(|step| step.detail());
        let steps = self.steps.iter().map(LiveStep::detail).collect();
        TaskDetail { summary: TaskSummary::clone(&self.summary), packages, steps, seq: 0 }
    }

    fn step(&self, step: Option<usize>) -> Option<&LiveStep> {
        step.map_or(self.packages.as_deref(), |step| self.steps.get(step))
    }

    fn step_mut(&mut self, step: Option<usize>) -> Option<&mut LiveStep> {
        match step {
            None => self.packages.as_deref_mut(),
            Some(step) => self.steps.get_mut(step),
        }
    }

    fn find(&self, node: &str) -> Option<Place> {
        let step = |name: &str| match &self.packages {
            Some(packages) if packages.view.node == name => Some(None),
            _ => self.steps.iter().position(|step| step.view.node == name).map(Some),
        };
        if let Some(step) = step(node) {
            return Some(Place { step, run: None });
        }
        let step = step(node.rsplit_once('/')?.0)?;
        let run = self.step(step)?.runs.iter().position(|run| run.view.node == node)?;
        Some(Place { step, run: Some(run) })
    }

    /// A node, with the number of its step.
    #[must_use]
    pub fn node(&self, node: &str) -> Option<Node<'_>> {
        let place = self.find(node)?;
        let (number, step) = (number(place.step), self.step(place.step)?);
        Some(match place.run {
            None => Node::Step(number, step),
            Some(run) => Node::Run(number, run as u64, step.runs.get(run)?),
        })
    }

    fn run_mut(&mut self, node: &str) -> Option<&mut LiveRun> {
        let place = self.find(node)?;
        self.step_mut(place.step)?.runs.get_mut(place.run?)
    }

    /// Applies one change. Returns whether it changed anything.
    pub(super) fn apply(&mut self, at_ms: u64, change: &TaskChange) -> bool {
        match change {
            TaskChange::Task { state, reason, error } => apply_task(&mut self.summary, at_ms, *state, reason, error),
            TaskChange::Step { node, state, reason } => {
                let place = self.find(node).filter(|place| place.run.is_none());
                let Some(step) = place.and_then(|place| self.step_mut(place.step)) else {
                    return false;
                };
                let changed = (step.view.state, &step.view.reason) != (*state, reason);
                if changed {
                    let view = Arc::make_mut(&mut step.view);
                    (view.state, view.reason) = (*state, reason.clone());
                }
                changed
            }
            TaskChange::Run { node, state, reason, error, progress } => {
                self.run_mut(node).is_some_and(|run| run.apply(at_ms, *state, reason, error, progress))
            }
            TaskChange::Worker { node, machine, run: id } => {
                let Some(run) = self.run_mut(node) else {
                    return false;
                };
                let changed = run.view.machine.as_ref() != Some(machine) || run.view.run != *id;
                if changed {
                    let view = Arc::make_mut(&mut run.view);
                    (view.machine, view.run) = (Some(machine.clone()), id.clone());
                }
                changed
            }
            TaskChange::Log { .. } => true,
        }
    }

    /// Takes over from the same task of another board what a change is about, shared with it from now on.
    pub(super) fn adopt(&mut self, from: &Self, change: &TaskChange) {
        let node = match change {
            TaskChange::Task { .. } => {
                self.summary = Arc::clone(&from.summary);
                return;
            }
            TaskChange::Step { node, .. } | TaskChange::Run { node, .. } | TaskChange::Worker { node, .. } => node,
            TaskChange::Log { .. } => return,
        };
        // Both boards have the same tree.
        let Some(place) = from.find(node) else { return };
        let (Some(step), Some(new)) = (self.step_mut(place.step), from.step(place.step)) else { return };
        match place.run {
            None => step.view = Arc::clone(&new.view),
            Some(run) => {
                if let (Some(run), Some(new)) = (step.runs.get_mut(run), new.runs.get(run)) {
                    run.view = Arc::clone(&new.view);
                }
            }
        }
    }
}

impl LiveStep {
    fn detail(&self) -> StepView {
        let mut view = StepView::clone(&self.view);
        view.runs = self.runs.iter().map(LiveRun::detail).collect();
        view
    }
}

impl LiveRun {
    fn detail(&self) -> RunView {
        let mut view = RunView::clone(&self.view);
        if let Some(progress) = &self.progress {
            view.progress = Some(Progress::clone(progress));
        }
        view
    }

    fn apply(
        &mut self,
        at_ms: u64,
        state: RunState,
        reason: &Option<Reason>,
        error: &Option<String>,
        progress: &Option<Progress>,
    ) -> bool {
        let told = progress.as_ref().filter(|told| self.progress.as_deref() != Some(told));
        let moved = told.is_some();
        if let Some(told) = told {
            self.progress = Some(Box::new(told.clone()));
        }
        let old = &self.view;
        let started_ms = old.started_ms.or((state == RunState::Running).then_some(at_ms));
        let ends = state.is_final() && !old.state.is_final() && started_ms.is_some();
        let ended_ms = if ends { Some(at_ms) } else { old.ended_ms };
        let same = (old.state, &old.reason, &old.error, old.started_ms, old.ended_ms)
            == (state, reason, error, started_ms, ended_ms);
        if !same {
            let view = Arc::make_mut(&mut self.view);
            (view.state, view.started_ms, view.ended_ms) = (state, started_ms, ended_ms);
            view.reason.clone_from(reason);
            view.error.clone_from(error);
        }
        moved || !same
    }
}

impl From<TaskDetail> for Live {
    fn from(detail: TaskDetail) -> Self {
        Self {
            summary: Arc::new(detail.summary),
            packages: detail.packages.map(|step| Box::new(step.into())),
            steps: detail.steps.into_iter().map(LiveStep::from).collect(),
        }
    }
}

impl From<StepView> for LiveStep {
    fn from(mut view: StepView) -> Self {
        let runs = std::mem::take(&mut view.runs);
        let runs = runs.into_iter().map(|run| LiveRun { view: Arc::new(run), progress: None }).collect();
        Self { view: Arc::new(view), runs }
    }
}

fn apply_task(
    summary: &mut Arc<TaskSummary>,
    at_ms: u64,
    state: TaskState,
    reason: &Option<Reason>,
    error: &Option<String>,
) -> bool {
    let old = &**summary;
    let started_ms = old.started_ms.or((state == TaskState::Executing).then_some(at_ms));
    let ended_ms = if state.is_final() && !old.state.is_final() { Some(at_ms) } else { old.ended_ms };
    let same = (old.state, &old.reason, &old.error, old.started_ms, old.ended_ms)
        == (state, reason, error, started_ms, ended_ms);
    if !same {
        let new = Arc::make_mut(summary);
        (new.state, new.started_ms, new.ended_ms) = (state, started_ms, ended_ms);
        new.reason.clone_from(reason);
        new.error.clone_from(error);
    }
    !same
}
