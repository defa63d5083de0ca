//! Names of the scheduler's failpoints: around the commit of each kind of event, for each run or machine.

use windlass_scheduler::{Event, State};
use windlass_store::failpoint;

use crate::board::node_of;

/// The points of one commit.
#[derive(Default)]
pub struct Points(Vec<String>);

impl Points {
    /// Adds those of an event that the scheduler is about to take in.
    pub fn add(&mut self, state: &State, event: &Event) {
        if failpoint::are_armed() {
            self.0.push(name(state, event));
        }
    }

    /// Passes them.
    pub fn pass(&self, moment: &str) {
        for point in &self.0 {
            failpoint::pass(|| format!("scheduler/{point}/{moment}"));
        }
    }
}

/// What happened, and to whom.
fn name(state: &State, event: &Event) -> String {
    let kind = format!("{event:?}");
    let kind = kind.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
    let run = match event {
        Event::RunFinished { run, .. } | Event::RunWaits { run, .. } | Event::RunReady { run } => Some(*run),
        Event::LockAsked { request, .. } | Event::LockReleased { request } => Some(request.run),
        _ => None,
    };
    let about = match (event, run) {
        (Event::TaskQueued { plan, .. }, _) => plan.title.clone(),
        (Event::PackagesAcquired { machine: Some(machine), .. }, _) => machine.to_string(),
        (_, Some(run)) => state.task(run.task).and_then(|(plan, _)| node_of(plan, run)).unwrap_or_default(),
        _ => String::new(),
    };
    format!("{kind} {about}")
}
