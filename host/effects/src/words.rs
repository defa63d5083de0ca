//! Effects and their answers in words: one bounded line each, for journals, mismatches and people.
//!
//! What is said here may hold what a guest put into a command or a file, so whoever shows it masks it first.

use crate::{
    effect::{Command, Content, Effect, Program},
    outcome::{Answer, Outcome},
};

/// Longest piece of somebody else's text that is quoted, in characters.
const QUOTED: usize = 80;

impl Effect {
    /// What is asked for, in words: `run sh: "echo hello" (3 lines)`.
    #[must_use]
    pub fn in_words(&self) -> String {
        let name = self.name();
        match self {
            Self::Now | Self::Facts { .. } => name.to_owned(),
            Self::Random { len } => format!("{name} {len} bytes"),
            Self::Sleep { ms } => format!("{name} {ms} ms"),
            Self::Variable { name: of } | Self::HasSecret { name: of } => format!("{name} {}", quoted(of)),
            Self::Expand { text } => format!("{name} {}", quoted(text)),
            Self::Reveal { secret } => format!("{name} {}", quoted(&secret.0)),
            Self::Run { command, .. } | Self::Start { command, .. } => format!("{name} {}", command_in_words(command)),
            Self::ReadOutput { process, stderr, offset, .. } => {
                let stream = if *stderr { "errors" } else { "output" };
                format!("{name}: {stream} of process {process} from byte {offset}")
            }
            Self::Wait { process, .. } | Self::Kill { process, .. } => format!("{name} process {process}"),
            Self::ReadFile { path, .. } => format!("{name} {}", quoted(path)),
            Self::WriteFile { path, content, mode, .. } => {
                let size = match content {
                    Content::Bytes(bytes) => format!("{} bytes", bytes.len()),
                    Content::Secret(secret) => format!("the secret {}", secret.0),
                };
                format!("{name} {}, {size}, mode {mode:o}", quoted(path))
            }
            Self::Substitute { root, globs, .. } => format!("{name} {} in {}", quoted(&globs.join(", ")), quoted(root)),
            Self::StagePackage { package, .. } | Self::PackageInfo { package } => format!("{name} {}", package.0),
            Self::Http { request } => format!("{name} {} {}", request.method, quoted(&request.url)),
            Self::Output { name: of, value, sensitive: false } => format!("{name} {} = {}", quoted(of), quoted(value)),
            Self::Output { name: of, .. } => format!("{name} {}, sensitive", quoted(of)),
            Self::Acquire { resource, mode, wait_ms } => {
                let mode = format!("{mode:?}").to_lowercase();
                format!("{name} {}, {mode}, for at most {wait_ms} ms", quoted(resource))
            }
            Self::Release { token } => format!("{name} token {token}"),
            Self::Tasks { query } => format!("{name} {}", as_json(query)),
            Self::AwaitQuiet { query, wait_ms } => format!("{name} {}, for at most {wait_ms} ms", as_json(query)),
            Self::Deploy { project, environment, version, detached } => {
                let version = version.as_deref().unwrap_or("latest");
                let detached = if *detached { ", detached" } else { "" };
                format!("{name} {} {} to {}{detached}", quoted(project), quoted(version), quoted(environment))
            }
            Self::AwaitTask { task, wait_ms } => format!("{name} {task}, for at most {wait_ms} ms"),
        }
    }
}

/// An answer in words: `exit 0, printed "hello"`.
#[must_use]
pub fn answer_in_words(answer: &Answer) -> String {
    let outcome = match answer {
        Ok(outcome) => outcome,
        Err(failure) => return format!("failed ({}): {}", failure.code, cut(&failure.message)),
    };
    match outcome {
        Outcome::Done => "done".to_owned(),
        Outcome::Flag(flag) => if *flag { "yes" } else { "no" }.to_owned(),
        Outcome::Number(number) => number.to_string(),
        Outcome::Text(text) | Outcome::MaybeText(Some(text)) => quoted(text),
        Outcome::MaybeText(None) => "none".to_owned(),
        Outcome::Bytes(bytes) => format!("{} bytes: {}", bytes.len(), quoted(&String::from_utf8_lossy(bytes))),
        Outcome::Secret(_) => "a secret".to_owned(),
        Outcome::Facts(facts) => format!("{} facts", facts.len()),
        Outcome::Exit(exit) => {
            let said = |what: &str, bytes: &[u8]| match bytes {
                [] => String::new(),
                bytes => format!(", {what} {}", quoted(&String::from_utf8_lossy(bytes))),
            };
            format!("exit {}{}{}", exit.code, said("printed", &exit.stdout), said("errors", &exit.stderr))
        }
        Outcome::Substituted(report) => format!(
            "{} files changed, {} globs without a file, {} expressions left",
            report.changed.len(),
            report.unmatched.len(),
            report.unresolved.len()
        ),
        Outcome::Package(package) => format!("{} {}", package.id, package.version),
        Outcome::Http(response) => {
            format!("status {}, {}", response.status, quoted(&String::from_utf8_lossy(&response.body)))
        }
        Outcome::Lock(grant) => format!("token {}", grant.token),
        Outcome::Tasks(tasks) => {
            let named: Vec<_> = tasks.iter().take(5).map(|task| format!("{} {}", task.id, task.state)).collect();
            let more = tasks.len().saturating_sub(named.len());
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            format!("tasks: {}{more}", if named.is_empty() { "none".to_owned() } else { named.join(", ") })
        }
    }
}

fn command_in_words(command: &Command) -> String {
    match &command.program {
        Program::Argv(argv) => quoted(&argv.join(" ")),
        Program::Script { interpreter, text, args } => {
            let first = text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
            let lines = match text.lines().count() {
                0 | 1 => String::new(),
                lines => format!(" ({lines} lines)"),
            };
            let args = if args.is_empty() { String::new() } else { format!(" with {}", quoted(&args.join(" "))) };
            format!("{interpreter}: {}{lines}{args}", quoted(first))
        }
    }
}

fn as_json(value: &impl serde::Serialize) -> String {
    let json = serde_json::to_value(value).unwrap_or_default();
    let Some(fields) = json.as_object() else { return cut(&json.to_string()) };
    let set =
        fields.iter().filter(|(_, value)| !value.is_null() && value.as_array().is_none_or(|list| !list.is_empty()));
    cut(&set.map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" "))
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", cut(text))
}

/// The beginning of a text, on one line.
fn cut(text: &str) -> String {
    let mut line = String::new();
    for (count, c) in text.trim_end().chars().enumerate() {
        if count == QUOTED {
            line.push('…');
            break;
        }
        match c {
            '\n' => line.push('↵'),
            c if c.is_control() => line.push('·'),
            c => line.push(c),
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{Failure, SessionHandle, Stdin};

    fn script(text: &str) -> Effect {
        let program = Program::Script { interpreter: "sh".into(), text: text.into(), args: vec!["-x".into()] };
        let command = Command {
            program,
            env: BTreeMap::new(),
            stdin: Stdin::Empty,
            cwd: None,
            timeout_ms: None,
            capture: 0,
            quiet: false,
        };
        Effect::Run { session: SessionHandle(1), command }
    }

    #[test]
    fn each_is_one_bounded_line() {
        let long = "a\n".repeat(500);
        for (effect, words) in [
            (script("\necho hello\nexit\n"), r#"run sh: "echo hello" (3 lines) with "-x""#.to_owned()),
            (Effect::Sleep { ms: 1500 }, "sleep 1500 ms".to_owned()),
            (
                Effect::Output { name: "n".into(), value: "v".into(), sensitive: true },
                r#"output "n", sensitive"#.to_owned(),
            ),
            (Effect::Expand { text: long.clone() }, format!("expand \"{}…\"", "a↵".repeat(QUOTED / 2))),
            (Effect::Tasks { query: Default::default() }, "tasks ".to_owned()),
        ] {
            assert_eq!(effect.in_words(), words);
        }
        assert_eq!(answer_in_words(&Ok(Outcome::Text(long.clone()))).chars().count(), QUOTED + 3);
        assert_eq!(answer_in_words(&Err(Failure::new("io", "broke\nup"))), "failed (io): broke↵up");
    }
}
