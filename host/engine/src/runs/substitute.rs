//! Replacing `#{…}` in files on a machine: the secrets go from the server into the file, never through the guest.

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use windlass_effects::{Answer, CancelToken, Failure, Outcome, SubstituteReport};
use windlass_machines::{CommandSpec, Interpreter, Machine, MemorySink};
use windlass_model::{task::LogLevel, template::Mode};

use windlass_store::{Batch, Key};

use super::{
    commands::stopper,
    performer::{RunPerformer, until},
};
use crate::records::SUBSTITUTIONS;

/// Files one substitution may touch.
const MAX_FILES: usize = 500;
/// Largest file it reads, in bytes.
const MAX_FILE: u64 = 4 << 20;
/// Bytes of texts that it holds at once, about.
const MAX_HELD: usize = 8 << 20;
/// Globs it takes.
const MAX_GLOBS: usize = 100;

/// Prints, for each glob, a line `g<number>` and then `<octal mode> <path>` for each file that matches.
const FIND: &str = r#"
cd -- "$1" || exit 3
shift
n=0
for glob in "$@"; do
  echo "g$n"
  n=$((n+1))
  find . -type f -path "./$glob" -exec sh -c '
    for f do
      mode=$(stat -c %a "$f" 2>/dev/null || stat -f %Lp "$f" 2>/dev/null || echo 644)
      printf "%s %s\n" "$mode" "$f"
    done' sh {} +
done
"#;

pub(super) async fn run(
    run: &RunPerformer,
    machine: &Arc<Machine>,
    index: u64,
    root: &str,
    globs: &[String],
    cancel: &CancelToken,
) -> Answer {
    if globs.len() > MAX_GLOBS {
        return Err(Failure::new(
            "too-large",
            format!("{} globs, more than the {MAX_GLOBS} that one call may name", globs.len()),
        ));
    }
    let found = find(run, machine, index, root, globs, cancel).await?;
    let mut work = Work { run, index, done: Done::load(run, index).await?, report: SubstituteReport::default() };
    work.report.unmatched = found.unmatched;
    let (mut planned, mut held) = (Vec::new(), 0);
    for (mode, path) in found.files {
        let full = format!("{root}/{path}");
        let bytes = until(cancel, machine.get(&full, MAX_FILE)).await?;
        let Some(text) = work.replaced(&path, &bytes)? else { continue };
        held += text.len();
        planned.push(Planned { path, full, mode, text });
        if held >= MAX_HELD {
            work.write(machine, std::mem::take(&mut planned), cancel).await?;
            held = 0;
        }
    }
    work.write(machine, planned, cancel).await?;
    work.report.unresolved.truncate(100);
    // Acknowledged only once this is recorded: done again after a crash, it finds the same files.
    run.commands.keep(run.ticket(index)?);
    Ok(Outcome::Substituted(work.report))
}

/// A file that is to be written.
struct Planned {
    path: String,
    full: String,
    mode: u32,
    text: String,
}

/// What files are to hold, by path. Noted before they are written: what is done again after a crash would else replace
/// in what was replaced already, where a value holds `#{…}` itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Done(BTreeMap<String, Replaced>);

/// A file with its variables in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Replaced {
    sha256: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    unresolved: Vec<String>,
    /// Replacing in it once more would change it.
    #[serde(default)]
    only_once: bool,
}

impl Done {
    async fn load(run: &RunPerformer, index: u64) -> Result<Self, Failure> {
        let stored = SUBSTITUTIONS.get(&*run.services.shared.store, key(run, index)).await;
        Ok(stored.map_err(|error| Failure::new("io", error.to_string()))?.unwrap_or_default())
    }
}

fn key(run: &RunPerformer, index: u64) -> Key {
    Key::of_text(run.id.as_str()).id(index)
}

fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

struct Work<'a> {
    run: &'a RunPerformer,
    index: u64,
    done: Done,
    report: SubstituteReport,
}

impl Work<'_> {
    /// The text of a file with its variables in; none if there is nothing to write.
    fn replaced(&mut self, path: &str, bytes: &[u8]) -> Result<Option<String>, Failure> {
        if let Some(done) = self.done.0.get(path).filter(|done| done.sha256 == sha256(bytes)) {
            self.report.unresolved.extend(done.unresolved.iter().cloned());
            self.report.changed.push(path.to_owned());
            return Ok(None);
        }
        let Ok(text) = std::str::from_utf8(bytes) else {
            let note = format!("{path} is no UTF-8 text: left as it is");
            self.run.log.note(self.index, LogLevel::Warning, &note);
            return Ok(None);
        };
        let context = &self.run.pinned.context;
        let expanded = context.expand(text, Mode::Leave).map_err(|error| {
            Failure::new("invalid", format!("{path}: {error}"))
                .fix("mend the expression, or write ##{ for a literal #{")
        })?;
        let unresolved: Vec<_> = expanded.unresolved.iter().map(|name| format!("{path}: {name}")).collect();
        self.report.unresolved.extend(unresolved.iter().cloned());
        if expanded.text == text {
            return Ok(None);
        }
        let again = context.expand(&expanded.text, Mode::Leave);
        let only_once = !again.is_ok_and(|again| again.text == expanded.text);
        let replaced = Replaced { sha256: sha256(expanded.text.as_bytes()), unresolved, only_once };
        self.done.0.insert(path.to_owned(), replaced);
        Ok(Some(expanded.text))
    }

    /// Notes what the files are to hold, then writes them.
    async fn write(&mut self, machine: &Machine, files: Vec<Planned>, cancel: &CancelToken) -> Result<(), Failure> {
        if files.is_empty() {
            return Ok(());
        }
        let failed = |error: windlass_store::StoreError| Failure::new("io", error.to_string());
        let mut batch = Batch::new();
        SUBSTITUTIONS.put(&mut batch, key(self.run, self.index), &self.done).map_err(failed)?;
        // Where doing it again changes nothing, losing the note in a power cut does no harm.
        let once = |file: &Planned| self.done.0.get(&file.path).is_some_and(|done| done.only_once);
        if !files.iter().any(once) {
            batch.relaxed();
        }
        self.run.services.shared.store.commit(batch).await.map_err(failed)?;
        for Planned { path, full, mode, text } in files {
            until(cancel, machine.put_bytes(&full, text.as_bytes(), mode)).await?;
            self.report.changed.push(path);
        }
        Ok(())
    }
}

struct Found {
    files: Vec<(u32, String)>,
    unmatched: Vec<String>,
}

async fn find(
    run: &RunPerformer,
    machine: &Arc<Machine>,
    index: u64,
    root: &str,
    globs: &[String],
    cancel: &CancelToken,
) -> Result<Found, Failure> {
    let ticket = run.ticket(index)?;
    let mut spec = CommandSpec::script(Interpreter::Sh, FIND);
    if let windlass_machines::Program::Script { args, .. } = &mut spec.program {
        args.push(root.to_owned());
        args.extend(globs.iter().cloned());
    }
    // Whoever has lost the machine is refused here, before it writes.
    spec.fence = run.fence();
    let mut sink = MemorySink::default();
    let exit = {
        let stop = stopper(cancel);
        machine.run(&ticket, &spec, &mut sink, &stop.token).await
    };
    let exit = match exit {
        Ok(exit) => exit,
        Err(error) => return Err(run.told(machine, error).await),
    };
    if exit.code != 0 {
        let said = sink.err_text();
        let said = said.trim();
        return Err(Failure::new("not-found", format!("failed to look for files in {root}: {said}")));
    }
    parse(&sink.out_text(), globs)
}

fn parse(printed: &str, globs: &[String]) -> Result<Found, Failure> {
    let mut found = Found { files: Vec::new(), unmatched: Vec::new() };
    let mut matched = vec![false; globs.len()];
    let mut current = 0;
    for line in printed.lines() {
        if let Some(number) = line.strip_prefix('g').and_then(|number| number.parse::<usize>().ok()) {
            current = number;
        } else if let Some((mode, path)) = line.split_once(' ') {
            if let Some(seen) = matched.get_mut(current) {
                *seen = true;
            }
            let path = path.strip_prefix("./").unwrap_or(path).to_owned();
            let mode = u32::from_str_radix(mode, 8).unwrap_or(0o644);
            if !found.files.iter().any(|(_, known)| *known == path) {
                found.files.push((mode, path));
            }
        }
        if found.files.len() > MAX_FILES {
            return Err(Failure::new("too-large", format!("more than {MAX_FILES} files match"))
                .fix("name the files more narrowly"));
        }
    }
    let names = globs.iter().zip(&matched).filter(|(_, matched)| !**matched);
    found.unmatched = names.map(|(glob, _)| glob.clone()).collect();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_find_prints_becomes_files_and_globs_without_any() {
        let globs = ["*.conf".to_owned(), "none".to_owned(), "a b.txt".to_owned()];
        let found = parse("g0\n640 ./x.conf\ng1\ng2\n644 ./a b.txt\n644 ./x.conf\n", &globs).unwrap();
        assert_eq!(found.files, [(0o640, "x.conf".to_owned()), (0o644, "a b.txt".to_owned())]);
        assert_eq!(found.unmatched, ["none"]);
    }
}
