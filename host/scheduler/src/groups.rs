//! Inside a deployment: groups of steps, conditions, facts, approvals, and how a task ends.
//!
//! A step that starts *after previous* and the *with previous* steps below it form a group. A group starts
//! once the one before it has ended. If one of its steps needs packages and they were not acquired yet,
//! all packages of all later steps are brought to all their machines first. A step together with its child
//! steps is a *unit*; the first of them leads it.

use windlass_model::{RunCondition, RunState, StartTrigger, TaskId, TaskState};

use crate::{
    decision::Decision,
    event::Subject,
    plan::{Settings, TaskPlan},
    progress::{Packages, Progress, RunProgress},
    question::About,
    state::Task,
    step::StepPlan,
    turn::Turn,
};

/// What a task does next.
enum Next {
    /// Nothing until something ends.
    Wait,
    /// Wait for its concurrency tag.
    Turn,
    /// Bring packages.
    Acquire,
    /// Open the group that ends before this step.
    OpenGroup(u32),
    /// Ask for the facts of a unit.
    AskFacts(u32),
    /// Ask a person for the approval of a unit.
    Approve(u32),
    /// Start a unit.
    Start(u32),
    /// Pass over a unit.
    Skip(u32, String),
    /// End.
    Finish(TaskState),
}

impl Turn<'_> {
    /// Lets a task go on as far as it can.
    pub fn advance(&mut self, id: TaskId) {
        loop {
            let Some(task) = self.state.tasks.get(&id) else {
                return;
            };
            match next(task, &self.state.settings) {
                Next::Wait => break,
                Next::Turn => {
                    self.seat(id);
                    return;
                }
                Next::Acquire => {
                    self.acquire(id);
                    break;
                }
                Next::OpenGroup(end) => self.open_group(id, end),
                Next::AskFacts(lead) => self.ask_facts(id, lead),
                Next::Approve(lead) => self.ask_approval(id, lead),
                Next::Start(lead) => {
                    if let Some(task) = self.task(id) {
                        task.progress.todo.remove(&lead);
                        task.progress.active.insert(lead);
                    }
                    self.start_unit(id, lead);
                }
                Next::Skip(lead, why) => self.skip_unit(id, lead, &why),
                Next::Finish(state) => return self.finish_task(id, state, None),
            }
        }
        self.fill_windows(id);
        self.idles(id);
    }

    fn open_group(&mut self, id: TaskId, end: u32) {
        let Some(task) = self.task(id) else {
            return;
        };
        let from = task.progress.group_end;
        let leads: Vec<_> =
            (from..end).filter(|step| !task.plan.steps.get(*step as usize).is_some_and(|step| step.child)).collect();
        // A child without a parent leads itself.
        task.progress.todo = leads.into_iter().chain([from]).collect();
        task.progress.group_end = end;
        for step in from..end {
            if let Some(progress) = task.progress.steps.get_mut(step as usize) {
                progress.state = RunState::Waiting;
            }
        }
        for step in from..end {
            self.touch(Subject::Step(id, step));
        }
    }

    fn skip_unit(&mut self, id: TaskId, lead: u32, why: &str) {
        let Some(task) = self.task(id) else {
            return;
        };
        task.progress.todo.remove(&lead);
        let end = task.plan.unit_end(lead);
        self.drop_questions(id, |question| question.about == About::Approval(lead));
        for step in lead..end {
            self.end_step(id, step, RunState::Skipped, Some(why.to_owned()));
        }
    }

    fn ask_facts(&mut self, id: TaskId, lead: u32) {
        let Some(task) = self.task(id) else {
            return;
        };
        let end = task.plan.unit_end(lead);
        for step in lead..end {
            let asks =
                self.state.tasks.get(&id).and_then(|task| task.step_plan(step)).is_some_and(|plan| plan.asks_fact);
            let Some(progress) = self.task(id).and_then(|task| task.progress.steps.get_mut(step as usize)) else {
                continue;
            };
            if asks && !std::mem::replace(&mut progress.asked, true) {
                self.say(Decision::AskFact { task: id, step });
            }
            self.touch(Subject::Step(id, step));
        }
    }

    pub fn fact_given(&mut self, id: TaskId, step: u32, holds: bool) {
        let Some(progress) = self.task(id).and_then(|task| task.progress.steps.get_mut(step as usize)) else {
            return;
        };
        if progress.asked && progress.fact.is_none() {
            progress.fact = Some(holds);
            self.ready(id);
            self.touch_unit(id, step);
        }
    }

    /// What the steps of a unit wait for may be something else now.
    pub fn touch_unit(&mut self, id: TaskId, step: u32) {
        let Some(task) = self.state.tasks.get(&id) else {
            return;
        };
        let lead = task.plan.lead(step);
        for step in lead..task.plan.unit_end(lead) {
            self.touch(Subject::Step(id, step));
        }
    }

    /// Starts a unit: its machines get their turn as the window allows.
    fn start_unit(&mut self, id: TaskId, lead: u32) {
        let Some(task) = self.task(id) else {
            return;
        };
        let (plan, end) = (std::sync::Arc::clone(&task.plan), task.plan.unit_end(lead));
        let places = plan.steps.get(lead as usize).map_or(0, StepPlan::runs);
        for step in lead..end {
            if let Some(progress) = task.progress.steps.get_mut(step as usize) {
                progress.runs = std::mem::take(&mut task.spare);
                progress.runs.reserve_exact(places);
                progress.runs.resize_with(places, RunProgress::pending);
            }
        }
        self.step_starts(id, lead);
        for step in lead + 1..end {
            let off = self.state.tasks.get(&id).and_then(|task| {
                let off = || "its condition does not hold".to_owned();
                let plan = task.step_plan(step)?;
                plan.skip.clone().or_else(|| (task.step(step)?.fact == Some(false)).then(off))
            });
            if let Some(why) = off {
                self.skip_child(id, step, &why);
            } else {
                self.touch(Subject::Step(id, step));
            }
        }
        for place in 0..places as u32 {
            self.touch(Subject::Run(crate::event::RunKey { task: id, step: lead, place }));
        }
    }

    /// Notes that the first run of a step has its turn.
    pub fn step_starts(&mut self, id: TaskId, step: u32) {
        let Some(progress) = self.task(id).and_then(|task| task.progress.steps.get_mut(step as usize)) else {
            return;
        };
        if matches!(progress.state, RunState::Pending | RunState::Waiting) {
            progress.state = RunState::Running;
            progress.told = None;
            self.step_state(id, step, RunState::Running, None);
        }
    }

    /// Ends a step that ran or never will. What it held as a step is given back.
    pub fn end_step(&mut self, id: TaskId, index: u32, state: RunState, why: Option<String>) {
        let Some(step) = self.task(id).and_then(|task| task.progress.steps.get_mut(index as usize)) else {
            return;
        };
        step.state = state;
        step.told = None;
        step.settled = step.runs.len() as u32;
        self.step_state(id, index, state, why);
        self.release_group(id, Some(index));
    }

    /// A cancel: what has not started never will.
    pub fn drop_steps(&mut self, id: TaskId) {
        let Some(task) = self.task(id) else {
            return;
        };
        let steps = task.plan.steps.len() as u32;
        task.progress.todo.clear();
        task.progress.group_end = steps;
        for lead in task.progress.active.clone() {
            self.close_window(id, lead, RunState::Cancelled, "the task was cancelled");
        }
        for step in 0..steps {
            let state = self
                .state
                .tasks
                .get(&id)
                .and_then(|task| task.step(step))
                .map(|step| (step.state, step.runs.is_empty()));
            if matches!(state, Some((RunState::Pending | RunState::Waiting, true))) {
                self.end_step(id, step, RunState::Skipped, Some("the task was cancelled".to_owned()));
            }
        }
    }
}

fn next(task: &Task, settings: &Settings) -> Next {
    let progress = &task.progress;
    let acquiring = matches!(progress.packages, Packages::Acquiring(_));
    match progress.state {
        TaskState::Executing => {}
        TaskState::Cancelling if progress.active.is_empty() && !acquiring => {
            return Next::Finish(TaskState::Cancelled);
        }
        _ => return Next::Wait,
    }
    if progress.todo.is_empty() {
        return match group_end(&task.plan, progress.group_end) {
            _ if !progress.active.is_empty() => Next::Wait,
            None if progress.error.is_some() => Next::Finish(TaskState::Failed),
            None => Next::Finish(TaskState::Succeeded),
            Some(_) if !task.has_turn() => Next::Turn,
            Some(end) => Next::OpenGroup(end),
        };
    }
    if acquiring {
        return Next::Wait;
    }
    for lead in &progress.todo {
        match look(task, *lead, settings) {
            Next::Wait => {}
            other if !task.has_turn() && !matches!(other, Next::Approve(_) | Next::AskFacts(_)) => return Next::Turn,
            other => return other,
        }
    }
    Next::Wait
}

/// What a unit of the open group is ready for.
fn look(task: &Task, lead: u32, settings: &Settings) -> Next {
    let progress = &task.progress;
    let end = task.plan.unit_end(lead);
    let Some(plan) = task.step_plan(lead) else {
        return Next::Wait;
    };
    if let Some(why) = skipped(plan, progress) {
        return Next::Skip(lead, why);
    }
    let mut known = true;
    for step in lead..end {
        if let (Some(plan), Some(step)) = (task.step_plan(step), task.step(step))
            && plan.asks_fact
            && step.fact.is_none()
        {
            if !step.asked {
                return Next::AskFacts(lead);
            }
            known = false;
        }
    }
    if !known {
        return Next::Wait;
    }
    let step = task.step(lead);
    if step.is_some_and(|step| step.fact == Some(false)) {
        return Next::Skip(lead, "its condition does not hold".to_owned());
    }
    if plan.approval.is_some() && !step.is_some_and(|step| step.approved) {
        let asked = progress.questions.values().any(|question| question.about == About::Approval(lead));
        return if asked { Next::Wait } else { Next::Approve(lead) };
    }
    if progress.packages == Packages::NotNeeded && group_needs_packages(task) {
        return Next::Acquire;
    }
    if progress.active.len() >= task.plan.steps_at_once(settings) {
        return Next::Wait;
    }
    Next::Start(lead)
}

/// Where the group that starts at `from` ends. None: there is no such group.
fn group_end(plan: &TaskPlan, from: u32) -> Option<u32> {
    let rest = plan.steps.get(from as usize..)?;
    let (_, others) = rest.split_first()?;
    let with = others.iter().take_while(|step| step.child || step.start == StartTrigger::WithPrevious);
    Some(from + 1 + with.count() as u32)
}

/// Why a unit that has its turn does not run. None: it runs.
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

/// Whether a unit of the open group that will run needs packages.
fn group_needs_packages(task: &Task) -> bool {
    let needs = |lead: &u32| {
        let unit = task.plan.steps.get(*lead as usize..task.plan.unit_end(*lead) as usize).unwrap_or_default();
        let runs = unit.first().is_some_and(|lead| skipped(lead, &task.progress).is_none());
        runs && unit.iter().any(|step| step.needs_packages && step.skip.is_none())
    };
    task.progress.todo.iter().any(needs)
}
