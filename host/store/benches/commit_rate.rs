//! How many commits a second the embedded store acknowledges, and how long one waits.
//!
//! `cargo bench -p windlass-store --bench commit_rate` prints one line for each number of writers, beside the
//! floor: bare writes of the same size to a filled file, each followed by fdatasync. A shared disk is noisy, so the
//! same is measured on a disk whose sync costs nothing (what is left is the store's own work) and on one whose sync
//! takes 2 ms (what is left is how well commits share a sync). At the end it shows how long opening takes.
//! `-- bulk` measures large values only.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use windlass_store::{Batch, Disk, EmbeddedOptions, EmbeddedStore, Key, RealDisk, SegmentFile, Store, TableName};

const TABLE: TableName = TableName::new("steps");
const VALUE: usize = 300;
const TIME: Duration = Duration::from_secs(2);

/// A disk whose sync takes the same time each time.
struct SteadyDisk(Duration);
struct SteadyFile(Box<dyn SegmentFile>, Duration);

impl Disk for SteadyDisk {
    fn open(&self, path: &Path) -> io::Result<Box<dyn SegmentFile>> {
        Ok(Box::new(SteadyFile(RealDisk.open(path)?, self.0)))
    }
}

impl SegmentFile for SteadyFile {
    fn write_all_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }
    fn sync_data(&mut self) -> io::Result<()> {
        if !self.1.is_zero() {
            std::thread::sleep(self.1);
        }
        Ok(())
    }
    fn truncate(&mut self, length: u64) -> io::Result<()> {
        self.0.truncate(length)
    }
}

fn report(what: &str, mut waits: Vec<Duration>, took: Duration) {
    waits.sort_unstable();
    let at = |share: f64| waits[((waits.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
    let rate = waits.len() as f64 / took.as_secs_f64();
    println!("{what:28} {rate:9.0}/s   p50 {:7.3} ms   p99 {:7.3} ms   max {:5.0} ms", at(0.5), at(0.99), at(1.0));
}

fn floor(dir: &Path) {
    let file = std::fs::File::create(dir.join("floor")).unwrap();
    file.write_all_at(&vec![0; 8 << 20], 0).unwrap();
    file.sync_all().unwrap();
    let (start, mut waits) = (Instant::now(), Vec::new());
    while start.elapsed() < TIME {
        let begin = Instant::now();
        file.write_all_at(&[7; VALUE + 40], (waits.len() * 340 % (7 << 20)) as u64).unwrap();
        file.sync_data().unwrap();
        waits.push(begin.elapsed());
    }
    report("floor: write + fdatasync", waits, start.elapsed());
}

async fn writers(store: &Arc<dyn Store>, count: u64, value: usize, relaxed: bool) {
    let start = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for writer in 0..count {
        let store = store.clone();
        tasks.spawn(async move {
            let mut waits = Vec::new();
            while start.elapsed() < TIME {
                let mut batch = Batch::new();
                batch.put(&TABLE, Key::of_id(writer).id(waits.len() as u64 % 1000), vec![7; value]);
                if relaxed {
                    batch.relaxed();
                }
                let begin = Instant::now();
                store.commit(batch).await.unwrap();
                waits.push(begin.elapsed());
            }
            waits
        });
    }
    let waits = tasks.join_all().await.concat();
    let kind = if relaxed { "relaxed" } else { "durable" };
    report(&format!("{count} writers, {value} B, {kind}"), waits, start.elapsed());
}

/// How long opening takes with 100 MiB of records: in order, and with the index built anew.
async fn opening(dir: &Path) {
    let options = |boot: &str| EmbeddedOptions { boot: Some(boot.into()), ..Default::default() };
    let store: Arc<dyn Store> = Arc::new(EmbeddedStore::open(dir, &options("one")).unwrap());
    for n in 0..100 {
        let mut batch = Batch::new();
        for i in 0..100 {
            batch.put(&TABLE, Key::of_id(n).id(i), vec![b'7'; 10_000]);
        }
        store.commit(batch).await.unwrap();
    }
    drop(store);
    for (what, boot) in [("open, closed in order", "two"), ("open, after a power cut", "three")] {
        if boot == "three" {
            // The mark is what a power cut leaves behind differently.
            std::fs::remove_file(dir.join("index.trust")).unwrap();
        }
        let begin = Instant::now();
        let store = EmbeddedStore::open(dir, &options(boot)).unwrap();
        println!("{what:28} {:9.0} ms", begin.elapsed().as_secs_f64() * 1e3);
        drop(store);
    }
}

fn main() {
    let bulk_only = std::env::args().any(|argument| argument == "bulk");
    // A folder of the build tree: the system's temporary folder may be in memory.
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    floor(dir.path());
    let disks: [(&str, Arc<dyn Disk>); 3] = [
        ("this disk", Arc::new(RealDisk)),
        ("a sync costs nothing", Arc::new(SteadyDisk(Duration::ZERO))),
        ("a sync takes 2 ms", Arc::new(SteadyDisk(Duration::from_millis(2)))),
    ];
    for (name, disk) in disks {
        println!("{name}:");
        runtime.block_on(async {
            let options = EmbeddedOptions { disk, ..Default::default() };
            let opened = EmbeddedStore::open(&dir.path().join(name), &options).unwrap();
            let store: Arc<dyn Store> = Arc::new(opened);
            if !bulk_only {
                for count in [1, 10, 100] {
                    writers(&store, count, VALUE, false).await;
                }
                writers(&store, 1, VALUE, true).await;
            }
            // Fills segments, so that closing them and exporting shows.
            writers(&store, 8, 8192, false).await;
            store.close().await.unwrap();
        });
    }
    runtime.block_on(opening(&dir.path().join("opening")));
}
