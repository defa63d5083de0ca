//! The Windlass server of the demo, and the command line that talks to it.

use std::ffi::OsStr;
use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::process::{Child, Command};
use windlass_tests::sshd::die_with_us;
use xtask::say;

use crate::{Outcome, http, process};

/// How long the server may take until it is ready.
const READY: Duration = Duration::from_secs(60);
/// How long it may take to stop in good order.
const STOP: Duration = Duration::from_secs(20);
/// How many lines of its log are shown when something failed.
const LOG_LINES: usize = 30;

/// A running `windlass serve`.
pub struct Server {
    child: Child,
    port: u16,
    program: PathBuf,
    data: PathBuf,
    log: PathBuf,
}

impl Server {
    /// Starts it with an empty store below `folder` and waits until it is ready.
    pub async fn start(folder: &Path, plugins: &Path) -> Outcome<Self> {
        let own = std::env::current_exe().map_err(|error| format!("cannot tell where this program is: {error}"))?;
        let program = own.with_file_name("windlass");
        let (data, log) = (folder.join("server"), folder.join("server.log"));
        let failed = |error: std::io::Error| format!("cannot start {}: {error}", program.display());
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .and_then(|listener| listener.local_addr())
            .map_err(failed)?
            .port();
        let output = fs::File::create(&log).map_err(failed)?;
        let mut command = Command::new(&program);
        command
            .arg("serve")
            .arg("--data")
            .arg(&data)
            .arg("--listen")
            .arg(format!("127.0.0.1:{port}"))
            .arg("--plugins")
            .arg(plugins);
        command.args(["--log-format", "pretty"]);
        command.stdin(Stdio::null()).stdout(output.try_clone().map_err(failed)?).stderr(output).kill_on_drop(true);
        // A group of its own: Ctrl-C is for us, and we stop it in order.
        command.process_group(0);
        die_with_us(command.as_std_mut());
        let child = command.spawn().map_err(failed)?;
        let mut server = Self { child, port, program, data, log };
        server.wait_until_ready().await?;
        Ok(server)
    }

    async fn wait_until_ready(&mut self) -> Outcome {
        let begin = Instant::now();
        while begin.elapsed() < READY {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(format!("the server ended at once ({status}); its log:\n{}", self.last_lines()));
            }
            if http::get(self.port, "/health/ready").await.is_ok_and(|answer| answer.status == 200) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Err(format!("the server was not ready within {} s; its log:\n{}", READY.as_secs(), self.last_lines()))
    }

    /// Where it listens.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The folder with its store and its token.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// The program `windlass`.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Runs a command of the command line in this terminal, shown as a person would type it.
    pub async fn windlass<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Outcome {
        let shown: Vec<_> = arguments.iter().map(|argument| argument.as_ref().to_string_lossy()).collect();
        let shown = shown.join(" ");
        say::line(&format!("$ windlass {shown}"));
        let status = self.command(arguments).status().await.map_err(|error| format!("cannot run windlass: {error}"))?;
        if status.success() { Ok(()) } else { Err(format!("`windlass {shown}` ended with {status}")) }
    }

    /// Runs a command silently and answers what it printed.
    pub async fn ask<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Outcome<String> {
        let output = self
            .command(arguments)
            .stdin(Stdio::null())
            .output()
            .await
            .map_err(|error| format!("cannot run windlass: {error}"))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(format!("{}\n{}", output.status, String::from_utf8_lossy(&output.stderr)))
    }

    fn command<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(arguments).env("WINDLASS_URL", self.url()).env("WINDLASS_DATA", &self.data).kill_on_drop(true);
        // A token of the person's own must not go to this server.
        command.env_remove("WINDLASS_TOKEN");
        die_with_us(command.as_std_mut());
        command
    }

    /// Waits until it ends by itself, which it should not.
    pub async fn ended(&mut self) -> Outcome {
        let status = self.child.wait().await.map_err(|error| format!("cannot wait for the server: {error}"))?;
        Err(format!("the server ended with {status}"))
    }

    /// The end of its log.
    pub fn last_lines(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines.get(lines.len().saturating_sub(LOG_LINES)..).unwrap_or_default().join("\n")
    }

    /// Stops it in good order; kills it if that takes too long.
    pub async fn stop(mut self) {
        if let Some(pid) = self.child.id() {
            process::signal(pid, libc::SIGTERM);
        }
        if tokio::time::timeout(STOP, self.child.wait()).await.is_err() {
            say::line("the server did not stop in time and is killed");
            let _ = self.child.kill().await;
        }
    }
}
