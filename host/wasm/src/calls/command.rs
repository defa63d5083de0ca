//! The `command` builder of `windlass:machine`: what shall be run, bounded as it grows.

use wasmtime::component::Resource;
use windlass_effects::{Command as Wanted, EnvValue, Failure, Program, Stdin};

use super::base::Secret;
use super::{Builder, Calls, MAX_CONTENT, check_name, check_size, check_text};
use crate::bindings::windlass::machine::session::HostCommand;

/// Most arguments, and most environment variables, of a command.
const MAX_ENTRIES: usize = 1000;
/// Last bytes of each stream that are kept unless the guest says otherwise.
const DEFAULT_CAPTURE: u32 = 64 << 10;

/// A command being built; the first thing wrong with it is told by `run` and `start`.
pub struct Command {
    wanted: Wanted,
    /// Bytes of all texts so far: each may be long, together they may not.
    size: usize,
    /// Bytes that the run counts for this handle.
    kept: usize,
    wrong: Option<Failure>,
}

impl Command {
    fn new(program: Program, first: Result<(), Failure>) -> Self {
        let wanted = Wanted {
            program,
            env: Default::default(),
            stdin: Stdin::Empty,
            cwd: None,
            timeout_ms: None,
            capture: DEFAULT_CAPTURE,
            quiet: false,
        };
        Self { wanted, size: 0, kept: 0, wrong: first.err() }
    }

    /// The command, if nothing was wrong with it.
    pub fn checked(&self) -> Result<Wanted, Failure> {
        match &self.wrong {
            Some(failure) => Err(failure.clone()),
            None => Ok(self.wanted.clone()),
        }
    }

    fn note(&mut self, check: Result<(), Failure>) -> bool {
        match check {
            Ok(()) => self.wrong.is_none(),
            Err(failure) => {
                self.wrong.get_or_insert(failure);
                false
            }
        }
    }

    /// Whether there is room for one more text.
    fn room(&mut self, what: &str, text: &str, entries: usize) -> bool {
        self.size = self.size.saturating_add(text.len());
        let check = check_text(what, text, MAX_CONTENT)
            .and_then(|()| check_size("the command as a whole", self.size, MAX_CONTENT))
            .and_then(|()| check_entries(what, entries));
        self.note(check)
    }

    fn set_env(&mut self, name: String, value: EnvValue) {
        let allowed = check_variable(&name).and_then(|()| check_entries("the environment", self.wanted.env.len()));
        if self.note(allowed) {
            self.wanted.env.insert(name, value);
        }
    }
}

impl Builder for Command {
    fn kept(&mut self) -> &mut usize {
        &mut self.kept
    }
}

impl HostCommand for Calls {
    async fn new(&mut self, program: String) -> wasmtime::Result<Resource<Command>> {
        let check = check_name("the program", &program);
        let bytes = program.len();
        self.begin(Command::new(Program::Argv(vec![program]), check), bytes)
    }

    async fn script(&mut self, interpreter: String, text: String) -> wasmtime::Result<Resource<Command>> {
        let check =
            check_name("the interpreter", &interpreter).and_then(|()| check_text("the script", &text, MAX_CONTENT));
        let bytes = interpreter.len() + text.len();
        let program = Program::Script { interpreter, text, args: Vec::new() };
        self.begin(Command::new(program, check), bytes)
    }

    async fn arg(&mut self, command: Resource<Command>, value: String) -> wasmtime::Result<()> {
        let command = self.grow(&command, value.len())?;
        let entries = match &command.wanted.program {
            Program::Argv(args) | Program::Script { args, .. } => args.len(),
        };
        if command.room("an argument", &value, entries) {
            match &mut command.wanted.program {
                Program::Argv(args) | Program::Script { args, .. } => args.push(value),
            }
        }
        Ok(())
    }

    async fn env(&mut self, command: Resource<Command>, name: String, value: String) -> wasmtime::Result<()> {
        let command = self.grow(&command, name.len() + value.len())?;
        if command.room("the value of an environment variable", &value, 0) {
            command.set_env(name, EnvValue::Text(value));
        }
        Ok(())
    }

    async fn env_secret(
        &mut self,
        command: Resource<Command>,
        name: String,
        value: Resource<Secret>,
    ) -> wasmtime::Result<()> {
        let secret = self.table.get(&value)?.handle.clone();
        self.grow(&command, name.len())?.set_env(name, EnvValue::Secret(secret));
        Ok(())
    }

    async fn stdin(&mut self, command: Resource<Command>, content: Vec<u8>) -> wasmtime::Result<()> {
        let command = self.grow(&command, content.len())?;
        if command.note(check_size("the standard input", content.len(), MAX_CONTENT)) {
            command.wanted.stdin = Stdin::Bytes(content);
        }
        Ok(())
    }

    async fn stdin_secret(&mut self, command: Resource<Command>, content: Resource<Secret>) -> wasmtime::Result<()> {
        let secret = self.table.get(&content)?.handle.clone();
        self.table.get_mut(&command)?.wanted.stdin = Stdin::Secret(secret);
        Ok(())
    }

    async fn cwd(&mut self, command: Resource<Command>, path: String) -> wasmtime::Result<()> {
        let command = self.grow(&command, path.len())?;
        if command.note(check_name("the working folder", &path)) {
            command.wanted.cwd = Some(path);
        }
        Ok(())
    }

    async fn timeout_ms(&mut self, command: Resource<Command>, ms: u64) -> wasmtime::Result<()> {
        self.table.get_mut(&command)?.wanted.timeout_ms = Some(ms.max(1));
        Ok(())
    }

    async fn capture_max(&mut self, command: Resource<Command>, bytes: u32) -> wasmtime::Result<()> {
        let most = u32::try_from(MAX_CONTENT).unwrap_or(u32::MAX);
        self.table.get_mut(&command)?.wanted.capture = bytes.min(most);
        Ok(())
    }

    async fn quiet(&mut self, command: Resource<Command>) -> wasmtime::Result<()> {
        self.table.get_mut(&command)?.wanted.quiet = true;
        Ok(())
    }

    async fn drop(&mut self, command: Resource<Command>) -> wasmtime::Result<()> {
        self.end(command)
    }
}

fn check_entries(what: &str, entries: usize) -> Result<(), Failure> {
    if entries < MAX_ENTRIES {
        return Ok(());
    }
    Err(Failure::new("too-large", format!("{what} is one too many: a command may have {MAX_ENTRIES}")))
}

/// A name that every shell takes: anything else could smuggle something into the script that sets it.
fn check_variable(name: &str) -> Result<(), Failure> {
    let first = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
    if first && name.len() <= 200 && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
        return Ok(());
    }
    Err(Failure::new("invalid", "the name of an environment variable is not made of letters, digits and _")
        .fix("rename the variable"))
}
