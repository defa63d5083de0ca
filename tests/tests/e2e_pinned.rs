//! A plugin that is replaced while a deployment is under way: the run goes on with the one that its release pinned.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test ends at its first surprise"
)]

use std::fs;

use serde_json::Value;
use windlass_model::{TaskId, TaskState, task::TaskDetail};
use windlass_tests::{shop::Anything, site::Site};

/// Two steps; the first goes on only when told to.
const STEPS: &str = r#"
  - name: first
    uses: run-script@1
    on: { role: web }
    with:
      script: |
        echo run >> "$HOME/runs"
        echo started
        while [ ! -e "$HOME/go" ]; do [ -d "$HOME" ] || exit 1; sleep 0.05; done
        echo "answer=42"
  - { name: second, uses: run-script@1, on: { role: web }, with: { script: "echo ran second >> $HOME/runs" } }
"#;

/// A site whose server was killed in the midst of the first step.
async fn killed() -> Anything<Site> {
    let mut site = Site::new(1, STEPS).await?;
    site.release("1.0.0")?;
    let mut watching = site.server.spawn(&["deploy", "shop", "-e", "test"])?;
    watching.until_out(|out| out.contains("first/web0 | started"))?;
    site.server.kill9()?;
    Ok(site)
}

async fn ended(site: &Site) -> Anything<TaskDetail> {
    site.server.cli(&["task", "follow", "1"])?;
    Ok(site.client()?.task(TaskId(1)).await?)
}

fn component(id: &str) -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins/dist").join(format!("{id}.wasm"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_is_replaced_in_mid_run_goes_on_as_the_release_pinned_it() -> Anything<()> {
    let mut site = killed().await?;
    site.server.restart()?;
    // A newer version of the step that would fail: its inputs are other ones.
    let newer = newer_run_script(&fs::read(component("run-script"))?);
    let file = site.write("newer.wasm", "")?;
    fs::write(&file, newer)?;
    site.server.cli(&["plugin", "install", &file.display().to_string()])?.good()?;
    site.server.restart()?;
    fs::write(site.targets[0].home().join("go"), "")?;
    let task = ended(&site).await?;
    assert_eq!(task.summary.state, TaskState::Succeeded, "{task:#?}");
    assert_eq!(fs::read_to_string(site.targets[0].home().join("runs"))?, "run\nran second\n");
    let guest = |release: &Value| release["guests"]["run-script@1"]["version"].as_str().unwrap().to_owned();
    let before = guest(&site.server.cli(&["release", "show", "shop", "1.0.0", "-o", "json"])?.json()?);
    site.release("2.0.0")?;
    let after = guest(&site.server.cli(&["release", "show", "shop", "2.0.0", "-o", "json"])?.json()?);
    assert_ne!(before, after, "a new release takes the newer one");
    // What ran can be looked at again, with the guest that it was.
    let replayed = site.server.cli(&["task", "replay", "1.0.m-web0.1"])?;
    assert_eq!(replayed.code, 0, "{replayed:#?}");
    for text in [
        format!("plugin run-script {before}"),
        "run sh:".to_owned(),
        "output \"ExitCode\" = \"0\"".to_owned(),
        "succeeded".to_owned(),
    ] {
        assert!(replayed.out.contains(&text), "{text:?} is missing:\n{}", replayed.out);
    }
    assert_eq!(
        fs::read_to_string(site.targets[0].home().join("runs"))?,
        "run\nran second\n",
        "a replay touches nothing"
    );
    Ok(())
}

/// The same component under a higher version: the version stands in it as text of the same length.
fn newer_run_script(component: &[u8]) -> Vec<u8> {
    let find = |from: &[u8]| component.windows(from.len()).filter(|window| *window == from).count();
    let (old, new) = (b"1.0.0", b"1.9.0");
    assert!(find(old) > 0, "the version stands in the component");
    let mut newer = component.to_vec();
    let mut at = 0;
    while let Some(found) = newer[at..].windows(old.len()).position(|window| window == old) {
        newer[at + found..at + found + old.len()].copy_from_slice(new);
        at += found + old.len();
    }
    newer
}
