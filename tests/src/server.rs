//! The real binary as an ordinary process: `windlass serve` in a fresh folder, and its other commands against it.
//!
//! [`Server::start`] gives one on a free port with the bundled plugins installed; it dies with its handle, and with this
//! process. [`Server::cli`] runs a command to its end, [`Server::spawn`] one that goes on. Every wait is bounded.

use std::{
    fs::{self, File},
    io,
    os::unix::process::{CommandExt, ExitStatusExt},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use tempfile::TempDir;
use windlass_client::Client;

use crate::{disk::OwnDisk, guests, shop::Anything, terminal::Terminal};

/// How long a server may take until it serves: an unoptimised one compiles plugins beside other tests.
const START: Duration = Duration::from_secs(90);
/// How long a command may take.
const COMMAND: Duration = Duration::from_secs(180);
/// How often a process is looked at.
const LOOK: Duration = Duration::from_millis(10);

/// A running server.
#[derive(Debug)]
pub struct Server {
    process: Process,
    /// Holds `data` and the logs.
    folder: TempDir,
    plugins: Option<PathBuf>,
    url: String,
    token: String,
    /// Variables of its next start.
    env: Vec<(String, String)>,
    disk: Option<OwnDisk>,
}

impl Server {
    /// A server with the bundled plugins. It dies with the *thread* that starts it: not one of a pool.
    ///
    /// # Errors
    /// When the binary is not built or does not start; the text says why.
    pub async fn start() -> Anything<Self> {
        let built = guests::plugins().await?;
        let plugins = built.first().and_then(|component| component.parent()).ok_or("there are no plugins")?.to_owned();
        Self::with(Some(plugins))
    }

    /// A server without plugins: quicker, for what deploys nothing.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub fn bare() -> Anything<Self> {
        Self::with(None)
    }

    fn with(plugins: Option<PathBuf>) -> Anything<Self> {
        let folder = folder()?;
        let (process, url) = started(windlass()?, folder.path(), plugins.as_deref(), "127.0.0.1:0", &[])?;
        let token = fs::read_to_string(folder.path().join("data/token"))?.trim().to_owned();
        Ok(Self { process, folder, plugins, url, token, env: Vec::new(), disk: None })
    }

    /// One without plugins whose data folder is a disk of its own with so many MiB. `None` where nothing may be mounted.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub fn on_small_disk(mib: u32) -> Anything<Option<Self>> {
        let folder = folder()?;
        let data = folder.path().join("data");
        fs::create_dir(&data)?;
        let Some(disk) = OwnDisk::new(&data, mib)? else { return Ok(None) };
        let (process, url) = started(disk.enter(&windlass()?), folder.path(), None, "127.0.0.1:0", &[])?;
        let token = fs::read_to_string(disk.seen().join("token"))?.trim().to_owned();
        Ok(Some(Self { process, folder, plugins: None, url, token, env: Vec::new(), disk: Some(disk) }))
    }

    /// The disk of [`Server::on_small_disk`].
    #[must_use]
    pub fn disk(&self) -> Option<&OwnDisk> {
        self.disk.as_ref()
    }

    /// The data folder as seen from here, wherever it is.
    #[must_use]
    pub fn seen_data(&self) -> PathBuf {
        self.disk.as_ref().map_or_else(|| self.data(), OwnDisk::seen)
    }

    /// Lets it write no file beyond that size from now on: what it writes further fails, as on a full disk.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn limit_files(&self, bytes: u64) -> io::Result<()> {
        let pid = i32::try_from(self.process.child.id()).map_err(io::Error::other)?;
        let limit = libc::rlimit { rlim_cur: bytes, rlim_max: bytes };
        // SAFETY: the new limit is a live local that is only read, and no old one is asked for; the child is ours and
        // not waited for yet, so its number belongs to nobody else.
        #[allow(unsafe_code)]
        let answer = unsafe { libc::prlimit(pid, libc::RLIMIT_FSIZE, &raw const limit, std::ptr::null_mut()) };
        if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Waits for its end, whatever brings it about.
    ///
    /// # Errors
    /// When it does not end in time.
    pub fn wait(&mut self) -> Anything<Ended> {
        self.process.wait()
    }

    /// Where it serves, such as `http://127.0.0.1:40123`. Stays the same over a restart.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its first token.
    #[must_use]
    pub fn token(&self) -> &str {
        &self.token
    }

    /// Its data folder.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// A client of it.
    ///
    /// # Errors
    /// Never for an URL that it printed itself.
    pub fn client(&self) -> Anything<Client> {
        Ok(Client::new(&self.url, self.token.clone())?)
    }

    /// Everything its catalog holds: what a refused request must leave as it was.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn catalog(&self) -> Anything<serde_json::Value> {
        let client = self.client()?;
        let project = client.project(&"shop".parse()?).await.ok();
        Ok(serde_json::json!({
            "environments": client.environments().await?,
            "machines": client.machines().await?,
            "projects": client.projects().await?,
            "process": project.map(|project| project.process),
            "packages": client.packages().await?,
        }))
    }

    /// What it logged since its last start.
    #[must_use]
    pub fn log(&self) -> String {
        self.process.err()
    }

    /// Kills it as a power cut would: without a chance to say or write anything.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn kill9(&mut self) -> io::Result<()> {
        self.process.kill()
    }

    /// Starts it again on the same data and port, killed first if it still runs.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub fn restart(&mut self) -> Anything<()> {
        self.restart_with(&[])
    }

    /// The same with more arguments.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub fn restart_with(&mut self, arguments: &[&str]) -> Anything<()> {
        self.kill9()?;
        let (command, listen) = self.again()?;
        (self.process, self.url) = started(command, self.folder.path(), self.plugins.as_deref(), &listen, arguments)?;
        Ok(())
    }

    /// Starts it again and kills it after that time, wherever it is then.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn restart_and_kill(&mut self, after: Duration) -> Anything<()> {
        self.kill9()?;
        let (command, listen) = self.again()?;
        self.process = launched(command, self.folder.path(), self.plugins.as_deref(), &listen, &[])?;
        std::thread::sleep(after);
        Ok(self.kill9()?)
    }

    /// Sets a variable of its environment for the starts to come.
    pub fn set_env(&mut self, name: &str, value: &str) {
        self.env.retain(|(known, _)| known != name);
        self.env.push((name.to_owned(), value.to_owned()));
    }

    fn again(&self) -> Anything<(Command, String)> {
        let mut command = windlass()?;
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        let command = match &self.disk {
            Some(disk) => disk.enter(&command),
            None => command,
        };
        Ok((command, self.url.trim_start_matches("http://").to_owned()))
    }

    /// Whether it has ended, and how.
    ///
    /// # Errors
    /// When the system cannot tell.
    pub fn has_ended(&mut self) -> io::Result<Option<i32>> {
        Ok(self.process.child.try_wait()?.map(code))
    }

    /// Asks it to stop, as a service manager does.
    pub fn terminate(&self) {
        self.process.signal(libc::SIGTERM);
    }

    /// Runs a command of the binary against this server to its end.
    ///
    /// # Errors
    /// When it does not start, or not end in time.
    pub fn cli<S: AsRef<std::ffi::OsStr>>(&self, arguments: &[S]) -> Anything<Ended> {
        self.spawn(arguments)?.end()
    }

    /// Starts a command of the binary against this server.
    ///
    /// # Errors
    /// When it does not start.
    pub fn spawn<S: AsRef<std::ffi::OsStr>>(&self, arguments: &[S]) -> Anything<Process> {
        Ok(Process::spawn(self.command(arguments)?, self.folder.path())?)
    }

    /// Starts a command of the binary against this server on a terminal of so many columns and rows.
    ///
    /// # Errors
    /// When it does not start.
    pub fn on_terminal<S: AsRef<std::ffi::OsStr>>(&self, arguments: &[S], size: (u16, u16)) -> Anything<Terminal> {
        let mut command = self.command(arguments)?;
        command.env_remove("NO_COLOR").env_remove("CI").env("TERM", "xterm-256color");
        Terminal::start(command.current_dir(self.folder.path()), size)
    }

    fn command<S: AsRef<std::ffi::OsStr>>(&self, arguments: &[S]) -> Anything<Command> {
        let mut command = windlass()?;
        command.args(arguments).env("WINDLASS_URL", &self.url).env("WINDLASS_TOKEN", &self.token);
        Ok(command)
    }
}

/// A fresh folder for a server and its commands.
fn folder() -> io::Result<TempDir> {
    tempfile::Builder::new().prefix("windlass-server-").tempdir()
}

/// Starts a server by the binary's command and waits until it is ready; also tells where it serves.
fn started(
    command: Command,
    folder: &Path,
    plugins: Option<&Path>,
    listen: &str,
    arguments: &[&str],
) -> Anything<(Process, String)> {
    let mut process = launched(command, folder, plugins, listen, arguments)?;
    let log = process.until_err(START, |log| ready(log).is_some())?;
    let url = ready(&log).ok_or("the server did not say where it serves")?;
    Ok((process, url))
}

/// The same without waiting.
fn launched(
    mut command: Command,
    folder: &Path,
    plugins: Option<&Path>,
    listen: &str,
    arguments: &[&str],
) -> io::Result<Process> {
    command.args(["serve", "--log-format", "json", "--listen", listen]).arg("--data").arg(folder.join("data"));
    command.args(arguments);
    if let Some(plugins) = plugins {
        command.arg("--plugins").arg(plugins);
    }
    Process::spawn(command, folder)
}

/// The URL in the line that says that the server is ready.
fn ready(log: &str) -> Option<String> {
    let events = log.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let mut ready = events.filter(|event| event.get("message").is_some_and(|message| message == "ready"));
    ready.find_map(|event| event.get("url")?.as_str().map(str::to_owned))
}

/// The binary, which cargo puts beside the tests, in an environment of its own.
fn windlass() -> Anything<Command> {
    let test = std::env::current_exe()?;
    let binary = test.ancestors().skip(2).map(|folder| folder.join("windlass")).find(|file| file.is_file());
    let binary = binary.ok_or_else(|| {
        format!("there is no binary windlass above {}: run `cargo build --workspace --bin windlass`", test.display())
    })?;
    let mut command = Command::new(binary);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("WINDLASS_")) {
        command.env_remove(name);
    }
    command.env("NO_COLOR", "1").env("TERM", "dumb").env_remove("NOTIFY_SOCKET");
    Ok(command)
}

/// How a command ended, and what it said.
#[derive(Debug)]
pub struct Ended {
    /// Its exit code; 128 and more for a signal.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Ended {
    /// Its standard output, for a command that must succeed.
    ///
    /// # Errors
    /// What it said, when it did not exit with 0.
    pub fn good(self) -> Anything<String> {
        if self.code == 0 { Ok(self.out) } else { Err(format!("it ended badly: {self:#?}").into()) }
    }

    /// Its standard output as JSON, for a command that must succeed.
    ///
    /// # Errors
    /// As [`Ended::good`], or when it is no JSON.
    pub fn json(self) -> Anything<serde_json::Value> {
        Ok(serde_json::from_str(&self.good()?)?)
    }
}

/// A process of the binary whose output goes to files; killed with its handle.
#[derive(Debug)]
pub struct Process {
    child: Child,
    output: TempDir,
}

impl Process {
    fn spawn(mut command: Command, folder: &Path) -> io::Result<Self> {
        let output = tempfile::Builder::new().prefix("process-").tempdir_in(folder)?;
        command.current_dir(output.path()).stdin(Stdio::null());
        command.stdout(File::create(output.path().join("out"))?).stderr(File::create(output.path().join("err"))?);
        // SAFETY: prctl with PR_SET_PDEATHSIG only sets a flag of the calling process, signal only how it takes one;
        // both are async-signal-safe and touch no memory of ours, as is required between fork and exec.
        #[allow(unsafe_code)]
        unsafe {
            command.pre_exec(|| {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                // Writing beyond a limit is then an error, as on a full disk, and no signal.
                libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
                Ok(())
            });
        }
        Ok(Self { child: command.spawn()?, output })
    }

    /// What it wrote to standard output so far.
    #[must_use]
    pub fn out(&self) -> String {
        self.read("out")
    }

    /// What it wrote to standard error so far.
    #[must_use]
    pub fn err(&self) -> String {
        self.read("err")
    }

    /// Waits until its standard output satisfies `reached`, and gives it.
    ///
    /// # Errors
    /// When it ends or too much time passes before.
    pub fn until_out(&mut self, reached: impl Fn(&str) -> bool) -> Anything<String> {
        self.until(COMMAND, "out", reached)
    }

    fn until_err(&mut self, within: Duration, reached: impl Fn(&str) -> bool) -> Anything<String> {
        self.until(within, "err", reached)
    }

    fn until(&mut self, within: Duration, stream: &str, reached: impl Fn(&str) -> bool) -> Anything<String> {
        let begin = Instant::now();
        while begin.elapsed() < within {
            let ended = self.child.try_wait()?;
            let text = self.read(stream);
            if reached(&text) {
                return Ok(text);
            }
            if let Some(status) = ended {
                return Err(format!(
                    "it ended with {status} before it got there\nout: {}\nerr: {}",
                    self.out(),
                    self.err()
                )
                .into());
            }
            std::thread::sleep(LOOK);
        }
        Err(format!("it did not get there in {within:?}\nout: {}\nerr: {}", self.out(), self.err()).into())
    }

    /// Sends Ctrl-C.
    pub fn interrupt(&self) {
        self.signal(libc::SIGINT);
    }

    fn signal(&self, signal: i32) {
        let Ok(pid) = i32::try_from(self.child.id()) else { return };
        // SAFETY: kill takes plain numbers and touches no memory; the child is ours and not waited for yet, so its
        // number belongs to nobody else.
        #[allow(unsafe_code)]
        unsafe {
            libc::kill(pid, signal);
        }
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it does not end in time.
    pub fn end(mut self) -> Anything<Ended> {
        self.wait()
    }

    /// The same, keeping the handle.
    ///
    /// # Errors
    /// When it does not end in time.
    pub fn wait(&mut self) -> Anything<Ended> {
        let begin = Instant::now();
        while begin.elapsed() < COMMAND {
            if let Some(status) = self.child.try_wait()? {
                return Ok(Ended { code: code(status), out: self.out(), err: self.err() });
            }
            std::thread::sleep(LOOK);
        }
        Err(format!("it did not end in {COMMAND:?}\nout: {}\nerr: {}", self.out(), self.err()).into())
    }

    fn kill(&mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(drop)
    }

    fn read(&self, stream: &str) -> String {
        String::from_utf8_lossy(&fs::read(self.output.path().join(stream)).unwrap_or_default()).into_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // One that has ended already is no error.
        let _ = self.kill();
    }
}

fn code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default())
}
