//! The runner's far side where nothing goes in good order: overlapping hosts, files as a crash leaves them, processes
//! that are gone, undead or somebody else's. Under every shell that may call itself `sh`, without a link.

// A test may fail at any line; its helpers too.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::{
    fs,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use windlass_tests::runner::{FarSide, SHELLS};

/// Calls `test` with a loaded shell of every kind and its home, whose name no shell may split.
fn everywhere(test: impl Fn(&str, &mut FarSide, &Path)) {
    for shell in SHELLS {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().join("a home");
        let mut far = FarSide::load(shell, &home, "k1").unwrap();
        test(shell, &mut far, &home);
    }
}

fn supervisor(started: &str) -> String {
    started.strip_prefix("STARTED ").unwrap().to_owned()
}

fn kill(signal: &str, pid: &str) {
    assert!(Command::new("kill").args([signal, pid]).status().unwrap().success());
}

fn record(home: &Path, ticket: &str) -> String {
    fs::read_to_string(home.join("runs").join(format!("{ticket}+go"))).unwrap()
}

/// Makes all files of a run look so many days old.
fn age(home: &Path, days: u32) {
    for folder in ["runs", "done"] {
        for file in fs::read_dir(home.join(folder)).unwrap() {
            let old =
                Command::new("touch").args(["-d", &format!("{days} days ago")]).arg(file.unwrap().path()).status();
            assert!(old.unwrap().success());
        }
    }
}

#[test]
fn a_supervisor_is_known_by_the_file_it_holds() {
    everywhere(|shell, far, home| {
        let pid = supervisor(&far.start("live", "sleep 600").unwrap());
        assert!(far.ask("_w_status", "live").unwrap().starts_with("RUNNING "), "{shell}");
        // A live process that once got the same number is not taken for it, nor is the shell itself.
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
        for (ticket, pid) in [("stranger", std::process::id()), ("shell", far.pid())] {
            let text = format!("G .\nS {pid} - {} .\n", boot.trim());
            fs::write(home.join(format!("runs/{ticket}+go")), text).unwrap();
            assert_eq!(far.ask("_w_status", ticket).unwrap(), "LOST died", "{shell}");
        }
        let text = format!("G .\nS {pid} - another-boot .\n");
        fs::write(home.join("runs/reboot+go"), text).unwrap();
        assert_eq!(far.ask("_w_status", "reboot").unwrap(), "LOST reboot", "{shell}");
        // Killed, it stays a zombie of the shell, which does not wait for it.
        kill("-KILL", &pid);
        assert_eq!(far.until("live", |state| !state.starts_with("RUNNING")).unwrap(), "LOST died", "{shell}");
        let ended = far.ask("_w_cancel", "live 1").unwrap();
        assert_eq!(ended, "LOST died", "{shell}");
    });
}

#[test]
fn without_proc_the_process_table_tells() {
    everywhere(|shell, far, _| {
        far.say("_w_proc=\n").unwrap();
        let pid = supervisor(&far.start("slow", "sleep 30").unwrap());
        assert_eq!(far.ask("_w_status", "slow").unwrap(), "RUNNING 0", "{shell}");
        far.start("quick", "exit 3").unwrap();
        assert_eq!(far.until("quick", |state| !state.starts_with("RUNNING")).unwrap(), "DONE 3 -", "{shell}");
        let quick = supervisor(&far.start("acked", "echo x").unwrap());
        far.until("acked", |state| state.starts_with("DONE")).unwrap();
        assert_eq!(far.ask("_w_ack", &format!("acked:{quick} slow:{pid}")).unwrap(), "OK", "{shell}");
        assert_eq!(far.names("done").unwrap(), ["acked+go", "slow+go"], "{shell}");
        kill("-KILL", &pid);
    });
}

#[test]
fn half_written_records_are_not_believed() {
    everywhere(|shell, far, home| {
        for (text, state) in [
            ("", "STARTING"),
            ("G .\n", "STARTING"),
            ("G .\nS 1 2", "STARTING"),
            ("G .\nS 1 2 b .\nL 9 .\nR 0 -", "LOST reboot"),
            ("G .\nS 1 2 b .\nL 9 .\nR 0 - .\n", "DONE 0 -"),
            ("G .\nR 12 -oe .\n", "DONE 12 -oe"),
            ("F", "STARTING"),
            ("F .\n", "FENCED"),
        ] {
            fs::write(home.join("runs/t+go"), text).unwrap();
            assert_eq!(far.ask("_w_status", "t").unwrap(), state, "{shell}: {text:?}");
            assert_eq!(far.start("t", "echo no").unwrap(), state, "{shell}: {text:?}");
        }
        // The state is read with the age of a run, which a start answers too.
        assert_eq!(far.names("runs").unwrap(), ["t+go"], "{shell}: a refused start leaves nothing");
    });
}

#[test]
fn a_start_that_was_overtaken_by_a_whole_run_and_its_ack_runs_nothing() {
    everywhere(|shell, far, home| {
        let ledger = home.join("ledger");
        let script = format!("echo ran >> '{}'", ledger.display());
        // Between this host's look and its claim another one starts, ends and confirms the run.
        let mut other = FarSide::load(shell, home, "k2").unwrap();
        let (gate, passed) = (home.join("gate"), home.join("passed"));
        far.say(&format!(
            "_w_find() {{ true >'{}'; while [ ! -e '{}' ]; do sleep 0.05; done; _w_i=/bin/sh; }}\n",
            gate.display(),
            passed.display()
        ))
        .unwrap();
        let late = std::thread::scope(|scope| {
            let late = scope.spawn(|| far.start("t", &script).unwrap());
            while !gate.exists() {
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            let pid = supervisor(&other.start("t", &script).unwrap());
            other.until("t", |state| state.starts_with("DONE")).unwrap();
            assert_eq!(other.ask("_w_ack", &format!("t:{pid}")).unwrap(), "OK");
            fs::write(&passed, "").unwrap();
            late.join().unwrap()
        });
        assert_eq!(late, "GONE", "{shell}");
        assert_eq!(fs::read_to_string(&ledger).unwrap(), "ran\n", "{shell}");
        assert_eq!(far.names("runs").unwrap(), Vec::<String>::new(), "{shell}");
        for far in [&mut *far, &mut other] {
            assert_eq!(far.ask("_w_status", "t").unwrap(), "GONE", "{shell}");
            assert_eq!(far.ask("_w_cancel", "t 1").unwrap(), "GONE", "{shell}");
        }
    });
}

#[test]
fn an_ack_cut_off_in_its_middle_leaves_a_tombstone_or_the_result() {
    everywhere(|shell, far, home| {
        for ticket in ["moved", "whole"] {
            far.start(ticket, "echo x").unwrap();
            far.until(ticket, |state| state.starts_with("DONE")).unwrap();
        }
        // What a power cut leaves after the first of its two programs.
        fs::rename(home.join("runs/moved+go"), home.join("done/moved+go")).unwrap();
        assert_eq!(far.ask("_w_status", "moved").unwrap(), "GONE", "{shell}");
        assert_eq!(far.start("moved", "echo again").unwrap(), "GONE", "{shell}");
        assert_eq!(far.ask("_w_status", "whole").unwrap(), "DONE 0 -o", "{shell}");
        assert!(record(home, "whole").ends_with("R 0 -o .\n"), "{shell}");
        // By a shell that did not start it, and twice.
        let mut other = FarSide::load(shell, home, "k2").unwrap();
        for _ in 0..2 {
            assert_eq!(other.ask("_w_ack", "whole: moved:").unwrap(), "OK", "{shell}");
        }
        assert_eq!(far.names("runs").unwrap(), Vec::<String>::new(), "{shell}");
        assert_eq!(far.names("done").unwrap(), ["moved+go", "whole+go"], "{shell}");
    });
}

#[test]
fn what_a_vanished_host_left_goes_by_its_age() {
    everywhere(|shell, far, home| {
        far.start("ended", "echo x").unwrap();
        far.until("ended", |state| state.starts_with("DONE")).unwrap();
        let pid = supervisor(&far.start("lives", "sleep 600").unwrap());
        fs::write(home.join("runs/claimed+go"), "").unwrap();
        fs::write(home.join("runs/never+script.k9"), "x").unwrap();
        fs::write(home.join("done/old+go"), "").unwrap();
        assert_eq!(far.ask("_w_tidy", "30").unwrap(), "OK", "{shell}");
        let before = far.names("runs").unwrap();
        assert!(before.len() >= 9 && far.names("done").unwrap() == ["old+go"], "{shell}: {before:?}");
        age(home, 2);
        assert_eq!(far.ask("_w_tidy", "30").unwrap(), "OK", "{shell}");
        assert!(!home.join("runs/never+script.k9").exists(), "{shell}: an upload is of no use after a day");
        assert_eq!(far.names("runs").unwrap().len(), before.len() - 1, "{shell}");
        age(home, 40);
        assert_eq!(far.ask("_w_tidy", "30").unwrap(), "OK", "{shell}");
        // First they become tombstones, and a month later those go too.
        assert_eq!(far.names("done").unwrap(), ["claimed+go", "ended+go"], "{shell}");
        assert_eq!(far.names("runs").unwrap(), ["lives+err", "lives+go", "lives+out", "lives+script.k1"], "{shell}");
        assert!(far.ask("_w_status", "lives").unwrap().starts_with("RUNNING "), "{shell}");
        kill("-KILL", &pid);
        far.ask("_w_cancel", "lives 0").unwrap();
    });
}

#[test]
fn a_lower_fencing_token_starts_nothing() {
    everywhere(|shell, far, home| {
        let mut other = FarSide::load(shell, home, "k2").unwrap();
        let ledger = home.join("ledger");
        let try_with = |far: &mut FarSide, ticket: &str, fence: &str| {
            far.say(&format!("_w_fence='{fence}'\n")).unwrap();
            let answer = far.start(ticket, &format!("echo {ticket} >> '{}'", ledger.display())).unwrap();
            far.say("_w_fence=\n").unwrap();
            if answer.starts_with("STARTED") {
                far.until(ticket, |state| state.starts_with("DONE")).unwrap();
                "started".to_owned()
            } else {
                answer
            }
        };
        for (n, (who, fence, answer)) in [
            // Nobody has been there.
            (1, "aa+05", "started"),
            (1, "!aa+07", "started"),
            (2, "!aa+07", "started"),
            (2, "aa+08", "started"),
            // Who shares shuts nobody out.
            (1, "!aa+07", "started"),
            (2, "!aa+09", "started"),
            (1, "!aa+07", "E stale 09"),
            (1, "aa+08", "E stale 09"),
            (1, "aa+09", "started"),
            // Another resource is none of its business, nor one whose name begins alike.
            (1, "!bb+01", "started"),
            (1, "!a+01", "started"),
            (2, "!aa+10", "started"),
            (1, "!aa+09", "E stale 10"),
        ]
        .into_iter()
        .enumerate()
        {
            let far = if who == 1 { &mut *far } else { &mut other };
            assert_eq!(try_with(far, &format!("f{n}"), fence), answer, "{shell}: {fence}");
            let ran = fs::read_to_string(&ledger).unwrap().lines().any(|line| line == format!("f{n}"));
            assert_eq!(ran, answer == "started", "{shell}: {fence}");
        }
        // A refused ticket is as it was, and what was started under a fence is only asked after it.
        assert_eq!(far.ask("_w_status", "f12").unwrap(), "ABSENT", "{shell}");
        assert_eq!(try_with(&mut *far, "f1", "!aa+01"), "DONE 0 -", "{shell}");
        // Lower ones go with the next confirmation of whoever raised it.
        for far in [&mut *far, &mut other] {
            assert_eq!(far.ask("_w_ack", "f0: f1:").unwrap(), "OK", "{shell}");
        }
        assert_eq!(far.names("fences").unwrap(), ["a+01", "aa+10", "bb+01"], "{shell}");
    });
}

#[test]
fn outputs_are_held_to_their_cap_also_when_the_host_is_gone() {
    everywhere(|shell, far, home| {
        far.say("_w_cap=4\n_w_nap=0.1\n").unwrap();
        let script = "i=0; while [ ! -e stop ]; do echo 0123456789abcdef0123456789abcdef; i=$((i+1)); \
                      [ $((i % 400)) -eq 0 ] && sleep 0.02; done; echo the end >&2; exit 5";
        far.say(&format!("cd '{}'\n", home.display())).unwrap();
        far.start("loud", script).unwrap();
        let out = home.join("runs/loud+out");
        let size = || fs::metadata(&out).unwrap().len();
        let until = |what: &dyn Fn() -> bool| {
            let begin = Instant::now();
            while !what() {
                assert!(begin.elapsed() < Duration::from_secs(60), "{shell}: never; {} bytes", size());
                std::thread::sleep(Duration::from_millis(5));
            }
        };
        until(&|| size() > 40_000);
        let head = fs::read(&out).unwrap()[..16_384].to_vec();
        // While a host is there, it is asked for.
        assert_eq!(far.ask("_w_trim_now", "").unwrap(), "OK");
        until(&|| size() > 40_000);
        // Then the shell itself looks after it: it shrinks again and again, and the head stays as it was.
        far.hang_up();
        for _ in 0..2 {
            until(&|| size() > 20_000);
            until(&|| size() < 20_000);
        }
        assert!(fs::read(&out).unwrap()[..16_384] == head, "{shell}");
        fs::write(home.join("stop"), "").unwrap();
        // Once nothing runs any more it goes too.
        until(&|| fs::read_to_string(format!("/proc/{}/stat", far.pid())).unwrap_or_default().contains(") Z "));
        let mut other = FarSide::load(shell, home, "k2").unwrap();
        assert_eq!(other.until("loud", |state| state.starts_with("DONE")).unwrap(), "DONE 5 -oe", "{shell}");
        assert_eq!(other.ask("_w_trim_now", "").unwrap(), "OK");
        assert_eq!(size(), 16_384, "{shell}");
    });
}

/// How far a run has come: states only go on.
fn rank(state: &str) -> u8 {
    match state.split(' ').next().unwrap() {
        "ABSENT" | "PREPARED" => 0,
        "STARTING" | "STARTED" => 1,
        "RUNNING" => 2,
        "DONE" | "LOST" | "FENCED" => 3,
        "GONE" => 4,
        other => panic!("{other}"),
    }
}

#[test]
fn whatever_two_hosts_ask_in_whatever_order_a_run_begins_once_and_only_goes_on() {
    let rounds = if std::env::var_os("WINDLASS_LONG").is_some() { 100 } else { 12 };
    everywhere(|shell, far, home| {
        let mut other = FarSide::load(shell, home, "k2").unwrap();
        let ledger = home.join("ledger");
        fs::write(&ledger, "").unwrap();
        for seed in 0..rounds {
            let mut random = StdRng::seed_from_u64(seed);
            let ticket = format!("t{seed}");
            let nap = random.random_range(0..4);
            let script = format!("echo {ticket} >> '{}'; sleep 0.0{nap}; exit 5", ledger.display());
            let (mut last, mut pids, mut story) = ("ABSENT".to_owned(), Vec::new(), Vec::new());
            let (mut cancelled, mut killed) = (false, false);
            for _ in 0..random.random_range(3..12) {
                let who = random.random_bool(0.5);
                let far = if who { &mut *far } else { &mut other };
                let verb = random.random_range(0..10);
                let state = match verb {
                    0..=3 => far.start(&ticket, &script).unwrap(),
                    4 => {
                        cancelled = true;
                        far.ask("_w_cancel", &format!("{ticket} 0")).unwrap()
                    }
                    5 if !pids.is_empty() => {
                        // The record's own supervisor only, by the file it holds.
                        let pid: &String = &pids[0];
                        let holds = fs::read_link(format!("/proc/{pid}/fd/8"));
                        if holds.is_ok_and(|file| file.starts_with(home)) {
                            killed = true;
                            let _ = Command::new("kill").args(["-KILL", pid]).output();
                        }
                        far.ask("_w_status", &ticket).unwrap()
                    }
                    6 if last.starts_with("DONE") => {
                        assert_eq!(far.ask("_w_ack", &format!("{ticket}:")).unwrap(), "OK");
                        far.ask("_w_status", &ticket).unwrap()
                    }
                    7 => {
                        std::thread::sleep(Duration::from_millis(random.random_range(0..40)));
                        far.ask("_w_status", &ticket).unwrap()
                    }
                    _ => far.ask("_w_status", &ticket).unwrap(),
                };
                story.push(format!("{verb} by {}: {state}", u8::from(who)));
                let story = format!("{shell} seed {seed}: {story:#?}");
                if let Some(pid) = state.strip_prefix("STARTED ") {
                    pids.push(pid.to_owned());
                }
                assert!(rank(&state) >= rank(&last), "{story}");
                if rank(&last) >= 3 && rank(&state) == 3 {
                    assert_eq!(state, last, "an end does not change: {story}");
                }
                let starts = fs::read_to_string(&ledger).unwrap().lines().filter(|line| *line == ticket).count();
                assert!(starts <= 1 && pids.len() <= 1, "{story}");
                match state.split(' ').next().unwrap() {
                    "FENCED" => assert!(cancelled && starts == 0, "{story}"),
                    "LOST" => assert!(killed, "{story}"),
                    "DONE" if !cancelled => assert!(state.starts_with("DONE 5 -") && starts == 1, "{story}"),
                    _ => {}
                }
                last = state;
            }
            far.ask("_w_cancel", &format!("{ticket} 0")).unwrap();
        }
    });
}
