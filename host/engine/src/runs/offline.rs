//! Machines that are away for longer than a run keeps its guest.
//!
//! Such a run is suspended and tries again from time to time, until its machine is back or its patience is at an end.
//! What it had going on the machine goes on there.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use windlass_effects::Failure;
use windlass_scheduler::{RunKey, WaitOn};
use windlass_store::{Batch, Key, Store, StoreError};

use crate::records::{AWAY, all, run_key};

/// Pause before the first try, and between the later ones.
const PAUSES: (u64, u64) = (5_000, 60_000);

/// Since when machines are away, by the run that misses one.
pub struct Offline {
    patience_ms: u64,
    away: Mutex<HashMap<RunKey, Away>>,
}

/// A run that misses its machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Away {
    run: RunKey,
    since_ms: u64,
    tries: u32,
}

/// A wait for a machine.
pub struct Wait {
    pub on: WaitOn,
    pub text: String,
    /// Records that belong into its commit: a restart does not make the run patient anew.
    pub with: Batch,
}

impl Offline {
    /// Runs wait so long for a machine in all.
    ///
    /// # Errors
    /// When the store stopped.
    pub async fn load(patience: Duration, store: &dyn Store) -> Result<Self, StoreError> {
        let away = all(store, &AWAY, AWAY.all()).await?;
        let away = Mutex::new(away.into_iter().map(|away| (away.run, away)).collect());
        Ok(Self { patience_ms: u64::try_from(patience.as_millis()).unwrap_or(u64::MAX), away })
    }

    fn away(&self) -> MutexGuard<'_, HashMap<RunKey, Away>> {
        self.away.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a run that cannot reach its machine waits for; none when it has waited long enough, or for a failure that
    /// time does not heal.
    pub fn wait(&self, run: RunKey, machine: &str, failure: &Failure, now_ms: u64) -> Option<Wait> {
        if !failure.retryable || !matches!(failure.code.as_str(), "unreachable" | "link-lost") {
            return None;
        }
        let mut all = self.away();
        let away = all.entry(run).or_insert(Away { run, since_ms: now_ms, tries: 0 });
        let gives_up = away.since_ms.saturating_add(self.patience_ms);
        if gives_up <= now_ms {
            return None;
        }
        let pause = PAUSES.0.saturating_mul(1 << away.tries.min(10)).min(PAUSES.1);
        away.tries = away.tries.saturating_add(1);
        let mut with = Batch::new();
        if let Err(error) = AWAY.put(&mut with, key(run), away) {
            tracing::warn!(%error, "a restart will not know since when a machine is away");
        }
        let text = format!("waits for machine {machine}, which cannot be reached: {}", failure.message);
        let on = WaitOn::Other(text.clone()).until(now_ms.saturating_add(pause).min(gives_up));
        Some(Wait { on, text, with })
    }

    /// The machine of a run is there, or the run is over. Gives what is to be stored then; mostly nothing.
    #[must_use]
    pub fn over(&self, run: RunKey) -> Batch {
        let mut batch = Batch::new();
        if self.away().remove(&run).is_some() {
            AWAY.delete(&mut batch, key(run));
        }
        batch
    }
}

fn key(run: RunKey) -> Key {
    run_key(run.task, run.step, run.place)
}

#[cfg(test)]
mod tests {
    use windlass_model::TaskId;
    use windlass_store::MemoryStore;

    use super::*;

    #[tokio::test]
    async fn a_run_tries_ever_more_seldom_and_gives_up_in_the_end_whatever_restarts() {
        let store = MemoryStore::new();
        let run = RunKey { task: TaskId(1), step: 0, place: 0 };
        let away = Failure::new("unreachable", "no route").retryable();
        let mut now = 1_000_000;
        let mut pauses = Vec::new();
        let opened = async || Offline::load(Duration::from_secs(100), &store).await.unwrap();
        while let Some(wait) = opened().await.wait(run, "web1", &away, now) {
            assert!(wait.text.contains("web1") && wait.text.contains("no route"), "{}", wait.text);
            let WaitOn::Limited { until_ms, .. } = wait.on else { panic!("{:?}", wait.on) };
            store.commit(wait.with).await.unwrap();
            pauses.push((until_ms - now) / 1000);
            now = until_ms;
        }
        assert_eq!(pauses, [5, 10, 20, 40, 25]);
        let offline = opened().await;
        assert!(offline.wait(run, "web1", &away, now + 1).is_none(), "it does not begin anew by itself");
        store.commit(offline.over(run)).await.unwrap();
        let offline = opened().await;
        assert!(offline.wait(run, "web1", &Failure::new("auth", "refused"), now).is_none());
        assert!(offline.over(run).is_empty(), "nothing is left");
        assert!(offline.wait(run, "web1", &away, now).is_some(), "it was there in between");
    }
}
