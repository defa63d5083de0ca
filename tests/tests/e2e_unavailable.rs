//! Machines that cannot be reached when their turn comes: a failure, a step left out, or a machine left out.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test ends at its first surprise"
)]

use windlass_model::{RunState, TaskId, TaskState, task::TaskDetail};
use windlass_tests::{shop::Anything, site::Site};

/// Web1 goes away between the first and the second step.
const THREE: &str = r#"
  - name: first
    uses: run-script@1
    on: { role: web }
    with: { script: "touch $HOME/begun; while [ ! -e $HOME/go ]; do [ -d $HOME ] || exit 1; sleep 0.05; done" }
  - { name: pause, approval: { instructions: Now. } }
  - { name: second, uses: run-script@1, on: { role: web }, with: { script: echo second } }
  - { name: third, uses: run-script@1, on: { role: web }, when: always, with: { script: echo third } }
"#;

async fn deployed_while_web1_goes_away(policy: &str) -> Anything<(Site, TaskDetail)> {
    let mut site = Site::new(2, &format!("{THREE}unavailable: {policy}\n")).await?;
    for target in &site.targets {
        std::fs::write(target.home().join("go"), "")?;
    }
    site.release("1.0.0")?;
    let id = site.server.cli(&["deploy", "shop", "-e", "test", "--detach", "-o", "id"])?.good()?;
    let task: TaskId = id.trim().parse()?;
    site.until(task, |task| task.steps[1].reason.is_some()).await?;
    site.targets[1].stop();
    let number = site.server.cli(&["interruption", "list", "-o", "id"])?.good()?;
    site.server.cli(&["interruption", "answer", number.trim(), "proceed"])?.good()?;
    let ended = site.until(task, |task| task.summary.state.is_final()).await?;
    Ok((site, ended))
}

/// States of the second and the third step on web0 and web1.
fn states(task: &TaskDetail) -> [RunState; 4] {
    [(2, 0), (2, 1), (3, 0), (3, 1)].map(|(step, run)| task.steps[step].runs[run].state)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_goes_away_fails_the_deployment_unless_told_otherwise() -> Anything<()> {
    let (_site, ended) = deployed_while_web1_goes_away("fail").await?;
    assert_eq!(ended.summary.state, TaskState::Failed);
    let error = ended.summary.error.as_deref().unwrap();
    assert!(error.starts_with("step second/web1 failed: ") && error.contains("cannot be reached"), "{error}");
    use RunState::{Failed, Succeeded};
    assert_eq!(states(&ended), [Succeeded, Failed, Succeeded, Failed]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_goes_away_is_skipped_and_tried_again_or_left_out_for_good() -> Anything<()> {
    let (skip, exclude) = tokio::join!(deployed_while_web1_goes_away("skip"), deployed_while_web1_goes_away("exclude"));
    use RunState::{Skipped, Succeeded};
    for (ended, third) in [(skip?.1, "it could not be reached: "), (exclude?.1, "machine web1 was left out: ")] {
        assert_eq!(ended.summary.state, TaskState::Succeeded, "{:?}", ended.summary.error);
        assert_eq!(states(&ended), [Succeeded, Skipped, Succeeded, Skipped]);
        let why = |step: usize| ended.steps[step].runs[1].error.clone().unwrap();
        assert!(why(2).starts_with("it could not be reached: "), "{}", why(2));
        assert!(why(3).starts_with(third), "{}", why(3));
    }
    Ok(())
}

const WITH_PACKAGE: &str = r#"
  - { name: web, uses: deploy-package@1, on: { role: web }, with: { package: shop-web } }
unavailable: exclude
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_is_away_from_the_start_does_not_hold_up_the_packages_of_the_others() -> Anything<()> {
    let mut site = Site::new(2, WITH_PACKAGE).await?;
    site.push("1.0.0", &[("hello", "hello\n")])?;
    site.targets[1].stop();
    site.deploy("1.0.0")?.good()?;
    assert_eq!(site.current(0, "hello").as_deref(), Some("hello\n"));
    let task = site.last_task().await?;
    let barrier = task.packages.as_ref().unwrap();
    assert_eq!((barrier.runs[0].state, barrier.runs[1].state), (RunState::Succeeded, RunState::Skipped));
    assert_eq!(task.steps[0].runs[1].state, RunState::Skipped);
    Ok(())
}
