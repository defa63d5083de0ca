//! What was said already: an error is told where it first appears, and once more in the closing summary.
//!
//! The server tells the same error at every level it passes: a line of the run's log, the run, its step, the task. Each
//! is right for a program that asks at that level; a person who reads all of them should meet it once.

use windlass_model::task::{LogLevel, RunView};

use super::{View, place};

impl View {
    /// Whether a log told this error of a run: its own, or that of the whole step with the machine's name in front.
    pub(super) fn said_in_log(&self, run: &RunView, error: &str) -> bool {
        let step = run.node.rsplit_once('/').map_or("", |(step, _)| step);
        let said = format!("{}: {error}", place(run));
        self.said_in_own_log(run, error) || self.tells(step, &said)
    }

    /// Whether a run's own log told its error.
    pub(super) fn said_in_own_log(&self, run: &RunView, error: &str) -> bool {
        self.tells(&run.node, error)
    }

    fn tells(&self, node: &str, error: &str) -> bool {
        let first = error.lines().next().unwrap_or_default();
        self.tail(node).any(|line| line.level == LogLevel::Error && line.text.starts_with(first))
    }

    /// Whether a step's or the task's error only repeats how a run ended: `step web/web1 failed: exit code 3`.
    pub(super) fn said_by_run(&self, text: &str) -> bool {
        let mut runs = self.steps().flat_map(|step| &step.runs).filter(|run| run.state.is_final());
        runs.any(|run| match run.error.as_deref().filter(|error| !error.is_empty()) {
            Some(error) => text.ends_with(error),
            None => text.strip_prefix("step ").is_some_and(|rest| rest.starts_with(&format!("{} ", run.node))),
        })
    }
}
