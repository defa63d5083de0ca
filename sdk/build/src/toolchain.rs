//! Finds what can compile for `wasm32-unknown-unknown` on this machine: a compiler with that standard library, or one
//! with the library's sources, and the linker that turns the result into a component. It looks and asks; installing what
//! is missing is `install`'s part.

use std::env;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::process::Command;

use crate::BuildError;
use crate::event::Say;
use crate::hygiene::reaches_tools;
use crate::install::{self, Install};
use crate::process::capture;

/// The one target guests are built for: it cannot import WASI by accident and needs no adapter.
pub(crate) const TARGET: &str = "wasm32-unknown-unknown";
const LINKER: &str = "wasm-component-ld";
/// A compiler answers such questions in milliseconds; a rustup proxy may first read its settings from a slow disk.
const ASK: Duration = Duration::from_secs(60);

/// The parts of this machine the search depends on. Tests give a made-up one.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// The folders programs are looked for in.
    pub path: OsString,
    /// Where rustup keeps its toolchains.
    pub rustup_home: PathBuf,
    /// The compiler of a distribution, looked at after those on the path.
    pub system_rustc: PathBuf,
    /// A rustup toolchain named by whoever started us. Used only if the default one is not usable at all.
    pub leaked_toolchain: Option<OsString>,
    /// The variables that tools are started with, `PATH` aside.
    pub variables: Vec<(OsString, OsString)>,
}

impl Surroundings {
    /// What this process sees, without settings that belong to another workspace.
    pub fn of_this_process() -> Self {
        let home = env::var_os("HOME").or_else(|| env::var_os("USERPROFILE")).map(PathBuf::from).unwrap_or_default();
        Self {
            path: env::var_os("PATH").unwrap_or_default(),
            rustup_home: env::var_os("RUSTUP_HOME").map_or_else(|| home.join(".rustup"), PathBuf::from),
            system_rustc: PathBuf::from("/usr/bin/rustc"),
            leaked_toolchain: env::var_os("RUSTUP_TOOLCHAIN"),
            variables: env::vars_os()
                .filter(|(name, _)| name != "PATH" && name.to_str().is_none_or(reaches_tools))
                .collect(),
        }
    }

    /// The full path of a program on the path.
    pub(crate) fn find(&self, program: &str) -> Option<PathBuf> {
        env::split_paths(&self.path).map(|folder| executable(&folder, program)).find(|file| file.is_file())
    }

    /// A command in the cleaned environment.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env_clear().envs(self.variables.iter().cloned()).env("PATH", &self.path);
        command
    }
}

/// Where the standard library for the target comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StdSource {
    /// It is installed with the compiler.
    Installed,
    /// It is built from the sources installed with the compiler.
    Sources,
}

/// A compiler, its cargo and a linker, ready to build components.
#[derive(Debug, Clone)]
pub struct Toolchain {
    /// The compiler.
    pub rustc: PathBuf,
    /// The cargo that goes with it.
    pub cargo: PathBuf,
    /// `wasm-component-ld`.
    pub linker: PathBuf,
    /// Where the standard library comes from.
    pub std: StdSource,
    /// For people: name, version and kind.
    pub title: String,
    surroundings: Surroundings,
    rustup_toolchain: Option<OsString>,
}

impl Toolchain {
    /// Finds a toolchain for the workspace, installing one if that is allowed and needed.
    pub(crate) async fn find(
        surroundings: &Surroundings,
        workspace: &Path,
        install: Install,
        say: Say<'_>,
    ) -> Result<Self, BuildError> {
        let mut tried = Vec::new();
        if let Some(found) = look(surroundings, workspace, &[StdSource::Installed], &mut tried).await? {
            return Ok(found);
        }
        if install == Install::IfMissing && install::rustup_target(surroundings, workspace, say, &mut tried).await {
            tried.push("looked again after rustup target add".to_owned());
            if let Some(found) = look(surroundings, workspace, &[StdSource::Installed], &mut tried).await? {
                return Ok(found);
            }
        }
        if let Some(found) = look(surroundings, workspace, &[StdSource::Sources], &mut Vec::new()).await? {
            return Ok(found);
        }
        if install == Install::IfMissing && install::debian_sources(surroundings, say, &mut tried).await {
            tried.push("looked again after apt-get install".to_owned());
            if let Some(found) = look(surroundings, workspace, &[StdSource::Sources], &mut tried).await? {
                return Ok(found);
            }
        }
        Err(BuildError::NoToolchain { target: TARGET, tried, fix: install::remedy(surroundings) })
    }

    /// `cargo build` for the target, in a clean environment, with the given target folder.
    pub(crate) fn cargo_build(&self, workspace: &Path, target_dir: &Path) -> Command {
        let mut command = self.surroundings.command(&self.cargo);
        let linker_folder = self.linker.parent().unwrap_or(Path::new("."));
        // The linker calls `wasm-ld`, which lies in `gcc-ld` beside it.
        let folders = [linker_folder.join("gcc-ld"), linker_folder.to_owned()].into_iter();
        let path = env::join_paths(folders.chain(env::split_paths(&self.surroundings.path)));
        command
            .arg("build")
            .args(["--release", "--target", TARGET, "--target-dir"])
            .arg(target_dir)
            .current_dir(workspace)
            .env("PATH", path.unwrap_or_else(|_| self.surroundings.path.clone()))
            .env("RUSTC", &self.rustc)
            // Empty and not absent: a wrapper from a configuration file hangs or caches wrongly too.
            .env("RUSTC_WRAPPER", "")
            .env("RUSTC_WORKSPACE_WRAPPER", "")
            .env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", &self.linker);
        if let Some(name) = &self.rustup_toolchain {
            command.env("RUSTUP_TOOLCHAIN", name);
        }
        if self.std == StdSource::Sources {
            command.env("RUSTC_BOOTSTRAP", "1").arg("-Zbuild-std=std,panic_abort");
        }
        command
    }
}

/// Looks at every compiler for a standard library of one of the wanted kinds. A compiler without a linker is an error
/// of its own: the fix is another one.
async fn look(
    surroundings: &Surroundings,
    workspace: &Path,
    wanted: &[StdSource],
    tried: &mut Vec<String>,
) -> Result<Option<Toolchain>, BuildError> {
    for candidate in candidates(surroundings) {
        let name = candidate.name();
        let facts = match Facts::of(&candidate, surroundings, workspace).await {
            Ok(facts) => facts,
            Err(why) => {
                tried.push(format!("{name}: {why}"));
                continue;
            }
        };
        let Some(std) = facts.std_source().filter(|found| wanted.contains(found)) else {
            tried.push(format!("{name}: {} does not exist", facts.target_libdir.display()));
            continue;
        };
        let linker = find_linker(surroundings, &facts)?;
        let kind = match std {
            StdSource::Installed => format!("with {TARGET} installed"),
            StdSource::Sources => "building the standard library from its sources".to_owned(),
        };
        return Ok(Some(Toolchain {
            title: format!("{} {} {kind}", candidate.rustc.display(), facts.version),
            rustc: candidate.rustc,
            cargo: candidate.cargo,
            linker,
            std,
            surroundings: surroundings.clone(),
            rustup_toolchain: candidate.rustup_toolchain,
        }));
    }
    Ok(None)
}

struct Candidate {
    rustc: PathBuf,
    cargo: PathBuf,
    rustup_toolchain: Option<OsString>,
}

impl Candidate {
    fn name(&self) -> String {
        match &self.rustup_toolchain {
            Some(toolchain) => format!("{} (toolchain {})", self.rustc.display(), toolchain.to_string_lossy()),
            None => self.rustc.display().to_string(),
        }
    }
}

/// Every compiler on the path with the cargo beside it, the first one also with the toolchain that leaked in, and the
/// distribution's.
fn candidates(surroundings: &Surroundings) -> Vec<Candidate> {
    let mut found: Vec<Candidate> = Vec::new();
    let folders = env::split_paths(&surroundings.path).chain(surroundings.system_rustc.parent().map(Path::to_owned));
    for folder in folders {
        let (rustc, cargo) = (executable(&folder, "rustc"), executable(&folder, "cargo"));
        let known = |other: &Candidate| other.rustc == rustc || same_file(&other.rustc, &rustc);
        if !rustc.is_file() || !cargo.is_file() || found.iter().any(known) {
            continue;
        }
        let first = found.is_empty();
        found.push(Candidate { rustc: rustc.clone(), cargo: cargo.clone(), rustup_toolchain: None });
        if let (true, Some(name)) = (first, &surroundings.leaked_toolchain) {
            found.push(Candidate { rustc, cargo, rustup_toolchain: Some(name.clone()) });
        }
    }
    found
}

fn same_file(one: &Path, other: &Path) -> bool {
    matches!((one.canonicalize(), other.canonicalize()), (Ok(one), Ok(other)) if one == other)
}

/// What a compiler says about itself.
struct Facts {
    sysroot: PathBuf,
    target_libdir: PathBuf,
    host: String,
    version: String,
}

impl Facts {
    async fn of(candidate: &Candidate, surroundings: &Surroundings, workspace: &Path) -> Result<Self, BuildError> {
        let ask = |words: &[&str]| {
            let mut command = surroundings.command(&candidate.rustc);
            // In the workspace, so that its `rust-toolchain.toml` counts.
            command.args(words).current_dir(workspace).env("RUSTUP_AUTO_INSTALL", "0");
            if let Some(name) = &candidate.rustup_toolchain {
                command.env("RUSTUP_TOOLCHAIN", name);
            }
            command
        };
        let mut question =
            ask(&["--print", "sysroot", "--print", "target-libdir", "--print", "host-tuple", "--target", TARGET]);
        let mut answers = capture(&mut question, ASK).await?.into_iter();
        let (Some(sysroot), Some(target_libdir), Some(host)) = (answers.next(), answers.next(), answers.next()) else {
            return Err(BuildError::Command {
                command: candidate.name(),
                problem: "did not say where its libraries are".to_owned(),
                output: Vec::new(),
            });
        };
        let version = capture(&mut ask(&["--version"]), ASK).await?.into_iter().next().unwrap_or_default();
        let version = version.split_whitespace().nth(1).unwrap_or("of unknown version").to_owned();
        Ok(Self { sysroot: sysroot.into(), target_libdir: target_libdir.into(), host, version })
    }

    fn std_source(&self) -> Option<StdSource> {
        if has_file(&self.target_libdir, |name| name.starts_with("libstd-") && name.ends_with(".rlib")) {
            return Some(StdSource::Installed);
        }
        let sources = self.sysroot.join("lib/rustlib/src/rust/library");
        // The lock file is what cargo needs to build the library; a bare folder is no use.
        sources.join("Cargo.lock").is_file().then_some(StdSource::Sources)
    }
}

/// The linker of the compiler's own toolchain, of any rustup toolchain, or on the path.
fn find_linker(surroundings: &Surroundings, facts: &Facts) -> Result<PathBuf, BuildError> {
    let own = facts.sysroot.join("lib/rustlib").join(&facts.host).join("bin");
    let toolchains = surroundings.rustup_home.join("toolchains");
    let mut others: Vec<PathBuf> = children(&toolchains);
    // Stable first: "stable-…" sorts after dates, versions and "nightly-…".
    others.sort_by(|one, other| other.cmp(one));
    let others = others.into_iter().map(|toolchain| toolchain.join("lib/rustlib").join(&facts.host).join("bin"));
    std::iter::once(own.clone())
        .chain(others)
        .chain(env::split_paths(&surroundings.path))
        .map(|folder| executable(&folder, LINKER))
        .find(|file| file.is_file())
        .ok_or_else(|| BuildError::NoLinker {
            searched: format!("{}, {} and the path", own.display(), toolchains.display()),
        })
}

fn executable(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}{}", env::consts::EXE_SUFFIX))
}

fn children(folder: &Path) -> Vec<PathBuf> {
    folder.read_dir().into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

fn has_file(folder: &Path, wanted: impl Fn(&str) -> bool) -> bool {
    children(folder).iter().filter_map(|file| file.file_name().and_then(OsStr::to_str)).any(wanted)
}

#[cfg(test)]
#[path = "toolchain_tests.rs"]
mod tests;
