//! Damaged folders, failing disks, second openers: each is repaired or refused, and what is refused is named.
//!
//! Where an error offers a command as the fix, the test runs that command and opens the store again.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use windlass_store::{
    Batch, Disk, EmbeddedOptions, EmbeddedStore, Fault, FaultPlan, FaultyStore, Health, Level, MemoryStore, OpenError,
    RealDisk, Scan, SegmentFile, Space, Store, StoreError, TableName,
};

const T: TableName = TableName::new("things");

fn options() -> EmbeddedOptions {
    EmbeddedOptions { cache_bytes: 8 << 20, reserve_bytes: 4096, ..Default::default() }
}

fn put(n: u32) -> Batch {
    let mut batch = Batch::new();
    batch.put(&T, format!("k{n}"), format!("value {n}").repeat(20));
    batch
}

async fn count(store: &dyn Store) -> usize {
    store.scan(Scan::table(&T)).await.unwrap().records.len()
}

/// A folder with a closed store that holds `commits` records.
async fn filled(commits: u32) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(dir.path(), &options()).unwrap();
    for n in 0..commits {
        store.commit(put(n)).await.unwrap();
    }
    dir
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    files
}

fn segment(dir: &TempDir) -> PathBuf {
    files(&dir.path().join("journal")).pop().unwrap()
}

/// Changes a file's bytes.
fn edit(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = std::fs::read(path).unwrap();
    change(&mut bytes);
    std::fs::write(path, bytes).unwrap();
}

/// Where the frame of each commit begins, found by its magic.
fn frames(bytes: &[u8]) -> Vec<usize> {
    (0..bytes.len() - 4).filter(|&i| &bytes[i..i + 4] == b"\xb5WLf").collect()
}

fn refusal(dir: &TempDir) -> String {
    let error = EmbeddedStore::open(dir.path(), &options()).expect_err("must be refused");
    error.to_string().replace(&dir.path().display().to_string(), "DIR")
}

/// Runs the command that ends an error text.
fn run_fix(dir: &TempDir, refusal: &str) {
    let (_, fix) = refusal.rsplit_once(": ").unwrap();
    let fix = fix.replace("DIR", &dir.path().display().to_string());
    assert!(Command::new("sh").args(["-c", &fix]).status().unwrap().success(), "{fix}");
}

async fn reopened(dir: &TempDir) -> (EmbeddedStore, usize) {
    let store = EmbeddedStore::open(dir.path(), &options()).unwrap();
    let found = count(&store).await;
    store.commit(put(9000)).await.unwrap();
    (store, found)
}

#[tokio::test]
async fn a_torn_tail_is_cut_and_writing_goes_on() {
    // How a write may be torn: the last frame cut, its middle dropped, or foreign bytes behind the end.
    let tears: [fn(&mut Vec<u8>, usize); 4] = [
        |bytes, last| bytes.truncate(last + 20),
        |bytes, last| bytes[last + 40..].fill(0),
        |bytes, last| bytes[last..last + 8].fill(0),
        |bytes, last| bytes[last + 60] ^= 1,
    ];
    for tear in tears {
        let dir = filled(10).await;
        // The index has seen the last commit; a torn one was never applied to it.
        std::fs::remove_file(dir.path().join("index.trust")).unwrap();
        edit(&segment(&dir), |bytes| {
            let last = *frames(bytes).last().unwrap();
            tear(bytes, last);
        });
        let (store, found) = reopened(&dir).await;
        assert_eq!(found, 9);
        drop(store);
        assert_eq!(count(&EmbeddedStore::open(dir.path(), &options()).unwrap()).await, 10);
    }
}

#[tokio::test]
async fn damage_to_what_was_durable_is_refused_and_the_fix_works() {
    let dir = filled(10).await;
    let path = segment(&dir);
    let mut fourth = 0;
    edit(&path, |bytes| {
        fourth = frames(bytes)[3];
        bytes[fourth + 50] ^= 1;
    });
    let text = refusal(&dir);
    let name = path.file_name().unwrap().to_str().unwrap();
    assert_eq!(
        text,
        format!(
            "read the journal segment DIR/journal/{name}: damaged at byte {fourth}, in commit 4, behind which acknowledged commits \
             follow; restore the data folder from a backup, or, after copying the folder, give up that commit and all later ones: \
             truncate -s {fourth} DIR/journal/{name} && rm -rf DIR/index DIR/index.trust"
        )
    );
    assert_eq!(refusal(&dir), text, "a refusal changes nothing");
    run_fix(&dir, &text);
    assert_eq!(reopened(&dir).await.1, 3);
}

#[tokio::test]
async fn a_journal_that_lost_its_end_is_refused() {
    let dir = filled(10).await;
    edit(&segment(&dir), |bytes| {
        let last = *frames(bytes).last().unwrap();
        bytes.truncate(last);
    });
    let text = refusal(&dir);
    assert_eq!(
        text,
        "open the store: the journal in DIR/journal ends at commit 9, but the index has seen commit 10; put the journal's files \
         back, or, after copying the folder, give up the commits between: rm -rf DIR/index DIR/index.trust"
    );
    let elsewhere = EmbeddedOptions { boot: Some("a later boot".into()), ..options() };
    assert!(matches!(EmbeddedStore::open(dir.path(), &elsewhere), Err(OpenError::JournalCut { .. })));
    run_fix(&dir, &text);
    assert_eq!(reopened(&dir).await.1, 9);
}

#[tokio::test]
async fn damaged_and_missing_segments_are_named() {
    let dir = filled(3).await;
    edit(&segment(&dir), |bytes| bytes[3] = b'x');
    assert!(refusal(&dir).contains("damaged at byte 0, in commit 1, behind which is the segment's header"));

    let dir = filled(3).await;
    edit(&segment(&dir), |bytes| {
        bytes[8] = 9;
        let sum = crc32c::crc32c(&bytes[..28]).to_le_bytes();
        bytes[28..32].copy_from_slice(&sum);
    });
    assert!(refusal(&dir).ends_with("it has format 9; start the release that wrote it, or a later one"));

    let dir = filled(3).await;
    let path = segment(&dir);
    std::fs::copy(&path, path.with_file_name("00000000000000000009.segment")).unwrap();
    assert!(refusal(&dir).contains("it begins with commit 1, but commit 4 comes next"), "{}", refusal(&dir));
}

#[tokio::test]
async fn the_index_is_built_anew_whatever_happens_to_it() {
    let breaks: [fn(&Path); 5] = [
        |index| std::fs::remove_dir_all(index).unwrap(),
        |index| std::fs::write(index.join("db"), b"junk").unwrap(),
        |index| edit(&index.join("db"), |bytes| bytes.iter_mut().for_each(|b| *b ^= 0x55)),
        |index| std::fs::write(index.join("conf"), b"junk").unwrap(),
        |index| std::fs::write(index.join("snap.00000000000000FF.generating"), b"junk").unwrap(),
    ];
    for (which, break_it) in breaks.into_iter().enumerate() {
        let dir = filled(50).await;
        break_it(&files(&dir.path().join("index"))[0]);
        assert_eq!(reopened(&dir).await.1, 50, "break {which}");
    }
}

#[tokio::test]
async fn exports_shorten_the_journal_and_carry_the_index() {
    let dir = tempfile::tempdir().unwrap();
    let small = EmbeddedOptions { segment_bytes: 32 << 10, ..options() };
    let store = EmbeddedStore::open(dir.path(), &small).unwrap();
    for round in 0..20 {
        for n in 0..100 {
            store.commit(put(n)).await.unwrap();
        }
        let mut delete = Batch::new();
        delete.delete(&T, format!("k{round}"));
        store.commit(delete).await.unwrap();
    }
    // An export on request waits for those in the background.
    store.export(&dir.path().join("copy.jsonl")).await.unwrap();
    assert_eq!(count(&store).await, 99);
    drop(store);
    assert_eq!(files(&dir.path().join("exports")).len(), 1);
    assert_eq!(files(&dir.path().join("journal")).len(), 2, "the open segment and the last closed one");
    std::fs::remove_dir_all(dir.path().join("index")).unwrap();
    let (store, found) = reopened(&dir).await;
    assert_eq!(found, 99);
    drop(store);

    // Without the index a damaged export is the end, and says so.
    let export = files(&dir.path().join("exports")).pop().unwrap();
    edit(&export, |bytes| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
    });
    assert_eq!(count(&EmbeddedStore::open(dir.path(), &options()).unwrap()).await, 100, "the index is still good");
    std::fs::remove_dir_all(dir.path().join("index")).unwrap();
    assert!(matches!(EmbeddedStore::open(dir.path(), &options()), Err(OpenError::Export(_))));
}

#[tokio::test]
async fn a_folder_has_one_user() {
    let dir = filled(1).await;
    let first = EmbeddedStore::open(dir.path(), &options()).unwrap();
    assert_eq!(
        refusal(&dir),
        "open the store in DIR: it is in use already; find by whom, and stop that: fuser DIR/lock"
    );
    drop(first);
    EmbeddedStore::open(dir.path(), &options()).unwrap();
}

/// What the disk does wrong: countdowns of the calls they name, zero for never. And how often it was synced.
#[derive(Clone, Default)]
struct Trouble {
    fail_sync: Arc<AtomicU32>,
    full: Arc<AtomicU32>,
    short_write: Arc<AtomicU32>,
    syncs: Arc<AtomicU32>,
    /// Free bytes of a disk of 100 GiB; 0 stands for half of it.
    free: Arc<AtomicU64>,
}

struct TroubledDisk(Trouble);
struct TroubledFile(Box<dyn SegmentFile>, Trouble);

/// Takes one off and says whether that was the last.
fn due(countdown: &AtomicU32) -> bool {
    countdown.fetch_update(SeqCst, SeqCst, |n| n.checked_sub(1)) == Ok(1)
}

impl Disk for TroubledDisk {
    fn open(&self, path: &Path) -> io::Result<Box<dyn SegmentFile>> {
        Ok(Box::new(TroubledFile(RealDisk.open(path)?, self.0.clone())))
    }
    fn space(&self, _: &Path) -> io::Result<Space> {
        let total = 100 << 30;
        Ok(Space { free: Some(self.0.free.load(SeqCst)).filter(|&free| free > 0).unwrap_or(total / 2), total })
    }
}

impl SegmentFile for TroubledFile {
    fn write_all_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let zeros = bytes.iter().all(|&b| b == 0);
        if zeros && due(&self.1.full) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if !zeros && due(&self.1.short_write) {
            self.0.write_all_at(&bytes[..bytes.len() / 2], offset)?;
            return Err(io::Error::other("input/output error"));
        }
        self.0.write_all_at(bytes, offset)
    }
    fn sync_data(&mut self) -> io::Result<()> {
        self.1.syncs.fetch_add(1, SeqCst);
        if due(&self.1.fail_sync) { Err(io::Error::other("input/output error")) } else { self.0.sync_data() }
    }
    fn truncate(&mut self, length: u64) -> io::Result<()> {
        self.0.truncate(length)
    }
}

#[tokio::test]
async fn a_disk_error_stops_the_store_for_good() {
    let fail_sync = |t: &Trouble| t.fail_sync.store(3, SeqCst);
    let short_write = |t: &Trouble| t.short_write.store(3, SeqCst);
    // A relaxed commit is written by whoever makes it.
    let cases: [(fn(&Trouble), _, _); 3] =
        [(fail_sync, "sync", false), (short_write, "write", false), (short_write, "write", true)];
    for (make, what, relaxed) in cases {
        let dir = filled(5).await;
        let trouble = Trouble::default();
        let disk = Arc::new(TroubledDisk(trouble.clone()));
        let store = EmbeddedStore::open(dir.path(), &EmbeddedOptions { disk, ..options() }).unwrap();
        make(&trouble);
        store.commit(put(100)).await.unwrap();
        store.commit(put(101)).await.unwrap();
        let mut last = put(102);
        if relaxed {
            last.relaxed();
        }
        let error = store.commit(last).await.unwrap_err();
        let text = error.to_string().replace(&dir.path().display().to_string(), "DIR");
        let reason = format!("{what} the journal DIR/journal/00000000000000000001.segment: input/output error");
        assert_eq!(text, format!("use the store: it has stopped: {reason}; restart the server"));
        assert!(matches!(store.get(&T, b"k1").await, Err(StoreError::Stopped { .. })));
        assert!(matches!(store.commit(put(103)).await, Err(StoreError::Stopped { .. })));
        assert!(matches!(store.export(&dir.path().join("x")).await, Err(e) if e.to_string().contains("has stopped")));
        assert_eq!(Health::Stopped(store.stopped().await), store.health());
        drop(store);
        // The commit that met the error may be there or not; everything before it is.
        assert!((7..=8).contains(&reopened(&dir).await.1));
    }
}

#[tokio::test]
async fn relaxed_commits_are_synced_even_while_they_keep_coming() {
    let dir = filled(1).await;
    let trouble = Trouble::default();
    let disk = Arc::new(TroubledDisk(trouble.clone()));
    let store = EmbeddedStore::open(dir.path(), &EmbeddedOptions { disk, ..options() }).unwrap();
    let before = trouble.syncs.load(SeqCst);
    let (mut commits, start) = (0, Instant::now());
    while trouble.syncs.load(SeqCst) < before + 2 {
        assert!(start.elapsed().as_secs() < 20, "{commits} relaxed commits were never synced");
        let mut batch = put(commits % 10);
        batch.relaxed();
        store.commit(batch).await.unwrap();
        commits += 1;
    }
    assert!(commits > 10, "relaxed commits must not each pay for a sync");
}

#[tokio::test]
async fn a_full_disk_costs_the_reserve_first() {
    let dir = filled(5).await;
    let trouble = Trouble::default();
    let disk = Arc::new(TroubledDisk(trouble.clone()));
    let store = EmbeddedStore::open(dir.path(), &EmbeddedOptions { disk, ..options() }).unwrap();
    let heavy = |n: u32| {
        let mut batch = put(n);
        for i in 0..64 {
            batch.put(&TableName::new("bulk"), format!("{n}-{i}"), vec![7; 32 << 10]);
        }
        batch
    };
    trouble.full.store(1, SeqCst);
    store.commit(heavy(100)).await.unwrap();
    assert_eq!(store.health(), Health::LowSpace);
    assert!(!dir.path().join("reserve").exists());
    assert_eq!(store.room().level, Level::Critical, "though the disk has space again");
    assert_eq!(
        store.room().to_string(),
        "the disk of the data folder was full and the server lives on its reserve: 50.0 GiB of 100.0 GiB are free, and anything new \
         needs 10.0 GiB and a restart"
    );
    trouble.full.store(1, SeqCst);
    let error = store.commit(heavy(101)).await.unwrap_err();
    assert!(error.to_string().contains("extend the journal"), "{error}");
    drop(store);
    assert_eq!(reopened(&dir).await.1, 6);
}

#[tokio::test]
async fn a_disk_that_fills_up_is_seen_before_it_is_full() {
    let dir = filled(1).await;
    let trouble = Trouble::default();
    let disk = Arc::new(TroubledDisk(trouble.clone()));
    let look_every = Duration::from_millis(1);
    let store = EmbeddedStore::open(dir.path(), &EmbeddedOptions { disk, look_every, ..options() }).unwrap();
    assert_eq!(store.room().level, Level::Good, "known from the first moment");
    let steps = [(9, Level::Low), (4, Level::Refusing), (1, Level::Critical), (4, Level::Refusing), (60, Level::Good)];
    for (gib, level) in steps {
        trouble.free.store(gib << 30, SeqCst);
        let start = Instant::now();
        while store.room().level != level {
            assert!(start.elapsed().as_secs() < 20, "{gib} GiB were never seen as {level:?}: {}", store.room());
            tokio::task::yield_now().await;
        }
        store.commit(put(u32::try_from(gib).unwrap())).await.expect("what runs may go on at every level");
    }
    assert_eq!(store.health(), Health::Good);
}

#[tokio::test]
async fn the_double_fails_where_its_plan_says() {
    let inner: Arc<dyn Store> = Arc::new(MemoryStore::new());
    for (fault, done) in [(Fault::Fail, false), (Fault::Tear, true)] {
        let before = count(&*inner).await;
        let store = FaultyStore::new(inner.clone(), FaultPlan::none().at(2, fault));
        let base = u32::try_from(before).unwrap() * 10;
        store.commit(put(base)).await.unwrap();
        assert!(matches!(store.commit(put(base + 1)).await, Err(StoreError::Stopped { .. })));
        assert!(matches!(store.commit(put(base + 2)).await, Err(StoreError::Stopped { .. })));
        assert!(store.stopped().await.starts_with("planned fault: commit 2"));
        assert_eq!(count(&*inner).await, before + 1 + usize::from(done));
    }
    let plan = |seed| format!("{:?}", FaultPlan::from_seed(seed, 40));
    assert_eq!(plan(1), plan(1));
    assert_ne!(plan(1), plan(2));
}
