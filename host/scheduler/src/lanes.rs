//! The sliding window over the machines of a unit: a machine takes a place, goes through the steps of the unit in
//! order, and gives its place to the next one.
//!
//! A run takes its place in the window first and then waits for its locks, so the window bounds what a step asks
//! for. Places are given in the order of the plan. The first machine that fails closes the window: machines that
//! have not begun are skipped, the others go on to their end.

mod verdict;

use windlass_model::{MachineName, RunCondition, RunState, TaskId, TaskState};

use crate::{
    decision::Decision,
    event::{RunKey, Subject},
    plan::Settings,
    progress::{Packages, Phase, StepProgress},
    state::Task,
    step::Where,
    turn::Turn,
};

pub(crate) use verdict::in_full;
use verdict::verdict;

impl Turn<'_> {
    /// Gives the free places of all running units of a task to the machines whose turn it is.
    pub fn fill_windows(&mut self, id: TaskId) {
        let Some(task) = self.state.tasks.get(&id) else {
            return;
        };
        if task.progress.state != TaskState::Executing {
            return;
        }
        if !task.has_turn() {
            return self.want_turn(id);
        }
        // A unit that ends here leaves the set; those added later are filled when they start.
        let mut after = None;
        while let Some(lead) = self.next_unit(id, after) {
            self.fill_window(id, lead);
            after = Some(lead);
        }
        self.note_starved(id);
    }

    /// A task that let others of its tag start needs its turn again for the machines that could go on.
    fn want_turn(&mut self, id: TaskId) {
        let Some(task) = self.state.tasks.get(&id) else {
            return;
        };
        let free: Vec<_> =
            task.progress.active.iter().copied().filter(|lead| has_place(task, &self.state.settings, *lead)).collect();
        if !free.is_empty() {
            self.touch_pending(id);
            self.seat(id);
        }
    }

    /// What the machines of a task wait for whose turn has not come may be something else now.
    pub fn touch_pending(&mut self, id: TaskId) {
        let Some(task) = self.state.tasks.get(&id) else {
            return;
        };
        let pending = |lead: &u32| {
            let step = *lead;
            let progress = task.step(step);
            let places = progress.map_or(0..0, |progress| progress.next_place..progress.runs.len() as u32);
            places.map(move |place| Subject::Run(RunKey { task: id, step, place }))
        };
        let all: Vec<_> = task.progress.active.iter().flat_map(pending).collect();
        all.into_iter().for_each(|subject| self.touch(subject));
    }

    fn next_unit(&self, id: TaskId, after: Option<u32>) -> Option<u32> {
        let active = &self.state.tasks.get(&id)?.progress.active;
        active.range(after.map_or(0, |last| last + 1)..).next().copied()
    }

    fn fill_window(&mut self, id: TaskId, lead: u32) {
        loop {
            let Some(task) = self.state.tasks.get_mut(&id).filter(|task| has_place(task, &self.state.settings, lead))
            else {
                return;
            };
            let Some(step) = task.progress.steps.get_mut(lead as usize) else {
                return;
            };
            let place = step.next_place;
            step.next_place += 1;
            step.open += 1;
            task.progress.lanes += 1;
            self.enter(lead, RunKey { task: id, step: lead, place });
        }
    }

    /// Tells the pending runs of a unit when the task's own count begins or ceases to be what they wait for.
    fn note_starved(&mut self, id: TaskId) {
        let Some(task) = self.state.tasks.get_mut(&id) else {
            return;
        };
        let (plan, settings) = (&task.plan, &self.state.settings);
        let full = task.progress.lanes >= plan.runs_at_once(settings);
        let mut changed = Vec::new();
        for lead in &task.progress.active {
            let (Some(step), Some(own)) = (task.progress.steps.get_mut(*lead as usize), plan.steps.get(*lead as usize))
            else {
                continue;
            };
            let starved = full && step.open < own.window(settings, plan);
            if std::mem::replace(&mut step.starved, starved) != starved {
                changed.push((*lead, step.next_place..step.runs.len() as u32));
            }
        }
        for (step, places) in changed {
            for place in places {
                self.touch(Subject::Run(RunKey { task: id, step, place }));
            }
        }
    }

    /// Lets a machine go on in its unit, from this step: to the first step that it takes part in, or out.
    fn enter(&mut self, lead: u32, from: RunKey) {
        let end = self.state.tasks.get(&from.task).map_or(0, |task| task.plan.unit_end(lead));
        for step in from.step..end {
            let key = RunKey { step, ..from };
            let Some(task) = self.state.tasks.get(&from.task) else {
                return;
            };
            if task.run(key).is_none_or(|run| run.phase != Phase::Pending) {
                continue;
            }
            let Some(why) = unfit(task, lead, key) else {
                self.step_starts(from.task, step);
                return self.begin(key);
            };
            self.settle_run(key, RunState::Skipped, Some(why));
        }
        self.leave_lane(from.task, lead);
    }

    /// The machine of a run that is over goes on.
    pub fn go_on(&mut self, over: RunKey) {
        let lead = self.state.tasks.get(&over.task).map_or(over.step, |task| task.plan.lead(over.step));
        self.enter(lead, RunKey { step: over.step + 1, ..over });
    }

    fn leave_lane(&mut self, id: TaskId, lead: u32) {
        if let Some(task) = self.task(id) {
            task.progress.lanes = task.progress.lanes.saturating_sub(1);
            if let Some(step) = task.progress.steps.get_mut(lead as usize) {
                step.open = step.open.saturating_sub(1);
            }
        }
        self.end_unit(id, lead);
        self.ready(id);
    }

    /// Ends a unit whose machines are all through.
    fn end_unit(&mut self, id: TaskId, lead: u32) {
        let Some(task) = self.task(id) else {
            return;
        };
        let over = |step: &StepProgress| step.open == 0 && step.next_place as usize >= step.runs.len();
        if !task.step(lead).is_some_and(over) || !task.progress.active.remove(&lead) {
            return;
        }
        let end = task.plan.unit_end(lead);
        for step in lead..end {
            let Some(task) = self.task(id) else {
                return;
            };
            if let Some(progress) = task.progress.steps.get_mut(step as usize) {
                task.spare = std::mem::take(&mut progress.runs);
                task.spare.clear();
                progress.settled = 0;
            }
        }
        self.ready(id);
    }

    /// Ends a run. The last one of a step ends the step.
    pub fn settle_run(&mut self, key: RunKey, state: RunState, why: Option<String>) {
        let Some(task) = self.state.tasks.get_mut(&key.task) else {
            return;
        };
        task.open.remove(&(key.step, key.place));
        let (Some(step), plan) = (task.progress.steps.get_mut(key.step as usize), &task.plan) else {
            return;
        };
        let count = step.runs.len() as u32;
        let Some(run) = step.runs.get_mut(key.place as usize) else {
            return;
        };
        if matches!(run.phase, Phase::Over(_)) {
            return;
        }
        run.phase = Phase::Over(state);
        run.told = None;
        run.error.clone_from(&why);
        step.settled += 1;
        let verdict = (step.settled == count).then(|| verdict(step, plan, key.step));
        self.say(Decision::RunState { run: key, state, why });
        if let Some((state, why)) = verdict {
            self.end_step(key.task, key.step, state, why);
        }
    }

    /// A child step that no machine takes part in.
    pub fn skip_child(&mut self, id: TaskId, step: u32, why: &str) {
        let Some(progress) = self.task(id).and_then(|task| task.progress.steps.get_mut(step as usize)) else {
            return;
        };
        for run in &mut progress.runs {
            run.phase = Phase::Over(RunState::Skipped);
        }
        self.end_step(id, step, RunState::Skipped, Some(why.to_owned()));
    }

    /// Ends what has not begun of a unit: it never will.
    pub fn close_window(&mut self, id: TaskId, lead: u32, state: RunState, why: &str) {
        let Some(task) = self.task(id) else {
            return;
        };
        let end = task.plan.unit_end(lead);
        let Some(step) = task.progress.steps.get_mut(lead as usize) else {
            return;
        };
        let places = step.runs.len() as u32;
        let pending = std::mem::replace(&mut step.next_place, places)..places;
        let begun = |run: &crate::progress::RunProgress| {
            run.attempt == 1 && matches!(run.phase, Phase::Pool(_) | Phase::Locks(_) | Phase::Seat)
        };
        let waiting: Vec<_> =
            (0..pending.start).filter(|place| step.runs.get(*place as usize).is_some_and(begun)).collect();
        for place in waiting {
            self.drop_run(RunKey { task: id, step: lead, place }, state, why);
        }
        for place in pending {
            for step in lead..end {
                self.settle_run(RunKey { task: id, step, place }, state, Some(why.to_owned()));
            }
        }
        self.end_unit(id, lead);
    }

    /// Ends a run that waits. Its machine leaves the unit: nothing later of the unit runs there.
    pub fn drop_run(&mut self, key: RunKey, state: RunState, why: &str) {
        let Some(task) = self.state.tasks.get(&key.task) else {
            return;
        };
        let lead = task.plan.lead(key.step);
        let end = task.plan.unit_end(lead);
        self.let_go(key);
        for step in key.step..end {
            self.settle_run(RunKey { step, ..key }, state, Some(why.to_owned()));
        }
        self.leave_lane(key.task, lead);
    }

    /// Leaves a machine out of the rest of a task.
    pub fn exclude(&mut self, id: TaskId, machine: &MachineName, why: &str) {
        let Some(task) = self.task(id) else {
            return;
        };
        if task.progress.excluded.contains_key(machine) {
            return;
        }
        task.progress.excluded.insert(machine.clone(), why.to_owned());
        let open: Vec<_> =
            task.open.iter().map(|(step, place)| RunKey { task: id, step: *step, place: *place }).collect();
        self.say(Decision::Excluded { task: id, machine: machine.clone(), why: why.to_owned() });
        for key in open {
            self.leave_out(key, machine, &left_out(machine, why));
        }
        self.drop_place(id, &Some(machine.clone()), false);
    }

    /// What a run that is open does when its machine is left out. One that runs goes on to its end.
    fn leave_out(&mut self, key: RunKey, machine: &MachineName, why: &str) {
        let Some(task) = self.state.tasks.get(&key.task).filter(|task| task.machine(key) == Some(machine)) else {
            return;
        };
        let worker = task.step_plan(key.step).is_some_and(|plan| matches!(plan.place, Where::Pool(_)));
        match task.run(key).map(|run| run.phase) {
            // It finds another worker.
            Some(Phase::Locks(_) | Phase::Seat) if worker => {
                self.let_go(key);
                self.begin(key);
            }
            Some(Phase::Locks(_) | Phase::Seat | Phase::Backoff(_)) if !worker => {
                self.drop_run(key, RunState::Skipped, why);
            }
            Some(Phase::Asking) if !worker => self.pardon(key, why),
            _ => {}
        }
    }
}

/// Whether a machine of a unit waits for its turn and there is a place for it in both windows.
pub(crate) fn has_place(task: &Task, settings: &Settings, lead: u32) -> bool {
    let (Some(step), Some(plan)) = (task.step(lead), task.step_plan(lead)) else {
        return false;
    };
    (step.next_place as usize) < step.runs.len()
        && step.open < plan.window(settings, &task.plan)
        && task.progress.lanes < task.plan.runs_at_once(settings)
}

fn left_out(machine: &MachineName, why: &str) -> String {
    format!("machine {machine} was left out: {why}")
}

/// Why a machine does not take part in a step of the unit it is in. None: it does.
fn unfit(task: &Task, lead: u32, key: RunKey) -> Option<String> {
    if let Some(machine) = task.machine(key)
        && let Some(why) = task.progress.excluded.get(machine)
    {
        return Some(left_out(machine, why));
    }
    if task.progress.state == TaskState::Cancelling {
        return Some("the task was cancelled".to_owned());
    }
    if key.step == lead {
        return None;
    }
    let failed = (lead..key.step).any(|step| {
        let run = task.run(RunKey { step, ..key });
        run.is_some_and(|run| !run.pardoned && matches!(run.phase, Phase::Over(RunState::Failed | RunState::Unknown)))
    });
    let plan = task.step_plan(key.step)?;
    if plan.needs_packages && task.progress.packages == Packages::Failed {
        return Some("the packages did not reach all machines".to_owned());
    }
    match plan.condition {
        RunCondition::Success if failed => Some("an earlier step failed on this machine".to_owned()),
        RunCondition::Failure if !failed => Some("no earlier step failed on this machine".to_owned()),
        _ => None,
    }
}
