//! The disk fills up while many writers are at work.
//!
//! A real one: a small tmpfs in a mount namespace of its own. Each round a process opens the store there, lets the
//! writers run and fills the disk until the store stops. The folder is opened once more while the disk is still full,
//! and once space is free again, in the same process and in another one: everything acknowledged is there, and
//! writing goes on. The same is done with a limit on the size of files, which needs no rights at all, so that
//! something is proved even where no file system may be mounted. `WINDLASS_LONG=1` runs 50 rounds instead of 6.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test ends at its first surprise"
)]

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
const DATA: &str = "WINDLASS_FULL_DATA";
/// Nothing here takes as long; what does, hangs.
const PATIENCE: Duration = Duration::from_secs(100);
static ACKS: Mutex<Vec<Ack>> = Mutex::new(Vec::new());

fn options() -> EmbeddedOptions {
    EmbeddedOptions { cache_bytes: 8 << 20, segment_bytes: 1 << 20, reserve_bytes: 512 << 10, ..Default::default() }
}

fn rounds() -> u32 {
    if std::env::var_os("WINDLASS_LONG").is_some() { 50 } else { 6 }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// Ends the process if it hangs: the store must not, and a hanging test tells less than a failing one.
fn end_if_it_hangs() {
    std::thread::spawn(|| {
        std::thread::sleep(PATIENCE);
        eprintln!("it hangs");
        std::process::exit(99);
    });
}

/// This test program again, for one of its ignored tests.
fn again(test: &str) -> Vec<String> {
    let program = std::env::current_exe().unwrap().display().to_string();
    [&program, "--exact", test, "--ignored", "--nocapture", "--quiet"].map(ToString::to_string).into()
}

fn shell(script: &str, test: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]).args(again(test));
    command
}

/// Runs it, gives what it acknowledged and insists that it ended well.
fn run(command: &mut Command) -> Vec<Ack> {
    let output = command.output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let said: String = out.lines().filter(|line| !line.starts_with("ACK ")).collect();
    assert!(output.status.success(), "{}: {said}\n{err}", output.status);
    out.lines().filter_map(Ack::parse).collect()
}

/// Notes an acknowledgement; a process of one round also tells the one that started it.
fn tell(ack: Ack) {
    if std::env::var_os(DATA).is_some() {
        workload::print(ack);
    }
    ACKS.lock().unwrap().push(ack);
}

/// Opens the folder, finds everything acknowledged so far, and writes on.
fn check(data: &Path) {
    let store: Arc<dyn Store> = Arc::new(EmbeddedStore::open(data, &options()).unwrap());
    let bounds = Bounds::after_kill(&ACKS.lock().unwrap());
    runtime().block_on(async {
        workload::check(&*store, WRITERS, &bounds).await.unwrap();
        workload::run(&store, WRITERS, 2, tell).await.unwrap();
        store.close().await.unwrap();
    });
}

fn enough(rounds: u32, total: usize) {
    println!("{rounds} full disks, {total} commits acknowledged");
    assert!(total > 20 * rounds as usize, "the rounds were too short to mean anything: {total}");
}

#[test]
fn a_full_disk_stops_the_store_and_loses_nothing() {
    let mount = tempfile::tempdir().unwrap();
    let script = format!("mount -t tmpfs -o size=24m tmpfs {} || exit 77; exec \"$0\" \"$@\"", mount.path().display());
    let run = Command::new("unshare")
        .args(["--map-root-user", "--mount", "sh", "-c", &script])
        .args(again("rounds_on_a_small_disk"))
        .env(DISK, mount.path())
        .output();
    let instead = "the test with a limit on the size of files has to do";
    match run {
        Ok(output) if output.status.success() => println!("{}", String::from_utf8_lossy(&output.stdout)),
        Ok(output) if output.status.code() == Some(77) || output.stderr.starts_with(b"unshare:") => {
            eprintln!("no tmpfs may be mounted here, {instead}: {}", String::from_utf8_lossy(&output.stderr));
        }
        Err(e) => eprintln!("there is no unshare here, {instead}: {e}"),
        Ok(output) => {
            panic!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
        }
    }
}

#[test]
#[ignore = "started in a mount namespace by the disk-full test"]
fn rounds_on_a_small_disk() {
    let disk = PathBuf::from(std::env::var_os(DISK).expect("only the disk-full test starts this"));
    let data = disk.join("data");
    let mut total = 0;
    for _ in 0..rounds() {
        let more = run(Command::new(&again("")[0]).args(&again("fill_the_disk")[1..]).env(DATA, &data));
        total += more.len();
        ACKS.lock().unwrap().extend(more);
        check(&data);
    }
    enough(rounds(), total);
}

/// One round, in a process of its own: what an abandoned index keeps open takes space until its process ends.
#[test]
#[ignore = "started by the rounds"]
fn fill_the_disk() {
    end_if_it_hangs();
    let data = PathBuf::from(std::env::var_os(DATA).expect("only the rounds start this"));
    let ballast = data.with_file_name("ballast");
    let store: Arc<dyn Store> = Arc::new(EmbeddedStore::open(&data, &options()).unwrap());
    runtime().block_on(write_until_stopped(&store, || {
        let mut file = File::create(&ballast).unwrap();
        let piece = vec![1; rand::rng().random_range(4_000..200_000)];
        while file.write_all(&piece).is_ok() {}
    }));
    drop(store);
    // While the disk is full an opening may fail or not. It must not hang, and it must not make things worse.
    drop(EmbeddedStore::open(&data, &options()));
    std::fs::remove_file(&ballast).unwrap();
    check(&data);
}

#[test]
fn files_that_may_not_grow_stop_the_store_and_lose_nothing() {
    let root = tempfile::tempdir().unwrap();
    // In blocks of 512 bytes. The first limit meets the journal when it grows, the second one sled's file.
    let limits = [3_000, 6_000];
    let mut total = 0;
    for (round, limit) in (0..rounds()).zip(limits.into_iter().cycle()) {
        let data = root.path().join(round.to_string());
        let script = format!("trap '' XFSZ; ulimit -f {limit}; exec \"$0\" \"$@\"");
        let acks = run(shell(&script, "write_to_the_limit").env(DATA, &data));
        total += acks.len();
        *ACKS.lock().unwrap() = acks;
        check(&data);
    }
    enough(rounds(), total);
}

#[test]
#[ignore = "started with a limit on the size of files"]
fn write_to_the_limit() {
    end_if_it_hangs();
    let data = PathBuf::from(std::env::var_os(DATA).expect("only the rounds start this"));
    let store: Arc<dyn Store> = Arc::new(EmbeddedStore::open(&data, &options()).unwrap());
    runtime().block_on(write_until_stopped(&store, || {}));
}

/// Lets the writers run into the end of the disk, which `fill` brings about after a moment.
async fn write_until_stopped(store: &Arc<dyn Store>, fill: impl FnOnce()) {
    let writers = tokio::spawn({
        let store = store.clone();
        async move { workload::run(&store, WRITERS, u64::MAX, tell).await }
    });
    let before = Duration::from_millis(rand::rng().random_range(0..80));
    tokio::time::sleep(before).await;
    tokio::task::block_in_place(fill);
    let reason = store.stopped().await;
    assert_eq!(store.health(), Health::Stopped(reason));
    let error = writers.await.unwrap().unwrap_err();
    assert!(matches!(error, StoreError::Stopped { .. }), "{error}");
}
