//! Runs one outside program with a time limit and bounded memory, passing its lines on as they come.
//! The child dies with the future that waits for it. Which programs are run, and in which environment, others decide.

use std::collections::VecDeque;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::Command;

use crate::BuildError;

/// Lines of standard error kept for an error text.
const TAIL_LINES: usize = 60;
/// Longer lines are cut. One message of cargo is one line, with every file of a package in it.
const LINE_BYTES: usize = 256 * 1024;
/// Everything kept of standard output. Cargo's messages for some hundred packages are far below.
const STDOUT_BYTES: usize = 16 * 1024 * 1024;

/// What an ended program left.
pub(crate) struct Ended {
    /// Exit status 0.
    pub success: bool,
    /// Its status in words.
    pub status: String,
    /// Standard output, cut at a generous bound.
    pub stdout: Vec<String>,
    /// The last lines of standard error.
    pub stderr: Vec<String>,
}

/// Runs to the end, whatever the exit status. `on_line` sees each line of standard error.
pub(crate) async fn run(
    command: &mut Command,
    limit: Duration,
    on_line: &(dyn Fn(&str) + Send + Sync),
) -> Result<Ended, BuildError> {
    let shown = shown(command);
    let failed = |problem: String, output: Vec<String>| BuildError::Command { command: shown.clone(), problem, output };
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|cause| failed(format!("could not be started: {cause}"), Vec::new()))?;
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let mut stdout = Vec::new();
    let mut kept = 0;
    let mut tail = VecDeque::new();
    let work = async {
        let read_out = each_line(out, |line| {
            if kept < STDOUT_BYTES {
                kept += line.len();
                stdout.push(line.to_owned());
            }
        });
        let read_err = each_line(err, |line| {
            on_line(line);
            if tail.len() == TAIL_LINES {
                tail.pop_front();
            }
            tail.push_back(line.to_owned());
        });
        tokio::join!(read_out, read_err);
        child.wait().await
    };
    let ended = tokio::time::timeout(limit, work).await;
    let stderr = Vec::from(tail);
    match ended {
        Ok(Ok(status)) => Ok(Ended { success: status.success(), status: status.to_string(), stdout, stderr }),
        Ok(Err(cause)) => Err(failed(format!("could not be waited for: {cause}"), stderr)),
        Err(_) => Err(failed(format!("was stopped: it took more than {} s", limit.as_secs()), stderr)),
    }
}

/// Runs quietly and gives standard output, trimmed lines; a failing exit status is an error.
pub(crate) async fn capture(command: &mut Command, limit: Duration) -> Result<Vec<String>, BuildError> {
    let ended = run(command, limit, &|_| ()).await?;
    if ended.success {
        return Ok(ended.stdout);
    }
    Err(BuildError::Command {
        command: shown(command),
        problem: format!("failed ({})", ended.status),
        output: ended.stderr,
    })
}

/// The command line as a person would type it.
pub(crate) fn shown(command: &Command) -> String {
    let command = command.as_std();
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

/// Reads until the stream ends. A line that is no text is shown with replacement characters; an unreadable stream ends early.
async fn each_line(stream: Option<impl AsyncRead + Unpin>, mut take: impl FnMut(&str)) {
    let Some(stream) = stream else { return };
    let mut reader = BufReader::new(stream);
    let mut line = Vec::new();
    loop {
        let Ok(chunk) = reader.fill_buf().await else {
            return;
        };
        if chunk.is_empty() {
            break;
        }
        let (part, used, ends) = match chunk.iter().position(|byte| *byte == b'\n') {
            Some(at) => (chunk.split_at(at).0, at + 1, true),
            None => (chunk, chunk.len(), false),
        };
        let room = LINE_BYTES.saturating_sub(line.len());
        line.extend_from_slice(part.get(..room.min(part.len())).unwrap_or(part));
        reader.consume(used);
        if ends {
            take(String::from_utf8_lossy(&line).trim_end());
            line.clear();
        }
    }
    if !line.is_empty() {
        take(String::from_utf8_lossy(&line).trim_end());
    }
}
