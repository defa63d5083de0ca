//! One commit in the making: events are taken in, and what follows from them is noted.

use std::{collections::BTreeSet, sync::Arc};

use tokio::sync::oneshot;
use windlass_model::{
    MachineName, RunId, RunState, TaskId, TaskKind,
    task::{TaskChange, TaskDetail},
};
use windlass_scheduler::{About, Answer, Choice, Decision, Event, RunKey, Where};
use windlass_store::{Batch, Key, StoreError};

use super::{Driver, Look};
use crate::{
    board::{Live, node_of},
    points::Points,
    records::{
        COUNTERS, EVENTS, MACHINE_TASKS, OUTPUTS, RUNS, STEPS, StoredEvent, StoredOutput, StoredValue, TASKS, run_key,
    },
};

/// One commit in the making.
#[derive(Default)]
pub(super) struct Turn {
    pub batch: Batch,
    pub changes: Vec<(TaskId, u64, TaskChange)>,
    pub inserted: Vec<TaskId>,
    /// What steps put out, and not one of their runs.
    pub outputs: Vec<(TaskId, StoredOutput)>,
    pub acts: Vec<Decision>,
    pub finished: Vec<TaskId>,
    pub done: Vec<oneshot::Sender<()>>,
    /// Looks at the state as it is afterwards.
    pub looks: Vec<Look>,
    /// Somebody waits for it, though nothing follows from it.
    pub urgent: bool,
    pub points: Points,
}

impl Turn {
    /// Whether anybody, or anything that follows from it, waits for its commit.
    pub(super) fn is_awaited(&self) -> bool {
        let follows = !self.acts.is_empty() || !self.outputs.is_empty() || !self.finished.is_empty();
        self.urgent || follows || !self.inserted.is_empty() || !self.looks.is_empty()
    }
}

impl Driver {
    pub(super) fn insert(&mut self, turn: &mut Turn, view: TaskDetail) -> Result<(), StoreError> {
        let task = view.summary.id;
        let live = Live::from(view);
        TASKS.put(&mut turn.batch, task.0, &live.summary)?;
        COUNTERS.put(&mut turn.batch, "task", &task.0)?;
        let mut machines = BTreeSet::new();
        for (number, step) in live.numbered_steps() {
            STEPS.put(&mut turn.batch, Key::of_id(task.0).id(number), &step.view)?;
            for (place, run) in step.runs.iter().enumerate() {
                RUNS.put(&mut turn.batch, Key::of_id(task.0).id(number).id(place as u64), &run.view)?;
                machines.extend(run.view.machine.iter().map(windlass_model::MachineName::key));
            }
        }
        for machine in machines {
            MACHINE_TASKS.put(&mut turn.batch, Key::of_text(&machine).id(task.0), &())?;
        }
        self.ahead.insert(live);
        turn.inserted.push(task);
        Ok(())
    }

    pub(super) fn take(&mut self, turn: &mut Turn, event: Event) -> Result<(), StoreError> {
        let now = self.shared.clock.now_ms();
        self.number += 1;
        turn.points.add(&self.state, &event);
        let stored = StoredEvent { at_ms: now, event: event.clone() };
        let parts = EVENTS.put(&mut turn.batch, Key::of_id(self.number), &stored)?;
        self.since.push((self.number, parts));
        self.tell_packages(turn, now, &event)?;
        let queued = if let Event::TaskQueued { task, .. } = &event { Some(*task) } else { None };
        let decisions = self.state.next(now, event);
        if let Some(task) = queued
            && let Some((plan, _)) = self.state.task(task)
        {
            self.plans.insert(task, Arc::clone(plan));
        }
        for decision in decisions {
            self.follow(turn, now, decision)?;
        }
        Ok(())
    }

    /// Notes what follows from one decision.
    fn follow(&mut self, turn: &mut Turn, now: u64, decision: Decision) -> Result<(), StoreError> {
        match &decision {
            Decision::RunState { run, state: RunState::Succeeded, .. } => {
                if let Some(node) = self.plans.get(&run.task).and_then(|plan| node_of(plan, *run)) {
                    self.learn(turn, run.task, now, &node)?;
                }
            }
            Decision::StartRun { run, machine: Some(machine), attempt, .. } => {
                self.note_worker(turn, now, *run, machine, *attempt)?;
            }
            Decision::QuestionOver { task, question, answer } => {
                let approval = self.approvals.get(question).copied();
                if let (Some((_, step)), Some(answer)) = (approval, answer) {
                    self.put_answer(turn, *task, step, answer)?;
                }
            }
            _ => {}
        }
        self.note_question(&decision);
        self.keep_resume(turn, &decision)?;
        self.tell(turn, now, &decision);
        match decision {
            Decision::TaskFinished { task, .. } => {
                self.plans.remove(&task);
                turn.finished.push(task);
            }
            Decision::TaskState { .. }
            | Decision::StepState { .. }
            | Decision::RunState { .. }
            | Decision::Retry { .. }
            | Decision::Waiting { .. } => {}
            act => turn.acts.push(act),
        }
        Ok(())
    }

    /// Remembers which step a question belongs to, for as long as it is open.
    pub(super) fn note_question(&mut self, decision: &Decision) {
        match decision {
            Decision::Ask { task, question } => {
                if let About::Approval(step) = question.about {
                    self.approvals.insert(question.number, (*task, step));
                }
            }
            Decision::QuestionOver { question, .. } => {
                self.approvals.remove(question);
            }
            _ => {}
        }
    }

    /// An agreement or a refusal is an output of its step.
    fn put_answer(&mut self, turn: &mut Turn, task: TaskId, step: u32, answer: &Answer) -> Result<(), StoreError> {
        let Some(name) = self.plans.get(&task).and_then(|plan| Some(plan.steps.get(step as usize)?.name.clone()))
        else {
            return Ok(());
        };
        let approved = (answer.choice == Choice::Proceed).to_string();
        let values = [("Approved", approved), ("Notes", answer.notes.clone()), ("Responsible", answer.by.clone())];
        for (output, value) in values {
            let value = StoredValue::Text(value);
            let stored = StoredOutput { step: name.to_string(), machine: None, name: output.to_owned(), value };
            // Behind the places that a step can have: it is the step as a whole that was agreed to.
            OUTPUTS.put(&mut turn.batch, run_key(task, step, u32::MAX).text(&output.to_lowercase()), &stored)?;
            turn.outputs.push((task, stored));
        }
        Ok(())
    }

    /// Tells which worker of its pool a run has.
    fn note_worker(
        &mut self,
        turn: &mut Turn,
        now: u64,
        run: RunKey,
        machine: &MachineName,
        attempt: u32,
    ) -> Result<(), StoreError> {
        let Some(plan) = self.plans.get(&run.task) else {
            return Ok(());
        };
        let pool = plan.steps.get(run.step as usize).is_some_and(|step| matches!(step.place, Where::Pool(_)));
        let (true, Some(node)) = (pool, node_of(plan, run)) else {
            return Ok(());
        };
        let id = RunId::new(run.task, run.step as usize, Some(machine), attempt);
        self.note(turn, run.task, now, TaskChange::Worker { node, machine: machine.clone(), run: id });
        MACHINE_TASKS.put(&mut turn.batch, Key::of_text(&machine.key()).id(run.task.0), &())
    }

    /// Learns how long a step, or bringing its packages, takes on a machine, for plans.
    pub(super) fn learn(&self, turn: &mut Turn, task: TaskId, now: u64, node: &str) -> Result<(), StoreError> {
        let Some(detail) = self.ahead.get(task) else {
            return Ok(());
        };
        let TaskKind::Deployment { project, .. } = &detail.summary.what else {
            return Ok(());
        };
        let mut runs = detail.all_steps().flat_map(|step| &step.runs).map(|run| &run.view);
        let Some(started) = runs.find(|run| run.node == node).and_then(|run| run.started_ms) else {
            return Ok(());
        };
        self.shared.history.note(&mut turn.batch, project.as_str(), node, now.saturating_sub(started))
    }
}
