//! Which deployment is next: scheduled, expired, superseded, by priority, by tag, and with steps left out.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test ends at its first surprise"
)]

use windlass_model::{RunState, TaskId, TaskState};
use windlass_tests::{shop::Anything, site::Site};

/// Holds its turn until it is told to go.
const WAIT: &str = r#"
  - name: wait
    uses: run-script@1
    on: { role: web }
    with: { script: "while [ ! -e $HOME/go ]; do [ -d $HOME ] || exit 1; sleep 0.05; done" }
  - { name: check, uses: run-script@1, on: { role: web }, required: true, with: { script: echo checked } }
"#;

fn queue(site: &Site, more: &[&str]) -> Anything<TaskId> {
    let arguments = [&["deploy", "shop", "-e", "test", "--detach", "-o", "id"], more].concat();
    Ok(site.server.cli(&arguments)?.good()?.trim().parse()?)
}

fn let_go(site: &Site) -> Anything<()> {
    Ok(std::fs::write(site.targets[0].home().join("go"), "")?)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_queue_is_ordered_and_what_no_longer_matters_leaves_it() -> Anything<()> {
    let site = Site::new(1, &format!("{WAIT}supersede: true\n")).await?;
    site.release("1.0.0")?;
    let first = queue(&site, &[])?;
    site.until(first, |task| task.steps[0].state == RunState::Running).await?;

    // A newer one cancels the older one that has not started, but not the one that has.
    let older = queue(&site, &[])?;
    let newer = queue(&site, &[])?;
    let ended = site.until(older, |task| task.summary.state.is_final()).await?;
    assert_eq!(ended.summary.state, TaskState::Cancelled);
    let error = ended.summary.error.unwrap();
    assert!(error.starts_with(&format!("superseded by task {newer} ")), "{error}");

    let keep = "--no-supersede";
    let scheduled = queue(&site, &["--at", "+3h", keep])?;
    let expired = queue(&site, &["--expires-after", "1s", keep])?;
    let low = queue(&site, &["--priority", "low", keep])?;
    let normal = queue(&site, &[keep])?;
    let high = queue(&site, &["--priority", "high", keep])?;
    let ended = site.until(expired, |task| task.summary.state.is_final()).await?;
    assert_eq!(ended.summary.state, TaskState::TimedOut, "{:?}", ended.summary.error);
    let why = site.server.cli(&["why", &scheduled.to_string()])?.good()?;
    assert!(why.contains("is not to start before 3 h have passed"), "{why}");

    let_go(&site)?;
    let mut order = Vec::new();
    for task in [low, normal, high, newer] {
        let ended = site.until(task, |task| task.summary.state.is_final()).await?;
        assert_eq!(ended.summary.state, TaskState::Succeeded, "{:?}", ended.summary.error);
        order.push((ended.summary.started_ms, task));
    }
    order.sort();
    let order: Vec<_> = order.into_iter().map(|(_, task)| task).collect();
    assert_eq!(order, [high, newer, normal, low]);
    assert_eq!(site.client()?.task(scheduled).await?.summary.state, TaskState::Queued);
    site.server.cli(&["task", "cancel", &scheduled.to_string()])?.good()?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_asked_for_is_refused_with_a_way_out() -> Anything<()> {
    let site = Site::new(1, WAIT).await?;
    site.release("1.0.0")?;
    let_go(&site)?;
    let table = [
        (vec!["--skip", "check"], "step check is required, and cannot be left out"),
        (vec!["--skip", "wiat"], "did you mean wait?"),
        (vec!["--skip", "wait", "--only", "web7"], "there is no machine web7"),
        (vec!["--at", "2999-01-01T00:00:00Z"], "at most 30 days ahead"),
        (vec!["--at", "whenever"], "write it like 22:30"),
        (vec!["--priority", "urgent"], "it is one of low, normal, high"),
    ];
    for (arguments, said) in table {
        let refused =
            site.server.cli(&[&["deploy", "shop", "-e", "test", "--detach"], arguments.as_slice()].concat())?;
        assert!(refused.code != 0 && refused.err.contains(said), "{arguments:?}: {refused:#?}");
    }
    let task = queue(&site, &["--skip", "wait", "--only", "web0"])?;
    let ended = site.until(task, |task| task.summary.state.is_final()).await?;
    assert_eq!(ended.summary.state, TaskState::Succeeded, "{:?}", ended.summary.error);
    let states: Vec<_> = ended.steps.iter().map(|step| step.state).collect();
    assert_eq!(states, [RunState::Skipped, RunState::Succeeded]);
    assert_eq!(ended.steps[0].reason.as_ref().unwrap().text, "it was left out of this deployment");
    Ok(())
}

const TAGGED: &str = "  - { name: wait, uses: run-script@1, on: { role: web }, isolation: shared,
      with: { script: \"while [ ! -e $HOME/go ]; do [ -d $HOME ] || exit 1; sleep 0.05; done\" } }\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_of_ones_own_says_what_runs_one_at_a_time() -> Anything<()> {
    let tag = "concurrency_tag: \"#{Project.Name} #{Release.Number}\"\n";
    let site = Site::new(1, &format!("{TAGGED}{tag}")).await?;
    site.release("1.0.0")?;
    site.release("1.1.0")?;
    let running = |task: &windlass_model::task::TaskDetail| task.steps[0].runs[0].state == RunState::Running;
    let first = queue(&site, &["--version", "1.0.0"])?;
    site.until(first, running).await?;
    let same = queue(&site, &["--version", "1.0.0"])?;
    let other = queue(&site, &["--version", "1.1.0"])?;
    // Both releases run at once on one shared machine, the same release waits for itself.
    site.until(other, running).await?;
    let waiting = site.until(same, |task| task.summary.reason.is_some()).await?;
    let reason = waiting.summary.reason.unwrap();
    assert_eq!((reason.kind.as_str(), reason.holder), ("concurrency", Some(first)));
    assert_eq!(reason.what.as_deref(), Some("tag:shop 1.0.0"));
    let_go(&site)?;
    for task in [first, same, other] {
        let ended = site.until(task, |task| task.summary.state.is_final()).await?;
        assert_eq!(ended.summary.state, TaskState::Succeeded, "{:?}", ended.summary.error);
    }
    Ok(())
}
