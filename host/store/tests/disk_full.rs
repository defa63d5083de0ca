//! The disk fills up while many writers are at work.
//!
//! A real one: a small tmpfs in a mount namespace of its own. A child process opens the store there, lets the
//! writers run, fills the disk to a random level, and waits for the store to stop. After space is freed the store
//! must open with everything it acknowledged. Where no namespace may be made, the test says so and ends; the same
//! paths are then covered by the disk double in `damage.rs`. `WINDLASS_LONG=1` fills the disk 50 times instead of 8.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

#[path = "../../../tests/powercut/workload.rs"]
#[allow(dead_code)] // The other crash tests use the rest.
mod workload;

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::RngExt;
use windlass_store::{EmbeddedOptions, EmbeddedStore, Health, Store, StoreError};
use workload::{Ack, Bounds};

const WRITERS: u64 = 8;
const DISK: &str = "WINDLASS_FULL_DISK";
static ACKS: Mutex<Vec<Ack>> = Mutex::new(Vec::new());

fn options() -> EmbeddedOptions {
    EmbeddedOptions { cache_bytes: 8 << 20, segment_bytes: 1 << 20, reserve_bytes: 2 << 20, ..Default::default() }
}

#[test]
fn a_full_disk_stops_the_store_and_loses_nothing() {
    // After an I/O error sled can wait for ever in its own drop. The server ends its process then and never gets
    // there, but this test opens the folder again in the same one; `damage.rs` covers ENOSPC in the ordinary run.
    if std::env::var_os("WINDLASS_LONG").is_none() {
        println!("not run: fills a real disk only with WINDLASS_LONG=1");
        return;
    }
    let mount = tempfile::tempdir().unwrap();
    let script = format!("mount -t tmpfs -o size=24m tmpfs {} || exit 77; exec \"$0\" \"$@\"", mount.path().display());
    let run = Command::new("unshare")
        .args(["--map-root-user", "--mount", "sh", "-c", &script])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--ignored", "--nocapture"])
        .env(DISK, mount.path())
        .output();
    match run {
        Ok(output) if output.status.success() => println!("{}", String::from_utf8_lossy(&output.stdout)),
        Ok(output) if output.status.code() == Some(77) || output.stderr.starts_with(b"unshare:") => {
            println!("not run: no mount namespace here: {}", String::from_utf8_lossy(&output.stderr));
        }
        Err(e) => println!("not run: no unshare here: {e}"),
        Ok(output) => {
            panic!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
        }
    }
}

#[test]
#[ignore = "started in a mount namespace by the disk-full test"]
fn child() {
    let disk = PathBuf::from(std::env::var_os(DISK).expect("only the disk-full test starts this"));
    let rounds = if std::env::var_os("WINDLASS_LONG").is_some() { 50 } else { 8 };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let mut lows = 0;
    for round in 0..rounds {
        lows += u32::from(runtime.block_on(fill_once(&disk)));
        std::fs::remove_file(disk.join("ballast")).unwrap();
        let store = EmbeddedStore::open(&disk.join("data"), &options()).unwrap();
        let bounds = Bounds::after_kill(&ACKS.lock().unwrap());
        runtime.block_on(workload::check(&store, WRITERS, &bounds)).unwrap_or_else(|e| panic!("round {round}: {e}"));
    }
    let acked = ACKS.lock().unwrap().len();
    println!("{rounds} full disks, {lows} seen with the reserve given up, {acked} commits acknowledged");
    assert!(acked > 100, "the rounds were too short to mean anything");
}

/// Runs the writers into a full disk. Gives whether the store was seen living on its reserve.
async fn fill_once(disk: &Path) -> bool {
    let store: Arc<dyn Store> = Arc::new(EmbeddedStore::open(&disk.join("data"), &options()).unwrap());
    let writers = tokio::spawn({
        let store = store.clone();
        async move { workload::run(&store, WRITERS, u64::MAX, |ack| ACKS.lock().unwrap().push(ack)).await }
    });
    let ballast = disk.join("ballast");
    let before = Duration::from_millis(rand::rng().random_range(0..80));
    tokio::time::sleep(before).await;
    let filler = tokio::task::spawn_blocking(move || {
        let mut file = File::create(&ballast).unwrap();
        let piece = vec![1; rand::rng().random_range(4_000..200_000)];
        while file.write_all(&piece).is_ok() {}
    });
    let mut low = false;
    while !matches!(store.health(), Health::Stopped(_)) {
        low |= store.health() == Health::LowSpace;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    filler.await.unwrap();
    let error = writers.await.unwrap().unwrap_err();
    assert!(matches!(error, StoreError::Stopped { .. }), "{error}");
    low
}
