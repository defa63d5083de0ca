//! The one-way switch that makes a store fail-stop.
//!
//! The first error (or an orderly close) sets the reason; every later call fails with it. Whoever runs the store
//! waits on [`StopSwitch::wait`] and ends the process, so that a half-broken store is never used further.

use std::sync::Arc;

use tokio::sync::watch;

use crate::error::StoreError;

/// Shared by a store, its threads and its watches.
#[derive(Clone, Debug)]
pub(crate) struct StopSwitch {
    state: watch::Sender<Option<Arc<str>>>,
}

impl StopSwitch {
    pub(crate) fn new() -> Self {
        Self { state: watch::Sender::new(None) }
    }

    /// Stops the store. The first reason stays.
    pub(crate) fn stop(&self, reason: impl Into<Arc<str>>) -> Arc<str> {
        let reason = reason.into();
        self.state.send_if_modified(|state| {
            let first = state.is_none();
            if first {
                *state = Some(reason.clone());
            }
            first
        });
        self.reason().unwrap_or(reason)
    }

    pub(crate) fn reason(&self) -> Option<Arc<str>> {
        self.state.borrow().clone()
    }

    /// The error every call gets once the store has stopped.
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        match self.reason() {
            None => Ok(()),
            Some(reason) => Err(StoreError::Stopped { reason }),
        }
    }

    /// Resolves when the store stops.
    pub(crate) async fn wait(&self) -> Arc<str> {
        let mut changes = self.state.subscribe();
        // The sender is `self.state`, so the channel cannot close while this runs.
        match changes.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_else(|| "stopped".into()),
            Err(_) => "stopped".into(),
        }
    }

    /// A receiver that sees the switch turn, for use in a select.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Option<Arc<str>>> {
        self.state.subscribe()
    }
}
