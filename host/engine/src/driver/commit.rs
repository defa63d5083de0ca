//! Making a turn durable, and only then showing, doing and acknowledging what is in it.

use std::{collections::BTreeSet, sync::PoisonError};

use windlass_model::task::TaskChange;
use windlass_scheduler::Decision;
use windlass_store::{Key, StoreError};

use super::{Driver, turn::Turn};
use crate::{
    board::Node,
    records::{RUNS, STEPS, TASKS},
    scheduling,
};

/// Events after which the state is stored as a whole.
const SNAPSHOT_EVERY: usize = 512;
/// The same with many tasks: these are removed in one commit.
const SNAPSHOT_LATEST: usize = 2048;

impl Driver {
    /// Stores the turn, then shows, acts and acknowledges.
    pub(super) async fn finish(&mut self, mut turn: Turn) -> Result<(), StoreError> {
        self.put_views(&mut turn)?;
        // The more there is to store, the more seldom.
        if self.since.len() >= SNAPSHOT_EVERY.max(self.ahead.count().min(SNAPSHOT_LATEST)) {
            self.put_snapshot(&mut turn).await?;
        }
        turn.points.pass("before");
        if !turn.batch.is_empty() {
            self.shared.store.commit(std::mem::take(&mut turn.batch)).await?;
        }
        turn.points.pass("committed");
        {
            let mut board = self.shared.board.write().unwrap_or_else(PoisonError::into_inner);
            for task in turn.inserted {
                board.adopt(&self.ahead, task, None);
            }
            for (task, _, change) in &turn.changes {
                board.adopt(&self.ahead, *task, Some(change));
            }
        }
        let tasks_changed = turn.changes.iter().any(|(_, _, change)| matches!(change, TaskChange::Task { .. }));
        for (task, at_ms, change) in turn.changes {
            self.shared.hub.publish(task, at_ms, change);
        }
        for (task, output) in turn.outputs {
            self.actor.put_out(task, output);
        }
        for act in turn.acts {
            self.act(act);
        }
        // Whoever asked may have gone away. What their event decided is done: a run need not wait for it.
        for done in turn.done {
            let _ = done.send(());
        }
        for task in turn.finished {
            self.ahead.remove(task);
            self.shared.board.write().unwrap_or_else(PoisonError::into_inner).remove(task);
            self.actor.finished(task);
        }
        if tasks_changed {
            self.shared.generation.send_modify(|generation| *generation += 1);
        }
        Ok(())
    }

    /// Keeps the list of what people are asked.
    pub(super) fn show_question(&self, decision: &Decision) {
        let questions = || self.shared.questions.write().unwrap_or_else(PoisonError::into_inner);
        match decision {
            Decision::Ask { task, question } => {
                if let Some(plan) = self.plans.get(task) {
                    questions().insert(question.number, scheduling::question(*task, plan, question));
                }
            }
            Decision::QuestionOver { question, .. } => {
                questions().remove(question);
            }
            _ => {}
        }
    }

    /// Writes every view that this turn changed, once.
    fn put_views(&self, turn: &mut Turn) -> Result<(), StoreError> {
        let mut seen = BTreeSet::new();
        for (task, _, change) in &turn.changes {
            let node = match change {
                TaskChange::Task { .. } => "",
                TaskChange::Step { node, .. } | TaskChange::Run { node, .. } | TaskChange::Worker { node, .. } => node,
                TaskChange::Log { .. } => continue,
            };
            if !seen.insert((*task, node.to_owned())) {
                continue;
            }
            let Some(detail) = self.ahead.get(*task) else {
                continue;
            };
            if node.is_empty() {
                TASKS.put(&mut turn.batch, task.0, &detail.summary)?;
                continue;
            }
            match detail.node(node) {
                Some(Node::Step(number, step)) => {
                    STEPS.put(&mut turn.batch, Key::of_id(task.0).id(number), &step.view)?;
                }
                Some(Node::Run(number, place, run)) => {
                    RUNS.put(&mut turn.batch, Key::of_id(task.0).id(number).id(place), &run.view)?;
                }
                None => {}
            }
        }
        Ok(())
    }
}
