//! What machines were seen to hold, and how fast packages reached them: for plans, which ask no machine.
//!
//! Both are hints that come with the acknowledgement of a transfer, in its commit. A transfer itself trusts neither: it
//! asks the machine.

use std::{
    collections::HashMap,
    sync::{PoisonError, RwLock},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use windlass_model::Connection;
use windlass_packages::digest::Sha256;
use windlass_store::{Batch, Key, Store, StoreError};

use crate::{
    machines,
    records::{HELD, RATES},
};

/// Less than this tells of the time to get there and back, not of the way.
const TELLING_BYTES: u64 = 256 << 10;
/// What a MiB is taken to need on a way that was never used: 10 MiB/s.
const UNKNOWN_US_PER_MIB: u64 = 100_000;
const MIB: u64 = 1 << 20;
/// What each package costs beside its bytes: asking, verifying, naming.
const EACH_MS: u64 = 50;
/// What each machine costs beside its packages.
const REACHING_MS: u64 = 200;

/// How long bytes took to a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rate {
    /// Transfers it was learnt from; later ones count more.
    pub transfers: u64,
    /// Mean of what a MiB took, in microseconds.
    pub us_per_mib: u64,
}

impl Rate {
    fn with(before: Option<Self>, bytes: u64, took: Duration) -> Self {
        let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let seen = took_us.saturating_mul(MIB) / bytes.max(1);
        let Some(Self { transfers, us_per_mib }) = before else {
            return Self { transfers: 1, us_per_mib: seen };
        };
        let weight = transfers.min(4);
        let sum = us_per_mib.saturating_mul(weight).saturating_add(seen);
        Self { transfers: transfers.saturating_add(1), us_per_mib: sum / (weight + 1) }
    }
}

/// How fast machines are reached, by their place.
#[derive(Debug, Default)]
pub struct Rates(RwLock<HashMap<String, Rate>>);

impl Rates {
    /// Reads what was learnt before.
    ///
    /// # Errors
    /// When the store stopped or a record does not decode.
    pub async fn load(store: &dyn Store) -> Result<Self, StoreError> {
        let mut known = HashMap::new();
        let mut scan = RATES.all();
        loop {
            let page = RATES.scan(store, scan.clone()).await?;
            let last = page.records.last().map(|record| record.key.clone());
            for record in page.records {
                if let Some(place) = Key::parts(&record.key).text() {
                    known.insert(place.to_owned(), record.value);
                }
            }
            match last {
                Some(last) if page.more => scan = scan.after(last),
                _ => return Ok(Self(RwLock::new(known))),
            }
        }
    }

    /// Learns from bytes that arrived.
    pub fn note(&self, place: &str, bytes: u64, took: Duration) {
        if bytes >= TELLING_BYTES {
            let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
            let rate = Rate::with(known.get(place).copied(), bytes, took);
            known.insert(place.to_owned(), rate);
        }
    }

    /// Puts what is known of a place into a commit.
    ///
    /// # Errors
    /// When the record cannot be encoded.
    pub fn put(&self, batch: &mut Batch, place: &str) -> Result<(), StoreError> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner).get(place).copied();
        known.map_or(Ok(()), |rate| RATES.put(batch, Key::of_text(place), &rate))
    }

    /// How long packages of these sizes take to a place, and whether that was learnt.
    #[must_use]
    pub fn expected_ms(&self, place: &str, sizes: &[u64]) -> (u64, bool) {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner).get(place).copied();
        let us_per_mib = known.map_or(UNKNOWN_US_PER_MIB, |rate| rate.us_per_mib);
        let bytes: u64 = sizes.iter().sum();
        let moving = bytes.saturating_mul(us_per_mib) / MIB / 1000;
        let each = EACH_MS.saturating_mul(sizes.len() as u64);
        (REACHING_MS.saturating_add(each).saturating_add(moving), known.is_some())
    }
}

fn key(place: &str, payload: &Sha256) -> Key {
    Key::of_text(place).text(&payload.to_string())
}

/// Notes in a commit whether a payload is on a machine.
///
/// # Errors
/// When the record cannot be encoded.
pub fn note(batch: &mut Batch, place: &str, payload: &Sha256, is_there: bool) -> Result<(), StoreError> {
    if is_there {
        HELD.put(batch, key(place, payload), &())
    } else {
        HELD.delete(batch, key(place, payload));
        Ok(())
    }
}

/// Whether a payload was last seen to be on a machine.
///
/// # Errors
/// When the store stopped.
pub async fn holds(store: &dyn Store, place: &str, payload: &Sha256) -> Result<bool, StoreError> {
    Ok(HELD.get(store, key(place, payload)).await?.is_some())
}

/// The place that a machine's record leads to: two machines of one place share what it holds.
#[must_use]
pub fn place(connection: &Connection) -> String {
    machines::place(&machines::address(connection))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use windlass_store::MemoryStore;

    use super::*;

    #[tokio::test]
    async fn what_a_machine_holds_and_how_fast_it_is_outlive_a_restart() {
        let store = MemoryStore::new();
        let (one, two) = (Sha256::of(b"one"), Sha256::of(b"two"));
        let rates = Rates::default();
        rates.note("web1", 1 << 20, Duration::from_millis(50));
        let mut batch = Batch::new();
        note(&mut batch, "web1", &one, true).unwrap();
        note(&mut batch, "web1", &two, true).unwrap();
        rates.put(&mut batch, "web1").unwrap();
        rates.put(&mut batch, "never seen").unwrap();
        store.commit(batch).await.unwrap();
        let mut batch = Batch::new();
        note(&mut batch, "web1", &two, false).unwrap();
        store.commit(batch).await.unwrap();
        let found = [("web1", one), ("web1", two), ("web2", one)];
        for ((place, payload), expected) in found.iter().zip([true, false, false]) {
            assert_eq!(holds(&store, place, payload).await.unwrap(), expected, "{place} {payload}");
        }
        let again = Rates::load(&store).await.unwrap();
        assert_eq!(again.expected_ms("web1", &[10 << 20]), (REACHING_MS + EACH_MS + 500, true));
        assert_eq!(again.expected_ms("web2", &[10 << 20]), (REACHING_MS + EACH_MS + 1000, false));
    }

    #[test]
    fn small_transfers_do_not_make_a_way_slow() {
        let rates = Rates::default();
        rates.note("web1", 8 << 10, Duration::from_secs(1));
        assert_eq!(rates.expected_ms("web1", &[]), (REACHING_MS, false));
        for _ in 0..20 {
            rates.note("web1", 1 << 20, Duration::from_secs(1));
        }
        rates.note("web1", 1 << 20, Duration::ZERO);
        let (ms, learnt) = rates.expected_ms("web1", &[1 << 20]);
        assert!(learnt && (900..1200).contains(&ms), "{ms}: one that took no time at all does little");
    }
}
