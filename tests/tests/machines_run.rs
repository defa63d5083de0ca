//! Commands under the runner, on a real sshd and on the local machine alike.

// A test may fail at any line; its helpers too.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::time::{Duration, Instant};

use windlass_machines::{
    CancelToken, CommandSpec, Config, Endpoint, Fence, Interpreter, LocalEndpoint, Machine, MachineError, Machines,
    MemorySink, RunState, Ticket,
};
use windlass_model::SecretText;
use windlass_tests::sshd::{Options, Sshd};

/// Two machines, one by SSH and one local, and what keeps them alive.
struct Both {
    machines: Vec<std::sync::Arc<Machine>>,
    sshd: Sshd,
    home: tempfile::TempDir,
}

async fn both() -> Both {
    let sshd = Sshd::start().unwrap();
    let home = tempfile::tempdir().unwrap();
    let local = Endpoint::Local(LocalEndpoint { home: Some(home.path().join("it's home").display().to_string()) });
    let pool = Machines::new(Config::default());
    let machines = vec![pool.connect(&sshd.endpoint()).await.unwrap(), pool.connect(&local).await.unwrap()];
    Both { machines, sshd, home }
}

fn ticket(text: &str) -> Ticket {
    Ticket::new(text).unwrap()
}

fn sh(text: impl Into<String>) -> CommandSpec {
    CommandSpec::script(Interpreter::Sh, text)
}

async fn run(machine: &Machine, name: &str, spec: &CommandSpec) -> (Result<i32, MachineError>, MemorySink) {
    let mut sink = MemorySink::default();
    let exit = machine.run(&ticket(name), spec, &mut sink, &CancelToken::new()).await;
    (exit.map(|exit| exit.code), sink)
}

#[tokio::test]
async fn exit_codes_and_streams_arrive() {
    let both = both().await;
    for machine in &both.machines {
        for (name, spec, code, out, err) in [
            ("true", sh("true"), 0, "", ""),
            ("three", sh("echo out; echo err >&2; exit 3"), 3, "out\n", "err\n"),
            ("signal", sh("kill -KILL $$"), 137, "", ""),
            ("argv", CommandSpec::argv(["printf", "%s|", "a b", "it's", "$HOME", ""]), 0, "a b|it's|$HOME||", ""),
            ("stdin", CommandSpec::argv(["cat"]).stdin("one\ntwo"), 0, "one\ntwo", ""),
            ("no-stdin", CommandSpec::argv(["cat"]), 0, "", ""),
            (
                "env",
                sh("echo \"$A|$B\"").env("A", "x 'y'\nz").secret_env("B", SecretText::new("s3cret")),
                0,
                "x 'y'\nz|s3cret\n",
                "",
            ),
            ("cwd", sh("pwd").cwd("/usr"), 0, "/usr\n", ""),
            ("bash", CommandSpec::script(Interpreter::Bash, "a=(1 2); echo ${#a[@]}"), 0, "2\n", ""),
            ("no-newline", sh("printf x"), 0, "x", ""),
            ("background", sh("sleep 600 & echo $! >/dev/null"), 0, "", ""),
        ] {
            let (exit, sink) = run(machine, name, &spec).await;
            assert_eq!(exit, Ok(code), "{name} on {machine:?}");
            assert_eq!((sink.out_text().as_str(), sink.err_text().as_str()), (out, err), "{name} on {machine:?}");
        }
        machine.cancel(&ticket("background"), Duration::ZERO).await.unwrap();
    }
}

#[tokio::test]
async fn what_cannot_be_run_is_refused_clearly() {
    let both = both().await;
    let nowhere = both.home.path().join("nowhere").display().to_string();
    for machine in &both.machines {
        let (exit, sink) = run(machine, "cwd", &sh("true").cwd(&nowhere)).await;
        assert_eq!(exit, Ok(126));
        assert!(sink.err_text().contains(&nowhere), "{}", sink.err_text());
        let (exit, sink) = run(machine, "nothing", &CommandSpec::argv(["no-such-program"])).await;
        assert_eq!(exit, Ok(127));
        assert!(sink.err_text().contains("no-such-program"), "{}", sink.err_text());
        let (exit, _) = run(machine, "name", &sh("true").env("1A", "")).await;
        assert!(matches!(exit, Err(MachineError::Invalid { .. })), "{exit:?}");
        let mut facts = machine.facts().await.unwrap();
        if facts.tools.take("pwsh").is_none() {
            let (exit, _) = run(machine, "pwsh", &CommandSpec::script(Interpreter::Pwsh, "exit 0")).await;
            assert_eq!(exit.unwrap_err().to_string(), format!("{} has no pwsh", machine.endpoint()),);
            // Nothing was decided: the ticket is as good as new.
            assert_eq!(machine.status(&ticket("pwsh")).await, Ok(RunState::Absent));
        }
    }
}

#[tokio::test]
async fn large_outputs_inputs_and_scripts_are_byte_identical() {
    let both = both().await;
    let noise: Vec<u8> = (0..3_000_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let long = format!("# {}\nexec cat\n", "x".repeat(200_000));
    for machine in &both.machines {
        let (exit, sink) = run(machine, "cat", &CommandSpec::argv(["cat"]).stdin(noise.clone())).await;
        assert_eq!(exit, Ok(0));
        assert!(sink.out == noise, "{} bytes of {}", sink.out.len(), noise.len());
        let (exit, sink) = run(machine, "long", &sh(long.clone()).stdin(noise[..70_000].to_vec())).await;
        assert_eq!(exit, Ok(0));
        assert!(sink.out == noise[..70_000], "{} bytes", sink.out.len());
        let (exit, sink) =
            run(machine, "both", &sh("i=0; while [ $i -lt 20000 ]; do echo out $i; echo err $i >&2; i=$((i+1)); done"))
                .await;
        assert_eq!(exit, Ok(0));
        let lines = |word: &str| (0..20_000).map(|i| format!("{word} {i}\n")).collect::<String>();
        assert!(sink.out_text() == lines("out") && sink.err_text() == lines("err"));
    }
}

#[tokio::test]
async fn output_beyond_the_cap_is_thrown_away_and_said() {
    let both = both().await;
    for machine in &both.machines {
        let mut spec = sh("head -c 3000000 /dev/zero; echo done >&2");
        spec.output_cap = 100_000;
        let mut sink = MemorySink::default();
        let exit = machine.run(&ticket("cap"), &spec, &mut sink, &CancelToken::new()).await.unwrap();
        assert_eq!((exit.code, exit.output_cut, sink.out.len()), (0, true, 100_000));
        assert_eq!(sink.err_text(), "done\n");
    }
}

#[tokio::test]
async fn a_ticket_runs_once_however_often_it_is_started() {
    let both = both().await;
    for machine in &both.machines {
        let folder = tempfile::tempdir().unwrap();
        for round in 0..5 {
            let ledger = folder.path().join(round.to_string());
            let spec = sh(format!("echo run >> {}; sleep 0.05; echo done", ledger.display()));
            let name = format!("once.{round}");
            // Half of them by connections of their own.
            let tries = (0..20).map(|n| {
                let (endpoint, spec, name) = (machine.endpoint().clone(), spec.clone(), name.clone());
                async move {
                    let pool = Machines::new(Config::default());
                    if n % 5 == 0 {
                        run(&pool.connect(&endpoint).await.unwrap(), &name, &spec).await
                    } else {
                        run(machine, &name, &spec).await
                    }
                }
            });
            for (exit, sink) in futures::future::join_all(tries).await {
                assert_eq!((exit, sink.out_text().as_str()), (Ok(0), "done\n"));
            }
            assert_eq!(std::fs::read_to_string(&ledger).unwrap(), "run\n");
        }
    }
}

#[tokio::test]
async fn confirmed_runs_leave_only_a_tombstone() {
    let both = both().await;
    for machine in &both.machines {
        for n in 0..3 {
            run(machine, &format!("ack.{n}"), &sh("echo x")).await.0.unwrap();
            machine.ack(&ticket(&format!("ack.{n}"))).await.unwrap();
        }
        machine.flush_acks().await.unwrap();
        let home = machine.home().await.unwrap();
        let names = |folder: &str| {
            let mut names: Vec<_> = std::fs::read_dir(format!("{home}/{folder}"))
                .unwrap()
                .map(|e| e.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            names
        };
        assert_eq!(names("runs"), Vec::<String>::new());
        assert_eq!(names("done"), ["ack.0+go", "ack.1+go", "ack.2+go"]);
        let size = |name: &str| std::fs::metadata(format!("{home}/done/{name}+go")).unwrap().len();
        assert_eq!((size("ack.0"), size("ack.2")), (0, 0), "a tombstone is empty: it costs no block of the disk");
        let (exit, _) = run(machine, "ack.1", &sh("echo again")).await;
        assert!(matches!(exit, Err(MachineError::AlreadyTaken { .. })), "{exit:?}");
    }
}

#[tokio::test]
async fn timeouts_and_cancels_end_all_descendants() {
    let both = both().await;
    for (round, machine) in both.machines.iter().enumerate() {
        for (how, spec) in [
            ("plain", "sleep 7331"),
            ("deaf", "trap '' TERM; sleep 7331 & sleep 7331; sleep 7331"),
            (
                "escaped",
                "trap '' TERM; setsid sleep 7331 & (setsid sh -c 'trap \"\" TERM; sleep 7331; sleep 7331' &) ; sleep 7331",
            ),
        ] {
            let mut spec = sh(format!("WINDLASS_CANARY={round}.{how}; export WINDLASS_CANARY; echo begun; {spec}"));
            spec.grace = Duration::from_secs(1);
            let (name, cancel) = (format!("cancel.{how}"), CancelToken::new());
            let mut sink = MemorySink::default();
            let (begin, name) = (Instant::now(), ticket(&name));
            let ended = tokio::join!(machine.run(&name, &spec, &mut sink, &cancel), async {
                until(|| canaries(round, how) > 0).await;
                cancel.cancel();
            });
            assert_eq!(
                ended.0,
                Err(MachineError::Cancelled { machine: machine.endpoint().to_string(), started: true })
            );
            assert!(begin.elapsed() < Duration::from_secs(8), "{how}: {:?}", begin.elapsed());
            assert_eq!(sink.out_text(), "begun\n");
            assert_eq!(canaries(round, how), 0, "{how}");
            let late = run(machine, &format!("timeout.{how}"), &spec.clone().timeout(Duration::from_millis(300))).await;
            assert!(matches!(late.0, Err(MachineError::Timeout { .. })), "{:?}", late.0);
            assert_eq!(canaries(round, how), 0, "{how}");
        }
        let fenced = CancelToken::new();
        fenced.cancel();
        let mut sink = MemorySink::default();
        let never = machine.run(&ticket("never"), &sh("true"), &mut sink, &fenced).await;
        assert_eq!(never, Err(MachineError::Cancelled { machine: machine.endpoint().to_string(), started: false }));
        let (late, _) = run(machine, "never", &sh("true")).await;
        assert!(matches!(late, Err(MachineError::Fenced { .. })), "{late:?}");
    }
}

#[tokio::test]
async fn secrets_are_in_nobodys_arguments_and_on_no_disk_after() {
    let both = both().await;
    for (round, machine) in both.machines.iter().enumerate() {
        let secret = format!("canary-{round}-b7f3");
        let spec =
            sh(format!("# {secret}\necho begun; [ \"$KEY\" = {secret} ] && while [ ! -e stop ]; do sleep 0.02; done"))
                .secret_env("KEY", SecretText::new(secret.clone()))
                .cwd(tempfile::tempdir().unwrap().keep().display().to_string())
                .timeout(Duration::from_secs(60));
        let stop = format!("{}/stop", spec.cwd.clone().unwrap());
        let name = ticket("secret");
        let mut sink = MemorySink::default();
        let cancel = CancelToken::new();
        let (exit, seen) = tokio::join!(machine.run(&name, &spec, &mut sink, &cancel), async {
            until(|| matches!(environments_with(&secret).len(), 1..)).await;
            let seen = (arguments_with(&secret), environments_with(&secret));
            std::fs::write(&stop, "").unwrap();
            seen
        });
        assert_eq!(exit.unwrap().code, 0);
        assert_eq!(seen.0, Vec::<String>::new(), "in arguments");
        assert!(seen.1.iter().all(|name| name == "sh" || name == "sleep"), "in environments of {:?}", seen.1);
        machine.ack(&name).await.unwrap();
        machine.flush_acks().await.unwrap();
        let home = machine.home().await.unwrap();
        let found = std::process::Command::new("grep").args(["-rl", &secret, &home]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&found.stdout), "");
        std::fs::remove_dir_all(spec.cwd.unwrap()).unwrap();
    }
}

#[tokio::test]
async fn the_self_test_finds_a_healthy_machine_healthy() {
    let both = both().await;
    for machine in &both.machines {
        let test = machine.self_test().await.unwrap();
        assert!(test.survives_link && test.own_group && test.cancels, "{test:?}");
        assert_eq!(test.advice, Vec::<String>::new());
    }
    assert!(both.sshd.port() > 0);
}

/// Runs sessions as a system does that kills their processes at logout.
const KILLS_AT_LOGOUT: &str = r#"WINDLASS_TEST_LOGIN=$$; export WINDLASS_TEST_LOGIN
    exec 3<&0
    sh -c "$SSH_ORIGINAL_COMMAND" <&3 3<&- &
    while kill -0 $PPID 2>/dev/null; do sleep 0.05; done
    for p in $(grep -lsxzF WINDLASS_TEST_LOGIN=$$ /proc/[0-9]*/environ | cut -d/ -f3); do kill -KILL $p 2>/dev/null; done"#;

#[tokio::test]
async fn the_self_test_finds_what_a_machine_cannot_promise() {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("login");
    std::fs::write(&script, KILLS_AT_LOGOUT).unwrap();
    let config = vec![format!("ForceCommand sh {}", script.display())];
    let sshd = Sshd::start_with(Options { config, ..Options::default() }).unwrap();
    let machine = Machines::new(Config::default()).connect(&sshd.endpoint()).await.unwrap();
    let test = machine.self_test().await.unwrap();
    assert!(!test.survives_link && test.own_group, "{test:?}");
    assert_eq!(test.advice.len(), 1, "{test:?}");
    assert!(test.advice[0].contains("KillUserProcesses=yes") && test.advice[0].contains("enable-linger"), "{test:?}");

    // Every program but the two that give a command a group of its own.
    let programs = folder.path().join("bin");
    std::fs::create_dir(&programs).unwrap();
    for place in ["/usr/bin", "/bin"] {
        for program in std::fs::read_dir(place).unwrap() {
            let program = program.unwrap();
            let name = program.file_name();
            if name != "setsid" && !name.to_string_lossy().starts_with("perl") {
                let _ = std::os::unix::fs::symlink(program.path(), programs.join(name));
            }
        }
    }
    let env = vec![("PATH".into(), programs.display().to_string())];
    let sshd = Sshd::start_with(Options { env, ..Options::default() }).unwrap();
    let machine = Machines::new(Config::default()).connect(&sshd.endpoint()).await.unwrap();
    let test = machine.self_test().await.unwrap();
    assert!(test.survives_link && !test.own_group && test.cancels, "{test:?}");
    assert_eq!(test.advice.len(), 1, "{test:?}");
    assert!(test.advice[0].contains("install setsid (util-linux) or perl"), "{test:?}");
}

#[tokio::test]
async fn who_lost_its_lock_starts_nothing_any_more() {
    let both = both().await;
    for machine in &both.machines {
        let fence = |token| Fence { resource: "iis:metabase".into(), token, exclusive: true };
        let spec = sh("echo ran").fence(fence(41));
        assert_eq!(run(machine, "before", &spec).await.0, Ok(0));
        assert_eq!(run(machine, "next", &spec.clone().fence(fence(42))).await.0, Ok(0));
        let (refused, sink) = run(machine, "late", &spec).await;
        let error = refused.unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "{} refused to start late: a later holder of iis:metabase has been there (token 42, ours 41)",
                machine.endpoint()
            )
        );
        assert!(error.fix().contains("take the lock again") && !error.is_retryable(), "{}", error.fix());
        assert_eq!((sink.out_text().as_str(), machine.status(&ticket("late")).await), ("", Ok(RunState::Absent)));
        // What it had started before is still its own.
        let (exit, sink) = run(machine, "before", &spec).await;
        assert_eq!((exit, sink.out_text().as_str()), (Ok(0), "ran\n"));
    }
}

async fn until(mut what: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !what() {
        assert!(begin.elapsed() < Duration::from_secs(30), "it never happened");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn canaries(round: usize, how: &str) -> usize {
    environments_with(&format!("WINDLASS_CANARY={round}.{how}")).len()
}

/// Names of processes with `text` in their environment.
fn environments_with(text: &str) -> Vec<String> {
    processes_with("environ", text)
}

/// Names of processes with `text` in their arguments, this one excepted.
fn arguments_with(text: &str) -> Vec<String> {
    processes_with("cmdline", text)
}

fn processes_with(file: &str, text: &str) -> Vec<String> {
    let read = |pid: &str, file: &str| std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
    std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().into_string().ok())
        .filter(|name| name.bytes().all(|b| b.is_ascii_digit()))
        .filter(|pid| read(pid, file).windows(text.len()).any(|window| window == text.as_bytes()))
        .map(|pid| String::from_utf8_lossy(&read(&pid, "comm")).trim().to_owned())
        .collect()
}
