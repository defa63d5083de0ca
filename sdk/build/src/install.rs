//! Installs what a guest build is missing, when the caller allows it: the target through rustup, or Debian's compiler
//! and library sources through apt-get. A failed attempt is a line in the search's record, never an error of its own:
//! the next way is tried.

use std::path::Path;
use std::time::Duration;

use crate::event::Say;
use crate::process::{capture, run};
use crate::toolchain::{Surroundings, TARGET};
use crate::{BuildError, Event};

/// Debian's compiler and cargo new enough for the web platform, and the sources of the standard library.
const DEBIAN_PACKAGES: [&str; 3] = ["rustc-web", "cargo-web", "rust-web-src"];
/// The download is 20 MB. A machine without a network is told so at once.
const RUSTUP_LIMIT: Duration = Duration::from_secs(180);
const APT_LIMIT: Duration = Duration::from_secs(15 * 60);

/// Whether a build may install a toolchain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Install {
    /// Use what is there.
    #[default]
    Never,
    /// Install the target (rustup) or the distribution's packages (apt-get, as root) when nothing usable is there.
    IfMissing,
}

/// Adds the target to the active rustup toolchain. False, with a note, when that did not work.
pub(crate) async fn rustup_target(
    surroundings: &Surroundings,
    workspace: &Path,
    say: Say<'_>,
    tried: &mut Vec<String>,
) -> bool {
    let Some(rustup) = surroundings.find("rustup") else {
        tried.push("rustup: not installed".to_owned());
        return false;
    };
    say(Event::Installing(format!("the target {TARGET} with rustup")));
    let mut command = surroundings.command(&rustup);
    command.args(["target", "add", TARGET]).current_dir(workspace);
    // rustup retries a download; on a machine without a network that is only delay.
    command.env("RUSTUP_MAX_RETRIES", "1");
    attempt(&mut command, RUSTUP_LIMIT, say, tried).await
}

/// Installs Debian's packages. False, with a note, when this is not our machine to change or apt-get failed.
pub(crate) async fn debian_sources(surroundings: &Surroundings, say: Say<'_>, tried: &mut Vec<String>) -> bool {
    let Some(apt) = surroundings.find("apt-get") else {
        tried.push("apt-get: not installed".to_owned());
        return false;
    };
    if !is_root(surroundings).await {
        tried.push("apt-get: needs root".to_owned());
        return false;
    }
    say(Event::Installing(format!("{} with apt-get", DEBIAN_PACKAGES.join(", "))));
    let command = || {
        let mut command = surroundings.command(&apt);
        command.env("DEBIAN_FRONTEND", "noninteractive");
        command
    };
    // An update that fails in part (one mirror down) may still have brought what is needed.
    attempt(command().arg("update"), APT_LIMIT, say, tried).await;
    let mut install = command();
    install.args(["install", "-y", "--no-install-recommends"]).args(DEBIAN_PACKAGES);
    attempt(&mut install, APT_LIMIT, say, tried).await
}

/// The one command that would have helped here.
pub(crate) fn remedy(surroundings: &Surroundings) -> String {
    if surroundings.find("rustup").is_some() {
        format!("rustup target add {TARGET}")
    } else if surroundings.find("apt-get").is_some() {
        format!("sudo apt-get update && sudo apt-get install -y --no-install-recommends {}", DEBIAN_PACKAGES.join(" "))
    } else {
        format!("install rustup from https://rustup.rs, then run: rustup target add {TARGET}")
    }
}

async fn attempt(
    command: &mut tokio::process::Command,
    limit: Duration,
    say: Say<'_>,
    tried: &mut Vec<String>,
) -> bool {
    let shown = crate::process::shown(command);
    match run(command, limit, &|line| say(Event::Line(line.to_owned()))).await {
        Ok(ended) if ended.success => true,
        Ok(ended) => {
            let why = ended.stderr.iter().rfind(|line| !line.is_empty()).cloned().unwrap_or(ended.status);
            tried.push(format!("{shown}: {why}"));
            false
        }
        Err(BuildError::Command { problem, .. }) => {
            tried.push(format!("{shown}: {problem}"));
            false
        }
        Err(other) => {
            tried.push(format!("{shown}: {other}"));
            false
        }
    }
}

async fn is_root(surroundings: &Surroundings) -> bool {
    let Some(id) = surroundings.find("id") else {
        return false;
    };
    let answer = capture(surroundings.command(&id).arg("-u"), Duration::from_secs(10)).await;
    answer.is_ok_and(|lines| lines.first().is_some_and(|uid| uid == "0"))
}
