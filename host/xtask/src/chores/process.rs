//! Child processes and the signals for them.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// A process whose end is asked for gets this long, then it is killed.
const PATIENCE: Duration = Duration::from_secs(5);

/// Sends a signal to a process of ours.
pub fn signal(pid: u32, signal: i32) {
    let Ok(pid) = i32::try_from(pid) else { return };
    // SAFETY: kill takes plain numbers and touches no memory; a process that is gone meanwhile gives an error only.
    #[allow(unsafe_code)]
    unsafe {
        libc::kill(pid, signal);
    }
}

/// Ends all processes that `find` finds, first politely. Answers those that are still there.
pub async fn end_all(find: impl Fn() -> Vec<u32>) -> Vec<u32> {
    for kind in [libc::SIGTERM, libc::SIGKILL] {
        for pid in find() {
            signal(pid, kind);
        }
        let begin = Instant::now();
        while !find().is_empty() && begin.elapsed() < PATIENCE {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    find()
}

/// Processes that live on a target below `folder`: sessions with their home there, and servers started from there.
///
/// Others may well mention the folder, such as the shell of a person who looks around in it. They are not ours.
pub fn living_below(folder: &Path) -> Vec<u32> {
    let folder = folder.as_os_str().as_encoded_bytes();
    let home = [b"HOME=", folder].concat();
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| {
        let read = |name| fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default();
        let at_home = read("environ").split(|byte| *byte == 0).any(|variable| variable.starts_with(&home));
        let command = read("cmdline");
        let server = command.split(|byte| *byte == 0).any(|word| word == b"server.pl");
        at_home || server && command.windows(folder.len()).any(|part| part == folder)
    })
    .collect()
}
