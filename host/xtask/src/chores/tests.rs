//! The chore `test`: installs what the tests need, builds the plugins, runs every test.

use std::path::Path;
use std::process::Command;

use windlass_tests::sshd::find_or_install;
use xtask::{args::Test, say};

use crate::{Outcome, plugins};

/// Programs that tests use, with the Debian package of each: a real SSH server, and the shells that targets may have.
const PROGRAMS: [(&str, &str); 5] = [
    ("sshd", "openssh-server"),
    ("ssh-keygen", "openssh-client"),
    ("busybox", "busybox"),
    ("mksh", "mksh"),
    ("unzip", "unzip"),
];

/// Installs, builds and runs; fails if any test does.
pub async fn run(root: &Path, options: &Test) -> Outcome {
    say::heading("looking for the programs that the tests use");
    for (program, package) in PROGRAMS {
        let found = find_or_install(program, package, &["/usr/sbin/sshd"]).map_err(|error| error.to_string())?;
        say::line(&format!("{program}: {}", found.display()));
    }
    plugins::build(root, false).await?;

    say::heading("running the tests of the server, the SDK and the whole (long builds come first)");
    let server = cargo_test(root, options)?;
    say::heading("running the tests of the plugins' own logic, natively");
    let guests = cargo_test(&root.join("plugins"), options)?;
    let failed: Vec<&str> = [(server, "the main workspace"), (guests, "plugins")]
        .into_iter()
        .filter(|(good, _)| !good)
        .map(|(_, name)| name)
        .collect();
    if failed.is_empty() {
        say::heading("all tests passed");
        return Ok(());
    }
    Err(format!("tests failed in {}; cargo names them above", failed.join(" and ")))
}

/// Runs all tests of a workspace, the others too when some fail.
fn cargo_test(workspace: &Path, options: &Test) -> Outcome<bool> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["test", "--workspace", "--no-fail-fast"]).current_dir(workspace);
    if options.long {
        cargo.env("WINDLASS_LONG", "1");
    }
    if !options.filters.is_empty() {
        cargo.arg("--").args(&options.filters);
    }
    let status = cargo.status().map_err(|error| format!("cannot run cargo: {error}"))?;
    Ok(status.success())
}
