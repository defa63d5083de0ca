//! Simulated power cuts: run the store once under a recorder, then open hundreds of disks a cut may have left.
//!
//! The recorded process opens the store, writes with many writers, closes it, opens it again and writes on, so that
//! cuts fall into openings and closings as well. For each image the store is opened as after a restart of the
//! machine: it must open, hold everything acknowledged as durable, nothing half and nothing that was never begun.
//! The same is done with a store whose syncs lie: the checker must catch that, or it proves nothing.
//! `WINDLASS_LONG=1` opens 2,000 images instead of 200.

// A test that cannot go on should stop where it stands.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod image;
mod trace;
#[allow(dead_code)] // The kill loop uses the rest.
mod workload;

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use image::{Disk, Luck};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use trace::Event;
use windlass_store::{EmbeddedOptions, EmbeddedStore, RealDisk, SegmentFile, Store};
use workload::{Ack, Bounds};

const WRITERS: u64 = 12;
const DIR: &str = "WINDLASS_POWERCUT_DIR";
const LYING: &str = "WINDLASS_POWERCUT_LYING";
const WRITING: &str = "PHASE writing\n";
const NOT_WRITING: &str = "PHASE not writing\n";

/// A disk that syncs a new segment's header and then only says so, as a broken store or a broken drive would.
struct LyingDisk;
struct LyingFile {
    file: Box<dyn SegmentFile>,
    synced_once: bool,
}

impl windlass_store::Disk for LyingDisk {
    fn open(&self, path: &Path) -> io::Result<Box<dyn SegmentFile>> {
        Ok(Box::new(LyingFile { file: RealDisk.open(path)?, synced_once: false }))
    }
}

impl SegmentFile for LyingFile {
    fn write_all_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }
    fn sync_data(&mut self) -> io::Result<()> {
        let first = !std::mem::replace(&mut self.synced_once, true);
        if first { self.file.sync_data() } else { Ok(()) }
    }
    fn truncate(&mut self, length: u64) -> io::Result<()> {
        self.file.truncate(length)
    }
}

fn options(boot: &str) -> EmbeddedOptions {
    EmbeddedOptions {
        cache_bytes: 8 << 20,
        segment_bytes: 512 << 10,
        reserve_bytes: 4096,
        boot: Some(boot.into()),
        ..Default::default()
    }
}

#[test]
#[ignore = "started by the power-cut tests under the recorder"]
fn recorded() {
    let dir = PathBuf::from(std::env::var_os(DIR).expect("only the power-cut tests start this"));
    let mut options = options("recorded");
    if std::env::var_os(LYING).is_some() {
        options.disk = Arc::new(LyingDisk);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    runtime.block_on(async {
        for _ in 0..3 {
            let store: Arc<dyn Store> = Arc::new(EmbeddedStore::open(&dir, &options).unwrap());
            say(WRITING);
            workload::run(&store, WRITERS, 16, workload::print).await.unwrap();
            say(NOT_WRITING);
            store.close().await.unwrap();
        }
    });
}

fn say(line: &str) {
    std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
}

/// Runs the workload under the recorder. The folder is in memory: the disk that counts is the simulated one.
fn record(root: &Path, lying: bool) -> Vec<Event> {
    let (data, trace) = (root.join("data"), root.join("trace"));
    std::fs::create_dir(&data).unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap());
    child
        .args(["--exact", "recorded", "--ignored", "--nocapture", "--quiet"])
        .env("LD_PRELOAD", trace::build_recorder(root))
        .env("POWERCUT_ROOT", &data)
        .env("POWERCUT_TRACE", &trace)
        .env(DIR, &data)
        .stdout(Stdio::null());
    if lying {
        child.env(LYING, "1");
    }
    assert!(child.status().unwrap().success(), "the recorded workload failed");
    trace::read(&trace)
}

/// Opens one image and checks it.
fn judge(dir: &Path, boot: &str, acks: &[Ack]) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let opened = std::panic::catch_unwind(|| EmbeddedStore::open(dir, &options(boot)));
    let store = opened.map_err(|_| "does not open: panic")?.map_err(|e| format!("does not open: {e}"))?;
    runtime.block_on(workload::check(&store, WRITERS, &Bounds::after_power_cut(acks)))
}

/// Random moments in order, a third of them while the store opens or closes: those are short, and delicate.
fn moments(events: &[Event], count: usize, random: &mut StdRng) -> Vec<usize> {
    let mut writing = false;
    let mut delicate = Vec::new();
    for (at, event) in events.iter().enumerate() {
        if let Event::Told(text) = event {
            writing = (writing || text.contains(WRITING)) && !text.contains(NOT_WRITING);
        }
        if !writing {
            delicate.push(at + 1);
        }
    }
    let mut moments: Vec<usize> = (0..count)
        .map(|n| match n % 3 {
            0 => delicate[random.random_range(0..delicate.len())],
            _ => random.random_range(1..=events.len()),
        })
        .collect();
    moments.sort_unstable();
    moments
}

/// Plays the trace, cuts the power at `count` random moments, and counts what was wrong by its first word.
fn cut_power(root: &Path, events: &[Event], boot: &str, count: usize, seed: u64) -> BTreeMap<String, usize> {
    let mut random = StdRng::seed_from_u64(seed);
    let moments = moments(events, count, &mut random);
    let (mut disk, mut acks, mut faults) = (Disk::default(), Vec::new(), BTreeMap::new());
    let mut played = 0;
    for (number, moment) in moments.into_iter().enumerate() {
        for event in &events[played..moment] {
            disk.play(event);
            if let Event::Told(text) = event {
                acks.extend(text.lines().filter_map(Ack::parse));
            }
        }
        played = moment;
        let luck = [Luck::None, Luck::Random, Luck::VolatileCache][number % 3];
        let image = root.join("image");
        std::fs::create_dir(&image).unwrap();
        disk.cut(luck, &mut random, &image);
        if let Err(fault) = judge(&image, boot, &acks) {
            eprintln!("seed {seed}, cut {number} after event {moment} of {}, {luck:?}: {fault}", events.len());
            *faults.entry(fault.split(':').next().unwrap_or_default().to_owned()).or_default() += 1;
        }
        std::fs::remove_dir_all(&image).unwrap();
    }
    faults
}

fn in_memory() -> tempfile::TempDir {
    let shared = Path::new("/dev/shm");
    if shared.is_dir() { tempfile::tempdir_in(shared).unwrap() } else { tempfile::tempdir().unwrap() }
}

#[test]
fn power_cuts_lose_nothing_acknowledged() {
    let long = std::env::var_os("WINDLASS_LONG").is_some();
    // Several short recordings meet more different moments than one long one.
    let (workloads, cuts) = if long { (20, 100) } else { (4, 50) };
    for seed in 0..workloads {
        let root = in_memory();
        let events = record(root.path(), false);
        let told = events.iter().filter(|e| matches!(e, Event::Told(_))).count();
        assert!(told as u64 >= WRITERS * 16, "the workload acknowledged too little to mean anything");
        assert_eq!(cut_power(root.path(), &events, "after the cut", cuts, seed), BTreeMap::new());
    }
}

#[test]
fn a_store_that_does_not_sync_is_caught() {
    let root = in_memory();
    let events = record(root.path(), true);
    let faults = cut_power(root.path(), &events, "after the cut", 30, 1);
    assert!(faults.contains_key("lost"), "30 power cuts without syncs went unnoticed: {faults:?}");
}

#[test]
fn trusting_the_index_after_a_power_cut_is_caught() {
    // What sled loses depends on the recording. Every second or third is bad enough, so many good ones are no chance.
    for seed in 0..40 {
        let root = in_memory();
        let events = record(root.path(), false);
        if !cut_power(root.path(), &events, "recorded", 60, seed).is_empty() {
            return;
        }
    }
    panic!("2,400 power cuts with a trusted index went unnoticed");
}
