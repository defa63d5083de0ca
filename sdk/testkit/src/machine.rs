//! Machines of the fake world: scripted replies and files in memory.

use std::{collections::BTreeMap, sync::Arc};

use windlass_effects::{Command, Exit, Program};

/// How a command on a fake machine ends.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reply {
    /// Exit code.
    pub code: i32,
    /// What it prints.
    pub stdout: String,
    /// What it prints as errors.
    pub stderr: String,
}

impl Reply {
    /// Exit code 0 and this output.
    #[must_use]
    pub fn ok(stdout: &str) -> Self {
        Self { stdout: stdout.to_owned(), ..Self::default() }
    }

    /// This exit code and this error output.
    #[must_use]
    pub fn fails(code: i32, stderr: &str) -> Self {
        Self { code, stderr: stderr.to_owned(), ..Self::default() }
    }

    /// The end of a command that keeps so many bytes of each stream.
    pub(crate) fn exit(&self, capture: u32) -> Exit {
        let max = usize::try_from(capture).unwrap_or(usize::MAX);
        let tail = |text: &str| text.as_bytes().get(text.len().saturating_sub(max)..).unwrap_or_default().to_vec();
        Exit {
            code: self.code,
            stdout: tail(&self.stdout),
            stderr: tail(&self.stderr),
            truncated: self.stdout.len().max(self.stderr.len()) > max,
        }
    }
}

/// A machine that is lent to the guest.
#[derive(Debug, Clone)]
pub struct FakeMachine {
    pub(crate) name: String,
    pub(crate) facts: BTreeMap<String, String>,
    replies: Vec<(String, Reply)>,
    pub(crate) files: BTreeMap<String, Arc<[u8]>>,
}

impl FakeMachine {
    /// A Linux machine without files, on which no command is known.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            facts: BTreeMap::from([("os".into(), "linux".into()), ("arch".into(), "x86_64".into())]),
            replies: Vec::new(),
            files: BTreeMap::new(),
        }
    }

    /// The same, with a fact.
    #[must_use]
    pub fn fact(mut self, name: &str, value: &str) -> Self {
        self.facts.insert(name.to_owned(), value.to_owned());
        self
    }

    /// The same, with a reply to every command whose text holds `part`; the first that fits is taken. The text of a
    /// program is its arguments with blanks between them, that of a script is the script.
    #[must_use]
    pub fn reply(mut self, part: &str, reply: Reply) -> Self {
        self.replies.push((part.to_owned(), reply));
        self
    }

    /// The same, with a file.
    #[must_use]
    pub fn file(mut self, path: &str, content: impl AsRef<[u8]>) -> Self {
        self.files.insert(path.to_owned(), content.as_ref().into());
        self
    }

    pub(crate) fn answer(&self, command: &Command) -> Result<&Reply, String> {
        let text = match &command.program {
            Program::Argv(argv) => argv.join(" "),
            Program::Script { text, args, .. } => format!("{text} {}", args.join(" ")),
        };
        let text = text.trim();
        let found = self.replies.iter().find(|(part, _)| text.contains(part.as_str()));
        found.map(|(_, reply)| reply).ok_or_else(|| {
            let text: String = text.chars().take(200).collect();
            format!("the fake machine {} knows no reply to: {text}", self.name)
        })
    }
}
