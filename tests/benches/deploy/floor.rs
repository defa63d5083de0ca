//! The floors: the least that the same work costs by hand.

use std::{
    io::Read,
    net::TcpStream,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use windlass_tests::sshd::Sshd;

use crate::Anything;

/// The floor: what a shell does by hand, ten at once.
pub fn plain_ssh(targets: &[Sshd], archive: &Path, round: usize) -> Anything<Duration> {
    let sum = Command::new("sha256sum").arg(archive).output()?.stdout;
    let sum = String::from_utf8_lossy(&sum).split_whitespace().next().unwrap_or_default().to_owned();
    let started = Instant::now();
    let mut children = Vec::new();
    for target in targets {
        let home = target.home().join("floor");
        let script = format!(
            "mkdir -p {home}/{round} && cd {home} && cat > f && echo '{sum}  f' | sha256sum -c >/dev/null && \
             tar -xzf f -C {round} && sh {round}/PostDeploy.sh >/dev/null && ln -sfn {round} current",
            home = home.display()
        );
        let child = Command::new("ssh")
            .args([
                "-F",
                "none",
                "-o",
                "StrictHostKeyChecking=no",
                "-o",
                "UserKnownHostsFile=/dev/null",
                "-o",
                "LogLevel=ERROR",
            ])
            .args(["-o", "IdentitiesOnly=yes", "-c", "aes128-gcm@openssh.com", "-p", &target.port().to_string(), "-i"])
            .arg(target.login_key_path())
            .arg(format!("{}@127.0.0.1", target.user()))
            .arg(script)
            .stdin(Stdio::from(std::fs::File::open(archive)?))
            .spawn()?;
        children.push(child);
    }
    for mut child in children {
        if !child.wait()?.success() {
            return Err("plain ssh failed".into());
        }
    }
    Ok(started.elapsed())
}

/// The floor of small steps: bare commands, one connection a target, all targets at once.
pub fn bare_execs(targets: &[Sshd], steps: usize) -> Anything<Duration> {
    let mut sessions = Vec::new();
    for target in targets {
        let stream = TcpStream::connect(("127.0.0.1", target.port()))?;
        stream.set_nodelay(true)?;
        let mut session = ssh2::Session::new()?;
        session.set_tcp_stream(stream);
        session.handshake()?;
        session.userauth_pubkey_memory(target.user(), None, &target.login_key(), None)?;
        sessions.push(session);
    }
    let started = Instant::now();
    let threads: Vec<_> = sessions
        .into_iter()
        .map(|session| {
            std::thread::spawn(move || -> Result<(), ssh2::Error> {
                for _ in 0..steps {
                    let mut channel = session.channel_session()?;
                    channel.exec("true")?;
                    let mut output = String::new();
                    // Nothing is printed; the end of output is waited for.
                    let _ = channel.read_to_string(&mut output);
                    channel.wait_close()?;
                }
                Ok(())
            })
        })
        .collect();
    for thread in threads {
        thread.join().map_err(|_| "a bare command panicked")??;
    }
    Ok(started.elapsed())
}
