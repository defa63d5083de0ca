//! A store that fails on purpose, for testing what is built on top of one.
//!
//! It wraps another store and counts commits. At the numbers its [`FaultPlan`] names, a commit is delayed, refused,
//! or done without being acknowledged. The last two stop the store, as the real one would: nothing works afterwards
//! until the test opens a new wrapper around the same inner store, which is its restart.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use rand::{RngExt, SeedableRng};

use crate::batch::Batch;
use crate::error::StoreError;
use crate::record::{Record, Seq, TableName};
use crate::scan::{Page, Scan};
use crate::space::Room;
use crate::stop::StopSwitch;
use crate::store::{Health, Store};
use crate::transfer::{Exported, TransferError};
use crate::watch::Watch;

/// What happens to one commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It takes this much longer.
    Delay(Duration),
    /// It is not done, and the store stops.
    Fail,
    /// It is done, but the caller only learns that the store stopped: the torn outcome a restart has to sort out.
    Tear,
}

/// Which commits (counted from 1) meet which fault.
#[derive(Clone, Debug, Default)]
pub struct FaultPlan(BTreeMap<u64, Fault>);

impl FaultPlan {
    /// No faults.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Adds a fault at the `nth` commit.
    #[must_use]
    pub fn at(mut self, nth: u64, fault: Fault) -> Self {
        self.0.insert(nth, fault);
        self
    }

    /// Some delays and one stop, all within the first `commits`, the same for the same seed.
    #[must_use]
    pub fn from_seed(seed: u64, commits: u64) -> Self {
        let mut random = rand::rngs::StdRng::seed_from_u64(seed);
        let commits = commits.max(1);
        let mut plan = Self::none();
        for _ in 0..commits / 8 {
            let delay = Duration::from_micros(random.random_range(0..2000));
            plan = plan.at(random.random_range(1..=commits), Fault::Delay(delay));
        }
        let stop = if random.random() { Fault::Fail } else { Fault::Tear };
        plan.at(random.random_range(1..=commits), stop)
    }
}

/// A [`Store`] around another one, with faults.
pub struct FaultyStore {
    inner: Arc<dyn Store>,
    plan: FaultPlan,
    commits: AtomicU64,
    stop: StopSwitch,
}

impl FaultyStore {
    /// Wraps `inner`.
    #[must_use]
    pub fn new(inner: Arc<dyn Store>, plan: FaultPlan) -> Self {
        Self { inner, plan, commits: AtomicU64::new(0), stop: StopSwitch::new() }
    }

    fn fail(&self, nth: u64, how: &str) -> StoreError {
        StoreError::Stopped { reason: self.stop.stop(format!("planned fault: commit {nth} {how}")) }
    }
}

#[async_trait]
impl Store for FaultyStore {
    async fn commit(&self, batch: Batch) -> Result<Seq, StoreError> {
        self.stop.check()?;
        let nth = self.commits.fetch_add(1, Ordering::Relaxed) + 1;
        match self.plan.0.get(&nth) {
            None => {}
            Some(Fault::Delay(time)) => tokio::time::sleep(*time).await,
            Some(Fault::Fail) => return Err(self.fail(nth, "failed")),
            Some(Fault::Tear) => {
                self.inner.commit(batch).await?;
                return Err(self.fail(nth, "was torn"));
            }
        }
        let seq = self.inner.commit(batch).await?;
        self.stop.check()?;
        Ok(seq)
    }

    async fn get(&self, table: &TableName, key: &[u8]) -> Result<Option<Record>, StoreError> {
        self.stop.check()?;
        self.inner.get(table, key).await
    }

    async fn scan(&self, scan: Scan) -> Result<Page, StoreError> {
        self.stop.check()?;
        self.inner.scan(scan).await
    }

    async fn tables(&self) -> Result<Vec<TableName>, StoreError> {
        self.stop.check()?;
        self.inner.tables().await
    }

    fn watch(&self, table: &TableName, prefix: &[u8], from: Option<Seq>) -> Watch {
        self.inner.watch(table, prefix, from)
    }

    fn last_seq(&self) -> Seq {
        self.inner.last_seq()
    }

    async fn export(&self, to: &Path) -> Result<Exported, TransferError> {
        self.stop.check()?;
        self.inner.export(to).await
    }

    fn health(&self) -> Health {
        self.stop.reason().map_or_else(|| self.inner.health(), Health::Stopped)
    }

    fn room(&self) -> Room {
        self.inner.room()
    }

    async fn stopped(&self) -> Arc<str> {
        tokio::select! {
            reason = self.stop.wait() => reason,
            reason = self.inner.stopped() => reason,
        }
    }

    async fn close(&self) -> Result<(), StoreError> {
        self.stop.check()?;
        self.stop.stop("it was closed");
        self.inner.close().await
    }
}
