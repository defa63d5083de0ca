//! Machines: commands, processes and files. Needs the capability `machine`.

use std::borrow::Cow;
use std::time::Duration;

use crate::bindings::windlass::machine::session as raw;
use crate::clock::millis;
use crate::{Failure, Package, Result, Secret};

/// The machine this step runs on.
pub struct Session<'a> {
    raw: &'a raw::Session,
}

impl<'a> Session<'a> {
    pub(crate) fn new(raw: &'a raw::Session) -> Self {
        Self { raw }
    }

    /// The machine's name in Windlass.
    pub fn name(&self) -> String {
        self.raw.name()
    }

    /// What is known of the machine (`os`, `arch`, `hostname`, …), as pairs.
    pub fn facts(&self) -> Result<Vec<(String, String)>> {
        Ok(self.raw.facts()?)
    }

    /// One fact, if it is known.
    pub fn fact(&self, name: &str) -> Result<Option<String>> {
        Ok(self.facts()?.into_iter().find(|(key, _)| key == name).map(|(_, value)| value))
    }

    /// Runs a command to its end, its output streaming to the log. Ask the answer for [`Exit::success`].
    pub fn run(&self, command: Command) -> Result<Exit> {
        let exit = self.raw.run(&command.raw)?;
        Ok(Exit {
            code: exit.code,
            stdout: exit.stdout,
            stderr: exit.stderr,
            truncated: exit.truncated,
            program: command.shown,
        })
    }

    /// Starts a command and returns at once. Dropping the process kills it.
    pub fn start(&self, command: Command) -> Result<Process> {
        Ok(Process { raw: self.raw.start(&command.raw)? })
    }

    /// The content of a file of at most `max` bytes (at most 1 MiB).
    pub fn read_file(&self, path: &str, max: u32) -> Result<Vec<u8>> {
        Ok(self.raw.read_file(path, max)?)
    }

    /// Writes a file of at most 1 MiB, whole or not at all, with a mode such as `0o644`.
    pub fn write_file(&self, path: &str, content: impl AsRef<[u8]>, mode: u32) -> Result<()> {
        Ok(self.raw.write_file(path, content.as_ref(), mode)?)
    }

    /// Writes a file that holds a secret, whole or not at all.
    pub fn write_secret(&self, path: &str, content: &Secret, mode: u32) -> Result<()> {
        Ok(self.raw.write_secret(path, &content.raw, mode)?)
    }

    /// The path, on the machine, of a package's archive. The host sent and verified it.
    pub fn package_path(&self, package: &Package) -> Result<String> {
        Ok(self.raw.package_path(&package.raw)?)
    }

    /// Replaces `#{Name}` templates by the run's variables in the files under `root` that match one of `globs`.
    pub fn substitute(&self, root: &str, globs: &[String]) -> Result<Substitution> {
        Ok(self.raw.substitute(root, globs)?)
    }
}

pub use raw::Substitution;

/// A command being described.
pub struct Command {
    raw: raw::Command,
    shown: String,
}

impl Command {
    /// A program, run directly: no shell looks at its arguments.
    pub fn new(program: &str) -> Self {
        Self { raw: raw::Command::new(program), shown: program.to_owned() }
    }

    /// A script, given to an interpreter such as `sh`, `bash`, `pwsh` or `python3`.
    pub fn script(interpreter: &str, text: &str) -> Self {
        Self { raw: raw::Command::script(interpreter, text), shown: format!("{interpreter} script") }
    }

    /// Adds one argument.
    pub fn arg(self, value: impl AsRef<str>) -> Self {
        self.raw.arg(value.as_ref());
        self
    }

    /// Adds several arguments.
    pub fn args(self, values: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        for value in values {
            self.raw.arg(value.as_ref());
        }
        self
    }

    /// Sets an environment variable.
    pub fn env(self, name: &str, value: impl AsRef<str>) -> Self {
        self.raw.env(name, value.as_ref());
        self
    }

    /// Sets an environment variable to a secret.
    pub fn env_secret(self, name: &str, value: &Secret) -> Self {
        self.raw.env_secret(name, &value.raw);
        self
    }

    /// What the command reads from its standard input (at most 1 MiB).
    pub fn stdin(self, content: impl AsRef<[u8]>) -> Self {
        self.raw.stdin(content.as_ref());
        self
    }

    /// What the command reads from its standard input, as a secret.
    pub fn stdin_secret(self, content: &Secret) -> Self {
        self.raw.stdin_secret(&content.raw);
        self
    }

    /// The working folder; the home folder of the login unless set.
    pub fn cwd(self, path: &str) -> Self {
        self.raw.cwd(path);
        self
    }

    /// Ends the command, with everything it started, after so long.
    pub fn timeout(self, time: Duration) -> Self {
        self.raw.timeout_ms(millis(time));
        self
    }

    /// How many of the last bytes of each output stream [`Exit`] holds; 64 KiB unless set.
    pub fn capture_max(self, bytes: u32) -> Self {
        self.raw.capture_max(bytes);
        self
    }

    /// Keeps the output out of the log.
    pub fn quiet(self) -> Self {
        self.raw.quiet();
        self
    }
}

/// How a command ended.
pub struct Exit {
    /// Exit code; 128 + n if signal n ended it.
    pub code: i32,
    /// The last bytes of standard output.
    pub stdout: Vec<u8>,
    /// The last bytes of standard error.
    pub stderr: Vec<u8>,
    /// True if the command wrote more than was captured, or if what it wrote is not known: a person took it as done.
    pub truncated: bool,
    program: String,
}

impl Exit {
    /// Standard output as text without the line break at its end; what is no UTF-8 is replaced.
    pub fn text(&self) -> Cow<'_, str> {
        trimmed(&self.stdout)
    }

    /// Standard error as text without the line break at its end; what is no UTF-8 is replaced.
    pub fn error_text(&self) -> Cow<'_, str> {
        trimmed(&self.stderr)
    }

    /// The answer, if the command ended with code 0; otherwise a failure that shows its last error line.
    pub fn success(self) -> Result<Self> {
        if self.code == 0 {
            return Ok(self);
        }
        let errors = self.error_text();
        let last = errors.lines().rev().map(str::trim).find(|line| !line.is_empty());
        let message = match last {
            Some(line) => format!("{} ended with exit code {}: {line}", self.program, self.code),
            None => format!("{} ended with exit code {}", self.program, self.code),
        };
        Err(Failure::new("exit-code", message).with("exit_code", self.code))
    }
}

fn trimmed(bytes: &[u8]) -> Cow<'_, str> {
    let end = bytes.iter().rposition(|byte| !matches!(byte, b'\n' | b'\r')).map_or(0, |last| last + 1);
    String::from_utf8_lossy(&bytes[..end])
}

/// A command that was started. Dropping it kills the command.
pub struct Process {
    raw: raw::Process,
}

impl Process {
    /// The next bytes of standard output, at most `max`; an empty list is the end.
    pub fn read(&self, max: u32) -> Result<Vec<u8>> {
        Ok(self.raw.read(false, max)?)
    }

    /// The next bytes of standard error, at most `max`; an empty list is the end.
    pub fn read_error(&self, max: u32) -> Result<Vec<u8>> {
        Ok(self.raw.read(true, max)?)
    }

    /// Waits for the end: the exit code.
    pub fn wait(&self) -> Result<i32> {
        Ok(self.raw.wait()?)
    }

    /// Ends the command with everything it started.
    pub fn kill(&self) -> Result<()> {
        Ok(self.raw.kill()?)
    }
}
