//! What goes wrong from outside: files with mistakes, broken uploads, machines that do not do their part.
//!
//! Each case checks three things: the message, its fix, and that what was there before is there still.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test ends at its first surprise"
)]

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use serde_json::{Value, json};
use windlass_model::{RunState, TaskState};
use windlass_tests::{
    server::Server,
    shop::{self, Anything},
    site::Site,
    sshd::{Options, Sshd},
};

const WEB: &str = "  - { name: web, uses: deploy-package@1, on: { role: web }, with: { package: shop-web } }\n";

/// Everything the catalog holds.
async fn catalog(server: &Server) -> Anything<Value> {
    let client = server.client()?;
    let project = client.project(&"shop".parse()?).await.ok();
    Ok(json!({
        "environments": client.environments().await?,
        "machines": client.machines().await?,
        "projects": client.projects().await?,
        "process": project.map(|project| project.process),
        "packages": client.packages().await?,
    }))
}

// === files ===

/// A mistake in a file: what it says, and what the commands say to it.
struct Mistake {
    file: &'static str,
    text: &'static str,
    said: &'static [&'static str],
}

const MISTAKES: [Mistake; 8] = [
    Mistake {
        file: "shop/process.yaml",
        text: "steps:\n  - name: web\n    uses: [run-script@1\n",
        said: &["error[E0101]", "process.yaml:"],
    },
    Mistake {
        file: "shop/process.yaml",
        text: "steps:\n  - name: web\n    uses: run-script@1\n    role: web\n    rollin: { window: 2 }\n    with: { script: date }\n",
        said: &["error[E0102]", "process.yaml:5", "rollin", "rolling"],
    },
    Mistake {
        file: "shop/process.yaml",
        text: "steps:\n  - name: web\n    uses: run-script@1\n    on: { role: web }\n    rolling: { window: two }\n    with: { script: date }\n",
        said: &["error[E0104]", "process.yaml:5:24", "whole number"],
    },
    Mistake {
        file: "shop/process.yaml",
        text: "steps:\n  - name: web\n    uses: run-script@1\n    on: { role: web }\n    with: { script: date, arguments: 7 }\n",
        said: &["error[E0305]", "process.yaml:5", "list"],
    },
    Mistake {
        file: "shop/process.yaml",
        text: "steps:\n  - name: web\n    uses: run-script@1\n    on: { machine: web7 }\n    with: { script: date }\n",
        said: &["error[E0202]", "process.yaml:4", "web7", "web0"],
    },
    Mistake {
        file: "shop/process.yaml",
        text: "steps:\n  - name: web\n    uses: deploy-package@1\n    on: { role: web }\n    with: { package: shop-wbe }\n",
        said: &["E0207", "process.yaml:5", "shop-wbe"],
    },
    Mistake {
        file: "shop/process.yaml",
        text: "steps:\n  - name: web\n    uses: deploy-pakage@1\n    on: { role: web }\n",
        said: &["error[E0301]", "process.yaml:3", "deploy-pakage", "deploy-package"],
    },
    Mistake {
        file: "machines.yaml",
        text: "machines:\n  - { name: web9, environments: [tset], roles: [web], connection: { local: {} } }\n",
        said: &["error[E0201]", "machines.yaml:2", "tset", "test"],
    },
];

#[tokio::test(flavor = "multi_thread")]
async fn mistakes_in_files_are_shown_at_their_line_and_nothing_is_applied() -> Anything<()> {
    let steps = "  - { name: s, uses: run-script@1, on: { role: web }, with: { script: date } }\n";
    let site = Site::new(1, steps).await?;
    let files = site.files();
    let before = catalog(&site.server).await?;
    let mut told = String::new();
    for mistake in &MISTAKES {
        let file = files.join(mistake.file);
        let good = std::fs::read_to_string(&file)?;
        std::fs::write(&file, mistake.text)?;
        for command in ["validate", "apply"] {
            let ended = site.server.cli(&[command, &files.display().to_string()])?;
            assert_eq!(ended.code, 1, "{command} of {}: {ended:#?}", mistake.text);
            for part in mistake.said {
                assert!(
                    ended.err.contains(part),
                    "{command} does not say {part:?} to\n{}but\n{}",
                    mistake.text,
                    ended.err
                );
            }
            assert!(ended.err.contains("fix:") || ended.err.contains("help:"), "no fix in\n{}", ended.err);
            if command == "apply" {
                told.push_str(&ended.err.replace(&files.display().to_string(), "FOLDER"));
                told.push('\n');
            }
        }
        assert_eq!(catalog(&site.server).await?, before, "changed by {}", mistake.text);
        std::fs::write(&file, good)?;
    }
    insta::assert_snapshot!(told);
    assert!(site.apply()?.good()?.starts_with("nothing to change"));
    Ok(())
}

// === uploads ===

/// Sends a request byte for byte, hangs up after it when told to, and gives what is answered.
fn raw(server: &Server, request: &[u8], hang_up: bool) -> Anything<String> {
    let mut link = TcpStream::connect(server.url().trim_start_matches("http://"))?;
    link.set_read_timeout(Some(Duration::from_secs(60)))?;
    link.write_all(request)?;
    if hang_up {
        link.shutdown(Shutdown::Write)?;
    }
    let mut answer = Vec::new();
    link.read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn put(server: &Server, length: usize, digest: Option<&str>, body: &[u8]) -> Vec<u8> {
    let digest = digest.map(|digest| format!("X-Content-SHA256: {digest}\r\n")).unwrap_or_default();
    let head = format!(
        "PUT /api/v1/packages/shop-web.1.0.0.tar.gz HTTP/1.1\r\nHost: windlass\r\nAuthorization: Bearer {}\r\n\
         Content-Length: {length}\r\n{digest}Connection: close\r\n\r\n",
        server.token(),
    );
    [head.as_bytes(), body].concat()
}

/// Files below a folder, with their sizes.
fn files_below(folder: &Path) -> Vec<(PathBuf, u64)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => found.extend(files_below(&entry.path())),
            Ok(metadata) => found.push((entry.path(), metadata.len())),
            Err(_) => {}
        }
    }
    found.sort();
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_uploads_are_refused_and_leave_nothing() -> Anything<()> {
    let server = Server::start().await?;
    let archive = shop::archive(&[("hello", "hello\n")])?;
    let half = &archive[..archive.len() / 2];
    let wrong = "0".repeat(64);
    let packages = server.data().join("packages");
    let before = files_below(&packages);
    let cases: [(&str, Vec<u8>, &[&str]); 4] = [
        ("fewer bytes than announced", put(&server, archive.len(), None, half), &[]),
        (
            "another digest than announced",
            put(&server, archive.len(), Some(&wrong), &archive),
            &[" 422 ", "0000 was announced", "push it again"],
        ),
        ("half an archive", put(&server, half.len(), None, half), &[" 422 ", "shop-web.1.0.0.tar.gz"]),
        ("no digest at all", put(&server, archive.len(), Some("abc"), &archive), &[" 422 ", "sha256sum"]),
    ];
    for (what, request, said) in cases {
        // Nobody is left to be told when the link breaks off; whoever is still there hears why.
        let answer = raw(&server, &request, said.is_empty())?;
        assert!(!answer.contains(" 201 "), "{what} was taken: {answer}");
        for part in said {
            assert!(answer.contains(part), "to {what} it does not say {part:?} but\n{answer}");
        }
        assert!(server.client()?.packages().await?.is_empty(), "{what} left a package");
        assert_eq!(files_below(&packages), before, "{what} left files");
    }
    // The version is free still.
    let answer = raw(&server, &put(&server, archive.len(), None, &archive), false)?;
    assert!(answer.contains(" 201 "), "{answer}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_of_what_is_no_package_or_is_there_already_is_refused_with_a_fix() -> Anything<()> {
    let site = Site::new(0, "  - { name: s, uses: run-script@1, on: { role: web }, with: { script: date } }\n").await?;
    site.push("1.0.0", &[("hello", "hello\n")])?;
    let before = catalog(&site.server).await?;
    let cases = [
        (site.write("shop-web.zip", "x")?, 1, "name it like shop-web.1.4.0.tar.gz"),
        (site.write("shop-web.2.0.0.tar.gz", "no archive")?, 1, "shop-web.2.0.0.tar.gz"),
        (site.write("shop-web.1.0.0.tar.gz", "other bytes")?, 8, "--if-exists replace"),
    ];
    for (file, code, said) in cases {
        let ended = site.server.cli(&["package", "push", &file.display().to_string()])?;
        assert_eq!(ended.code, code, "{ended:#?}");
        assert!(ended.err.contains(said), "no {said:?} in {}", ended.err);
    }
    assert_eq!(catalog(&site.server).await?, before);
    Ok(())
}

// === machines ===

/// A small file system of its own, so that it can be full.
struct Tmpfs(PathBuf);

impl Tmpfs {
    /// None where this process may not mount.
    fn mount(at: PathBuf, size: &str) -> Option<Self> {
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(&at).output();
        mounted.is_ok_and(|output| output.status.success()).then(|| Self(at))
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        // Lazily: a session may still have its folder there.
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

/// Bytes that do not compress.
fn noise(size: usize) -> String {
    let mut state = 0x2545_F491_4F6C_DD1D_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        char::from(b'!' + (state % 90) as u8)
    };
    (0..size).map(|_| next()).collect()
}

/// What a deployment that must fail on `web0` leaves behind.
struct Wreck<'a> {
    site: &'a Site,
    said: &'a [&'a str],
    /// Whether it must fail before any step begins.
    before_steps: bool,
}

impl Wreck<'_> {
    /// Deploys `version` over 1.0.0 and checks message, record and target.
    async fn deploy(&self, version: &str) -> Anything<()> {
        let ended = self.site.deploy(version)?;
        assert_eq!(ended.code, 3, "{ended:#?}");
        for part in self.said {
            assert!(ended.out.contains(part), "it does not say {part:?} but\n{}", ended.out);
        }
        let task = self.site.last_task().await?;
        assert_eq!(task.summary.state, TaskState::Failed);
        if self.before_steps {
            assert!(task.steps.iter().flat_map(|step| &step.runs).all(|run| run.started_ms.is_none()), "a step began");
        } else {
            assert_eq!(task.steps.first().map(|step| step.state), Some(RunState::Failed));
        }
        assert_eq!(self.site.current(0, "version").as_deref(), Some("1.0.0\n"), "current is as it was");
        // The server goes on serving, and keeps its record of what was.
        let shown = self.site.server.cli(&["task", "show", &task.summary.id.to_string()])?.good()?;
        assert!(shown.contains("failed"), "{shown}");
        Ok(())
    }
}

/// A site on these targets that has deployed 1.0.0, and has a package 1.1.0 with this more in it.
async fn deployed(targets: Vec<Sshd>, more: &str) -> Anything<Site> {
    let site = Site::unapplied(targets, WEB).await?;
    site.push("1.0.0", &[("version", "1.0.0\n")])?;
    site.apply()?.good()?;
    site.deploy("1.0.0")?.good()?;
    site.push("1.1.0", &[("version", "1.1.0\n"), ("more", more)])?;
    Ok(site)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_machine_stops_the_deployment_before_its_first_step() -> Anything<()> {
    let mut site = deployed(vec![Sshd::start()?, Sshd::start()?], "").await?;
    site.targets[1].stop();
    Wreck { site: &site, said: &["cannot be reached", "check host and port"], before_steps: true }
        .deploy("1.1.0")
        .await?;
    // Once it is back, the same release goes through.
    site.targets[1].restart()?;
    site.server.cli(&["deploy", "shop", "-e", "test"])?.good()?;
    assert_eq!(site.current(1, "version").as_deref(), Some("1.1.0\n"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_login_key_and_a_wrong_host_key_are_told_apart() -> Anything<()> {
    let site = deployed(vec![Sshd::start()?], "").await?;
    let stranger = Sshd::start()?;
    let cases: [(&str, Value, &[&str]); 2] = [
        ("auth", json!({ "key-file": { "path": stranger.login_key_path() } }), &["refused the", "authorized_keys"]),
        (
            "host_key",
            json!(stranger.host_key()),
            &["has changed", site.targets[0].host_key(), stranger.host_key(), "windlass machine trust"],
        ),
    ];
    for (number, (key, value, said)) in cases.into_iter().enumerate() {
        site.machines(|_, mut machine| {
            machine["connection"]["ssh"][key] = value.clone();
            machine
        })?;
        site.apply()?.good()?;
        Wreck { site: &site, said, before_steps: true }.deploy(&format!("1.1.{number}")).await?;
    }
    site.machines(|_, machine| machine)?;
    site.apply()?.good()?;
    site.server.cli(&["deploy", "shop", "-e", "test"])?.good()?;
    assert_eq!(site.current(0, "version").as_deref(), Some("1.1.0\n"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_without_tar_says_what_to_install() -> Anything<()> {
    let tools = tempfile::tempdir()?;
    for folder in ["/usr/bin", "/bin"] {
        for tool in std::fs::read_dir(folder)?.flatten() {
            // Seen in the first folder already.
            let _ = std::os::unix::fs::symlink(tool.path(), tools.path().join(tool.file_name()));
        }
    }
    let env = vec![("PATH".to_owned(), tools.path().display().to_string())];
    let site = deployed(vec![Sshd::start_with(Options { env, ..Options::default() })?], "").await?;
    std::fs::remove_file(tools.path().join("tar"))?;
    Wreck { site: &site, said: &["tar is not installed", "apt-get install tar"], before_steps: false }
        .deploy("1.1.0")
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_on_a_target_is_told_and_changes_nothing() -> Anything<()> {
    // While the package is sent, and while there is room for it but not for its files.
    let cases: [(String, bool, &[&str]); 2] = [
        (noise(6 << 20), true, &["the disk of", "is full", "free some space there"]),
        ("0".repeat(2 << 20), false, &["has 0 MiB left", "free some space there"]),
    ];
    for (more, before_steps, said) in cases {
        let target = Sshd::start()?;
        let Some(disk) = Tmpfs::mount(target.home(), "4m") else {
            eprintln!("a full disk is not tested: this process may not mount a tmpfs (run the tests as root)");
            return Ok(());
        };
        let site = deployed(vec![target], &more).await?;
        if !before_steps {
            std::fs::write(disk.0.join("ballast"), vec![0; 3 << 19])?;
        }
        Wreck { site: &site, said, before_steps }.deploy("1.1.0").await?;
        drop(disk);
    }
    Ok(())
}
