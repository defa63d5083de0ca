//! Inside a deployment: groups of steps, the package barrier, conditions, and how a task ends.
//!
//! A step that starts *after previous* and the *with previous* steps below it form a group. A group starts
//! once the one before it has ended. If one of its steps needs packages and they were not acquired yet,
//! all packages of all later steps are brought to all their machines first.

use std::collections::BTreeSet;

use windlass_model::{MachineName, RunCondition, RunState, StartTrigger, TaskId, TaskState};

use crate::{
    event::{Decision, Subject},
    plan::{StepPlan, TaskPlan},
    progress::{Packages, Progress},
    state::Task,
    turn::Turn,
};

/// What a task does next.
enum Next {
    /// Nothing until something ends.
    Wait,
    /// Bring packages to these places.
    Acquire(Vec<Option<MachineName>>),
    /// Open the group that ends before this step.
    OpenGroup(u32),
    /// Start this step.
    Start(u32),
    /// Pass over this step.
    Skip(u32, String),
    /// End.
    Finish(TaskState),
}

impl Turn<'_> {
    /// Lets a task go on as far as it can.
    pub fn advance(&mut self, id: TaskId) {
        loop {
            let Some(task) = self.state.tasks.get_mut(&id) else {
                return;
            };
            match next(task, self.state.settings.steps_at_once.max(1)) {
                Next::Wait => break,
                Next::Acquire(places) => {
                    self.acquire(id, places);
                    break;
                }
                Next::OpenGroup(end) => {
                    let from = task.progress.next_step;
                    task.progress.group_end = end;
                    for step in from..end {
                        self.step_waits(id, step);
                    }
                }
                Next::Start(step) => {
                    task.progress.next_step = step + 1;
                    task.progress.active.insert(step);
                    self.start_step(id, step);
                }
                Next::Skip(step, why) => {
                    task.progress.next_step = step + 1;
                    self.end_step(id, step, RunState::Skipped, Some(why));
                }
                Next::Finish(state) => {
                    self.finish_task(id, state);
                    return;
                }
            }
        }
        self.fill_windows(id);
    }

    fn step_waits(&mut self, id: TaskId, index: u32) {
        if let Some(task) = self.state.tasks.get_mut(&id)
            && let Some(step) = task.progress.steps.get_mut(index as usize)
        {
            step.state = RunState::Waiting;
            self.touch(Subject::Step(id, index));
        }
    }

    fn acquire(&mut self, id: TaskId, places: Vec<Option<MachineName>>) {
        let Some(task) = self.state.tasks.get_mut(&id) else {
            return;
        };
        task.progress.packages = Packages::Acquiring { places: places.len(), open: places.clone(), stopping: false };
        self.say(Decision::Acquire {
            task: id,
            server: places.contains(&None),
            machines: places.into_iter().flatten().collect(),
        });
        self.touch_waiting_steps(id);
        self.activity_changed(id);
    }

    fn touch_waiting_steps(&mut self, id: TaskId) {
        let steps = self.state.tasks.get(&id).map(|task| task.progress.next_step..task.progress.group_end);
        for step in steps.unwrap_or_default() {
            self.touch(Subject::Step(id, step));
        }
    }

    /// A place has its packages, or will not get them.
    pub fn packages(&mut self, id: TaskId, machine: Option<MachineName>, error: Option<String>) {
        let Some(task) = self.state.tasks.get_mut(&id) else {
            return;
        };
        let cancelling = task.progress.state == TaskState::Cancelling;
        let Packages::Acquiring { open, stopping, .. } = &mut task.progress.packages else {
            return;
        };
        let before = open.len();
        open.retain(|place| *place != machine);
        if open.len() == before {
            return;
        }
        let done = open.is_empty();
        let all = error.is_none() && !*stopping;
        let stop = error.is_some() && !done && !std::mem::replace(stopping, true);
        if let Some(error) = error.filter(|_| !cancelling) {
            let place = machine.map_or_else(|| "the server".to_owned(), |name| name.to_string());
            task.progress.error.get_or_insert_with(|| format!("packages did not reach {place}: {error}"));
        }
        if done {
            task.progress.packages = if all { Packages::Acquired } else { Packages::Failed };
            self.ready(id);
            self.activity_changed(id);
        }
        self.changed(id);
        if stop {
            self.say(Decision::StopAcquire { task: id });
        }
        self.touch_waiting_steps(id);
    }

    /// Ends a step that ran or never will.
    pub fn end_step(&mut self, id: TaskId, index: u32, state: RunState, why: Option<String>) {
        let Some(task) = self.state.tasks.get_mut(&id) else {
            return;
        };
        let Some(step) = task.progress.steps.get_mut(index as usize) else {
            return;
        };
        step.state = state;
        step.reason = None;
        self.step_state(id, index, state, why);
    }

    /// A cancel: what has not started never will.
    pub fn drop_steps(&mut self, id: TaskId) {
        let Some(task) = self.state.tasks.get_mut(&id) else {
            return;
        };
        let steps = task.plan.steps.len() as u32;
        let waiting = std::mem::replace(&mut task.progress.next_step, steps)..steps;
        task.progress.group_end = steps;
        for step in task.progress.active.clone() {
            self.drop_runs(id, step, RunState::Cancelled, "the task was cancelled");
            self.close_window(id, step);
        }
        for step in waiting {
            self.end_step(id, step, RunState::Skipped, Some("the task was cancelled".to_owned()));
        }
    }
}

fn next(task: &Task, steps_at_once: u32) -> Next {
    let progress = &task.progress;
    let acquiring = matches!(progress.packages, Packages::Acquiring { .. });
    match progress.state {
        TaskState::Executing => {}
        TaskState::Cancelling if progress.active.is_empty() && !acquiring => {
            return Next::Finish(TaskState::Cancelled);
        }
        _ => return Next::Wait,
    }
    if progress.next_step == progress.group_end {
        return match group_end(&task.plan, progress.group_end) {
            _ if !progress.active.is_empty() => Next::Wait,
            None if progress.error.is_some() => Next::Finish(TaskState::Failed),
            None => Next::Finish(TaskState::Succeeded),
            Some(end) => Next::OpenGroup(end),
        };
    }
    if acquiring {
        return Next::Wait;
    }
    let Some(step) = task.plan.steps.get(progress.next_step as usize) else {
        return Next::Wait;
    };
    if let Some(why) = skipped(step, progress) {
        return Next::Skip(progress.next_step, why);
    }
    if progress.packages == Packages::NotNeeded && group_needs_packages(&task.plan, progress) {
        return Next::Acquire(places(&task.plan, progress));
    }
    if progress.active.len() >= steps_at_once as usize {
        return Next::Wait;
    }
    Next::Start(progress.next_step)
}

/// Where the group that starts at `from` ends. None: there is no such group.
fn group_end(plan: &TaskPlan, from: u32) -> Option<u32> {
    let rest = plan.steps.get(from as usize..)?;
    let (_, others) = rest.split_first()?;
    let with = others.iter().take_while(|step| step.start == StartTrigger::WithPrevious);
    Some(from + 1 + with.count() as u32)
}

/// Why a step that has its turn does not run. None: it runs.
fn skipped(step: &StepPlan, progress: &Progress) -> Option<String> {
    let failed = progress.error.is_some();
    if let Some(why) = &step.skip {
        return Some(why.clone());
    }
    if step.runs() == 0 {
        return Some("no machine matches".to_owned());
    }
    let missing = progress.packages == Packages::Failed;
    match step.condition {
        RunCondition::Success if failed && !missing => Some("an earlier step failed".to_owned()),
        RunCondition::Failure if !failed => Some("no earlier step failed".to_owned()),
        condition => (missing && (step.needs_packages || condition == RunCondition::Success))
            .then(|| "the packages did not reach all machines".to_owned()),
    }
}

/// Whether a step of the open group that will run needs packages.
fn group_needs_packages(plan: &TaskPlan, progress: &Progress) -> bool {
    let group = plan.steps.get(progress.next_step as usize..progress.group_end as usize);
    group.unwrap_or_default().iter().any(|step| step.needs_packages && skipped(step, progress).is_none())
}

/// Everywhere that packages of this and later groups go, each place once, in the order of the plan.
fn places(plan: &TaskPlan, progress: &Progress) -> Vec<Option<MachineName>> {
    let rest = plan.steps.get(progress.next_step as usize..).unwrap_or_default();
    let mut seen = BTreeSet::new();
    rest.iter()
        .filter(|step| step.needs_packages && step.skip.is_none())
        .flat_map(|step| (0..step.runs()).map(|place| step.machine(place).cloned()))
        .filter(|place| seen.insert(place.clone()))
        .collect()
}
