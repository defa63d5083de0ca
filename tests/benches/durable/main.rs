//! What durability costs: `cargo xtask bench durable`.
//!
//! First an effect's records alone, with 1, 10 and 100 runs at the same time: how long a run waits for them, and how many
//! commits share a sync. Then whole deployments, each beside the same one on a store in memory, which promises
//! nothing: what is slower is the share of the time that durability takes. Both take turns in one run, because the
//! machine is noisy. `--quick` measures less.

mod journal;

#[path = "../deploy/disks.rs"]
mod disks;
#[path = "../deploy/server.rs"]
mod server;

use std::{sync::Arc, time::Duration};

use disks::Disks;
use server::{Bench, archive};
use windlass_engine::EngineConfig;
use windlass_store::MemoryStore;

/// What durability may take of a deployment.
const GOAL: f64 = 0.05;
const TARGETS: usize = 5;
const MEBIBYTES: usize = 10;

type Anything<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> Anything<()> {
    let quick = std::env::args().any(|argument| argument == "--quick");
    let (rounds, steps) = if quick { (3, 10) } else { (7, 30) };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    // A folder of the build tree: the system's temporary folder may be in memory.
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    runtime.block_on(journal::measure(folder.path(), quick))?;

    let disks = Disks::new(TARGETS)?;
    println!("deployments to {TARGETS} targets, which have {}", disks.name);
    let targets = disks.targets()?;
    let big = archive(folder.path(), MEBIBYTES)?;
    let place = |name: &str| EngineConfig::new(folder.path().join(name));
    let memory = EngineConfig { store: Some(Arc::new(MemoryStore::new())), ..place("memory") };
    let (real, memory) = runtime.block_on(async {
        let real = Bench::open(place("real"), (&targets, "real"), &big, steps).await?;
        let memory = Bench::open(memory, (&targets, "memory"), &big, steps).await?;
        Anything::Ok((real, memory))
    })?;
    for (project, what) in [
        ("big", format!("{MEBIBYTES} MiB to {TARGETS} targets: transfer, extract, hook, switch")),
        ("small", format!("{steps} steps that do nothing, one after another, on each of {TARGETS} targets")),
    ] {
        let (mut durable, mut plain) = (Vec::new(), Vec::new());
        for round in 0..rounds {
            durable.push(runtime.block_on(real.deploy(project, round))?);
            plain.push(runtime.block_on(memory.deploy(project, round))?);
        }
        report(&what, &durable, &plain);
    }
    runtime.block_on(async {
        real.engine.close().await;
        memory.engine.close().await;
    });
    drop((targets, disks));
    Ok(())
}

fn report(what: &str, durable: &[Duration], plain: &[Duration]) {
    println!("{what}");
    for (name, times) in [("durable", durable), ("in memory", plain)] {
        let all: Vec<_> = times.iter().map(|time| format!("{:.2}", time.as_secs_f64())).collect();
        println!("  {name:<10} {:>7.3} s   ({} s)", median(times).as_secs_f64(), all.join(", "));
    }
    // Pair by pair: what slows the machine down for a while then slows both.
    let mut shares: Vec<_> =
        durable.iter().zip(plain).map(|(d, p)| 1.0 - p.as_secs_f64() / d.as_secs_f64().max(1e-9)).collect();
    shares.sort_by(f64::total_cmp);
    let share = shares.get(shares.len() / 2).copied().unwrap_or_default();
    let verdict = if share <= GOAL { "met" } else { "NOT met" };
    println!("  durability takes {:.1} % of it (goal: at most {:.0} %, {verdict})", share * 100.0, GOAL * 100.0);
}

fn median(times: &[Duration]) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort();
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}
