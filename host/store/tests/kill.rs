//! A process that writes with many writers is killed with SIGKILL, again and again.
//!
//! The parent keeps what was acknowledged, read through a pipe. The child opens the same folder each round, checks
//! that everything acknowledged so far is there and nothing is half, says so, and writes on until it is killed:
//! sometimes while it still opens. Every eighth round pretends the machine restarted, so that building the index
//! anew is killed too. `WINDLASS_LONG=1` runs 5,000 rounds instead of 300.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

#[path = "../../../tests/powercut/workload.rs"]
#[allow(dead_code)] // The power-cut test uses the rest.
mod workload;

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use rand::{RngExt, SeedableRng};
use windlass_store::{EmbeddedOptions, EmbeddedStore, Store};
use workload::{Ack, Bounds};

const WRITERS: u64 = 16;
const DIR: &str = "WINDLASS_KILL_DIR";
const BOOT: &str = "WINDLASS_KILL_BOOT";

fn options(boot: String) -> EmbeddedOptions {
    EmbeddedOptions {
        cache_bytes: 8 << 20,
        segment_bytes: 1 << 20,
        reserve_bytes: 4096,
        boot: Some(boot),
        ..Default::default()
    }
}

fn spawn_child(root: &Path, boot: u32, bounds: &Bounds) -> Child {
    std::fs::write(root.join("bounds"), bounds.to_text()).unwrap();
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--ignored", "--nocapture", "--quiet"])
        .env(DIR, root)
        .env(BOOT, boot.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap()
}

#[test]
#[ignore = "started by the kill loop as a process of its own"]
fn child() {
    let root = std::env::var_os(DIR).expect("only the kill loop starts this");
    let root = Path::new(&root);
    let bounds = Bounds::from_text(&std::fs::read_to_string(root.join("bounds")).unwrap());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    runtime.block_on(async {
        let opened = EmbeddedStore::open(&root.join("data"), &options(std::env::var(BOOT).unwrap())).unwrap();
        let store: Arc<dyn Store> = Arc::new(opened);
        let verdict = workload::check(&*store, WRITERS, &bounds).await.map_or_else(|e| e, |()| "good".into());
        std::io::stdout().lock().write_all(format!("\nCHECKED {verdict}\n").as_bytes()).unwrap();
        if verdict == "good" {
            workload::run(&store, WRITERS, u64::MAX, workload::print).await.unwrap();
        }
    });
}

/// What one round showed before its end.
#[derive(Default)]
struct Round {
    verdict: Option<String>,
    acks: Vec<Ack>,
}

/// When the child is killed.
enum Moment {
    /// This long after its start, most likely while it opens.
    AfterStart(Duration),
    /// This long after it said what it found.
    AfterCheck(Duration),
}

/// Kills the child at its moment and gives what it had said by then.
fn kill_at(mut child: Child, moment: &Moment) -> Round {
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let (checked, when_checked) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        let mut round = Round::default();
        for line in lines.map_while(Result::ok) {
            if let Some(ack) = Ack::parse(&line) {
                round.acks.push(ack);
            } else if let Some(verdict) = line.strip_prefix("CHECKED ") {
                round.verdict = Some(verdict.to_owned());
                // Nobody listens in the rounds that do not wait for it.
                let _ = checked.send(());
            }
        }
        round
    });
    match moment {
        Moment::AfterStart(time) => std::thread::sleep(*time),
        Moment::AfterCheck(time) => {
            when_checked.recv_timeout(Duration::from_secs(60)).expect("the store did not open");
            std::thread::sleep(*time);
        }
    }
    child.kill().unwrap();
    let status = child.wait().unwrap();
    let round = reader.join().unwrap();
    let ended_by_itself = status.code().is_some() && round.verdict.as_deref() == Some("good");
    assert!(!ended_by_itself, "the child did not wait to be killed: {status}");
    round
}

#[test]
fn nothing_acknowledged_is_lost_when_the_process_is_killed() {
    let long = std::env::var_os("WINDLASS_LONG").is_some();
    let rounds = if long { 5_000 } else { 300 };
    let root = tempfile::tempdir().unwrap();
    let mut random = rand::rngs::StdRng::seed_from_u64(rand::random());
    let mut acked = std::collections::BTreeMap::new();
    let (mut boot, mut checked, mut total) = (1, 0, 0);
    for round in 0..rounds {
        boot += u32::from(round % 8 == 7);
        let acks: Vec<Ack> = acked.values().copied().collect();
        let child = spawn_child(root.path(), boot, &Bounds::after_kill(&acks));
        let moment = match round % 3 {
            0 => Moment::AfterStart(Duration::from_millis(random.random_range(1..100))),
            _ => Moment::AfterCheck(Duration::from_millis(random.random_range(0..60))),
        };
        let result = kill_at(child, &moment);
        if let Some(verdict) = result.verdict {
            assert_eq!(verdict, "good", "round {round}");
            checked += 1;
        }
        total += result.acks.len();
        acked.extend(result.acks.into_iter().map(|ack| (ack.writer, ack)));
    }
    println!("{rounds} kills, {checked} of them after the check, {total} commits acknowledged");
    assert!(total > rounds * 16, "the rounds were too short to mean anything");
    let acks: Vec<Ack> = acked.values().copied().collect();
    let store = EmbeddedStore::open(&root.path().join("data"), &options("last".into())).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(workload::check(&store, WRITERS, &Bounds::after_kill(&acks))).unwrap();
}
