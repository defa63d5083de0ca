//! How long things took so far, for plans. The driver learns it, with what it commits; plans read it.

use std::{
    collections::HashMap,
    sync::{PoisonError, RwLock},
};

use serde::{Deserialize, Serialize};
use windlass_store::{Batch, Key, Store, StoreError};

use crate::records::DURATIONS;

/// How long something takes on a machine, from what was seen so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Learnt {
    /// Runs it was learnt from; later ones count more.
    pub runs: u64,
    /// Mean duration.
    pub mean_ms: u64,
}

impl Learnt {
    /// What is known after one more run.
    #[must_use]
    fn with(before: Option<Self>, took_ms: u64) -> Self {
        let Some(Self { runs, mean_ms }) = before else {
            return Self { runs: 1, mean_ms: took_ms };
        };
        // The mean of about the last five: a step may become another one over time.
        let weight = runs.min(4);
        Self { runs: runs.saturating_add(1), mean_ms: (mean_ms.saturating_mul(weight) + took_ms) / (weight + 1) }
    }
}

/// What was learnt, by project and node of a task's tree.
#[derive(Debug, Default)]
pub struct History(RwLock<HashMap<(String, String), Learnt>>);

fn place(project: &str, node: &str) -> (String, String) {
    (project.to_lowercase(), node.to_lowercase())
}

impl History {
    /// Reads what was learnt before.
    ///
    /// # Errors
    /// When the store stopped or a record does not decode.
    pub async fn load(store: &dyn Store) -> Result<Self, StoreError> {
        let mut known = HashMap::new();
        let mut scan = DURATIONS.all();
        loop {
            let page = DURATIONS.scan(store, scan.clone()).await?;
            let last = page.records.last().map(|record| record.key.clone());
            for record in &page.records {
                let mut parts = Key::parts(&record.key);
                if let (Some(project), Some(node)) = (parts.text(), parts.text()) {
                    known.insert((project.to_owned(), node.to_owned()), record.value);
                }
            }
            match last {
                Some(last) if page.more => scan = scan.after(last),
                _ => return Ok(Self(RwLock::new(known))),
            }
        }
    }

    /// How long a node of a project took, if it was seen before.
    #[must_use]
    pub fn of(&self, project: &str, node: &str) -> Option<u64> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        known.get(&place(project, node)).map(|learnt| learnt.mean_ms)
    }

    /// Learns from one more time, in the commit that tells of its end.
    ///
    /// # Errors
    /// When the record cannot be encoded.
    pub fn note(&self, batch: &mut Batch, project: &str, node: &str, took_ms: u64) -> Result<(), StoreError> {
        let place = place(project, node);
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let learnt = Learnt::with(known.get(&place).copied(), took_ms);
        DURATIONS.put(batch, Key::of_text(&place.0).text(&place.1), &learnt)?;
        known.insert(place, learnt);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use windlass_store::MemoryStore;

    use super::*;

    #[tokio::test]
    async fn later_runs_count_more_and_a_restart_forgets_nothing() {
        let store = MemoryStore::new();
        let history = History::load(&store).await.unwrap();
        assert_eq!(history.of("shop", "web/web1"), None);
        for took_ms in [100, 200, 1000, 1000, 1000, 1000, 1000, 1000, 1000, 1000, 1000, 1000] {
            let mut batch = Batch::new();
            history.note(&mut batch, "Shop", "web/Web1", took_ms).unwrap();
            store.commit(batch).await.unwrap();
        }
        let known = history.of("shop", "WEB/web1").unwrap();
        assert!((850..1000).contains(&known), "{known}: near what it is by now, and above the plain mean of 858");
        assert_eq!(History::load(&store).await.unwrap().of("shop", "web/web1"), Some(known));
    }
}
