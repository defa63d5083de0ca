//! What readers see: the latest commits, held in memory, over the index, which follows in large steps.
//!
//! A busy record is written many times before anybody would miss it in the index: only its last value goes there.
//! So a commit costs the journal's write and a few inserts here, and sled works seldom and on much at once. What is
//! held here is bounded, and all of it is in the journal: a crash loses nothing, opening replays it.

use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;

use super::index::{Index, IndexError, full_key};
use crate::batch::Op;
use crate::record::{Record, Seq, TableName};
use crate::scan::{Page, Scan};

/// How much is held before it goes to the index.
const HELD_BYTES: usize = 4 * 1024 * 1024;
/// What an entry takes beside its key and value.
const ENTRY_BYTES: usize = 96;

/// Changes the index does not show yet, by full key: the commit and, unless it was deleted, the value.
pub(crate) type Changes = BTreeMap<Vec<u8>, (Seq, Option<Bytes>)>;

#[derive(Debug, Default)]
struct Held {
    changes: Changes,
    bytes: usize,
    /// The last commit among them.
    last: Seq,
}

impl Held {
    fn put(&mut self, key: Vec<u8>, seq: Seq, value: Option<Bytes>) {
        let size = |value: &Option<Bytes>| value.as_ref().map_or(0, Bytes::len);
        let (length, new) = (key.len() + ENTRY_BYTES, size(&value));
        let old = self.changes.insert(key, (seq, value)).map_or(0, |(_, old)| length + size(&old));
        self.bytes = (self.bytes + length + new).saturating_sub(old);
    }
}

/// The index as of the last commit.
#[derive(Debug)]
pub(crate) struct View {
    index: Index,
    held: RwLock<Held>,
}

impl View {
    pub(crate) fn new(index: Index) -> Self {
        Self { index, held: RwLock::default() }
    }

    /// Nothing panics while it holds the lock; were it otherwise, what is held would still be whole entries.
    fn held(&self) -> RwLockReadGuard<'_, Held> {
        self.held.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn held_mut(&self) -> RwLockWriteGuard<'_, Held> {
        self.held.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows commits, in order, all of them at once.
    pub(crate) fn apply<'a>(&self, commits: impl IntoIterator<Item = (Seq, &'a [Op])>) {
        let mut held = self.held_mut();
        for (seq, ops) in commits {
            for op in ops {
                match op {
                    Op::Put { table, key, value } => held.put(full_key(table, key), seq, Some(value.clone())),
                    Op::Delete { table, key } => held.put(full_key(table, key), seq, None),
                }
            }
            held.last = seq;
        }
    }

    /// Whether it is time to [`View::settle`].
    pub(crate) fn is_full(&self) -> bool {
        self.held().bytes >= HELD_BYTES
    }

    /// Hands what is held to the index. Only the scribe calls this, so that nothing is added meanwhile; readers
    /// go on, and see the same before, during and after.
    pub(crate) fn settle(&self) -> Result<(), IndexError> {
        {
            let held = self.held();
            if held.changes.is_empty() {
                return Ok(());
            }
            self.index.settle(&held.changes, held.last)?;
        }
        *self.held_mut() = Held::default();
        Ok(())
    }

    /// The version of a record, if it exists.
    pub(crate) fn version(&self, table: &TableName, key: &[u8]) -> Result<Option<Seq>, IndexError> {
        if let Some((seq, value)) = self.held().changes.get(&full_key(table, key)) {
            return Ok(value.is_some().then_some(*seq));
        }
        self.index.version(table, key)
    }

    pub(crate) fn get(&self, table: &TableName, key: &[u8]) -> Result<Option<Record>, IndexError> {
        if let Some((seq, value)) = self.held().changes.get(&full_key(table, key)) {
            let record =
                |value: &Bytes| Record { key: Bytes::copy_from_slice(key), value: value.clone(), version: *seq };
            return Ok(value.as_ref().map(record));
        }
        self.index.get(table, key)
    }

    /// A page as of one moment.
    pub(crate) fn scan(&self, scan: &Scan) -> Result<Page, IndexError> {
        self.index.scan_under(scan, &self.held().changes)
    }

    /// The tables that hold records.
    pub(crate) fn tables(&self) -> Result<Vec<TableName>, IndexError> {
        let held = self.held();
        let mut tables = self.index.tables()?;
        tables.extend(held.changes.keys().filter_map(|key| Index::table_of(key)));
        tables.sort_unstable();
        tables.dedup();
        let mut filled = Vec::with_capacity(tables.len());
        for table in tables {
            let page = self.index.scan_under(&Scan::table(&table).limit(1), &held.changes)?;
            if !page.records.is_empty() {
                filled.push(table);
            }
        }
        Ok(filled)
    }

    /// Hands over what is held and makes the index durable.
    pub(crate) fn sync(&self) -> Result<(), IndexError> {
        self.settle()?;
        self.index.sync()
    }

    /// See [`Index::doubt`].
    pub(crate) fn doubt(&self) {
        self.index.doubt();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::memory::MemoryStore;

    fn table(name: &'static str) -> TableName {
        TableName::new(name)
    }

    fn ops() -> impl Strategy<Value = Vec<Op>> {
        let op = (0..3_usize, 0..6_u8, prop::option::weighted(0.7, any::<u8>())).prop_map(|(t, k, value)| {
            let (table, key) = (table(["a", "ab", "b"][t]), Bytes::from(vec![k]));
            match value {
                Some(value) => Op::Put { table, key, value: Bytes::from(vec![value]) },
                None => Op::Delete { table, key },
            }
        });
        prop::collection::vec(op, 1..6)
    }

    fn pages(view: &View, scan: Scan) -> Vec<(Bytes, Bytes, Seq)> {
        let (mut rows, mut scan) = (Vec::new(), scan.limit(2));
        loop {
            let page = view.scan(&scan).unwrap();
            rows.extend(page.records.iter().map(|r| (r.key.clone(), r.value.clone(), r.version)));
            match page.records.last() {
                Some(last) if page.more => scan = scan.after(last.key.clone()),
                _ => return rows,
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
        #[test]
        fn readers_see_the_same_wherever_a_change_is(commits in prop::collection::vec((ops(), any::<bool>()), 1..20)) {
            let dir = tempfile::tempdir().unwrap();
            let view = View::new(Index::open(&dir.path().join("i"), 1 << 20).unwrap());
            let model = Arc::new(MemoryStore::new());
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            for (number, (ops, settle)) in commits.iter().enumerate() {
                let seq = Seq(number as u64 + 1);
                view.apply([(seq, ops.as_slice())]);
                model.replay(seq, ops);
                if *settle {
                    view.settle().unwrap();
                }
                use crate::store::Store as _;
                prop_assert_eq!(view.tables().unwrap(), runtime.block_on(model.tables()).unwrap());
                for name in ["a", "ab", "b"] {
                    for scan in [Scan::table(&table(name)), Scan::table(&table(name)).descending(), Scan::table(&table(name)).range(vec![1], vec![4])] {
                        let page = runtime.block_on(model.scan(scan.clone())).unwrap();
                        let wanted: Vec<_> = page.records.into_iter().map(|r| (r.key, r.value, r.version)).collect();
                        prop_assert_eq!(pages(&view, scan), wanted);
                    }
                    for key in 0..6_u8 {
                        let found = runtime.block_on(model.get(&table(name), &[key])).unwrap();
                        prop_assert_eq!(view.version(&table(name), &[key]).unwrap(), found.as_ref().map(|r| r.version));
                        prop_assert_eq!(view.get(&table(name), &[key]).unwrap().map(|r| r.value), found.map(|r| r.value));
                    }
                }
            }
        }
    }
}
