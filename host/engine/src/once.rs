//! Idempotency keys: what was made under a key is recorded in the very commit that makes it.
//!
//! So a client that repeats a request after a crash of the server gets what its first one made, and no second one. A
//! key is kept for a day and more, then collected; the number of keys is bounded, and beyond it new ones are refused
//! rather than old ones forgotten early. Requests at the same time under one key are kept apart by the API.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use windlass_model::{ProjectName, TaskId};
use windlass_store::{Batch, Key, Store, StoreError};

use crate::{
    error::{EngineError, ErrorKind},
    open::Engine,
    records::ONCE,
    services::Services,
};

/// How long a key is kept at least.
const KEPT: Duration = Duration::from_secs(24 * 60 * 60);
/// How often old ones are collected.
const COLLECT: Duration = Duration::from_secs(60 * 60);
/// Keys that are kept, at most: about 60 MiB of records.
const MAX_KEYS: u64 = 200_000;

/// A request that is to be done once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Once {
    key: String,
    body: String,
}

impl Once {
    /// A request under a key, which is one of whoever and whatever `scope` names. `body` tells it from others.
    #[must_use]
    pub fn new(scope: &str, body: &[u8]) -> Self {
        let digest = |bytes: &[u8]| hex::encode(Sha256::digest(bytes));
        Self { key: digest(scope.as_bytes()), body: digest(body) }
    }

    /// The key with its scope, as a digest.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Refuses a key that came with another body.
    ///
    /// # Errors
    /// When it did.
    pub fn same(&self, first: &Self) -> Result<(), EngineError> {
        if self.body == first.body {
            return Ok(());
        }
        Err(EngineError::invalid("idempotency-key-reused", "this Idempotency-Key came with another body before")
            .fix("use a new key for each new request"))
    }
}

/// What a request made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Made {
    /// A task.
    Task(TaskId),
    /// A release.
    Release { project: ProjectName, version: String },
}

/// A key as stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredOnce {
    body: String,
    made: Made,
    at_ms: u64,
}

/// How many keys there are, nearly.
#[derive(Default)]
pub struct Keys(AtomicU64);

/// Adds the key, if the request has one, to the commit that makes what it asks for.
///
/// # Errors
/// When there are too many keys.
pub fn mark(services: &Services, once: Option<&Once>, made: Made, batch: &mut Batch) -> Result<(), EngineError> {
    let Some(once) = once else { return Ok(()) };
    if services.keys.0.fetch_add(1, Ordering::Relaxed) >= MAX_KEYS {
        services.keys.0.fetch_sub(1, Ordering::Relaxed);
        let message = format!("the server keeps {MAX_KEYS} idempotency keys of the last day, and cannot keep more");
        return Err(EngineError::new(ErrorKind::Unavailable, "too-many-keys", message)
            .fix("try again in an hour, or send the request without the header Idempotency-Key"));
    }
    let stored = StoredOnce { body: once.body.clone(), made, at_ms: services.shared.clock.now_ms() };
    Ok(ONCE.put(batch, Key::of_text(&once.key), &stored)?)
}

impl Engine {
    /// The same engine for a request that is to be done once.
    #[must_use]
    pub fn once(&self, once: Option<Once>) -> Self {
        let mut keyed = self.clone();
        keyed.once = once;
        keyed
    }

    /// What the request made before, if it did.
    ///
    /// # Errors
    /// When its key came with another body.
    pub async fn made_before(&self, once: &Once) -> Result<Option<Made>, EngineError> {
        let Some(stored) = ONCE.get(&*self.services.shared.store, Key::of_text(&once.key)).await? else {
            return Ok(None);
        };
        once.same(&Once { key: once.key.clone(), body: stored.value.body })?;
        Ok(Some(stored.value.made))
    }
}

/// Collects old keys, now and every hour, until the store stops.
pub async fn collect(services: Arc<Services>) {
    loop {
        let before = services.shared.clock.now_ms().saturating_sub(u64::try_from(KEPT.as_millis()).unwrap_or(u64::MAX));
        match sweep(&*services.shared.store, before).await {
            Ok(left) => services.keys.0.store(left, Ordering::Relaxed),
            Err(error @ StoreError::Stopped { .. }) => {
                tracing::debug!(%error, "no more idempotency keys are collected");
                return;
            }
            Err(error) => tracing::error!(%error, "old idempotency keys could not be collected"),
        }
        tokio::time::sleep(COLLECT).await;
    }
}

/// Removes the keys from before that time, tells how many are left.
async fn sweep(store: &dyn Store, before_ms: u64) -> Result<u64, StoreError> {
    let (mut scan, mut left) = (ONCE.all(), 0);
    loop {
        let page = store.scan(scan.clone()).await?;
        let last = page.records.last().map(|record| record.key.clone());
        let mut batch = Batch::new();
        batch.relaxed();
        for record in page.records {
            let key = record.key.clone();
            // One that cannot be read may be a later release's; `store check` names it.
            if ONCE.decode(record).is_ok_and(|stored| stored.value.at_ms < before_ms) {
                batch.delete(ONCE.name(), key);
            } else {
                left += 1;
            }
        }
        if !batch.is_empty() {
            store.commit(batch).await?;
        }
        match last {
            Some(last) if page.more => scan = scan.after(last),
            _ => return Ok(left),
        }
    }
}

#[cfg(test)]
mod tests {
    use windlass_store::MemoryStore;

    use super::*;

    #[tokio::test]
    async fn keys_are_collected_once_they_are_old_and_the_rest_is_counted() {
        let store = MemoryStore::new();
        for n in 0..3000_u64 {
            let mut batch = Batch::new();
            let stored = StoredOnce { body: String::new(), made: Made::Task(TaskId(n)), at_ms: n };
            ONCE.put(&mut batch, Key::of_text(&format!("{n:x}")), &stored).unwrap();
            store.commit(batch).await.unwrap();
        }
        assert_eq!(sweep(&store, 1000).await.unwrap(), 2000);
        let kept = crate::records::all(&store, &ONCE, ONCE.all()).await.unwrap();
        assert!(kept.len() == 2000 && kept.iter().all(|stored| stored.at_ms >= 1000));
        assert_eq!(sweep(&store, 0).await.unwrap(), 2000);
    }

    #[test]
    fn a_key_belongs_to_its_scope_and_to_one_body() {
        let first = Once::new("anna\nk\n/api/v1/deployments", b"1");
        assert_eq!(first, Once::new("anna\nk\n/api/v1/deployments", b"1"));
        assert_ne!(first.key(), Once::new("bert\nk\n/api/v1/deployments", b"1").key());
        let other = Once::new("anna\nk\n/api/v1/deployments", b"2");
        assert_eq!(other.key(), first.key());
        assert_eq!(other.same(&first).unwrap_err().code, "idempotency-key-reused");
    }
}
