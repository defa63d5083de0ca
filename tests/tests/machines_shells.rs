//! The runner under every shell that may call itself `sh`: dash, busybox, bash and mksh.
//!
//! Each gets a real sshd whose sessions find that shell as `sh`. What is tried here is what differs between shells:
//! exclusive creation, redirections, signals to groups, builtins. The rest is in `machines_run`.

// A test may fail at any line; its helpers too.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use windlass_machines::{
    CancelToken, CommandSpec, Config, Interpreter, Machine, MachineError, Machines, MemorySink, RunState, Ticket,
};
use windlass_model::SecretText;
use windlass_tests::sshd::{Options, Sshd, find_or_install};

/// A machine whose `sh` is `shell`, and what keeps it alive.
async fn machine_with(shell: &str) -> (Arc<Machine>, Sshd, tempfile::TempDir) {
    let program = find_or_install(shell, shell, &[]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(program, folder.path().join("sh")).unwrap();
    let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap());
    let sshd = Sshd::start_with(Options { env: vec![("PATH".into(), path)], ..Options::default() }).unwrap();
    let machine = Machines::new(Config::default()).connect(&sshd.endpoint()).await.unwrap();
    (machine, sshd, folder)
}

fn ticket(text: &str) -> Ticket {
    Ticket::new(text).unwrap()
}

fn sh(text: impl Into<String>) -> CommandSpec {
    CommandSpec::script(Interpreter::Sh, text)
}

async fn whole_protocol(shell: &str) {
    let (machine, sshd, _folder) = machine_with(shell).await;
    let mut sink = MemorySink::default();
    let spec = sh("readlink /proc/$$/exe; printf '%s|%s\\n' \"$A\" \"$B\" >&2; cat; exit 3")
        .env("A", "it's\n$HOME `id` \\n %s")
        .secret_env("B", SecretText::new("-n"))
        .stdin("in %s \\n\n")
        .cwd("/");
    let exit = machine.run(&ticket("all"), &spec, &mut sink, &CancelToken::new()).await.unwrap();
    assert_eq!(exit.code, 3);
    let (program, input) = sink.out.split_at(sink.out.iter().position(|b| *b == b'\n').unwrap() + 1);
    assert!(String::from_utf8_lossy(program).contains(shell), "{shell}: {}", sink.out_text());
    assert_eq!(String::from_utf8_lossy(input), "in %s \\n\n");
    assert_eq!(sink.err_text(), "it's\n$HOME `id` \\n %s|-n\n");

    let test = machine.self_test().await.unwrap();
    assert_eq!((test.survives_link, test.own_group, test.cancels), (true, true, true), "{shell}: {test:?}");

    // A deaf script with a deaf child, one that fled its group, and one without an environment.
    let stubborn = sh("trap '' TERM; setsid sleep 7332 & env -i sleep 7332 & sleep 7332; sleep 7332");
    machine.start(&ticket("stubborn"), &stubborn).await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let ended = machine.cancel(&ticket("stubborn"), Duration::from_secs(1)).await.unwrap();
    assert!(matches!(ended, RunState::Done { code: 137, cancelled: true, .. }), "{shell}: {ended:?}");
    let left = processes_below(&sshd.home());
    assert_eq!(left, Vec::<String>::new(), "{shell}");

    races(&machine, &sshd).await;

    machine.ack(&ticket("all")).await.unwrap();
    machine.flush_acks().await.unwrap();
    assert_eq!(machine.status(&ticket("all")).await, Ok(RunState::Gone));
    assert_eq!(machine.status(&ticket("other")).await, Ok(RunState::Absent));
}

/// Starts against cancels: each run either never starts or starts once, and both sides agree on which.
async fn races(machine: &Machine, sshd: &Sshd) {
    let rival = Machines::new(Config::default()).connect(&sshd.endpoint()).await.unwrap();
    let ledger = sshd.home().join("ledger");
    std::fs::write(&ledger, "").unwrap();
    for round in 0..15 {
        let name = ticket(&format!("race.{round}"));
        let spec = sh(format!("echo {round}. >> {}; sleep 7332", ledger.display()));
        let cancel = CancelToken::new();
        let mut sink = MemorySink::default();
        let (ended, cancelled) = tokio::join!(machine.run(&name, &spec, &mut sink, &cancel), async {
            tokio::time::sleep(Duration::from_micros(round * 300)).await;
            rival.cancel(&name, Duration::from_secs(1)).await
        });
        let starts =
            std::fs::read_to_string(&ledger).unwrap().lines().filter(|line| *line == format!("{round}.")).count();
        match cancelled.unwrap() {
            RunState::Fenced => {
                assert!(matches!(ended, Err(MachineError::Fenced { .. })), "{ended:?}");
                assert_eq!(starts, 0);
            }
            RunState::Done { cancelled: true, .. } => {
                assert!(matches!(ended, Err(MachineError::Cancelled { started: true, .. })), "{ended:?}");
                assert!(starts <= 1);
            }
            other => panic!("{other:?}"),
        }
    }
}

/// Command lines of processes that still run in `home`.
fn processes_below(home: &Path) -> Vec<String> {
    std::fs::read_dir("/proc")
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|process| std::fs::read_link(process.join("cwd")).is_ok_and(|cwd| cwd.starts_with(home)))
        .map(|process| {
            String::from_utf8_lossy(&std::fs::read(process.join("cmdline")).unwrap_or_default()).replace('\0', " ")
        })
        .filter(|line| line.contains("7332"))
        .collect()
}

#[tokio::test]
async fn under_dash() {
    whole_protocol("dash").await;
}

#[tokio::test]
async fn under_busybox() {
    whole_protocol("busybox").await;
}

#[tokio::test]
async fn under_bash() {
    whole_protocol("bash").await;
}

#[tokio::test]
async fn under_mksh() {
    whole_protocol("mksh").await;
}
