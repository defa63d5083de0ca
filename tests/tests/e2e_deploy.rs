//! What a newcomer does, through the command line only: files, packages, releases, deployments, tasks, scripts.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test ends at its first surprise"
)]

use std::path::Path;

use windlass_tests::{shop::Anything, site::Site};

const WEB_AND_REPORT: &str = r##"
  - name: web
    uses: deploy-package@1
    on: { role: web }
    with: { package: shop-web, substitute: ["app.conf"] }
  - name: report
    uses: run-script@1
    on: { role: web }
    with: { script: "echo version #{Step[web].Output.Version} on #{Machine.Name}" }
"##;

#[tokio::test(flavor = "multi_thread")]
async fn from_files_to_a_running_version() -> Anything<()> {
    let targets = (0..2).map(|_| windlass_tests::sshd::Sshd::start()).collect::<Result<_, _>>()?;
    let site = Site::unapplied(targets, WEB_AND_REPORT).await?;
    let files = site.files().display().to_string();

    // The project names a package that nobody pushed yet: told by a warning or an error, never by silence.
    site.push(
        "1.0.0",
        &[("app.conf", "release=#{Release.Number}\n"), ("PostDeploy.sh", "echo started $WINDLASS_VERSION\n")],
    )?;
    let said = site.server.cli(&["validate", &files])?;
    assert_eq!((said.code, said.err.trim()), (0, "good: 1 project, 1 environment, 2 machines"), "{said:#?}");

    let first = site.apply()?.good()?;
    for line in ["environment test", "machine web0", "machine web1", "project shop"] {
        assert!(first.contains(line), "{line} is missing in {first}");
    }
    let second = site.apply()?.good()?;
    assert!(second.starts_with("nothing to change") && second.lines().count() == 1, "{second}");

    assert_eq!(site.server.cli(&["package", "list", "-o", "id"])?.good()?.trim(), "shop-web 1.0.0");
    let created = site.server.cli(&["release", "create", "shop"])?.good()?;
    assert!(created.contains("created release 1.0.0 of shop") && created.contains("windlass deploy shop"), "{created}");

    let deployed = site.server.cli(&["deploy", "shop", "-e", "test"])?;
    let out = deployed.good()?;
    for machine in ["web0", "web1"] {
        for line in [format!("web/{machine} | started 1.0.0"), format!("report/{machine} | version 1.0.0 on {machine}")]
        {
            assert_eq!(out.matches(&line).count(), 1, "{line:?} in\n{out}");
        }
    }
    assert!(!out.contains('\r') && !out.contains('\u{1b}'), "plain output steers no terminal: {out:?}");
    let verdict = out.lines().last().unwrap_or_default();
    assert!(verdict.contains("task 1 · deploy shop 1.0.0 to test") && verdict.contains("succeeded in"), "{verdict}");
    for target in 0..2 {
        assert_eq!(site.current(target, "app.conf").as_deref(), Some("release=1.0.0\n"));
    }

    tasks_are_told(&site)?;
    // A second version replaces the first on every target.
    site.push("1.1.0", &[("app.conf", "release=#{Release.Number}\n")])?;
    site.deploy("1.1.0")?.good()?;
    assert_eq!(site.current(1, "app.conf").as_deref(), Some("release=1.1.0\n"));
    Ok(())
}

/// Task 1 in a table, as JSON, and its log.
fn tasks_are_told(site: &Site) -> Anything<()> {
    let cli = |arguments: &[&str]| site.server.cli(arguments);
    let table = cli(&["task", "list"])?.good()?;
    assert!(table.contains("deploy shop 1.0.0 to test") && table.contains("succeeded"), "{table}");
    let json = cli(&["task", "list", "--machine", "web1", "--state", "succeeded", "-o", "json"])?.json()?;
    assert_eq!(json["items"][0]["id"], 1);
    let none = cli(&["task", "list", "--state", "failed,queued", "-o", "json"])?.json()?;
    assert_eq!(none["items"], serde_json::json!([]));

    let shown = cli(&["task", "show", "1"])?.good()?;
    assert!(shown.contains("report") && shown.contains("2 machines"), "{shown}");
    let json = cli(&["task", "show", "1", "-o", "json"])?.json()?;
    assert_eq!(json["state"], "succeeded");
    assert_eq!(json["steps"][0]["runs"][1]["outputs"]["Version"], "1.0.0");

    let log = cli(&["task", "log", "1", "--node", "report/web1"])?.good()?;
    assert!(log.contains("report/web1 | version 1.0.0 on web1"), "{log}");
    let lines = cli(&["task", "log", "1", "-o", "jsonl"])?.good()?;
    let lines: Vec<serde_json::Value> = lines.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    assert!(lines.iter().any(|line| line["node"] == "report/web0" && line["line"]["text"] == "version 1.0.0 on web0"));

    // Whoever comes late sees it from the first line to the end.
    let followed = cli(&["task", "follow", "1"])?.good()?;
    assert!(followed.contains("web/web0 | started 1.0.0") && followed.contains("succeeded in"), "{followed}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_script_ends_with_3_and_names_step_machine_and_exit_code() -> Anything<()> {
    let steps = r#"
  - { name: migrate, uses: run-script@1, on: { role: web }, with: { script: "echo half done; echo no such table >&2; exit 42" } }
  - { name: after, uses: run-script@1, on: { role: web }, with: { script: "echo never" } }
"#;
    let site = Site::new(1, steps).await?;
    let ended = site.deploy("1.0.0")?;
    assert_eq!(ended.code, 3, "{ended:#?}");
    for line in ["migrate/web0 | half done", "migrate/web0 | no such table", "42"] {
        assert!(ended.out.contains(line), "{line} is missing in\n{}", ended.out);
    }
    assert!(!ended.out.contains("never"), "{}", ended.out);
    let json = site.server.cli(&["deploy", "shop", "-e", "test", "-o", "json"])?;
    assert_eq!(json.code, 3);
    let task: serde_json::Value = serde_json::from_str(&json.out)?;
    assert_eq!((&task["state"], &task["steps"][1]["state"]), (&"failed".into(), &"skipped".into()));
    assert_eq!(site.server.cli(&["task", "follow", "1"])?.code, 3);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_ends_what_runs_on_the_machine_and_the_watching_with_7() -> Anything<()> {
    let steps = r#"
  - { name: long, uses: run-script@1, on: { role: web }, with: { script: "echo $$ > $HOME/pid; echo begun; sleep 600" } }
"#;
    let site = Site::new(1, steps).await?;
    site.release("1.0.0")?;
    let mut watching = site.server.spawn(&["deploy", "shop", "-e", "test"])?;
    watching.until_out(|out| out.contains("long/web0 | begun"))?;

    // Ctrl-C stops only the watching, and says how to go on.
    let mut detached = site.server.spawn(&["task", "follow", "1"])?;
    detached.until_out(|out| out.contains("begun"))?;
    detached.interrupt();
    let left = detached.end()?;
    assert_eq!(left.code, 130, "{left:#?}");
    assert!(left.out.contains("windlass task follow 1") && left.out.contains("windlass task cancel 1"), "{}", left.out);

    let late = site.server.cli(&["task", "follow", "1", "--timeout", "1s"])?;
    assert_eq!(late.code, 6, "{late:#?}");

    site.server.cli(&["task", "cancel", "1"])?.good()?;
    let ended = watching.end()?;
    assert_eq!(ended.code, 7, "{ended:#?}");
    assert!(ended.out.lines().last().unwrap_or_default().contains("cancelled"), "{}", ended.out);
    let pid = std::fs::read_to_string(site.targets[0].home().join("pid"))?;
    assert!(!Path::new("/proc").join(pid.trim()).exists(), "the script still runs");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_waits_until_a_machine_is_quiet_and_deploys_then() -> Anything<()> {
    let steps = r#"
  - { name: busy, uses: run-script@1, on: { role: web }, with: { script: "echo begun; while [ ! -e $HOME/go ]; do sleep 0.1; done" } }
"#;
    let site = Site::new(1, steps).await?;
    site.release("1.0.0")?;
    let mut busy = site.server.spawn(&["deploy", "shop", "-e", "test"])?;
    busy.until_out(|out| out.contains("busy/web0 | begun"))?;

    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/wait-until-quiet.rhai").display().to_string();
    let arguments = ["--arg", "machine=web0", "--arg", "project=shop", "--arg", "environment=test"];
    let mut waiting = site.server.spawn(&[["script", "run", &script].as_slice(), &arguments].concat())?;
    // The script says for whom it waits, and what it is waiting for can be seen from outside.
    waiting.until_out(|out| out.contains("web0 is busy with") && out.contains("task 1"))?;
    assert!(waiting.until_out(|out| out.contains("| waits ")).is_ok());
    let told = site.server.cli(&["task", "list", "--state", "executing", "-o", "json"])?.json()?;
    assert_eq!(told["items"].as_array().map(Vec::len), Some(2), "{told:#}");

    std::fs::write(site.targets[0].home().join("go"), "")?;
    busy.end()?.good()?;
    let out = waiting.end()?.good()?;
    assert!(out.contains("web0 is quiet") && out.contains("deploy shop 1.0.0 to test"), "{out}");
    let last = site.server.cli(&["task", "show", "3", "-o", "json"])?.json()?;
    assert_eq!((&last["state"], &last["title"]), (&"succeeded".into(), &"deploy shop 1.0.0 to test".into()));
    Ok(())
}
