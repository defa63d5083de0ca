//! Runs that wait until no task is in a state that it may leave without ending: only a look can tell.
//!
//! Looked at when a task changes, never by the clock. After a restart such a run is started again, and watches anew.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use windlass_model::task::TaskQuery;
use windlass_scheduler::{Event, RunKey};

use crate::{services::Services, tasks};

/// What is watched, by the run that waits for it.
#[derive(Default)]
pub struct Watches(Mutex<HashMap<RunKey, TaskQuery>>);

impl Watches {
    /// Watches for a run that is suspended until no live task matches any more; the run is then ready.
    pub async fn add(&self, services: &Services, run: RunKey, query: TaskQuery) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(run, query);
        // What changed before it was watched wakes nobody.
        for run in self.take_over(services) {
            services.driver.send(Event::RunReady { run }).await;
        }
    }

    fn take_over(&self, services: &Services) -> Vec<RunKey> {
        let mut watched = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if watched.is_empty() {
            return Vec::new();
        }
        let board = services.shared.board.read().unwrap_or_else(PoisonError::into_inner);
        let over = |query: &TaskQuery| !board.newest_first().any(|detail| tasks::is_found(query, detail));
        let ready: Vec<_> = watched.iter().filter(|(_, query)| over(query)).map(|(run, _)| *run).collect();
        watched.retain(|run, _| !ready.contains(run) && board.get(run.task).is_some());
        ready
    }
}

/// Looks whenever a task has changed, until the server stops.
pub async fn watch(services: Arc<Services>) {
    let mut generation = services.shared.generation.subscribe();
    while generation.changed().await.is_ok() {
        for run in services.watches.take_over(&services) {
            services.driver.send(Event::RunReady { run }).await;
        }
    }
}
