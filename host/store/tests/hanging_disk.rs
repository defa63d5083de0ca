//! A write to the disk hangs: whoever makes it waits with it, and nobody else does.
//!
//! One test in a file of its own: a store that was given up leaves sled of no use in its process.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test ends at its first surprise"
)]

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use windlass_store::{
    Batch, Disk, Durability, EmbeddedOptions, EmbeddedStore, Health, RealDisk, SegmentFile, Store, StoreError,
    TableName,
};

const T: TableName = TableName::new("things");

/// Writes hang for as long as somebody else holds the lock.
#[derive(Clone, Default)]
struct HangingDisk {
    hangs: Arc<Mutex<()>>,
    is_met: Arc<AtomicBool>,
}

struct HangingFile(Box<dyn SegmentFile>, HangingDisk);

impl Disk for HangingDisk {
    fn open(&self, path: &Path) -> io::Result<Box<dyn SegmentFile>> {
        Ok(Box::new(HangingFile(RealDisk.open(path)?, self.clone())))
    }
}

impl SegmentFile for HangingFile {
    fn write_all_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.1.is_met.store(true, Ordering::SeqCst);
        drop(self.1.hangs.lock().unwrap());
        self.0.write_all_at(bytes, offset)
    }
    fn sync_data(&mut self) -> io::Result<()> {
        self.0.sync_data()
    }
    fn truncate(&mut self, length: u64) -> io::Result<()> {
        self.0.truncate(length)
    }
}

fn put(key: &'static str, durability: Durability) -> Batch {
    let mut batch = Batch::new();
    batch.put(&T, key, "value");
    if durability == Durability::Relaxed {
        batch.relaxed();
    }
    batch
}

#[test]
fn a_write_that_hangs_holds_up_its_maker_alone() {
    let dir = tempfile::tempdir().unwrap();
    let disk = HangingDisk::default();
    let options = EmbeddedOptions {
        cache_bytes: 8 << 20,
        reserve_bytes: 4096,
        look_every: Duration::from_millis(100),
        disk: Arc::new(disk.clone()),
        ..Default::default()
    };
    let store = Arc::new(EmbeddedStore::open(dir.path(), &options).unwrap());
    // As few threads as a server has at least.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(store.commit(put("first", Durability::Durable))).unwrap();

    let held = disk.hangs.lock().unwrap();
    disk.is_met.store(false, Ordering::SeqCst);
    let commit = |key, durability| {
        let store = Arc::clone(&store);
        runtime.spawn(async move { store.commit(put(key, durability)).await })
    };
    let hangs = commit("hangs", Durability::Relaxed);
    while !disk.is_met.load(Ordering::SeqCst) {
        std::thread::yield_now();
    }
    let others = [Durability::Relaxed, Durability::Durable, Durability::Relaxed].map(|how| commit("other", how));
    for other in others {
        let error = runtime.block_on(other).unwrap().unwrap_err();
        assert!(matches!(error, StoreError::Stopped { .. }), "{error}");
        assert!(error.to_string().contains("a commit did not end within 1.2s"), "{error}");
    }
    assert!(matches!(store.health(), Health::Stopped(_)));

    // Once the disk goes on so does its maker, whatever it is told: nothing more is written.
    drop(held);
    drop(runtime.block_on(hangs).unwrap());
    let late = runtime.block_on(store.commit(put("late", Durability::Relaxed))).unwrap_err();
    assert!(matches!(late, StoreError::Stopped { .. }), "{late}");
}
