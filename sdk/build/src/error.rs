//! Everything that can stop a build, in words for the person who started it: what, where, cause, one fix.
//! The texts are lower case and fit after "failed to build the plugins: ".

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Why the guests could not be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The folder holds no `Cargo.toml`.
    #[error(
        "{} holds no Cargo.toml\n  fix: give the folder of a plugin or of a workspace of plugins",
        .0.display()
    )]
    NoWorkspace(PathBuf),

    /// No compiler here can produce wasm32.
    #[error(
        "no Rust toolchain here compiles for {target}\n{}  fix: {fix}",
        tried.iter().map(|line| format!("  tried: {line}\n")).collect::<String>()
    )]
    NoToolchain {
        /// The target triple wanted.
        target: &'static str,
        /// What was looked at, one line each.
        tried: Vec<String>,
        /// One command to run.
        fix: String,
    },

    /// The linker that makes components is missing.
    #[error(
        "the linker wasm-component-ld was not found (looked in {searched})\n  \
         fix: rustup toolchain install stable --profile minimal   (every rustup toolchain brings it)"
    )]
    NoLinker {
        /// Folders looked at.
        searched: String,
    },

    /// A program could not be started, failed, or took too long.
    #[error("`{command}` {problem}{}", indented(output))]
    Command {
        /// The command line.
        command: String,
        /// What went wrong, fits after the command.
        problem: String,
        /// The end of what it printed.
        output: Vec<String>,
    },

    /// The compiler refused the sources.
    #[error(
        "cargo could not compile the plugins in {}{}\n  fix: repair the sources; to see it alone run: {command}",
        workspace.display(), indented(output)
    )]
    Compile {
        /// The workspace that was built.
        workspace: PathBuf,
        /// The command line, to run by hand.
        command: String,
        /// The end of what cargo printed.
        output: Vec<String>,
    },

    /// The workspace compiled but holds no plugin.
    #[error(
        "no plugin in {}: no package there has a library with crate-type \"cdylib\"\n  \
         fix: add to the plugin's Cargo.toml:  [lib] crate-type = [\"cdylib\", \"rlib\"]",
        .0.display()
    )]
    NoPlugins(PathBuf),

    /// A compiled file is not a plugin the host can run.
    #[error("the package {package} is no usable plugin: {refused}; {}", refused.fix())]
    NotAPlugin {
        /// The cargo package.
        package: String,
        /// What the host says to its component, with what to do.
        refused: windlass_wasm::Refused,
    },

    /// Components cannot be checked on this machine.
    #[error("could not check the built plugins: {0}")]
    Verifier(String),

    /// Two packages claim the same id.
    #[error(
        "the packages {first} and {second} both describe themselves as \"{id}\"\n  fix: change the id of one of them"
    )]
    SameId {
        /// The id.
        id: String,
        /// One package.
        first: String,
        /// The other one.
        second: String,
    },

    /// Another build holds the folder.
    #[error(
        "another build of {} still runs after {} minutes\n  fix: wait for it or end it, then build again",
        dist.display(), waited.as_secs() / 60
    )]
    Busy {
        /// The `dist` folder.
        dist: PathBuf,
        /// How long was waited.
        waited: Duration,
    },

    /// A file could not be read or written.
    #[error("could not {action} {}: {source}", path.display())]
    File {
        /// For example "write".
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

impl BuildError {
    /// Gives an input/output error its file and the thing that was tried.
    pub(crate) fn file(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { action, path, source }
    }
}

fn indented(lines: &[String]) -> String {
    lines.iter().map(|line| format!("\n    {line}")).collect()
}
