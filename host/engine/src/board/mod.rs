//! The tasks that are not over, as people see them.
//!
//! The driver keeps one board ahead of the store to know what to write, and publishes to a second one once that is
//! durable: nobody is shown what a power cut could take back. What both say is in memory once. Finished tasks live in
//! the store alone.

mod first;
mod live;

use std::collections::BTreeMap;

use windlass_model::{TaskId, task::TaskChange};

pub use first::{first_view, node_of, packages_node};
pub use live::{Live, Node};

/// Live tasks by number.
#[derive(Debug, Default, Clone)]
pub struct Board(BTreeMap<TaskId, Box<Live>>);

impl Board {
    /// Adds a task.
    pub fn insert(&mut self, task: impl Into<Live>) {
        let live: Live = task.into();
        self.0.insert(live.summary.id, Box::new(live));
    }

    /// Forgets a task.
    pub fn remove(&mut self, task: TaskId) {
        self.0.remove(&task);
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// A task.
    #[must_use]
    pub fn get(&self, task: TaskId) -> Option<&Live> {
        self.0.get(&task).map(|live| &**live)
    }

    /// All tasks, newest first.
    pub fn newest_first(&self) -> impl Iterator<Item = &Live> {
        self.0.values().rev().map(|live| &**live)
    }

    /// Applies one change. Returns whether it changed anything.
    pub fn apply(&mut self, task: TaskId, at_ms: u64, change: &TaskChange) -> bool {
        self.0.get_mut(&task).is_some_and(|live| live.apply(at_ms, change))
    }

    /// Takes over from another board what it says of a task, if there is something new: the whole task where it is
    /// not known here.
    pub fn adopt(&mut self, from: &Self, task: TaskId, change: Option<&TaskChange>) {
        let Some(new) = from.0.get(&task) else { return };
        match (self.0.get_mut(&task), change) {
            (Some(own), Some(change)) => own.adopt(new, change),
            _ => drop(self.0.insert(task, new.clone())),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::sync::Arc;

    use windlass_model::{
        MachineName, RunId, RunState, TaskKind, TaskState,
        task::{Progress, Reason},
    };
    use windlass_scheduler::{StepPlan, TaskPlan, Where};

    use super::*;

    const TASK: TaskId = TaskId(1);

    fn machine(name: &str) -> MachineName {
        name.parse().unwrap()
    }

    /// A task with packages for two machines, a step on them, and one on a pool.
    fn board() -> Board {
        let mut web = StepPlan::new("web".parse().unwrap(), Where::Machines(vec![machine("web1"), machine("web2")]));
        web.needs_packages = true;
        let database = StepPlan::new("database".parse().unwrap(), Where::Pool("workers".parse().unwrap()));
        let plan = TaskPlan::deployment("deploy", "shop/test", vec![web, database]);
        let what = TaskKind::Script { name: "any".to_owned(), sha256: String::new(), arguments: BTreeMap::default() };
        let mut board = Board::default();
        board.insert(first_view(TASK, what, &plan, &[], 1));
        board
    }

    fn run(node: &str, state: RunState, reason: Option<&str>, progress: Option<u64>) -> TaskChange {
        let reason = reason.map(|kind| Reason::new(kind, kind, 5));
        let progress = progress.map(|done| Progress { done, total: 9, note: String::new() });
        TaskChange::Run { node: node.to_owned(), state, reason, error: None, progress }
    }

    fn changes() -> Vec<TaskChange> {
        let step = |node: &str, state| TaskChange::Step { node: node.to_owned(), state, reason: None };
        let (id, worker) = (RunId::new(TASK, 1, Some(&machine("db2")), 1), machine("db2"));
        vec![
            TaskChange::Task {
                state: TaskState::Executing,
                reason: Some(Reason::new("sleep", "sleeps", 3)),
                error: None,
            },
            step("@packages", RunState::Running),
            run("@packages/web2", RunState::Succeeded, None, None),
            step("web", RunState::Running),
            run("web/web1", RunState::Running, None, None),
            run("web/web1", RunState::Running, Some("sleep"), None),
            TaskChange::Worker { node: "database/workers".to_owned(), machine: worker, run: id },
            run("database/workers", RunState::Running, None, None),
            run("web/web1", RunState::Failed, None, None),
            run("web/web3", RunState::Running, None, None),
            step("other", RunState::Running),
            TaskChange::Task { state: TaskState::Failed, reason: None, error: Some("web failed".to_owned()) },
        ]
    }

    #[test]
    fn what_one_board_takes_over_from_another_is_what_it_would_have_applied_itself() {
        let (mut ahead, mut shown, mut alone) = (board(), Board::default(), board());
        shown.adopt(&ahead, TASK, None);
        for (at, change) in changes().into_iter().enumerate() {
            let changed = ahead.apply(TASK, at as u64, &change);
            assert_eq!(changed, alone.apply(TASK, at as u64, &change));
            assert!(!ahead.apply(TASK, at as u64 + 100, &change), "twice is once: {change:?}");
            shown.adopt(&ahead, TASK, Some(&change));
            assert_eq!(shown.get(TASK).map(Live::detail), alone.get(TASK).map(Live::detail), "{change:?}");
        }
    }

    #[test]
    fn boards_that_agree_have_it_in_memory_once_and_progress_stays_with_who_shows_it() {
        let (mut ahead, mut shown) = (board(), Board::default());
        shown.adopt(&ahead, TASK, None);
        let sleeps = run("web/web1", RunState::Running, Some("sleep"), None);
        for change in [run("web/web1", RunState::Running, None, None), sleeps] {
            ahead.apply(TASK, 7, &change);
            shown.adopt(&ahead, TASK, Some(&change));
            shown.apply(TASK, 8, &run("web/web2", RunState::Pending, None, Some(4)));
        }
        let (ahead, shown) = (ahead.get(TASK).unwrap(), shown.get(TASK).unwrap());
        assert!(Arc::ptr_eq(&ahead.summary, &shown.summary));
        for (one, other) in ahead.all_steps().zip(shown.all_steps()) {
            assert!(Arc::ptr_eq(&one.view, &other.view));
            for (one, other) in one.runs.iter().zip(&other.runs) {
                assert!(Arc::ptr_eq(&one.view, &other.view), "{}", one.view.node);
            }
        }
        let done = |live: &Live| live.detail().steps[0].runs[1].progress.as_ref().map(|progress| progress.done);
        assert_eq!((done(ahead), done(shown)), (None, Some(4)));
    }
}
