//! Connections that are refused, cut, frozen or shared by many.

// A test may fail at any line; its helpers too.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::{
    collections::BTreeSet,
    io::{Read as _, Write as _},
    net::{Shutdown, TcpListener, TcpStream},
    time::{Duration, Instant},
};

use windlass_machines::{
    Auth, CancelToken, CommandSpec, Config, Endpoint, Event, Interpreter, Machine, MachineError, Machines, MemorySink,
    RunState, SshEndpoint, Ticket, scan_host_key,
};
use windlass_model::SecretText;
use windlass_tests::sshd::{Options, Sshd};

fn ticket(text: &str) -> Ticket {
    Ticket::new(text).unwrap()
}

fn sh(text: impl Into<String>) -> CommandSpec {
    CommandSpec::script(Interpreter::Sh, text)
}

async fn refusal(change: impl FnOnce(&mut SshEndpoint), sshd: &Sshd) -> MachineError {
    let mut endpoint = sshd.ssh_endpoint();
    change(&mut endpoint);
    Machines::new(Config::default()).connect(&Endpoint::Ssh(endpoint)).await.unwrap_err()
}

#[tokio::test]
async fn wrong_credentials_keys_and_ports_are_told_apart() {
    let sshd = Sshd::start().unwrap();
    let name = sshd.endpoint().to_string();
    let other = Sshd::start().unwrap();

    let unknown = refusal(|e| e.host_key = None, &sshd).await;
    let scanned = scan_host_key("127.0.0.1", sshd.port()).await.unwrap();
    assert_eq!(scanned.fingerprint, sshd.host_key());
    assert_eq!(
        unknown,
        MachineError::HostKeyUnknown {
            machine: name.clone(),
            algorithm: "ssh-ed25519".into(),
            fingerprint: scanned.fingerprint
        }
    );
    let changed = refusal(|e| e.host_key = Some(other.host_key().into()), &sshd).await;
    assert_eq!(
        changed.to_string(),
        format!("the host key of {name} has changed: pinned {}, but it shows {}", other.host_key(), sshd.host_key())
    );

    let wrong_key =
        refusal(|e| e.auth = Auth::Key { pem: SecretText::new(other.login_key()), passphrase: None }, &sshd).await;
    assert_eq!(wrong_key.to_string(), format!("{name} refused the key; it accepts: publickey"));
    let password = refusal(|e| e.auth = Auth::Password(SecretText::new("guess")), &sshd).await;
    assert!(matches!(password, MachineError::AuthRefused { .. }), "{password}");
    let no_key = refusal(|e| e.auth = Auth::Key { pem: SecretText::new("nonsense"), passphrase: None }, &sshd).await;
    assert!(matches!(no_key, MachineError::BadCredential { .. }), "{no_key}");
    let no_file = refusal(|e| e.auth = Auth::KeyFile { path: "/no/key".into(), passphrase: None }, &sshd).await;
    assert!(no_file.to_string().contains("/no/key"), "{no_file}");

    let port = other.port();
    drop(other);
    let nobody = refusal(|e| e.port = port, &sshd).await;
    assert!(matches!(nobody, MachineError::Unreachable { .. }), "{nobody}");
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut endpoint = sshd.ssh_endpoint();
    endpoint.port = silent.local_addr().unwrap().port();
    let config = Config { handshake_timeout: Duration::from_millis(300), ..Config::default() };
    let mute = Machines::new(config).connect(&Endpoint::Ssh(endpoint)).await.unwrap_err();
    assert!(matches!(mute, MachineError::Timeout { .. }), "{mute}");
    for error in [unknown, changed, wrong_key, password, no_key, no_file, nobody, mute] {
        assert!(!error.fix().is_empty());
    }
}

/// A way to a server that lets only so many bytes of its first answers through and then closes, each time; its port.
fn cut_after(bytes: u64, server: u16) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    // It lives as long as the test: how often a connection is tried again is not its business.
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let (client, server) = (client.unwrap(), TcpStream::connect(("127.0.0.1", server)).unwrap());
            let (mut from, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            // Ends when either side is closed below.
            std::thread::spawn(move || std::io::copy(&mut from, &mut to));
            let _ = std::io::copy(&mut (&server).take(bytes), &mut &client);
            for stream in [client, server] {
                let _ = stream.shutdown(Shutdown::Both);
            }
        }
    });
    port
}

#[tokio::test]
async fn a_link_that_is_cut_anywhere_before_the_login_is_over_is_told_as_lost() {
    let sshd = Sshd::start().unwrap();
    let impatient = Config { reconnect_for: Duration::from_millis(50), ..Config::default() };
    let mut told = BTreeSet::new();
    for bytes in [0, 1, 3, 4, 12, 30].into_iter().chain((60..2200).step_by(90)) {
        let mut endpoint = sshd.ssh_endpoint();
        endpoint.port = cut_after(bytes, sshd.port());
        let error = Machines::new(impatient).connect(&Endpoint::Ssh(endpoint)).await.unwrap_err();
        assert!(matches!(error, MachineError::LinkLost { .. }), "after {bytes} bytes: {error}");
        told.insert(error.to_string());
    }
    // libssh2 tells of this one as of methods that do not meet.
    let keys = "in the middle of the SSH handshake: Unable to exchange encryption keys";
    assert!(told.iter().any(|text| text.contains(keys)), "{told:#?}");

    // Of a machine that nobody has spoken to yet, and of one that greets as something else, it is not told.
    let port = cut_after(12, sshd.port());
    let stranger = scan_host_key("127.0.0.1", port).await.unwrap_err();
    assert!(matches!(stranger, MachineError::Handshake { .. }), "{stranger}");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut endpoint = sshd.ssh_endpoint();
    endpoint.port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let _ = client.unwrap().write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        }
    });
    let web = Machines::new(impatient).connect(&Endpoint::Ssh(endpoint)).await.unwrap_err();
    assert!(matches!(web, MachineError::Handshake { .. }), "{web}");
}

#[tokio::test]
async fn a_key_file_and_an_encrypted_key_log_in() {
    let sshd = Sshd::start().unwrap();
    let mut endpoint = sshd.ssh_endpoint();
    endpoint.auth = Auth::KeyFile { path: sshd.login_key_path(), passphrase: None };
    Machines::new(Config::default()).connect(&Endpoint::Ssh(endpoint.clone())).await.unwrap();
    let path = sshd.login_key_path();
    let locked = std::process::Command::new("ssh-keygen")
        .args(["-p", "-P", "", "-N", "open sesame", "-f"])
        .arg(&path)
        .output()
        .unwrap();
    assert!(locked.status.success());
    endpoint.auth = Auth::KeyFile { path: path.clone(), passphrase: Some(SecretText::new("open sesame")) };
    Machines::new(Config::default()).connect(&Endpoint::Ssh(endpoint.clone())).await.unwrap();
    endpoint.auth = Auth::KeyFile { path, passphrase: Some(SecretText::new("wrong")) };
    let wrong = Machines::new(Config::default()).connect(&Endpoint::Ssh(endpoint)).await.unwrap_err();
    assert!(matches!(wrong, MachineError::BadCredential { .. } | MachineError::AuthRefused { .. }), "{wrong}");
}

#[tokio::test]
async fn a_run_survives_cuts_of_its_link() {
    let sshd = Sshd::start().unwrap();
    let ledger = sshd.home().join("ledger");
    let machine = Machines::new(Config::default()).connect(&sshd.endpoint()).await.unwrap();
    let script = format!(
        "echo start >> {}; i=0; while [ $i -lt 40 ]; do echo line $i; head -c 20000 /dev/zero | tr '\\0' x; echo; sleep 0.05; i=$((i+1)); done; exit 9",
        ledger.display()
    );
    let mut sink = MemorySink::default();
    let (name, spec, cancel) = (ticket("cut"), sh(script), CancelToken::new());
    let mut cuts = 0;
    let exit = {
        let run = machine.run(&name, &spec, &mut sink, &cancel);
        tokio::pin!(run);
        loop {
            tokio::select! {
                exit = &mut run => break exit,
                () = tokio::time::sleep(Duration::from_millis(600)), if cuts < 4 => {
                    sshd.cut();
                    cuts += 1;
                }
            }
        }
    };
    let filler = "x".repeat(20_000);
    let expected: String = (0..40).map(|i| format!("line {i}\n{filler}\n")).collect();
    assert_eq!(exit.map(|exit| exit.code), Ok(9));
    assert!(sink.out_text() == expected, "{} bytes of {}", sink.out.len(), expected.len());
    assert!(cuts > 0);
    assert_eq!(std::fs::read_to_string(ledger).unwrap(), "start\n");
}

#[tokio::test]
async fn another_process_picks_a_run_up_where_the_first_one_was() {
    let sshd = Sshd::start().unwrap();
    let spec = sh("echo one; while [ ! -e go-on ]; do sleep 0.05; done; echo two; exit 4");
    let mut sink = MemorySink::default();
    {
        let first = Machines::new(Config::default()).connect(&sshd.endpoint()).await.unwrap();
        let (name, cancel) = (ticket("handed"), CancelToken::new());
        let run = first.run(&name, &spec, &mut sink, &cancel);
        // Dropped in the middle, like a killed server.
        assert!(tokio::time::timeout(Duration::from_secs(2), run).await.is_err());
    }
    assert_eq!(sink.out_text(), "one\n");
    std::fs::write(sshd.home().join("go-on"), "").unwrap();
    let second = Machines::new(Config::default()).connect(&sshd.endpoint()).await.unwrap();
    let exit = second.run(&ticket("handed"), &spec, &mut sink, &CancelToken::new()).await.unwrap();
    assert_eq!((exit.code, sink.out_text().as_str()), (4, "one\ntwo\n"));
    let mut again = MemorySink::default();
    let exit = second.follow(&ticket("handed"), &mut again, &CancelToken::new()).await.unwrap();
    assert_eq!((exit.code, again.out_text().as_str()), (4, "one\ntwo\n"));
}

#[tokio::test]
async fn a_silent_link_is_noticed_within_fifteen_seconds() {
    let sshd = Sshd::start().unwrap();
    let config = Config { reconnect_for: Duration::from_secs(30), ..Config::default() };
    let machine = Machines::new(config).connect(&sshd.endpoint()).await.unwrap();
    let mut sink = MemorySink::default();
    let (name, cancel) = (ticket("frozen"), CancelToken::new());
    let spec = sh("while [ ! -e go-on ]; do sleep 0.05; done; exit 5");
    machine.start(&name, &spec).await.unwrap();
    sshd.freeze();
    let begin = Instant::now();
    std::fs::write(sshd.home().join("go-on"), "").unwrap();
    let exit = machine.run(&name, &spec, &mut sink, &cancel).await.unwrap();
    assert_eq!(exit.code, 5);
    assert!(begin.elapsed() < Duration::from_secs(17), "{:?}", begin.elapsed());
}

#[tokio::test]
async fn a_killed_supervisor_is_an_unknown_outcome() {
    let sshd = Sshd::start().unwrap();
    let machine = Machines::new(Config::default()).connect(&sshd.endpoint()).await.unwrap();
    let name = ticket("orphan");
    // The command's parent is the supervisor.
    let spec = sh("echo before; kill -KILL $PPID; sleep 600");
    let mut sink = MemorySink::default();
    let lost = machine.run(&name, &spec, &mut sink, &CancelToken::new()).await.unwrap_err();
    assert_eq!(
        lost.to_string(),
        format!("the outcome of orphan on {} is unknown: its supervisor died and left no exit code", sshd.endpoint())
    );
    assert_eq!(sink.out_text(), "before\n");
    // What still runs of it can be ended.
    let after = machine.cancel(&name, Duration::from_secs(1)).await.unwrap();
    assert!(matches!(after, RunState::Lost(_)), "{after:?}");
    let left = std::process::Command::new("grep")
        .args(["-lsz", "^WINDLASS_RUN=.*/orphan$"])
        .args(environs())
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&left.stdout), "");
}

#[tokio::test]
async fn a_machine_without_programs_says_so() {
    let sshd =
        Sshd::start_with(Options { env: vec![("PATH".into(), "/nowhere".into())], ..Options::default() }).unwrap();
    let error = Machines::new(Config::default()).connect(&sshd.endpoint()).await.unwrap_err();
    assert_eq!(error.to_string(), format!("{} has no sh in the PATH of its logins", sshd.endpoint()));
}

#[tokio::test]
async fn noise_of_the_login_shell_does_no_harm() {
    let sshd = Sshd::start().unwrap();
    std::fs::write(sshd.home().join(".bashrc"), "echo Welcome to this machine\necho and mind the step >&2\n").unwrap();
    let machine = Machines::new(Config::default()).connect(&sshd.endpoint()).await.unwrap();
    let mut sink = MemorySink::default();
    machine.run(&ticket("noise"), &sh("echo quiet"), &mut sink, &CancelToken::new()).await.unwrap();
    assert_eq!(sink.out_text(), "quiet\n");
    machine.put_bytes("file", b"content", 0o644).await.unwrap();
    assert_eq!(&machine.get("file", 100).await.unwrap()[..], b"content");
}

#[tokio::test]
async fn one_connection_and_one_thread_serve_many() {
    let sshd = Sshd::start().unwrap();
    let pool = Machines::new(Config::default());
    let endpoint = sshd.endpoint();
    let machines = futures::future::join_all((0..20).map(|_| pool.connect(&endpoint))).await;
    let runs = machines.into_iter().enumerate().map(|(n, machine)| async move {
        let machine = machine.unwrap();
        let mut sink = MemorySink::default();
        let exit =
            machine.run(&ticket(&format!("many.{n}")), &sh(format!("echo {n}")), &mut sink, &CancelToken::new()).await;
        // More channels than sshd allows at once: they queue.
        assert!(bare(&machine, "sleep 0.05; exit 3").await == Some(3));
        (exit.unwrap().code, sink.out_text())
    });
    for (n, done) in futures::future::join_all(runs).await.into_iter().enumerate() {
        assert_eq!(done, (0, format!("{n}\n")));
    }
    let threads = std::fs::read_dir("/proc/self/task")
        .unwrap()
        .filter_map(|task| std::fs::read_to_string(task.unwrap().path().join("comm")).ok())
        .filter(|name| name.starts_with("ssh 127"))
        .count();
    // Other tests of this process have connections too, but not one for each of these twenty.
    assert!(threads < 20, "{threads} threads");
    let logins = sshd.connections().len();
    assert!(logins <= 2, "{logins} processes serve connections");
}

async fn bare(machine: &Machine, command: &str) -> Option<i32> {
    let mut channel = machine.exec(command).await.unwrap();
    loop {
        if let Event::Exit(code) = channel.output.next().await? {
            return code;
        }
    }
}

fn environs() -> Vec<std::path::PathBuf> {
    std::fs::read_dir("/proc").unwrap().map(|e| e.unwrap().path().join("environ")).filter(|p| p.is_file()).collect()
}
