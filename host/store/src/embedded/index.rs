//! The one place that touches sled: an ordered index over what the journal holds.
//!
//! All tables share one tree, so that a group of commits and the number of its last one are applied in a single
//! atomic batch. Every call is guarded: sled 0.34.7 can panic as well as fail, and both come back as an error that
//! stops the store. The index never decides what is true; it can be thrown away at any time.
//!
//! After an error sled is left alone for good. Its writer can leave a buffer behind that nobody will ever write
//! (`encapsulate` returns early when the disk is full), and whoever flushes then waits for ever, holding a lock that
//! all of sled in the process shares. Dropping a `Db` flushes. So a broken one is never called again and never
//! dropped: it is leaked, which loses nothing that a killed process would keep.

use std::cmp::Ordering as Order;
use std::fs::{self, File};
use std::mem::ManuallyDrop;
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::view::Changes;
use crate::batch::Op;
use crate::record::{Record, Seq, TableName};
use crate::scan::{Direction, Page, PageBuilder, Scan};

/// Where the number of the last applied commit is kept; no table name begins with a zero byte.
const APPLIED: &[u8] = b"\0applied";
/// Between a table's name and the key. Below every character of a name, so that tables sort by name.
const SEPARATOR: u8 = 0;
const VERSION_LEN: usize = 8;

/// What went wrong in sled, in its words.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{what} the index: {cause}")]
pub(crate) struct IndexError {
    what: &'static str,
    cause: String,
}

/// How long closing sled may take before it is given up.
const CLOSE_LIMIT: Duration = Duration::from_secs(30);
/// Set once sled hangs in this process. Its locks are shared by all that is open, so nothing of it works any more.
static HANGS: AtomicBool = AtomicBool::new(false);

/// Whether sled can no longer be used in this process.
pub(crate) fn sled_hangs() -> bool {
    HANGS.load(Ordering::Relaxed)
}

/// Gives sled up in this process, because a call of it did not come back.
pub(crate) fn give_sled_up() {
    HANGS.store(true, Ordering::Relaxed);
}

/// An open index.
#[derive(Debug)]
pub(crate) struct Index {
    /// There until the index is dropped.
    db: Option<sled::Db>,
    path: PathBuf,
    /// Something went wrong in sled: no further call, no drop.
    broken: AtomicBool,
    /// Something may have gone wrong that sled did not tell: still of use, but no flush and no drop.
    doubtful: AtomicBool,
}

fn guarded<T>(what: &'static str, work: impl FnOnce() -> sled::Result<T>) -> Result<T, IndexError> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(e)) => Err(IndexError { what, cause: e.to_string() }),
        Err(_) => Err(IndexError { what, cause: "sled panicked".into() }),
    }
}

impl Index {
    /// Opens or creates the index. Left-over snapshots that were being written are removed: sled would refuse them.
    pub(crate) fn open(path: &Path, cache_bytes: u64) -> Result<Self, IndexError> {
        let unfinished = |e: std::io::Error| IndexError { what: "clean", cause: e.to_string() };
        if path.exists() {
            for entry in fs::read_dir(path).map_err(unfinished)? {
                let file = entry.map_err(unfinished)?.path();
                let name = file.file_name().and_then(|n| n.to_str()).unwrap_or_default();
                if name.starts_with("snap.") && name.ends_with(".generating") {
                    fs::remove_file(&file).map_err(unfinished)?;
                }
            }
        }
        let config = sled::Config::new()
            .path(path)
            .cache_capacity(cache_bytes)
            .use_compression(false)
            // The journal is the truth; the index is flushed when it pays, not by a clock.
            .flush_every_ms(None);
        // sled frees its file lock a moment after the last handle of an earlier opening is dropped.
        let deadline = Instant::now() + Duration::from_secs(2);
        loop {
            match guarded("open", || config.open()) {
                Err(e) if e.cause.contains("could not acquire lock") && Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                result => {
                    let (broken, doubtful) = Default::default();
                    return result.map(|db| Self { db: Some(db), path: path.to_owned(), broken, doubtful });
                }
            }
        }
    }

    /// Calls sled, unless an earlier call went wrong.
    fn call<T>(&self, what: &'static str, work: impl FnOnce(&sled::Db) -> sled::Result<T>) -> Result<T, IndexError> {
        let db = self.db.as_ref().filter(|_| !self.broken.load(Ordering::Acquire));
        let Some(db) = db else { return Err(IndexError { what, cause: "it failed before".into() }) };
        guarded(what, || work(db)).inspect_err(|_| self.broken.store(true, Ordering::Release))
    }

    /// Notes that sled may have failed without telling. The index goes on, but is abandoned rather than closed.
    pub(crate) fn doubt(&self) {
        self.doubtful.store(true, Ordering::Release);
    }

    /// The last commit this index shows.
    pub(crate) fn applied(&self) -> Result<Seq, IndexError> {
        let value = self.call("read", |db| db.get(APPLIED))?;
        Ok(value.map_or(Seq(0), |v| version_of(&v)))
    }

    /// Applies commits, in order, and remembers the last one, all or nothing.
    pub(crate) fn apply<'a>(&self, commits: impl IntoIterator<Item = (Seq, &'a [Op])>) -> Result<(), IndexError> {
        let mut batch = sled::Batch::default();
        let mut last = None;
        for (seq, ops) in commits {
            for op in ops {
                match op {
                    Op::Put { table, key, value } => batch.insert(full_key(table, key), versioned(seq, value)),
                    Op::Delete { table, key } => batch.remove(full_key(table, key)),
                }
            }
            last = Some(seq);
        }
        if let Some(seq) = last {
            batch.insert(APPLIED, &seq.0.to_be_bytes());
        }
        self.call("write", |db| db.apply_batch(batch))
    }

    /// Applies what a view held back, as of commit `last`, all or nothing.
    pub(crate) fn settle(&self, changes: &Changes, last: Seq) -> Result<(), IndexError> {
        let mut batch = sled::Batch::default();
        for (key, (seq, value)) in changes {
            match value {
                Some(value) => batch.insert(key.as_slice(), versioned(*seq, value)),
                None => batch.remove(key.as_slice()),
            }
        }
        batch.insert(APPLIED, &last.0.to_be_bytes());
        self.call("write", |db| db.apply_batch(batch))
    }

    /// Loads records that keep the versions they have. Used to build the index; does not move the applied number.
    pub(crate) fn load(&self, records: impl IntoIterator<Item = (TableName, Record)>) -> Result<(), IndexError> {
        let mut batch = sled::Batch::default();
        for (table, record) in records {
            batch.insert(full_key(&table, &record.key), versioned(record.version, &record.value));
        }
        self.call("write", |db| db.apply_batch(batch))
    }

    /// The version of a record, if it exists.
    pub(crate) fn version(&self, table: &TableName, key: &[u8]) -> Result<Option<Seq>, IndexError> {
        let value = self.call("read", |db| db.get(full_key(table, key)))?;
        Ok(value.map(|v| version_of(&v)))
    }

    pub(crate) fn get(&self, table: &TableName, key: &[u8]) -> Result<Option<Record>, IndexError> {
        let value = self.call("read", |db| db.get(full_key(table, key)))?;
        Ok(value.map(|v| record(Bytes::copy_from_slice(key), &v)))
    }

    pub(crate) fn scan(&self, scan: &Scan) -> Result<Page, IndexError> {
        self.scan_under(scan, &Changes::new())
    }

    /// A page of what the index shows with `changes` over it.
    pub(crate) fn scan_under(&self, scan: &Scan, changes: &Changes) -> Result<Page, IndexError> {
        if scan.is_empty_range() {
            return Ok(Page::default());
        }
        let start = match &scan.start {
            Bound::Unbounded => Bound::Included(full_key(&scan.table, &[])),
            bound => bound.as_ref().map(|key| full_key(&scan.table, key)),
        };
        let end = match &scan.end {
            Bound::Unbounded => Bound::Excluded(behind_table(&scan.table)),
            bound => bound.as_ref().map(|key| full_key(&scan.table, key)),
        };
        let ascending = scan.direction == Direction::Ascending;
        let skip = scan.table.as_str().len() + 1;
        let tail = |key: &[u8]| Bytes::copy_from_slice(key.get(skip..).unwrap_or_default());
        self.call("read", |db| {
            let mut changed = changes.range((start.clone(), end.clone()));
            let mut rows = db.range((start, end));
            let mut next_change = || if ascending { changed.next() } else { changed.next_back() };
            let mut next_row = || if ascending { rows.next() } else { rows.next_back() }.transpose();
            let (mut change, mut row) = (next_change(), next_row()?);
            let mut page = PageBuilder::new(scan.limit);
            loop {
                let order = match (&change, &row) {
                    (None, None) => break,
                    (Some(_), None) => Order::Less,
                    (None, Some(_)) => Order::Greater,
                    (Some((new, _)), Some((old, _))) if ascending => new.as_slice().cmp(old),
                    (Some((new, _)), Some((old, _))) => old.as_ref().cmp(new.as_slice()),
                };
                let room = match (&change, &row) {
                    (Some((key, (version, Some(value)))), _) if order.is_le() => {
                        page.push(|| Record { key: tail(key), value: value.clone(), version: *version })
                    }
                    (_, Some((key, value))) if order.is_gt() => page.push(|| record(tail(key), value)),
                    _ => true,
                };
                if !room {
                    break;
                }
                if order.is_le() {
                    change = next_change();
                }
                if order.is_ge() {
                    row = next_row()?;
                }
            }
            Ok(page.finish())
        })
    }

    /// The tables that hold records, found by hopping from one name to the next.
    pub(crate) fn tables(&self) -> Result<Vec<TableName>, IndexError> {
        self.call("read", |db| {
            let mut tables = Vec::new();
            let mut from = vec![SEPARATOR + 1];
            while let Some(row) = db.range(from..).next() {
                let Some(table) = Self::table_of(&row?.0) else { break };
                from = behind_table(&table);
                tables.push(table);
            }
            Ok(tables)
        })
    }

    /// The table a full key belongs to.
    pub(super) fn table_of(key: &[u8]) -> Option<TableName> {
        let name = key.split(|&b| b == SEPARATOR).next().unwrap_or_default();
        std::str::from_utf8(name).ok().and_then(TableName::parse)
    }

    /// Flushes, and syncs every file of the index: sled's flush alone does not survive a power cut.
    pub(crate) fn sync(&self) -> Result<(), IndexError> {
        self.call("flush", |db| db.flush())?;
        let sync_all = || {
            let mut folders = vec![self.path.clone()];
            while let Some(folder) = folders.pop() {
                for entry in fs::read_dir(&folder)? {
                    let entry = entry?;
                    if entry.file_type()?.is_dir() {
                        folders.push(entry.path());
                    } else {
                        File::open(entry.path())?.sync_all()?;
                    }
                }
                File::open(&folder)?.sync_all()?;
            }
            crate::transfer::sync_parent(&self.path)
        };
        sync_all().map_err(|e| IndexError { what: "sync", cause: e.to_string() })
    }
}

impl Drop for Index {
    fn drop(&mut self) {
        let Some(db) = self.db.take() else { return };
        if *self.broken.get_mut() || *self.doubtful.get_mut() {
            // Not a slip: dropping would flush, and may never come back (see the head of this file). The files stay
            // open until the process ends; the next index has a folder of its own.
            std::mem::forget(db);
            return;
        }
        // A flush that fails now, of all times, must not hold anybody either.
        let (done, wait) = mpsc::sync_channel(1);
        let db = ManuallyDrop::new(db);
        let closer = std::thread::Builder::new().name("store-close".into()).spawn(move || {
            drop(ManuallyDrop::into_inner(db));
            let _ = done.send(());
        });
        if closer.is_ok() && wait.recv_timeout(CLOSE_LIMIT) == Err(mpsc::RecvTimeoutError::Timeout) {
            give_sled_up();
            tracing::error!(index = %self.path.display(), "closing the store's index hangs; only a new process can open it again");
        }
    }
}

/// A key in the one tree of all tables.
pub(super) fn full_key(table: &TableName, key: &[u8]) -> Vec<u8> {
    let name = table.as_str().as_bytes();
    let mut full = Vec::with_capacity(name.len() + 1 + key.len());
    full.extend_from_slice(name);
    full.push(SEPARATOR);
    full.extend_from_slice(key);
    full
}

fn behind_table(table: &TableName) -> Vec<u8> {
    let mut end = table.as_str().as_bytes().to_vec();
    end.push(SEPARATOR + 1);
    end
}

fn versioned(version: Seq, value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(VERSION_LEN + value.len());
    out.extend_from_slice(&version.0.to_be_bytes());
    out.extend_from_slice(value);
    out
}

fn version_of(value: &[u8]) -> Seq {
    Seq(value.first_chunk().map_or(0, |head| u64::from_be_bytes(*head)))
}

fn record(key: Bytes, value: &[u8]) -> Record {
    let body = value.get(VERSION_LEN..).unwrap_or_default();
    Record { key, value: Bytes::copy_from_slice(body), version: version_of(value) }
}
