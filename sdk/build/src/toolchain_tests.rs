//! The search for a toolchain, against made-up machines: folders with small shell scripts that answer like rustc,
//! rustup, apt-get and id. Nothing here reaches the network or the real toolchain.
#![cfg(unix)]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use super::{StdSource, Surroundings, Toolchain};
use crate::{BuildError, Event, Install};

/// A made-up machine.
struct Machine {
    folder: tempfile::TempDir,
}

impl Machine {
    fn new() -> Self {
        let machine = Self { folder: tempfile::tempdir().unwrap() };
        fs::create_dir_all(machine.at("bin")).unwrap();
        fs::create_dir_all(machine.at("system")).unwrap();
        machine
    }

    fn at(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    /// Written by a child: a file that this process holds open for writing, in whatever thread, cannot be executed.
    fn script(&self, path: &str, body: &str) {
        let file = self.at(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        let script = r#"printf '#!/bin/sh\n%s\n' "$2" >"$1" && chmod 755 "$1""#;
        let status = std::process::Command::new("sh").args(["-c", script, "sh"]).arg(file).arg(body).status();
        assert!(status.unwrap().success());
    }

    fn file(&self, path: &str) {
        let file = self.at(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, "").unwrap();
    }

    /// A compiler and its cargo in `folder`, whose libraries are in `sysroot`.
    fn compiler(&self, folder: &str, sysroot: &str) {
        let root = self.at(sysroot);
        fs::create_dir_all(&root).unwrap();
        let body = format!(
            "case $1 in --version) echo 'rustc 1.99.0 (abc 2026-01-01)';; *) echo '{root}'; \
             echo '{root}/lib/rustlib/wasm32-unknown-unknown/lib'; echo 'fake-host'; esac",
            root = root.display()
        );
        self.script(&format!("{folder}/rustc"), &body);
        self.script(&format!("{folder}/cargo"), "exit 1");
    }

    fn with_std(&self, sysroot: &str) {
        self.file(&format!("{sysroot}/lib/rustlib/wasm32-unknown-unknown/lib/libstd-1234.rlib"));
    }

    fn with_sources(&self, sysroot: &str) {
        self.file(&format!("{sysroot}/lib/rustlib/src/rust/library/Cargo.lock"));
    }

    fn with_linker(&self, toolchain: &str) {
        self.script(&format!("{toolchain}/lib/rustlib/fake-host/bin/wasm-component-ld"), "exit 1");
    }

    fn surroundings(&self) -> Surroundings {
        Surroundings {
            path: self.at("bin").into_os_string(),
            rustup_home: self.at("rustup"),
            system_rustc: self.at("system/rustc"),
            leaked_toolchain: None,
            variables: Vec::new(),
        }
    }

    async fn find(&self, install: Install) -> (Result<Toolchain, BuildError>, Vec<Event>) {
        self.find_in(&self.surroundings(), install).await
    }

    async fn find_in(
        &self,
        surroundings: &Surroundings,
        install: Install,
    ) -> (Result<Toolchain, BuildError>, Vec<Event>) {
        let events = Mutex::new(Vec::new());
        let found = Toolchain::find(surroundings, self.folder.path(), install, &|event| {
            events.lock().unwrap().push(event);
        })
        .await;
        (found, events.into_inner().unwrap())
    }

    /// An error's text without the folder's random name.
    fn text(&self, error: &BuildError) -> String {
        error.to_string().replace(&self.folder.path().display().to_string(), "")
    }
}

fn path_of(command: &tokio::process::Command, name: &str) -> Option<String> {
    let mut variables = command.as_std().get_envs();
    variables
        .find(|(key, _)| *key == name)
        .and_then(|(_, value)| value)
        .map(|value| value.to_string_lossy().into_owned())
}

#[tokio::test]
async fn an_installed_target_is_used_as_it_is() {
    let machine = Machine::new();
    machine.compiler("bin", "rust");
    machine.with_std("rust");
    machine.with_linker("rust");
    let (found, events) = machine.find(Install::IfMissing).await;
    let found = found.unwrap();
    assert_eq!((found.std, &found.rustc), (StdSource::Installed, &machine.at("bin/rustc")));
    assert_eq!(events, [], "nothing is installed when nothing is missing");
    let command = found.cargo_build(Path::new("/w"), Path::new("/w/target"));
    assert!(path_of(&command, "PATH").unwrap().contains("/rust/lib/rustlib/fake-host/bin/gcc-ld:"));
    assert_eq!(path_of(&command, "RUSTC_WRAPPER").as_deref(), Some(""));
    assert_eq!(path_of(&command, "RUSTC_BOOTSTRAP"), None);
    assert!(!crate::process::shown(&command).contains("build-std"));
}

#[tokio::test]
async fn rustup_is_asked_for_the_target_before_anything_else_is_tried() {
    let machine = Machine::new();
    machine.compiler("bin", "rust");
    machine.with_linker("rust");
    machine.compiler("system", "debian");
    machine.with_sources("debian");
    let std = machine.at("rust/lib/rustlib/wasm32-unknown-unknown/lib");
    let body = format!(
        "[ \"$*\" = 'target add wasm32-unknown-unknown' ] || exit 9\n/bin/mkdir -p {0}\n: > {0}/libstd-9.rlib",
        std.display()
    );
    machine.script("bin/rustup", &body);
    let (found, events) = machine.find(Install::IfMissing).await;
    assert_eq!(found.unwrap().std, StdSource::Installed);
    assert_eq!(events, [Event::Installing("the target wasm32-unknown-unknown with rustup".into())]);
}

#[tokio::test]
async fn without_a_network_the_sources_of_the_distribution_are_built() {
    let machine = Machine::new();
    machine.compiler("bin", "rust");
    machine.script("bin/rustup", "echo 'error: could not download' >&2; exit 1");
    machine.compiler("system", "debian");
    machine.with_sources("debian");
    // Debian has no linker for components: the one of a rustup toolchain serves.
    machine.with_linker("rustup/toolchains/nightly-fake");
    machine.with_linker("rustup/toolchains/stable-fake");
    for install in [Install::IfMissing, Install::Never] {
        let found = machine.find(install).await.0.unwrap();
        assert_eq!((found.std, &found.rustc), (StdSource::Sources, &machine.at("system/rustc")));
        assert!(found.linker.starts_with(machine.at("rustup/toolchains/stable-fake")));
        let command = found.cargo_build(Path::new("/w"), Path::new("/w/target"));
        assert!(crate::process::shown(&command).ends_with("-Zbuild-std=std,panic_abort"));
        assert_eq!(path_of(&command, "RUSTC_BOOTSTRAP").as_deref(), Some("1"));
        assert_eq!(path_of(&command, "RUSTC"), Some(machine.at("system/rustc").display().to_string()));
    }
}

#[tokio::test]
async fn debian_packages_are_installed_by_root_only_and_only_when_allowed() {
    let machine = Machine::new();
    machine.with_linker("rustup/toolchains/stable-fake");
    machine.compiler("spare", "debian");
    let body = format!(
        "case $1 in install) [ \"$DEBIAN_FRONTEND\" = noninteractive ] || exit 9; /bin/cp {0}/spare/* {0}/system/; \
         /bin/mkdir -p {0}/debian/lib/rustlib/src/rust/library; : > {0}/debian/lib/rustlib/src/rust/library/Cargo.lock;; esac",
        machine.folder.path().display()
    );
    machine.script("bin/apt-get", &body);
    machine.script("bin/id", "echo 1000");
    insta::assert_snapshot!(machine.text(&machine.find(Install::IfMissing).await.0.unwrap_err()), @"
    no Rust toolchain here compiles for wasm32-unknown-unknown
      tried: rustup: not installed
      tried: apt-get: needs root
      fix: sudo apt-get update && sudo apt-get install -y --no-install-recommends rustc-web cargo-web rust-web-src
    ");
    machine.script("bin/id", "echo 0");
    assert!(machine.find(Install::Never).await.0.is_err());
    let (found, events) = machine.find(Install::IfMissing).await;
    assert_eq!(found.unwrap().std, StdSource::Sources);
    assert_eq!(events, [Event::Installing("rustc-web, cargo-web, rust-web-src with apt-get".into())]);
}

#[tokio::test]
async fn what_was_tried_and_one_fix_are_told_when_nothing_works() {
    let machine = Machine::new();
    machine.compiler("bin", "rust");
    machine.script("bin/rustup", "echo 'info: syncing' >&2; echo 'error: could not download' >&2; exit 1");
    machine.compiler("system", "debian");
    machine.script("system/rustc", "echo 'no default toolchain' >&2; exit 1");
    let (found, events) = machine.find(Install::IfMissing).await;
    insta::assert_snapshot!(machine.text(&found.unwrap_err()), @"
    no Rust toolchain here compiles for wasm32-unknown-unknown
      tried: /bin/rustc: /rust/lib/rustlib/wasm32-unknown-unknown/lib does not exist
      tried: /system/rustc: `/system/rustc --print sysroot --print target-libdir --print host-tuple --target wasm32-unknown-unknown` failed (exit status: 1)
        no default toolchain
      tried: /bin/rustup target add wasm32-unknown-unknown: error: could not download
      tried: apt-get: not installed
      fix: rustup target add wasm32-unknown-unknown
    ");
    assert!(events.contains(&Event::Line("error: could not download".into())), "the person watching sees it too");
}

#[tokio::test]
async fn a_missing_linker_is_its_own_error() {
    let machine = Machine::new();
    machine.compiler("bin", "rust");
    machine.with_std("rust");
    insta::assert_snapshot!(machine.text(&machine.find(Install::Never).await.0.unwrap_err()), @"
    the linker wasm-component-ld was not found (looked in /rust/lib/rustlib/fake-host/bin, /rustup/toolchains and the path)
      fix: rustup toolchain install stable --profile minimal   (every rustup toolchain brings it)
    ");
    machine.script("bin/wasm-component-ld", "exit 1");
    assert_eq!(machine.find(Install::Never).await.0.unwrap().linker, machine.at("bin/wasm-component-ld"));
}

#[tokio::test]
async fn the_toolchain_of_an_outer_cargo_is_used_only_when_the_default_is_not_usable() {
    let machine = Machine::new();
    machine.compiler("other", "rust");
    machine.with_std("rust");
    machine.with_linker("rust");
    // A proxy like rustup's: without a toolchain it has nothing to run.
    let body =
        format!("[ \"$RUSTUP_TOOLCHAIN\" = outer ] && exec {} \"$@\"\nexit 1", machine.at("other/rustc").display());
    machine.script("bin/rustc", &body);
    machine.script("bin/cargo", "exit 1");
    assert!(machine.find(Install::Never).await.0.is_err());
    let surroundings = Surroundings { leaked_toolchain: Some("outer".into()), ..machine.surroundings() };
    let found = machine.find_in(&surroundings, Install::Never).await.0.unwrap();
    let command = found.cargo_build(Path::new("/w"), Path::new("/w/target"));
    assert_eq!(path_of(&command, "RUSTUP_TOOLCHAIN").as_deref(), Some("outer"));
}
