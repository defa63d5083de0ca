//! The runner's far side where nothing goes in good order: overlapping hosts, files as a crash leaves them, processes
//! that are gone, undead or somebody else's. Under every shell that may call itself `sh`, without a link.

// A test may fail at any line; its helpers too.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::{fs, path::Path, process::Command};

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
