//! The store as a plain ordered map: the model the other implementations are tested against.
//!
//! It keeps nothing across a restart. Tests and `plan` use it where durability plays no part.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;

use crate::batch::{Batch, Op};
use crate::error::{StoreError, Unmet};
use crate::record::{Record, Seq, TableName};
use crate::scan::{Direction, Page, PageBuilder, Scan};
use crate::space::Room;
use crate::stop::StopSwitch;
use crate::store::{Health, Store};
use crate::transfer::{self, ExportRecord, Exported, TransferError};
use crate::watch::{Hub, Watch};

type Rows = BTreeMap<Bytes, (Seq, Bytes)>;

/// A [`Store`] in memory.
#[derive(Debug)]
pub struct MemoryStore {
    state: Mutex<State>,
    hub: Arc<Hub>,
    stop: StopSwitch,
}

#[derive(Debug, Default)]
struct State {
    seq: Seq,
    tables: BTreeMap<TableName, Rows>,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        let stop = StopSwitch::new();
        Self { state: Mutex::default(), hub: Hub::new(Seq(0), stop.clone()), stop }
    }

    /// Puts a record back as it was, for looking at what is left of a damaged store.
    pub(crate) fn put_back(&self, table: TableName, key: Bytes, version: Seq, value: Bytes) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.tables.entry(table).or_default().insert(key, (version, value));
    }

    /// Applies a commit as it was, for the same.
    pub(crate) fn replay(&self, seq: Seq, ops: &[Op]) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.seq = state.seq.max(seq);
        state.apply(seq, ops);
    }

    /// How many records there are.
    pub(crate) fn count(&self) -> u64 {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.tables.values().map(|rows| rows.len() as u64).sum()
    }

    fn lock(&self) -> Result<MutexGuard<'_, State>, StoreError> {
        self.stop.check()?;
        Ok(self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl State {
    fn version(&self, table: &TableName, key: &[u8]) -> Option<Seq> {
        self.tables.get(table)?.get(key).map(|(version, _)| *version)
    }

    fn check(&self, batch: &Batch) -> Result<(), Unmet> {
        for (table, key, wanted) in &batch.requirements {
            let found = self.version(table, key);
            if !wanted.holds(found) {
                return Err(Unmet { table: table.clone(), key: key.clone(), wanted: *wanted, found });
            }
        }
        Ok(())
    }

    fn apply(&mut self, seq: Seq, ops: &[Op]) {
        for op in ops {
            match op {
                Op::Put { table, key, value } => {
                    self.tables.entry(table.clone()).or_default().insert(key.clone(), (seq, value.clone()));
                }
                Op::Delete { table, key } => {
                    if let Some(rows) = self.tables.get_mut(table) {
                        rows.remove(key);
                        if rows.is_empty() {
                            self.tables.remove(table);
                        }
                    }
                }
            }
        }
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn commit(&self, batch: Batch) -> Result<Seq, StoreError> {
        batch.validate()?;
        let mut state = self.lock()?;
        state.check(&batch)?;
        if batch.is_empty() {
            return Ok(state.seq);
        }
        state.seq.0 += 1;
        let seq = state.seq;
        state.apply(seq, &batch.ops);
        // Published under the lock, so that watchers see commits in their order.
        self.hub.publish([(seq, batch.ops)]);
        Ok(seq)
    }

    async fn get(&self, table: &TableName, key: &[u8]) -> Result<Option<Record>, StoreError> {
        let state = self.lock()?;
        let row = state.tables.get(table).and_then(|rows| rows.get_key_value(key));
        Ok(row.map(|(key, row)| record(key, row)))
    }

    async fn scan(&self, scan: Scan) -> Result<Page, StoreError> {
        let state = self.lock()?;
        let Some(rows) = state.tables.get(&scan.table) else { return Ok(Page::default()) };
        if scan.is_empty_range() {
            return Ok(Page::default());
        }
        let range = rows.range::<Bytes, (Bound<Bytes>, Bound<Bytes>)>((scan.start.clone(), scan.end.clone()));
        let rows: Box<dyn Iterator<Item = _>> = match scan.direction {
            Direction::Ascending => Box::new(range),
            Direction::Descending => Box::new(range.rev()),
        };
        let mut page = PageBuilder::new(scan.limit);
        for (key, row) in rows {
            if !page.push(|| record(key, row)) {
                break;
            }
        }
        Ok(page.finish())
    }

    async fn tables(&self) -> Result<Vec<TableName>, StoreError> {
        Ok(self.lock()?.tables.keys().cloned().collect())
    }

    fn watch(&self, table: &TableName, prefix: &[u8], from: Option<Seq>) -> Watch {
        self.hub.watch(table, prefix, from)
    }

    fn last_seq(&self) -> Seq {
        self.hub.latest()
    }

    async fn export(&self, to: &Path) -> Result<Exported, TransferError> {
        let (seq, records) = {
            let state = self.lock()?;
            let records: Vec<ExportRecord> = state
                .tables
                .iter()
                .flat_map(|(table, rows)| {
                    rows.iter().map(|(key, (version, value))| ExportRecord {
                        table: table.clone(),
                        key: key.clone(),
                        value: value.clone(),
                        version: *version,
                    })
                })
                .collect();
            (state.seq, records)
        };
        let to = to.to_owned();
        transfer::blocking(move || transfer::write_new(&to, seq, records.into_iter().map(Ok))).await
    }

    fn health(&self) -> Health {
        self.stop.reason().map_or(Health::Good, Health::Stopped)
    }

    fn room(&self) -> Room {
        Room::default()
    }

    async fn stopped(&self) -> Arc<str> {
        self.stop.wait().await
    }

    async fn close(&self) -> Result<(), StoreError> {
        self.stop.check()?;
        self.stop.stop("it was closed");
        Ok(())
    }
}

fn record(key: &Bytes, (version, value): &(Seq, Bytes)) -> Record {
    Record { key: key.clone(), value: value.clone(), version: *version }
}
