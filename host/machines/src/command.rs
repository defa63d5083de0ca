//! What to run, and how it ended.
//!
//! A [`CommandSpec`] is plain data and says nothing of where. Secrets are [`SecretText`]; they reach the machine on
//! the control channel's stdin and the command in its environment or 0600 files, never in anybody's argv.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use windlass_model::SecretText;

use crate::error::MachineError;

/// Output kept of one stream when nothing else is said: 64 MiB.
pub const OUTPUT_CAP: u64 = 64 * 1024 * 1024;

/// A command to run on a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandSpec {
    /// What to run.
    pub program: Program,
    /// Environment beside that of the login.
    pub env: BTreeMap<String, String>,
    /// Environment that must not be seen.
    pub secret_env: BTreeMap<String, SecretText>,
    /// Standard input; empty means none.
    pub stdin: Bytes,
    /// Folder to run in. Default: the user's home.
    pub cwd: Option<String>,
    /// After this long it is ended as by a cancel.
    pub timeout: Option<Duration>,
    /// Time between TERM and KILL when it is ended. Default: 10 s.
    pub grace: Duration,
    /// Bytes of each stream that are kept, here and on the machine; the rest is thrown away and said so. Default:
    /// [`OUTPUT_CAP`].
    pub output_cap: u64,
    /// What it relies on having locked.
    pub fence: Option<Fence>,
}

/// Proof of a lock: the machine refuses to start what bears a lower token than it has seen for the same resource.
///
/// So a host that lost its lock and does not know it yet starts nothing any more once the next holder has begun.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fence {
    /// What is locked.
    pub resource: String,
    /// Higher than that of any earlier holder.
    pub token: u64,
    /// Whether the lock shuts out all others. Only then does it shut out the tokens below it: holders that share a
    /// lock have different tokens and may go on beside each other.
    pub exclusive: bool,
}

/// What to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Program {
    /// A program and its arguments, as it will be seen in process lists.
    Argv(Vec<String>),
    /// A script and the interpreter that reads it.
    Script {
        /// Who reads it.
        interpreter: Interpreter,
        /// The text; may hold secrets.
        text: SecretText,
        /// Arguments after it.
        args: Vec<String>,
    },
}

/// Who reads a script.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Interpreter {
    /// The machine's POSIX shell.
    Sh,
    /// Bash.
    Bash,
    /// PowerShell 7.
    Pwsh,
    /// Python 3.
    Python3,
}

impl Interpreter {
    /// The program that is looked for.
    #[must_use]
    pub fn program(self) -> &'static str {
        match self {
            Self::Sh => "sh",
            Self::Bash => "bash",
            Self::Pwsh => "pwsh",
            Self::Python3 => "python3",
        }
    }

    /// Arguments between program and script, and how the script's name must end.
    pub(crate) fn call(self) -> (&'static str, &'static str) {
        match self {
            Self::Sh | Self::Bash | Self::Python3 => ("", ""),
            Self::Pwsh => ("-NoLogo -NoProfile -NonInteractive -File", ".ps1"),
        }
    }
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// Its exit code; 128 + N when it died by signal N.
    pub code: i32,
    /// Whether output beyond the cap was thrown away.
    pub output_cut: bool,
}

impl CommandSpec {
    /// A program with arguments.
    pub fn argv<S: Into<String>>(argv: impl IntoIterator<Item = S>) -> Self {
        Self::new(Program::Argv(argv.into_iter().map(Into::into).collect()))
    }

    /// A script without arguments.
    pub fn script(interpreter: Interpreter, text: impl Into<String>) -> Self {
        Self::new(Program::Script { interpreter, text: SecretText::new(text), args: Vec::new() })
    }

    fn new(program: Program) -> Self {
        Self {
            program,
            env: BTreeMap::new(),
            secret_env: BTreeMap::new(),
            stdin: Bytes::new(),
            cwd: None,
            timeout: None,
            grace: Duration::from_secs(10),
            output_cap: OUTPUT_CAP,
            fence: None,
        }
    }

    /// Adds a variable to the environment.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.insert(name.into(), value.into());
        self
    }

    /// Adds a secret variable to the environment.
    #[must_use]
    pub fn secret_env(mut self, name: impl Into<String>, value: SecretText) -> Self {
        self.secret_env.insert(name.into(), value);
        self
    }

    /// Gives it standard input.
    #[must_use]
    pub fn stdin(mut self, bytes: impl Into<Bytes>) -> Self {
        self.stdin = bytes.into();
        self
    }

    /// Runs it in a folder.
    #[must_use]
    pub fn cwd(mut self, folder: impl Into<String>) -> Self {
        self.cwd = Some(folder.into());
        self
    }

    /// Starts it only while nobody with a higher token has been there.
    #[must_use]
    pub fn fence(mut self, fence: Fence) -> Self {
        self.fence = Some(fence);
        self
    }

    /// Ends it after a while.
    #[must_use]
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.timeout = Some(limit);
        self
    }

    /// Refuses what no shell could be told.
    pub(crate) fn check(&self) -> Result<(), MachineError> {
        for name in self.env.keys().chain(self.secret_env.keys()) {
            let letters = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
            if !letters || name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
                return invalid(
                    format!("environment variable {name:?}"),
                    "must be letters, digits and `_`, no digit first",
                );
            }
            if name == "IFS" || name == "WINDLASS_RUN" || name.starts_with("_w_") {
                return invalid(format!("environment variable {name}"), "belongs to the runner and cannot be set");
            }
        }
        let no_nul = |what: &str, text: &str| match text.contains('\0') {
            true => invalid(what.to_owned(), "must not contain a zero byte"),
            false => Ok(()),
        };
        for (name, value) in &self.env {
            no_nul(&format!("the value of {name}"), value)?;
        }
        for (name, value) in &self.secret_env {
            no_nul(&format!("the value of {name}"), value.expose())?;
        }
        no_nul("the folder to run in", self.cwd.as_deref().unwrap_or_default())?;
        let args = match &self.program {
            Program::Argv(argv) if argv.first().is_none_or(String::is_empty) => {
                return invalid("the command".into(), "is empty");
            }
            Program::Argv(argv) => argv,
            Program::Script { args, .. } => args,
        };
        args.iter().try_for_each(|arg| no_nul("an argument", arg))
    }
}

fn invalid(what: String, reason: &str) -> Result<(), MachineError> {
    Err(MachineError::Invalid { what, reason: reason.into() })
}
