//! Machines that do not do their part: away, another key, no `tar`, a full disk. The deployment says so, and what was in use
//! stays in use.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test ends at its first surprise"
)]

use std::{path::PathBuf, process::Command};

use serde_json::{Value, json};
use windlass_model::{RunState, TaskState};
use windlass_tests::{
    shop::Anything,
    site::Site,
    sshd::{Options, Sshd},
};

const WEB: &str = "  - { name: web, uses: deploy-package@1, on: { role: web }, with: { package: shop-web } }\n";

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
        // What went wrong is told where it first appears, and once more in the summary.
        for error in
            task.packages.iter().chain(&task.steps).flat_map(|step| &step.runs).filter_map(|run| run.error.as_ref())
        {
            assert_eq!(ended.out.matches(error.as_str()).count(), 2, "{error:?} in\n{}", ended.out);
        }
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
