//! The two shells the runner is written for, and how each is opened and told what to run.
//!
//! `runner.sh` and `runner.ps1` are twins: same files, states, verbs and answers, so only the opening and the start
//! differ. Windows is **beta**: commands only, and no release was tried there yet.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

use super::quote::quote;
use super::request::{mark, start_request};
use super::run::blocks;
use crate::command::{CommandSpec, Program};
use crate::link::{Event, Link};
use crate::ticket::Ticket;

const POSIX: &str = include_str!("runner.sh");
const WINDOWS: &str = include_str!("runner.ps1");
/// Reads one line of base64 and runs it as a program, which then reads the rest. Fits any login shell once encoded.
const BOOTSTRAP: &str =
    "Invoke-Expression ([Text.Encoding]::UTF8.GetString([Convert]::FromBase64String([Console]::In.ReadLine())))";
/// Printed by whatever shell: `Windows_NT` is in it on Windows only.
const PROBE: &str = "echo windlass-%OS%-$env:OS";
/// How long the probe may take, and how much of its answer is looked at.
const PROBE_TIME: Duration = Duration::from_secs(10);
const PROBE_SIZE: usize = 4096;

/// A shell that the runner is written for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// `sh`, whichever.
    Posix,
    /// Windows PowerShell. Beta.
    PowerShell,
}

impl Dialect {
    /// What the login shell is told, to become a shell that waits for [`Dialect::boot`].
    pub(crate) fn command(self) -> String {
        match self {
            Self::Posix => "exec sh".to_owned(),
            Self::PowerShell => {
                let wide: Vec<u8> = BOOTSTRAP.encode_utf16().flat_map(u16::to_le_bytes).collect();
                format!(
                    "powershell -NoLogo -NoProfile -NonInteractive -ExecutionPolicy Bypass -EncodedCommand {}",
                    STANDARD.encode(wide)
                )
            }
        }
    }

    /// The runner with the connection's settings.
    pub(crate) fn boot(self, nonce: &str, key: &str, home: Option<&str>) -> String {
        match self {
            Self::Posix => {
                let mut boot = format!("_w_n={nonce} _w_k={key}\n");
                if let Some(home) = home {
                    boot.push_str(&format!("_w_home={}\n", quote(home)));
                }
                boot.extend(lines(POSIX));
                boot
            }
            Self::PowerShell => {
                let home = home.unwrap_or_default().replace('\'', "''");
                let program = format!("$_w_n = '{nonce}'\n$_w_k = '{key}'\n$_w_home = '{home}'\n{WINDOWS}");
                format!("{}\n", STANDARD.encode(program))
            }
        }
    }

    /// The request that starts `spec` under `ticket`, at most once.
    pub(crate) fn start(self, number: u64, ticket: &Ticket, spec: &CommandSpec) -> String {
        match self {
            Self::Posix => start_request(number, ticket, spec),
            Self::PowerShell => {
                // These values always have a form in JSON.
                let json = serde_json::to_vec(&Start::of(spec)).unwrap_or_default();
                format!("_w_start {number} '{ticket}' '{}'\n", STANDARD.encode(json))
            }
        }
    }
}

/// Asks a machine on which `sh` does not start whether it is Windows.
pub(crate) async fn is_windows(link: &dyn Link) -> bool {
    let asked = async {
        let mut channel = link.open(PROBE).await.ok()?;
        let mut said = Vec::new();
        while let Some(Event::Out(bytes) | Event::Err(bytes)) = channel.output.next().await {
            said.extend_from_slice(&bytes);
            if said.len() > PROBE_SIZE {
                break;
            }
        }
        Some(String::from_utf8_lossy(&said).contains("Windows_NT"))
    };
    tokio::time::timeout(PROBE_TIME, asked).await.ok().flatten().unwrap_or(false)
}

/// The runner without comments and indentation: some shells read their program byte by byte.
fn lines(program: &'static str) -> impl Iterator<Item = String> {
    let lines = program.lines().map(str::trim_start);
    lines.filter(|line| !line.is_empty() && !line.starts_with('#')).map(|line| format!("{line}\n"))
}

/// What `runner.ps1` is told of a start.
#[derive(Serialize)]
struct Start<'a> {
    program: &'a str,
    call: Vec<&'a str>,
    ext: &'a str,
    script: Option<&'a str>,
    args: Vec<&'a str>,
    env: BTreeMap<&'a str, &'a str>,
    cwd: Option<&'a str>,
    stdin: String,
    cap: u64,
    fence: String,
}

impl<'a> Start<'a> {
    fn of(spec: &'a CommandSpec) -> Self {
        let (program, call, ext, script, args) = match &spec.program {
            Program::Argv(argv) => {
                let mut words = argv.iter().map(String::as_str);
                (words.next().unwrap_or_default(), "", "", None, words.collect())
            }
            Program::Script { interpreter, text, args } => {
                let (call, ext) = interpreter.call();
                (interpreter.program(), call, ext, Some(text.expose()), args.iter().map(String::as_str).collect())
            }
        };
        let plain = spec.env.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let secret = spec.secret_env.iter().map(|(name, value)| (name.as_str(), value.expose()));
        Self {
            program,
            call: call.split_whitespace().collect(),
            ext,
            script,
            args,
            env: plain.chain(secret).collect(),
            cwd: spec.cwd.as_deref(),
            stdin: STANDARD.encode(&spec.stdin),
            cap: blocks(spec.output_cap),
            fence: spec.fence.as_ref().map_or_else(String::new, mark),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Interpreter;

    /// Names of the functions that requests call.
    const VERBS: [&str; 9] =
        ["_w_say", "_w_start", "_w_status", "_w_poll", "_w_cancel", "_w_ack", "_w_tidy", "_w_trim_now", "_w_facts"];

    #[test]
    fn the_twins_have_the_same_verbs_states_and_records() {
        for verb in VERBS {
            assert!(POSIX.contains(&format!("\n{verb}() {{")), "{verb} in runner.sh");
            let function = format!("\nfunction {verb}");
            let found = WINDOWS
                .match_indices(&function)
                .any(|(at, _)| WINDOWS.get(at + function.len()..).is_some_and(|rest| rest.starts_with(['(', ' '])));
            assert!(found, "{verb} in runner.ps1");
        }
        for word in [
            "READY",
            "ABSENT",
            "PREPARED",
            "STARTING",
            "STARTED",
            "RUNNING",
            "DONE",
            "LOST reboot",
            "LOST died",
            "FENCED",
            "GONE",
            "E tool",
            "E stale",
            "E full",
            "E home",
            "WINDLASS_RUN",
            "+go",
            "+script.",
            "+out",
            "+err",
            "+cancel",
            "'G ",
            "fences",
        ] {
            let alike = |text: &str| text.replace('"', "'").contains(word);
            assert!(alike(POSIX) && alike(WINDOWS), "{word}: sh {} ps1 {}", alike(POSIX), alike(WINDOWS));
        }
    }

    /// Brackets of a PowerShell program that stand outside of strings and comments, in pairs.
    #[test]
    fn the_brackets_of_the_twin_are_closed() {
        let mut open = Vec::new();
        let mut text = WINDOWS;
        while let Some(first) = text.chars().next() {
            let skip = match first {
                '@' if text.starts_with("@'\n") => text.find("\n'@").expect("a here-string ends") + 3,
                '#' => text.find('\n').unwrap_or(text.len()),
                '\'' => text[1..].find('\'').expect("a quote ends") + 2,
                '"' => {
                    // Expressions within are balanced themselves, and quote with the other kind.
                    let rest = text.as_bytes();
                    let mut at = 1;
                    let mut depth = 0;
                    while rest[at] != b'"' || depth > 0 {
                        depth += i32::from(rest[at] == b'(') - i32::from(rest[at] == b')');
                        at += if rest[at] == b'`' { 2 } else { 1 };
                    }
                    at + 1
                }
                '(' | '[' | '{' => {
                    open.push(first);
                    1
                }
                ')' | ']' | '}' => {
                    let before = WINDOWS.len() - text.len();
                    let line = WINDOWS[..before].lines().count();
                    let pair = open.pop().map(|open| format!("{open}{first}"));
                    assert!(matches!(pair.as_deref(), Some("()" | "[]" | "{}")), "line {line}: {pair:?}");
                    1
                }
                other => other.len_utf8(),
            };
            text = &text[skip..];
        }
        assert_eq!(open, Vec::<char>::new());
    }

    #[test]
    fn a_start_on_windows_is_one_line_that_shows_no_secret_in_an_argument() {
        let ticket = Ticket::new("7.web.1").unwrap();
        let spec = CommandSpec::script(Interpreter::Pwsh, "Write-Output 'hi'\n").env("A", "x");
        let line = Dialect::PowerShell.start(3, &ticket, &spec);
        let encoded = line.strip_prefix("_w_start 3 '7.web.1' '").and_then(|rest| rest.strip_suffix("'\n")).unwrap();
        let json = String::from_utf8(STANDARD.decode(encoded).unwrap()).unwrap();
        insta::assert_snapshot!(json, @r#"{"program":"pwsh","call":["-NoLogo","-NoProfile","-NonInteractive","-File"],"ext":".ps1","script":"Write-Output 'hi'\n","args":[],"env":{"A":"x"},"cwd":null,"stdin":"","cap":16384,"fence":""}"#);
        let command = Dialect::PowerShell.command();
        assert!(!command.contains(['$', '"', '\'', '%']) && command.len() < 1000, "any login shell: {command}");
        let boot = Dialect::PowerShell.boot("N", "k", Some("C:\\it's"));
        assert_eq!(boot.lines().count(), 1);
    }
}
