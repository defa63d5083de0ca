//! Every way to log in, each tried right and wrong: password, keyboard-interactive, agent. Keys are in `machines_link`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test ends at its first surprise"
)]

use std::{
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use windlass_machines::{Auth, Config, Endpoint, MachineError, Machines, SshEndpoint};
use windlass_model::SecretText;
use windlass_tests::sshd::{Options, Sshd, die_with_us, find_or_install};

const PASSWORD: &str = "correct horse";

/// A server that asks for [`PASSWORD`], in one of two ways. What it looks passwords up in is its own: it is mounted
/// over the machine's for this server alone, which takes root.
fn with_password(folder: &Path, keyboard: bool) -> Sshd {
    let hash = Command::new("perl").args(["-e", "print crypt($ARGV[0], q($6$windlass$))", PASSWORD]).output().unwrap();
    let hash = String::from_utf8(hash.stdout).unwrap();
    assert!(hash.starts_with("$6$"), "perl cannot hash: {hash:?}");
    let user = String::from_utf8(Command::new("id").arg("-un").output().unwrap().stdout).unwrap();
    let (shadow, pam) = (folder.join("shadow"), folder.join("pam"));
    std::fs::write(&shadow, format!("{}:{hash}:19000:0:99999:7:::\n", user.trim())).unwrap();
    let rules = "auth required pam_unix.so\naccount required pam_permit.so\nsession required pam_permit.so\n";
    std::fs::write(&pam, rules).unwrap();
    let mount = |from: &Path, over: &str| format!("mount --bind '{}' {over}", from.display());
    let ways = if keyboard {
        ["UsePAM yes", "PasswordAuthentication no", "KbdInteractiveAuthentication yes"]
    } else {
        ["UsePAM no", "PasswordAuthentication yes", "KbdInteractiveAuthentication no"]
    };
    Sshd::start_with(Options {
        config: ways.map(str::to_owned).into(),
        before: Some(format!("{}\n{}", mount(&shadow, "/etc/shadow"), mount(&pam, "/etc/pam.d/sshd"))),
        ..Options::default()
    })
    .unwrap()
}

async fn log_in(endpoint: SshEndpoint) -> Result<(), MachineError> {
    Machines::new(Config::default()).connect(&Endpoint::Ssh(endpoint)).await.map(|_| ())
}

#[tokio::test]
async fn a_password_logs_in_whichever_way_the_server_asks() {
    for (keyboard, accepted) in [(false, "password"), (true, "keyboard-interactive")] {
        let folder = tempfile::tempdir().unwrap();
        let sshd = with_password(folder.path(), keyboard);
        let with =
            |password: &str| SshEndpoint { auth: Auth::Password(SecretText::new(password)), ..sshd.ssh_endpoint() };
        log_in(with(PASSWORD)).await.unwrap();
        let refused = log_in(with("wrong")).await.unwrap_err();
        let MachineError::AuthRefused { accepted: told, .. } = &refused else { panic!("{refused}") };
        assert!(told.contains(accepted), "{refused}");
    }
}

/// An agent of our own, ended with its handle.
struct Agent {
    child: Child,
    socket: String,
}

impl Agent {
    fn start(folder: &Path) -> Self {
        let program = find_or_install("ssh-agent", "openssh-client", &["/usr/bin/ssh-agent"]).unwrap();
        let socket = folder.join("agent").display().to_string();
        let mut command = Command::new(program);
        command.args(["-D", "-a", &socket]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        die_with_us(&mut command);
        let child = command.spawn().unwrap();
        let begin = Instant::now();
        while std::os::unix::net::UnixStream::connect(&socket).is_err() {
            assert!(begin.elapsed() < Duration::from_secs(20), "the agent does not listen");
            std::thread::yield_now();
        }
        Self { child, socket }
    }

    fn add(&self, key: &Path) {
        let added = Command::new("ssh-add").arg(key).env("SSH_AUTH_SOCK", &self.socket).output().unwrap();
        assert!(added.status.success(), "{added:?}");
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Logs in by the agent in a process of its own, since only the environment names the agent.
fn log_in_beside(sshd: &Sshd, socket: &str) -> String {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "the_part_that_the_environment_tells", "--nocapture"])
        .env("SSH_AUTH_SOCK", socket)
        .env("WINDLASS_TEST_LOGIN", format!("{} {} {}", sshd.port(), sshd.user(), sshd.host_key()))
        .output()
        .unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn an_agent_logs_in_with_any_of_its_keys() {
    let folder = tempfile::tempdir().unwrap();
    let (sshd, other) = (Sshd::start().unwrap(), Sshd::start().unwrap());
    let agent = Agent::start(folder.path());
    let empty = log_in_beside(&sshd, &agent.socket);
    assert!(empty.contains("the agent holds no key"), "{empty}");
    agent.add(&other.login_key_path());
    let wrong = log_in_beside(&sshd, &agent.socket);
    assert!(wrong.contains("refused the agent's keys") || wrong.contains("it accepts: publickey"), "{wrong}");
    agent.add(&sshd.login_key_path());
    let right = log_in_beside(&sshd, &agent.socket);
    assert!(right.contains("logged in"), "{right}");
    let nobody = log_in_beside(&sshd, &folder.path().join("none").display().to_string());
    assert!(nobody.contains("not logged in: "), "{nobody}");
}

/// Does nothing unless [`log_in_beside`] started it.
#[tokio::test]
async fn the_part_that_the_environment_tells() {
    let Ok(login) = std::env::var("WINDLASS_TEST_LOGIN") else { return };
    let [port, user, host_key] = login.split(' ').collect::<Vec<_>>().try_into().unwrap();
    let endpoint = SshEndpoint {
        host: "127.0.0.1".into(),
        port: port.parse().unwrap(),
        user: user.to_owned(),
        auth: Auth::Agent,
        host_key: Some(host_key.to_owned()),
        home: None,
        reconnect_for: None,
    };
    match log_in(endpoint).await {
        Ok(()) => println!("logged in"),
        Err(error) => println!("not logged in: {error}; {}", error.fix()),
    }
}
