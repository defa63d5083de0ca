//! Replacing `#{…}` in files on a machine: the secrets go from the server into the file, never through the guest.

use std::sync::Arc;

use windlass_effects::{Answer, CancelToken, Failure, Outcome, SubstituteReport};
use windlass_machines::{CommandSpec, Interpreter, Machine, MemorySink, Ticket};
use windlass_model::{task::LogLevel, template::Mode};

use super::{
    commands::stopper,
    performer::{RunPerformer, failure, until},
};

/// Files one substitution may touch.
const MAX_FILES: usize = 500;
/// Largest file it reads, in bytes.
const MAX_FILE: u64 = 4 << 20;
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
    let mut report = SubstituteReport { unmatched: found.unmatched, ..SubstituteReport::default() };
    for (mode, path) in found.files {
        let full = format!("{root}/{path}");
        let bytes = until(cancel, machine.get(&full, MAX_FILE)).await?;
        let Ok(text) = std::str::from_utf8(&bytes) else {
            run.log.note(index, LogLevel::Warning, &format!("{path} is no UTF-8 text: left as it is"));
            continue;
        };
        let expanded = run.context.expand(text, Mode::Leave).map_err(|error| {
            Failure::new("invalid", format!("{path}: {error}"))
                .fix("mend the expression, or write ##{ for a literal #{")
        })?;
        report.unresolved.extend(expanded.unresolved.iter().map(|name| format!("{path}: {name}")));
        if expanded.text != text {
            until(cancel, machine.put_bytes(&full, expanded.text.as_bytes(), mode)).await?;
            report.changed.push(path);
        }
    }
    report.unresolved.truncate(100);
    Ok(Outcome::Substituted(report))
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
    let ticket = Ticket::new(format!("{}.{index}", run.id)).map_err(failure)?;
    let mut spec = CommandSpec::script(Interpreter::Sh, FIND);
    if let windlass_machines::Program::Script { args, .. } = &mut spec.program {
        args.push(root.to_owned());
        args.extend(globs.iter().cloned());
    }
    let mut sink = MemorySink::default();
    let exit = {
        let stop = stopper(cancel);
        machine.run(&ticket, &spec, &mut sink, &stop.token).await.map_err(failure)?
    };
    machine.ack(&ticket).await.map_err(failure)?;
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
