//! The programs that building Windlass needs beside Rust: a C compiler, make and Perl, for the bundled OpenSSL.
//!
//! What is missing is installed through apt-get where that is possible, and named with its remedy where it is not.

use std::path::PathBuf;
use std::process::Command;

use xtask::say;

/// Each program, with the Debian package that brings it.
const NEEDED: [(&str, &str); 3] = [("cc", "gcc"), ("make", "make"), ("perl", "perl")];

/// Makes sure they are there.
pub fn ensure() -> Result<(), String> {
    let missing = || {
        NEEDED.iter().filter(|(program, _)| find(program).is_none()).map(|(_, package)| *package).collect::<Vec<_>>()
    };
    let packages = missing();
    if packages.is_empty() {
        return Ok(());
    }
    say::heading(&format!("installing {} with apt-get: building Windlass needs it", packages.join(", ")));
    // A list of packages may be there already; if not, or if it is too old, it is fetched.
    if !apt_get("install", &packages) {
        apt_get("update", &[]);
        apt_get("install", &packages);
    }
    let still = missing();
    if still.is_empty() {
        return Ok(());
    }
    Err(format!(
        "{} is missing and could not be installed\n  fix: run this as root: apt-get update && apt-get install -y {}",
        still.join(", "),
        still.join(" ")
    ))
}

fn apt_get(verb: &str, packages: &[&str]) -> bool {
    let mut command = Command::new("apt-get");
    command.arg(verb).args(["-y", "-q", "--no-install-recommends"]).args(packages);
    command.env("DEBIAN_FRONTEND", "noninteractive");
    command.status().is_ok_and(|status| status.success())
}

fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file())
}
