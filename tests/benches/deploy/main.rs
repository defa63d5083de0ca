//! How fast a deployment is, beside the plain floor and a peer, in one run: `cargo xtask bench deploy`.
//!
//! Prints ratios, never a verdict on seconds: the machine that runs this is noisy. The floor of a deployment is what
//! a shell would do by hand: ten `ssh host 'cat > f && sha256sum -c && tar x && …'` at once. The floor of small steps
//! is the same number of bare commands over one open connection each. The peer is ansible-core, tuned.
//!
//! `--quick` measures less, `--no-peer` leaves the peer out, `--one` takes one target; see `disks` for where they are.

mod ansible;
mod disks;
mod floor;
mod guest;
mod server;

use std::time::Duration;

use ansible::Ansible;
use disks::Disks;
use server::{Bench, archive};
use windlass_engine::EngineConfig;

const ROUNDS: usize = 3;

type Anything<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> Anything<()> {
    let given = |flag: &str| std::env::args().any(|argument| argument == flag);
    let (mebibytes, steps) = if given("--quick") { (5, 20) } else { (50, 100) };
    let count = if given("--one") { 1 } else { 10 };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let disks = Disks::new(count)?;
    let targets = disks.targets()?;
    let folder = tempfile::tempdir()?;
    let peer = if given("--no-peer") { None } else { Some(Ansible::prepare(folder.path(), &targets)?) };
    let big = archive(folder.path(), mebibytes)?;
    let bench = EngineConfig::new(folder.path().join("data"));
    let bench = runtime.block_on(Bench::open(bench, (&targets, "windlass"), &big, steps))?;

    println!(
        "{mebibytes} MiB to {count} targets: transfer, verify, extract, script, switch; targets have {}",
        disks.name
    );
    reset_peak();
    let (mut ours, mut floor, mut peers) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        floor.push(floor::plain_ssh(&targets, &big, round)?);
        ours.push(runtime.block_on(bench.deploy("big", round))?);
        if let Some(peer) = &peer {
            peers.push(peer.deploy(&big, round)?);
        }
    }
    report("plain ssh, all at once", &floor, &floor);
    report("windlass, a new version", &ours, &floor);
    report("ansible-core, tuned", &peers, &floor);
    println!("  peak memory of this process, server and bench: {} MiB", peak_mebibytes());

    // What the first part left to write is not for the second to wait for.
    std::process::Command::new("sync").status()?;
    println!("{steps} small steps one after another on each of {count} targets, connections open");
    reset_peak();
    let (mut ours, mut floor, mut peers) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        floor.push(floor::bare_execs(&targets, steps)?);
        ours.push(runtime.block_on(bench.deploy("small", round))?);
    }
    if let Some(peer) = &peer {
        peers.push(peer.steps(steps)?);
    }
    report("bare commands over ssh2", &floor, &floor);
    report("windlass, runner and journal", &ours, &floor);
    report("ansible-core, tuned, raw", &peers, &floor);
    let per_step = |times: &[Duration]| median(times).as_secs_f64() * 1000.0 / steps as f64;
    println!("  a step on each: bare {:.2} ms, windlass {:.2} ms", per_step(&floor), per_step(&ours));
    println!("  peak memory of this process, server and bench: {} MiB", peak_mebibytes());

    let spent = runtime.block_on(guest::instantiate())?;
    println!("a plugin made, run and dropped: {:.2} ms", spent.as_secs_f64() * 1000.0);
    runtime.block_on(bench.engine.close());
    drop((targets, disks));
    Ok(())
}

fn median(times: &[Duration]) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort();
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

fn report(name: &str, times: &[Duration], floor: &[Duration]) {
    if times.is_empty() {
        return;
    }
    let all: Vec<_> = times.iter().map(|time| format!("{:.2}", time.as_secs_f64())).collect();
    // Round by round: what slows the machine down for a while then slows both.
    let mut ratios: Vec<_> =
        times.iter().zip(floor).map(|(t, f)| t.as_secs_f64() / f.as_secs_f64().max(1e-9)).collect();
    ratios.sort_by(f64::total_cmp);
    let ratio = ratios.get(ratios.len() / 2).copied().unwrap_or_default();
    println!("  {name:<32} {:>7.2} s   {ratio:>5.2} x   ({} s)", median(times).as_secs_f64(), all.join(", "));
}

/// Lets the kernel count the peak anew, where it can.
fn reset_peak() {
    // Without it the printed peak is that of the whole life, which is no smaller.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

fn peak_mebibytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("0");
    line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) / 1024
}
