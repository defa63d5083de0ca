//! The link between host and target at its worst: cut, stalled, delayed and truncated at random byte positions; and the
//! target's own processes killed. Every command starts at most once, its output arrives byte for byte, and what is said
//! of its end is true.
//!
//! `WINDLASS_LONG=1` plays 200 rounds instead of a few; `WINDLASS_SEED=n` plays another series. A failure names its
//! seed and round.

// A test may fail at any line; its helpers too.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use windlass_machines::{
    CancelToken, CommandSpec, Config, Endpoint, Interpreter, Machine, MachineError, Machines, MemorySink, RunState,
    Ticket,
};
use windlass_tests::{
    proxy::{Proxy, Weather},
    sshd::{Options, Sshd},
};

/// Quick to lose patience with a link, slow to give up.
fn config() -> Config {
    Config {
        reconnect_for: Duration::from_secs(120),
        handshake_timeout: Duration::from_secs(4),
        auth_timeout: Duration::from_secs(4),
        open_timeout: Duration::from_secs(3),
        silence: Duration::from_secs(3),
        ..Config::default()
    }
}

fn rounds(few: u64) -> u64 {
    if std::env::var_os("WINDLASS_LONG").is_some() { 200 } else { few }
}

fn seed() -> u64 {
    std::env::var("WINDLASS_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(20_261)
}

fn ticket(text: &str) -> Ticket {
    Ticket::new(text).unwrap()
}

fn through(proxy: &Proxy, sshd: &Sshd) -> Endpoint {
    let mut endpoint = sshd.ssh_endpoint();
    endpoint.port = proxy.port();
    Endpoint::Ssh(endpoint)
}

/// A command that counts its starts, and what it prints.
struct Counted {
    name: String,
    spec: CommandSpec,
    out: String,
    err: String,
    code: i32,
}

impl Counted {
    fn new(name: String, ledger: &Path, random: &mut StdRng) -> Self {
        let (lines, width, code) =
            (random.random_range(0..60), random.random_range(1..4_000), random.random_range(0..100));
        let nap = if random.random_bool(0.5) { "sleep 0.01" } else { ":" };
        let script = format!(
            "echo {name} >> {}; w=$(printf '%{width}s' '' | tr ' ' '{}'); i=0; \
             while [ $i -lt {lines} ]; do echo \"$i $w\"; echo \"e$i\" >&2; {nap}; i=$((i+1)); done; exit {code}",
            ledger.display(),
            char::from(random.random_range(b'a'..=b'z')),
        );
        let letter = script.split("tr ' ' '").nth(1).unwrap().chars().next().unwrap();
        let filler = letter.to_string().repeat(width);
        // Some scripts are too large for the request and are uploaded.
        let script = if random.random_bool(0.2) { format!("# {}\n{script}", "x".repeat(40_000)) } else { script };
        Self {
            name,
            spec: CommandSpec::script(Interpreter::Sh, script),
            out: (0..lines).map(|i| format!("{i} {filler}\n")).collect(),
            err: (0..lines).map(|i| format!("e{i}\n")).collect(),
            code,
        }
    }

    /// Runs it and looks whether all that is said of it is true.
    async fn run(&self, machine: &Machine, story: &str) {
        let mut sink = MemorySink::default();
        let exit = machine.run(&ticket(&self.name), &self.spec, &mut sink, &CancelToken::new()).await;
        let exit = exit.unwrap_or_else(|error| panic!("{story}: {error}"));
        assert_eq!((exit.code, exit.output_cut), (self.code, false), "{story}");
        assert!(sink.out_text() == self.out, "{story}: {} bytes of {}", sink.out.len(), self.out.len());
        assert!(sink.err_text() == self.err, "{story}: {:?}", sink.err_text());
        machine.ack(&ticket(&self.name)).await.unwrap();
    }
}

/// Which of `names` are in the ledger other than once.
fn wrongly_counted(ledger: &Path, names: &[String]) -> Vec<(String, usize)> {
    let text = std::fs::read_to_string(ledger).unwrap();
    let count = |name: &String| text.lines().filter(|line| line == name).count();
    names.iter().map(|name| (name.clone(), count(name))).filter(|(_, count)| *count != 1).collect()
}

#[tokio::test]
async fn commands_run_once_and_whole_through_any_weather() {
    let sshd = Sshd::start().unwrap();
    let ledger = sshd.home().join("ledger");
    let weather = Weather { seed: seed(), faulty: 85, within: 60_000, stalls: true };
    let proxy = Proxy::start(sshd.port(), Some(weather)).unwrap();
    let mut names = Vec::new();
    for round in 0..rounds(15) {
        // Now and then with an empty pool, as a server that was started anew.
        let pool = Machines::new(config());
        let machine = pool.connect(&through(&proxy, &sshd)).await.unwrap();
        let mut random = StdRng::seed_from_u64(seed() ^ (round << 32));
        let commands: Vec<_> = (0..3).map(|n| Counted::new(format!("r{round}.{n}"), &ledger, &mut random)).collect();
        let story = format!("seed {} round {round}", seed());
        futures::future::join_all(commands.iter().map(|command| command.run(&machine, &story))).await;
        names.extend(commands.into_iter().map(|command| command.name));
    }
    assert_eq!(wrongly_counted(&ledger, &names), []);
    let (faults, connections) = (proxy.faults(), proxy.connections());
    println!("{faults} faults on {connections} connections, {} commands", names.len());
    assert!(u64::from(faults) >= rounds(15) / 2, "only {faults} faults: the weather was too good to prove anything");
}

#[tokio::test]
async fn a_machine_that_stays_away_is_given_up_after_its_own_time_and_found_again_later() {
    let sshd = Sshd::start().unwrap();
    let proxy = Proxy::start(sshd.port(), None).unwrap();
    let Endpoint::Ssh(mut endpoint) = through(&proxy, &sshd) else { unreachable!() };
    endpoint.reconnect_for = Some(Duration::from_millis(1500));
    let machine = Machines::new(config()).connect(&Endpoint::Ssh(endpoint)).await.unwrap();
    let spec = CommandSpec::script(
        Interpreter::Sh,
        "echo ran >> ledger; echo one; while [ ! -e go-on ]; do sleep 0.02; done; echo two; exit 4",
    );
    let (name, mut sink, cancel) = (ticket("away"), MemorySink::default(), CancelToken::new());
    machine.start(&name, &spec).await.unwrap();
    proxy.set_down(true);
    let begin = Instant::now();
    let lost = machine.run(&name, &spec, &mut sink, &cancel).await.unwrap_err();
    assert!(lost.is_retryable(), "{lost}");
    let waited = begin.elapsed();
    assert!(waited >= Duration::from_millis(1400) && waited < Duration::from_secs(20), "{waited:?}");
    std::fs::write(sshd.home().join("go-on"), "").unwrap();
    proxy.set_down(false);
    let exit = machine.run(&name, &spec, &mut sink, &cancel).await.unwrap();
    assert_eq!((exit.code, sink.out_text().as_str()), (4, "one\ntwo\n"));
    assert_eq!(std::fs::read_to_string(sshd.home().join("ledger")).unwrap(), "ran\n");
}

/// Supervisors of runs in `home` that live: the processes that hold a run's record open.
fn supervisors(home: &Path) -> Vec<u32> {
    let runs = home.join(".windlass/runs");
    let Ok(entries) = std::fs::read_dir(&runs) else { return Vec::new() };
    let records = entries.filter_map(|entry| std::fs::read_to_string(entry.ok()?.path()).ok());
    let lines: Vec<_> = records.flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>()).collect();
    let pids = lines.iter().filter_map(|line| line.strip_prefix("S ")?.split(' ').next()?.parse::<u32>().ok());
    pids.filter(|pid| std::fs::read_link(format!("/proc/{pid}/fd/8")).is_ok_and(|file| file.starts_with(&runs)))
        .collect()
}

#[tokio::test]
async fn a_target_whose_processes_are_killed_at_random_tells_the_truth() {
    let mut sshd = Sshd::start().unwrap();
    let ledger = sshd.home().join("ledger");
    std::fs::write(&ledger, "").unwrap();
    let (mut whole, mut unknown) = (0, 0);
    for round in 0..rounds(12) {
        let mut random = StdRng::seed_from_u64(seed().wrapping_mul(31) ^ round);
        let machine = Machines::new(config()).connect(&sshd.endpoint()).await.unwrap();
        let name = format!("k{round}");
        let done = sshd.home().join(format!("done-{round}"));
        let spec = CommandSpec::script(
            Interpreter::Sh,
            format!(
                "echo {name} >> {}; echo one; sleep 0.2; echo two; : > {}; exit 6",
                ledger.display(),
                done.display()
            ),
        );
        let (ticket, cancel) = (ticket(&name), CancelToken::new());
        let mut sink = MemorySink::default();
        let wait = Duration::from_millis(random.random_range(0..350));
        let what = random.random_range(0..3);
        let run = machine.run(&ticket, &spec, &mut sink, &cancel);
        let (ended, ()) = tokio::join!(run, async {
            tokio::time::sleep(wait).await;
            match what {
                0 => sshd.cut(),
                1 => supervisors(&sshd.home()).into_iter().for_each(kill),
                _ => {
                    sshd.cut();
                    supervisors(&sshd.home()).into_iter().for_each(kill);
                }
            }
        });
        let story = format!("seed {} round {round}, {what} after {wait:?}: {ended:?}", seed());
        let starts = std::fs::read_to_string(&ledger).unwrap().lines().filter(|line| *line == name).count();
        assert!(starts <= 1, "{story}: started {starts} times");
        match ended {
            Ok(exit) => {
                assert_eq!((exit.code, sink.out_text().as_str(), starts), (6, "one\ntwo\n", 1), "{story}");
                assert!(done.exists(), "{story}: said to have ended, and has not");
                whole += 1;
            }
            Err(MachineError::OutcomeUnknown { .. }) => {
                assert_ne!(what, 0, "{story}: the link alone never makes an outcome unknown");
                assert!("one\ntwo\n".starts_with(&sink.out_text()), "{story}: {:?}", sink.out_text());
                assert!(matches!(machine.status(&ticket).await, Ok(RunState::Lost(_))), "{story}");
                // It is never started again, by nobody.
                let again = machine.start(&ticket, &spec).await.unwrap();
                assert!(matches!(again, RunState::Lost(_)), "{story}: {again:?}");
                unknown += 1;
            }
            Err(other) => panic!("{story}: {other}"),
        }
        if round % 5 == 4 {
            sshd.restart().unwrap();
        }
    }
    println!("{whole} ended well, {unknown} unknown");
    assert!(whole > 0, "nothing ended well");
}

fn kill(pid: u32) {
    // Gone meanwhile is as good.
    let _ = std::process::Command::new("kill").args(["-KILL", &pid.to_string()]).output();
}

/// A home on a disk of its own that only this sshd sees, and where it is seen from here; none where nothing may be
/// mounted.
fn small_disk(mib: u32) -> Option<(Sshd, std::path::PathBuf, tempfile::TempDir)> {
    let folder = tempfile::tempdir().unwrap();
    let inside = folder.path().join("disk");
    std::fs::create_dir(&inside).unwrap();
    let before = format!("mount -t tmpfs -o size={mib}m,nr_inodes=4000 tmpfs '{}'", inside.display());
    let asked = std::process::Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-ec", &before])
        .output();
    if !asked.is_ok_and(|asked| asked.status.success()) {
        return None;
    }
    let sshd = Sshd::start_with(Options { before: Some(before), ..Options::default() }).unwrap();
    let seen = std::path::PathBuf::from(format!("/proc/{}/root{}", sshd.pid(), inside.display()));
    Some((sshd, seen, folder))
}

#[tokio::test]
async fn a_full_disk_on_the_target_is_told_and_nothing_is_lost() {
    let Some((sshd, seen, folder)) = small_disk(24) else {
        eprintln!("no file system may be mounted here");
        return;
    };
    let home = folder.path().join("disk/home");
    let mut endpoint = sshd.ssh_endpoint();
    endpoint.home = Some(home.display().to_string());
    let machine: Arc<Machine> = Machines::new(config()).connect(&Endpoint::Ssh(endpoint)).await.unwrap();
    let (mut sink, cancel) = (MemorySink::default(), CancelToken::new());
    // One that runs while the disk fills up, and one that has ended before.
    let slow =
        CommandSpec::script(Interpreter::Sh, "echo one; while [ ! -e full ]; do sleep 0.02; done; echo two; exit 7")
            .cwd(sshd.home().display().to_string());
    machine.start(&ticket("slow"), &slow).await.unwrap();
    let early = CommandSpec::script(Interpreter::Sh, "echo early; exit 3");
    let exit = machine.run(&ticket("early"), &early, &mut sink, &cancel).await.unwrap();
    assert_eq!(exit.code, 3);
    let ballast = seen.join("ballast");
    {
        use std::io::Write;
        let mut file = std::fs::File::create(&ballast).unwrap();
        let mut size = 1 << 20;
        while size > 0 {
            if file.write_all(&vec![1; size]).is_err() {
                size /= 2;
            }
        }
    }
    let full = |error: &MachineError| {
        assert!(matches!(error, MachineError::DiskFull { .. }), "{error:?}");
        assert!(error.to_string().contains("the disk of "), "{error}");
        assert!(error.fix().contains("free some space"), "{}", error.fix());
    };
    // What is new is refused, small or uploaded, and nothing of it began.
    let new = CommandSpec::script(Interpreter::Sh, format!("echo ran >> {}/new", sshd.home().display()));
    let large = CommandSpec::script(Interpreter::Sh, format!("# {}\necho ran", "x".repeat(60_000)));
    full(&machine.run(&ticket("new"), &new, &mut sink, &cancel).await.unwrap_err());
    full(&machine.run(&ticket("large"), &large, &mut sink, &cancel).await.unwrap_err());
    full(&machine.put_bytes(&format!("{}/file", home.display()), &[7; 100_000], 0o644).await.unwrap_err());
    assert!(!sshd.home().join("new").exists());
    // What ended before can be confirmed and what runs ends, its exit code kept.
    machine.ack(&ticket("early")).await.unwrap();
    machine.flush_acks().await.unwrap();
    std::fs::write(sshd.home().join("full"), "").unwrap();
    let mut slow_sink = MemorySink::default();
    let exit = machine.run(&ticket("slow"), &slow, &mut slow_sink, &cancel).await.unwrap();
    assert_eq!(exit.code, 7, "a run that began has its place on the disk");
    assert!(slow_sink.out_text().starts_with("one\n"), "{}", slow_sink.out_text());
    // With space again the same tickets go on.
    std::fs::remove_file(&ballast).unwrap();
    let exit = machine.run(&ticket("new"), &new, &mut sink, &cancel).await.unwrap();
    assert_eq!((exit.code, std::fs::read_to_string(sshd.home().join("new")).unwrap().as_str()), (0, "ran\n"));
    let mut sink = MemorySink::default();
    machine.run(&ticket("large"), &large, &mut sink, &cancel).await.unwrap();
    assert_eq!(sink.out_text(), "ran\n");
    assert_eq!(machine.status(&ticket("early")).await, Ok(RunState::Gone));
}
