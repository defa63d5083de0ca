//! `cargo xtask`: the front door to the chores of this repository.
//!
//! It shows help at once, sees to it that the tools are there which building Windlass needs, builds the binary of the
//! chores where one can watch, and becomes that binary. What the chores do is in `chores`.

mod tools;

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use clap::Parser;
use xtask::args::{Bench, Chore, Cli};
use xtask::say;

fn main() -> ExitCode {
    match run(&Cli::parse().chore) {
        Ok(code) => code,
        Err(error) => {
            say::error(&error);
            ExitCode::FAILURE
        }
    }
}

fn run(chore: &Chore) -> Result<ExitCode, String> {
    let root = root()?;
    if !matches!(chore, Chore::Ci) {
        tools::ensure()?;
    }
    match chore {
        Chore::Ci => become_program(Command::new(root.join(".ci/run")).current_dir(root)),
        Chore::Bench(Bench { subject, arguments }) => {
            let [package, name] = subject.place();
            let mut bench = cargo(&root);
            bench.args(["bench", "--package", package, "--bench", name, "--"]).args(arguments);
            become_program(&mut bench)
        }
        Chore::Demo(_) => chores(&root, &["--bin", "windlass"]),
        Chore::Test(_) | Chore::Plugins(_) => chores(&root, &[]),
    }
}

/// Builds the chores, and with them what else they need, and hands this command line over to them.
fn chores(root: &Path, more: &[&str]) -> Result<ExitCode, String> {
    say::heading("building Windlass (5 to 10 minutes the first time on two cores, seconds later)");
    let mut build = cargo(root);
    // All packages and a test among what is built: only then cargo chooses the same features of the dependencies as for
    // `cargo test --workspace`. Otherwise it would compile half of them a second time there.
    build.args(["build", "--workspace", "--bin", "windlass-chores"]).args(["--test", "repository"]).args(more);
    if !build.status().map_err(|error| format!("cannot run cargo: {error}"))?.success() {
        return Err("Windlass does not build; what the compiler says is above".to_owned());
    }
    let own = std::env::current_exe().map_err(|error| format!("cannot tell where this program is: {error}"))?;
    become_program(
        Command::new(own.with_file_name("windlass-chores")).args(std::env::args_os().skip(1)).current_dir(root),
    )
}

fn cargo(root: &Path) -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root);
    cargo
}

/// Becomes another program, so that signals and its exit code need no help from us. Returns only if that fails.
fn become_program(command: &mut Command) -> Result<ExitCode, String> {
    let error = command.exec();
    Err(format!("cannot run {}: {error}", command.get_program().display()))
}

/// The folder of the repository.
fn root() -> Result<PathBuf, String> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.ancestors().nth(2).map(Path::to_path_buf).ok_or_else(|| format!("{} lies in no repository", own.display()))
}
