//! Steps that wait for a person: asked, answered, refused, expired, and still asked after a `kill -9`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test ends at its first surprise"
)]

use windlass_model::{RunState, TaskId, TaskState};
use windlass_tests::{shop::Anything, site::Site};

const CHECK_THEN_GO: &str = r##"
  - { name: first, uses: run-script@1, on: { role: web }, with: { script: echo first } }
  - name: check
    approval:
      instructions: "Look at the graphs of #{Environment.Name} before #{Release.Number} goes on"
  - name: go
    uses: run-script@1
    on: { role: web }
    with: { script: "echo approved=#{Step[check].Output.Approved} by #{Step[check].Output.Responsible}, #{Step[check].Output.Notes}" }
  - name: mourn
    uses: run-script@1
    on: { role: web }
    when: failure
    with: { script: "echo approved=#{Step[check].Output.Approved}; echo 'because #{Deployment.Error}'" }
"##;

/// Starts a deployment that does not wait for its end, and waits until it asks its question.
async fn asking(site: &Site, version: &str) -> Anything<TaskId> {
    site.release(version)?;
    let id =
        site.server.cli(&["deploy", "shop", "-e", "test", "--version", version, "--detach", "-o", "id"])?.good()?;
    let task = id.trim().parse()?;
    site.until(task, |task| task.steps.iter().any(|step| step.reason.as_ref().is_some_and(|why| why.kind == "person")))
        .await?;
    Ok(task)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_is_asked_and_the_answer_reaches_later_steps() -> Anything<()> {
    let mut site = Site::new(1, CHECK_THEN_GO).await?;
    let first = asking(&site, "1.0.0").await?;

    let asked = site.server.cli(&["interruption", "list", "-o", "json"])?.json()?;
    let question = &asked["items"][0];
    assert_eq!(question["text"], "Look at the graphs of test before 1.0.0 goes on");
    assert_eq!(question["choices"], serde_json::json!(["proceed", "abort"]));
    let why = site.server.cli(&["why", &first.to_string()])?.good()?;
    assert!(why.contains("waits for a person to answer: Look at the graphs of test"), "{why}");

    // Waiting for a person, it is in nobody's way: the same project goes to the same environment meanwhile.
    let second = asking(&site, "1.1.0").await?;
    // The server dies, and the question is still there.
    site.server.kill9()?;
    site.server.restart()?;
    let number = question["number"].to_string();
    let refused = site.server.cli(&["interruption", "answer", &number, "retry"])?;
    assert!(refused.code != 0 && refused.err.contains("answer one of: proceed, abort"), "{refused:#?}");
    site.server.cli(&["interruption", "answer", &number, "proceed", "--notes", "all green"])?.good()?;
    let again = site.server.cli(&["interruption", "answer", &number, "proceed"])?;
    assert!(again.code != 0 && again.err.contains(&format!("there is no question {number}")), "{again:#?}");

    let ended = site.until(first, |task| task.summary.state.is_final()).await?;
    assert_eq!(ended.summary.state, TaskState::Succeeded, "{:?}", ended.summary.error);
    assert!(site.log(first, "go/web0").await?.contains(&"approved=true by admin, all green".to_owned()));
    assert_eq!(ended.steps[1].runs[0].outputs["Approved"], "true");
    assert_eq!(ended.steps[3].state, RunState::Skipped);

    // The second is refused: it fails, and what mourns is told why.
    let left = site.server.cli(&["interruption", "list", "-o", "json"])?.json()?;
    assert_eq!(left["items"][0]["task"], second.0, "{left:#}");
    let number = left["items"][0]["number"].to_string();
    site.server.cli(&["interruption", "answer", &number, "abort", "--notes", "too red"])?.good()?;
    let ended = site.until(second, |task| task.summary.state.is_final()).await?;
    assert_eq!(ended.summary.state, TaskState::Failed);
    let error = ended.summary.error.unwrap();
    assert_eq!(error, "step check was not approved: admin refused it: too red");
    assert_eq!(ended.steps[2].state, RunState::Skipped);
    let mourned = site.log(second, "mourn/web0").await?;
    for line in ["approved=false".to_owned(), format!("because {error}")] {
        assert!(mourned.contains(&line), "{line:?} in {mourned:#?}");
    }
    Ok(())
}

const FOR_ANNA: &str = r#"
  - name: check
    approval: { instructions: Look., responsible: [anna], expires_after_seconds: 8, on_expiry: proceed, block_concurrent: true }
"#;

#[tokio::test(flavor = "multi_thread")]
async fn only_who_is_responsible_answers_and_time_answers_in_the_end() -> Anything<()> {
    let site = Site::new(1, FOR_ANNA).await?;
    let task = asking(&site, "1.0.0").await?;
    let table = site.server.cli(&["interruption", "list"])?.good()?;
    assert!(table.contains("anna"), "{table}");
    let number = site.server.cli(&["interruption", "list", "-o", "id"])?.good()?;
    let refused = site.server.cli(&["interruption", "answer", number.trim(), "proceed"])?;
    assert!(refused.code != 0 && refused.err.contains("is for anna to answer"), "{refused:#?}");
    let ended = site.until(task, |task| task.summary.state.is_final()).await?;
    assert_eq!(ended.summary.state, TaskState::Succeeded, "{:?}", ended.summary.error);
    assert_eq!(ended.steps[0].runs[0].outputs["Responsible"], "the time limit");
    Ok(())
}
