//! Requests to the runner that are more than a verb and numbers: the start.
//!
//! Environment, folder and program become two small shell functions, so that every value travels quoted, on stdin.
//! Scripts and inputs that are large or hold zero bytes do not fit there and are uploaded before.

use std::fmt::Write;

use bytes::Bytes;

use super::quote::quote;
use super::run::blocks;
use crate::command::{CommandSpec, Fence, Program};
use crate::ticket::Ticket;

/// Largest text sent within the request. Some shells read their program byte by byte.
const INLINE: usize = 24 * 1024;

/// A file that must be on the machine before the start.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Upload {
    /// Its name in the folder of runs.
    pub name: String,
    pub bytes: Bytes,
}

/// What of `spec` has to be uploaded for the shell called `key`.
pub(crate) fn uploads(ticket: &Ticket, spec: &CommandSpec, key: &str) -> Vec<Upload> {
    let mut uploads = Vec::new();
    if let Program::Script { interpreter, text, .. } = &spec.program
        && !fits(text.expose().as_bytes())
    {
        let name = format!("{ticket}+script.{key}{}", interpreter.call().1);
        uploads.push(Upload { name, bytes: Bytes::copy_from_slice(text.expose().as_bytes()) });
    }
    if !fits(&spec.stdin) {
        uploads.push(Upload { name: format!("{ticket}+in.{key}"), bytes: spec.stdin.clone() });
    }
    uploads
}

/// The request that starts `spec` under `ticket`, at most once.
pub(super) fn start_request(number: u64, ticket: &Ticket, spec: &CommandSpec) -> String {
    let mut code = String::from("_w_env() {\n");
    let folder = spec.cwd.as_deref().map_or_else(
        || "cd \"$HOME\" 2>/dev/null\n".to_owned(),
        |folder| format!("cd -- {} || exit 126\n", quote(folder)),
    );
    code.push_str(&folder);
    for (name, value) in &spec.env {
        let _ = writeln!(code, "export {name}={}", quote(value));
    }
    for (name, value) in &spec.secret_env {
        let _ = writeln!(code, "export {name}={}", quote(value.expose()));
    }
    code.push_str(":\n}\n_w_cmd() { exec $_w_detach");
    let (interpreter, script) = match &spec.program {
        Program::Argv(argv) => {
            push_words(&mut code, argv);
            code.push_str("; }\n_w_ext=\n");
            ("-", "-".to_owned())
        }
        Program::Script { interpreter, text, args } => {
            let (options, extension) = interpreter.call();
            let _ = write!(code, " \"$_w_i\" {options} \"$_w_f+script.$_w_k$_w_ext\"");
            push_words(&mut code, args);
            let _ = write!(code, "; }}\n_w_ext={extension}\n");
            (interpreter.program(), argument(text.expose().as_bytes()))
        }
    };
    let _ = writeln!(
        code,
        "_w_cap={} _w_fence={}",
        blocks(spec.output_cap),
        spec.fence.as_ref().map_or_else(String::new, mark)
    );
    let input = if spec.stdin.is_empty() { "-".to_owned() } else { argument(&spec.stdin) };
    // The last line forgets the environment, so that later forks of the shell do not carry it along.
    let _ = write!(code, "_w_start {number} {ticket} {interpreter} {script} {input}\n_w_env() {{ :; }}\n");
    code
}

/// A fence as the runner keeps it: one length for all tokens, so that they sort as numbers do.
pub(super) fn mark(fence: &Fence) -> String {
    let exclusive = if fence.exclusive { "!" } else { "" };
    let resource = crate::files::sha256_hex(fence.resource.as_bytes());
    format!("{exclusive}{}+{:020}", resource.get(..32).unwrap_or_default(), fence.token)
}

fn push_words(code: &mut String, words: &[String]) {
    for word in words {
        code.push(' ');
        code.push_str(&quote(word));
    }
}

fn fits(bytes: &[u8]) -> bool {
    bytes.len() <= INLINE && !bytes.contains(&0) && std::str::from_utf8(bytes).is_ok()
}

/// `t` and the text, or `f` when it was uploaded.
fn argument(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if fits(bytes) => quote(&format!("t{text}")),
        _ => "f".into(),
    }
}

#[cfg(test)]
mod tests {
    use windlass_model::SecretText;

    use super::*;
    use crate::command::Interpreter;

    #[test]
    fn a_start_is_a_handful_of_lines() {
        let ticket = Ticket::new("7.web.1").unwrap();
        let spec = CommandSpec::script(Interpreter::Sh, "echo 'hi'")
            .env("A", "x y")
            .secret_env("B", SecretText::new("it's"))
            .cwd("/srv/a b");
        insta::assert_snapshot!(start_request(3, &ticket, &spec), @r#"
        _w_env() {
        cd -- '/srv/a b' || exit 126
        export A='x y'
        export B='it'\''s'
        :
        }
        _w_cmd() { exec $_w_detach "$_w_i"  "$_w_f+script.$_w_k$_w_ext"; }
        _w_ext=
        _w_cap=16384 _w_fence=
        _w_start 3 7.web.1 sh 'techo '\''hi'\''' -
        _w_env() { :; }
        "#);
    }

    #[test]
    fn fences_sort_as_their_tokens_do() {
        let fence = |token, exclusive| mark(&Fence { resource: "dir:/srv/a b".into(), token, exclusive });
        insta::assert_snapshot!(fence(7, true), @"!8554aa18160bdc9a53dd3d7f92cd741e+00000000000000000007");
        assert!(fence(9, false) < fence(10, false) && fence(10, false) < fence(u64::MAX, false));
        assert_eq!(format!("!{}", fence(7, false)), fence(7, true));
    }

    #[test]
    fn what_a_shell_cannot_be_told_is_uploaded() {
        let ticket = Ticket::new("t").unwrap();
        let names = |spec: &CommandSpec| uploads(&ticket, spec, "k").into_iter().map(|u| u.name).collect::<Vec<_>>();
        let small = CommandSpec::script(Interpreter::Sh, "true").stdin("text");
        assert_eq!(names(&small), Vec::<String>::new());
        let large = CommandSpec::script(Interpreter::Pwsh, " ".repeat(INLINE + 1)).stdin(&b"a\0b"[..]);
        assert_eq!(names(&large), ["t+script.k.ps1", "t+in.k"]);
        assert!(start_request(1, &ticket, &large).contains("_w_start 1 t pwsh f f\n"));
    }
}
