//! One task: its plan, how far it is, and what is indexed about it.

use std::{collections::BTreeSet, sync::Arc};

use windlass_model::{MachineName, TaskId, manifest::LockScope};

use crate::{
    event::RunKey,
    hash::Map,
    plan::TaskPlan,
    progress::{Packages, Progress, RunProgress, StepProgress},
    resource::Resource,
    step::{StepPlan, Want, Where},
};

/// A task and what is indexed about it.
#[derive(Debug, Clone)]
pub(crate) struct Task {
    pub plan: Arc<TaskPlan>,
    pub progress: Progress,
    /// Runs that have had their turn and are not over, as (step, place).
    pub open: BTreeSet<(u32, u32)>,
    /// Runs that run and wait for nothing.
    pub working: u32,
    /// Tasks that its runs queued, and that end with it.
    pub children: BTreeSet<TaskId>,
    /// The locks of its machines, by name.
    pub machines: Map<MachineName, Resource>,
    /// The locks of the machines of its steps, by place. Steps with the same machines share one list.
    pub rosters: Vec<Option<Arc<[Resource]>>>,
    /// Room for the runs of the next step: that of one that is over.
    pub spare: Vec<RunProgress>,
}

impl Task {
    pub fn new(plan: Arc<TaskPlan>, progress: Progress) -> Self {
        let (open, children, machines) = (BTreeSet::new(), BTreeSet::new(), Map::default());
        Self { plan, progress, open, working: 0, children, machines, rosters: Vec::new(), spare: Vec::new() }
    }

    pub fn step(&self, step: u32) -> Option<&StepProgress> {
        self.progress.steps.get(step as usize)
    }

    pub fn run(&self, run: RunKey) -> Option<&RunProgress> {
        self.step(run.step)?.runs.get(run.place as usize)
    }

    pub fn run_mut(&mut self, run: RunKey) -> Option<&mut RunProgress> {
        let step = self.progress.steps.get_mut(run.step as usize)?;
        step.runs.get_mut(run.place as usize)
    }

    pub fn step_plan(&self, step: u32) -> Option<&StepPlan> {
        self.plan.steps.get(step as usize)
    }

    /// The machine of a run: of its plan, or the worker that was chosen.
    pub fn machine(&self, run: RunKey) -> Option<&MachineName> {
        let plan = self.step_plan(run.step)?;
        plan.machine(run.place as usize).or_else(|| self.run(run)?.worker.as_ref())
    }

    /// Its runs that were started and are not over.
    pub fn running(&self, id: TaskId) -> impl Iterator<Item = RunKey> + Clone {
        let open = self.open.iter().map(move |(step, place)| RunKey { task: id, step: *step, place: *place });
        open.filter(|key| self.run(*key).is_some_and(|run| run.phase == crate::progress::Phase::Running))
    }

    /// Whether something of it does something.
    pub fn works(&self) -> bool {
        let acquires = matches!(&self.progress.packages, Packages::Acquiring(acquiring) if !acquiring.open.is_empty());
        self.working > 0 || acquires
    }

    /// Whether it may go on without asking for its tag again.
    pub fn has_turn(&self) -> bool {
        self.progress.tagged || self.plan.concurrency_tag.is_none()
    }

    /// The locks of the machines of a step. Most steps of a plan run on the same machines, so the list of the step
    /// before is looked at first.
    fn roster(&mut self, step: u32) -> Option<&Arc<[Resource]>> {
        let place = &self.plan.steps.get(step as usize)?.place;
        let Where::Machines(machines) = place else {
            return None;
        };
        if self.rosters.is_empty() {
            self.rosters.resize(self.plan.steps.len(), None);
        }
        let (before, rest) = self.rosters.split_at_mut_checked(step as usize)?;
        let own = rest.first_mut()?;
        if own.is_none() {
            let last = before.iter().enumerate().rev().find_map(|(at, roster)| Some((at, roster.as_ref()?)));
            let same = |at: usize| self.plan.steps.get(at).is_some_and(|other| &other.place == place);
            *own = Some(match last.filter(|(at, _)| same(*at)) {
                Some((_, roster)) => Arc::clone(roster),
                None => machines.iter().map(|machine| lock_of(&mut self.machines, machine)).collect(),
            });
        }
        own.as_ref()
    }

    /// What a run must hold, each resource once.
    pub fn wants(&mut self, key: RunKey) -> Vec<Want> {
        let mut wants = Vec::with_capacity(1);
        self.add_wants(key, &mut wants);
        wants
    }

    /// The same, into a list that is empty.
    pub fn add_wants(&mut self, key: RunKey, wants: &mut Vec<Want>) {
        let listed = self.roster(key.step).and_then(|roster| roster.get(key.place as usize)).cloned();
        let Some(step) = self.plan.steps.get(key.step as usize) else {
            return;
        };
        let run = self.progress.steps.get(key.step as usize).and_then(|step| step.runs.get(key.place as usize));
        let machine = step.machine(key.place as usize).or_else(|| run?.worker.as_ref());
        if let Some(machine) = machine {
            let whole = listed.unwrap_or_else(|| lock_of(&mut self.machines, machine));
            wants.push(Want::plain(whole, step.machine_mode(), step.hold));
            if let Some(lease_cap @ 1..) = run.and_then(|run| run.lease) {
                let mode = windlass_model::manifest::LockMode::Shared;
                wants.push(Want { of: lease_cap, ..Want::plain(Resource::lease(machine), mode, LockScope::Call) });
            }
        }
        wants.extend(step.needs().iter().map(|need| Want::from_need(machine, need)));
        if wants.len() > 1 {
            merge(wants);
        }
    }
}

/// The lock of a machine, one for all runs of a task there.
fn lock_of(known: &mut Map<MachineName, Resource>, machine: &MachineName) -> Resource {
    if let Some(known) = known.get(machine) {
        return known.clone();
    }
    known.entry(machine.clone()).or_insert_with(|| Resource::machine(machine)).clone()
}

/// Of several wishes for one resource the strongest stays.
fn merge(wants: &mut Vec<Want>) {
    wants.sort();
    wants.dedup_by(|later, first| {
        let same = later.resource == first.resource;
        if same {
            first.mode = first.mode.min(later.mode);
            first.scope = first.scope.max(later.scope);
            first.units = first.units.max(later.units);
            first.of = if first.of == 0 || later.of == 0 { first.of.max(later.of) } else { first.of.min(later.of) };
        }
        same
    });
}
