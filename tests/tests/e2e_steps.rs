//! How the steps of a process run: child steps in order on each machine, conditions, pools, counted locks.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test ends at its first surprise"
)]

use windlass_model::{MachineName, RunState, TaskState, task::TaskQuery};
use windlass_tests::{shop::Anything, site::Site, sshd::Sshd};

/// Everything that runs writes a line to one book, since all targets are this machine.
fn rolling(book: &str) -> String {
    format!(
        r##"
  - name: web
    on: {{ role: web }}
    rolling: {{ window: 1 }}
    steps:
      - {{ name: drain, uses: run-script@1, with: {{ script: "echo drain #{{Machine.Name}} >> {book}" }} }}
      - {{ name: install, uses: run-script@1, with: {{ script: "echo install #{{Machine.Name}} >> {book}" }} }}
      - {{ name: never, uses: run-script@1, if: "#{{Wanted}}", with: {{ script: "echo never >> {book}" }} }}
  - {{ name: after, uses: run-script@1, on: {{ role: web }}, if: "#{{unless Wanted}}yes#{{/unless}}", with: {{ script: "echo after >> {book}" }} }}
  - {{ name: unknown, uses: run-script@1, on: {{ role: web }}, if: "#{{Not.There}}", with: {{ script: "echo unknown >> {book}" }} }}
"##
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn each_machine_goes_through_all_child_steps_before_the_next_one_begins() -> Anything<()> {
    let folder = tempfile::tempdir()?;
    let book = folder.path().join("book");
    let targets = (0..2).map(|_| Sshd::start()).collect::<Result<_, _>>()?;
    let site = Site::unapplied(targets, &rolling(&book.display().to_string())).await?;
    site.write("site/shop/variables.yaml", "variables: [{ name: Wanted, value: \"no\" }]\n")?;
    site.apply()?.good()?;
    site.deploy("1.0.0")?.good()?;
    let lines = std::fs::read_to_string(&book)?;
    let expected = "drain web0\ninstall web0\ndrain web1\ninstall web1\nafter\nafter\n";
    assert_eq!(lines, expected);

    let task = site.last_task().await?;
    let steps: Vec<_> = task.steps.iter().map(|step| (step.name.as_str(), step.state)).collect();
    use RunState::{Skipped, Succeeded};
    let expected = [
        ("web", Succeeded),
        ("drain", Succeeded),
        ("install", Succeeded),
        ("never", Skipped),
        ("after", Succeeded),
        ("unknown", Skipped),
    ];
    assert_eq!(steps, expected);
    assert_eq!(task.steps[3].reason.as_ref().unwrap().text, "its condition does not hold");
    let shown = site.server.cli(&["project", "show", "shop"])?.good()?;
    assert!(shown.contains("  drain") && shown.contains("steps"), "{shown}");
    Ok(())
}

const ON_A_POOL: &str =
    "  - { name: early, uses: run-script@1, on: { pool: builders }, with: { script: echo built } }\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_gives_a_worker_when_the_step_is_ready_and_waits_for_one_with_a_reason() -> Anything<()> {
    let targets = (0..2).map(|_| Sshd::start()).collect::<Result<_, _>>()?;
    let site = Site::unapplied(targets, ON_A_POOL).await?;
    let pooled = |disabled: bool| {
        site.machines(|number, mut machine| {
            if number == 1 {
                machine["pools"] = serde_json::json!(["builders"]);
                machine["disabled"] = disabled.into();
            }
            machine
        })
    };
    pooled(true)?;
    site.apply()?.good()?;
    site.release("1.0.0")?;
    let id = site.server.cli(&["deploy", "shop", "-e", "test", "--detach", "-o", "id"])?.good()?;
    let task = id.trim().parse()?;
    let waiting = site.until(task, |task| task.steps[0].runs[0].reason.is_some()).await?;
    let reason = waiting.steps[0].runs[0].reason.clone().unwrap();
    assert_eq!(reason.text, "waits for a worker: pool builders has none that can be used");
    pooled(false)?;
    site.apply()?.good()?;
    let ended = site.until(task, |task| task.summary.state.is_final()).await?;
    assert_eq!(ended.summary.state, TaskState::Succeeded, "{:?}", ended.summary.error);
    let run = &ended.steps[0].runs[0];
    assert_eq!((run.node.as_str(), run.machine.as_ref().map(MachineName::as_str)), ("early/builders", Some("web1")));
    assert!(site.log(task, "early/builders").await?.contains(&"built".to_owned()));
    let query = TaskQuery { machine: Some("web1".parse()?), ..TaskQuery::default() };
    assert_eq!(site.client()?.tasks(&query).await?.items[0].id, task);
    Ok(())
}
