//! Real OpenSSH servers as ordinary processes on loopback, for tests, benches and the demo.
//!
//! [`Sshd::start`] gives one with a host key, a login key, a configuration and a home folder of its own; it dies with
//! its handle, and with this process. If `sshd` is missing it is installed by apt-get; failing that, the error says so.

use std::fs;
use std::io::{self, Read};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use windlass_machines::{Auth, Endpoint, SshEndpoint};
use windlass_model::SecretText;

/// How long a server may take to listen.
const START: Duration = Duration::from_secs(20);

/// Only one installation at a time; tests run in threads.
static INSTALLING: Mutex<()> = Mutex::new(());

/// A running `sshd` and everything it needs.
#[derive(Debug)]
pub struct Sshd {
    child: Child,
    folder: TempDir,
    port: u16,
    user: String,
    host_key: String,
    options: Options,
}

/// What may be different about a server.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Further lines of `sshd_config`, first ones win.
    pub config: Vec<String>,
    /// Environment of all sessions, beside `HOME`.
    pub env: Vec<(String, String)>,
    /// Port to listen on; any free one when 0.
    pub port: u16,
    /// Shell commands that run before it, as root, in a mount namespace of its own: what they mount over the
    /// machine's files only this server sees.
    pub before: Option<String>,
    /// Folder in which its own folder is made; the system's folder for temporary files when none.
    pub inside: Option<PathBuf>,
}

impl Sshd {
    /// A server with default settings. It dies with the *thread* that starts it: not one of a pool.
    ///
    /// # Errors
    /// When `sshd` can be neither found nor installed, or does not start; the text says why.
    pub fn start() -> io::Result<Self> {
        Self::start_with(Options::default())
    }

    /// A server with other settings.
    ///
    /// # Errors
    /// As [`Sshd::start`].
    pub fn start_with(options: Options) -> io::Result<Self> {
        let sshd = find_or_install("sshd", "openssh-server", &["/usr/sbin/sshd", "/usr/local/sbin/sshd"])?;
        let inside = options.inside.clone().unwrap_or_else(std::env::temp_dir);
        let folder = tempfile::Builder::new().prefix("windlass-sshd-").tempdir_in(inside)?;
        let root = folder.path();
        fs::create_dir(root.join("home"))?;
        for key in ["host_key", "login_key"] {
            make_key(&root.join(key))?;
        }
        fs::copy(root.join("login_key.pub"), root.join("authorized_keys"))?;
        let host_key = fingerprint(&root.join("host_key.pub"))?;
        // As root, sshd separates privileges and needs this empty folder.
        if root_user() {
            fs::create_dir_all("/run/sshd")?;
        }
        let user = user_name()?;
        let mut last = io::Error::other("no free port");
        // Another process may take a free port before sshd does; then another is tried.
        for _ in 0..5 {
            let port = if options.port == 0 { free_port()? } else { options.port };
            fs::write(root.join("config"), configuration(root, port, &options))?;
            let mut child = spawn(&sshd, root, options.before.as_deref())?;
            match wait_until_it_listens(&mut child, port, root) {
                Ok(()) => {
                    return Ok(Self { child, folder, port, user, host_key, options });
                }
                Err(e) => {
                    let _ = child.kill();
                    let _ = child.wait();
                    last = e;
                }
            }
        }
        Err(last)
    }

    /// How to reach it, host key pinned, with its login key.
    #[must_use]
    pub fn endpoint(&self) -> Endpoint {
        Endpoint::Ssh(self.ssh_endpoint())
    }

    /// The same, to be changed.
    #[must_use]
    pub fn ssh_endpoint(&self) -> SshEndpoint {
        SshEndpoint {
            host: "127.0.0.1".into(),
            port: self.port,
            user: self.user.clone(),
            auth: Auth::Key { pem: SecretText::new(self.login_key()), passphrase: None },
            host_key: Some(self.host_key.clone()),
            home: None,
            reconnect_for: None,
        }
    }

    /// Port it listens on.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Process that listens.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// User to log in as: the one running the test.
    #[must_use]
    pub fn user(&self) -> &str {
        &self.user
    }

    /// `SHA256:…` of its host key.
    #[must_use]
    pub fn host_key(&self) -> &str {
        &self.host_key
    }

    /// `$HOME` of its sessions: a folder of its own, so that many servers on one machine look like many machines.
    #[must_use]
    pub fn home(&self) -> PathBuf {
        self.folder.path().join("home")
    }

    /// The private key that may log in, in OpenSSH form.
    ///
    /// # Panics
    /// When the folder was removed behind our back.
    #[must_use]
    #[allow(clippy::expect_used)]
    pub fn login_key(&self) -> String {
        fs::read_to_string(self.login_key_path()).expect("the login key is there as long as the server")
    }

    /// Where that key is.
    #[must_use]
    pub fn login_key_path(&self) -> PathBuf {
        self.folder.path().join("login_key")
    }

    /// Processes serving its connections: they die with [`Sshd::cut`], not the commands run over them.
    #[must_use]
    pub fn connections(&self) -> Vec<u32> {
        let mut found = children(self.child.id());
        let mut next = 0;
        while let Some(pid) = found.get(next).copied() {
            found.extend(children(pid).into_iter().filter(|child| is_sshd(*child)));
            next += 1;
        }
        found
    }

    /// Kills all its connections at once, as a crash of the far side's sshd would.
    pub fn cut(&self) {
        for pid in self.connections() {
            signal(pid, libc::SIGKILL);
        }
    }

    /// Stops all its connections in their tracks: the link stays, and is silent.
    pub fn freeze(&self) {
        for pid in self.connections() {
            signal(pid, libc::SIGSTOP);
        }
    }

    /// Ends the server and its connections, and starts it again on the same port with the same keys.
    ///
    /// # Errors
    /// As [`Sshd::start`].
    pub fn restart(&mut self) -> io::Result<()> {
        self.stop();
        let sshd = find_or_install("sshd", "openssh-server", &["/usr/sbin/sshd", "/usr/local/sbin/sshd"])?;
        fs::write(self.folder.path().join("config"), configuration(self.folder.path(), self.port, &self.options))?;
        self.child = spawn(&sshd, self.folder.path(), self.options.before.as_deref())?;
        wait_until_it_listens(&mut self.child, self.port, self.folder.path())
    }

    /// Ends the server and its connections.
    pub fn stop(&mut self) {
        self.cut();
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The path of a program: found in `PATH` or `places`, or installed from Debian's `package`.
///
/// # Errors
/// When it can be neither found nor installed; the text says what to do.
pub fn find_or_install(program: &str, package: &str, places: &[&str]) -> io::Result<PathBuf> {
    let find = || {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let in_path = std::env::split_paths(&path).map(|folder| folder.join(program));
        in_path.chain(places.iter().map(PathBuf::from)).find(|file| file.is_file())
    };
    if let Some(found) = find() {
        return Ok(found);
    }
    let _one = INSTALLING.lock();
    if let Some(found) = find() {
        return Ok(found);
    }
    let install = |update: bool| {
        if update {
            let _ = Command::new("apt-get").args(["update", "-q"]).output();
        }
        Command::new("apt-get")
            .args(["install", "-y", "-q", "--no-install-recommends", package])
            .env("DEBIAN_FRONTEND", "noninteractive")
            .output()
    };
    let said = match install(false).and_then(|first| if first.status.success() { Ok(first) } else { install(true) }) {
        Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
        Err(e) => e.to_string(),
    };
    find().ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::NotFound,
            format!(
                "{program} is missing and could not be installed: run `apt-get install {package}` as root ({})",
                said.trim()
            ),
        )
    })
}

fn configuration(root: &Path, port: u16, options: &Options) -> String {
    let show = |name: &str| root.join(name).display().to_string();
    let mut environment = format!("HOME={}", show("home"));
    for (name, value) in &options.env {
        environment.push_str(&format!(" {name}={value}"));
    }
    let mut text = options.config.join("\n");
    text.push_str(&format!(
        "\nPort {port}\nListenAddress 127.0.0.1\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nStrictModes no\nUsePAM no\n\
         PermitRootLogin yes\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nUseDNS no\nPrintMotd no\n\
         PrintLastLog no\nMaxStartups 200\nLogLevel ERROR\nSetEnv {environment}\n",
        show("host_key"),
        show("authorized_keys"),
    ));
    text
}

fn spawn(sshd: &Path, root: &Path, before: Option<&str>) -> io::Result<Child> {
    let log = fs::File::create(root.join("log"))?;
    let mut command = match before {
        None => Command::new(sshd),
        Some(before) => {
            let mut command = Command::new("unshare");
            command.args(["--mount", "--propagation", "private", "sh", "-ec"]);
            command.arg(format!("{before}\nexec \"$@\"")).arg("sh").arg(sshd);
            command
        }
    };
    command.args(["-D", "-e", "-f"]).arg(root.join("config"));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    die_with_us(&mut command);
    command.spawn()
}

/// Makes the child die when this process does, however that happens.
pub fn die_with_us(command: &mut Command) {
    // The signal comes when the *thread* that spawned dies, so a test's thread must outlive its servers: it owns them.
    // SAFETY: prctl with PR_SET_PDEATHSIG only sets a flag of the calling process; it is async-signal-safe and touches
    // no memory of ours, as is required between fork and exec.
    #[allow(unsafe_code)]
    unsafe {
        command.pre_exec(|| {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM);
            Ok(())
        });
    }
}

fn wait_until_it_listens(child: &mut Child, port: u16, root: &Path) -> io::Result<()> {
    let begin = Instant::now();
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    while begin.elapsed() < START {
        if let Some(status) = child.try_wait()? {
            let log = fs::read_to_string(root.join("log")).unwrap_or_default();
            return Err(io::Error::other(format!("sshd ended with {status}: {}", log.trim())));
        }
        if let Ok(mut stream) = TcpStream::connect_timeout(&address, Duration::from_secs(1)) {
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            let mut greeting = [0; 4];
            if stream.read_exact(&mut greeting).is_ok() && greeting == *b"SSH-" {
                return Ok(());
            }
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Err(io::Error::new(io::ErrorKind::TimedOut, format!("sshd did not listen on port {port}")))
}

fn make_key(path: &Path) -> io::Result<()> {
    let keygen = find_or_install("ssh-keygen", "openssh-client", &["/usr/bin/ssh-keygen"])?;
    let output =
        Command::new(keygen).args(["-q", "-t", "ed25519", "-N", "", "-C", "windlass-test", "-f"]).arg(path).output()?;
    if !output.status.success() {
        return Err(io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned()));
    }
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))
}

fn fingerprint(public_key: &Path) -> io::Result<String> {
    let output = Command::new("ssh-keygen").arg("-lf").arg(public_key).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let found = text.split_whitespace().find(|word| word.starts_with("SHA256:")).map(str::to_owned);
    found.ok_or_else(|| io::Error::other(format!("no fingerprint in {text:?}")))
}

fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

fn user_name() -> io::Result<String> {
    let output = Command::new("id").arg("-un").output()?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn root_user() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout.starts_with(b"0\n"))
}

fn children(pid: u32) -> Vec<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().filter_map(|word| word.parse().ok()).collect()
}

fn is_sshd(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim().starts_with("sshd"))
}

fn signal(pid: u32, signal: i32) {
    let Ok(pid) = i32::try_from(pid) else { return };
    // SAFETY: kill takes plain numbers and touches no memory; a process that is gone meanwhile gives an error only.
    #[allow(unsafe_code)]
    unsafe {
        libc::kill(pid, signal);
    }
}
