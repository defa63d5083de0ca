//! Idempotency keys over a death of the server: what was committed is not made again, what was not is.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test ends at its first surprise"
)]

use std::path::Path;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use windlass_tests::{server::Server, shop::Anything, site::Site};

const STEPS: &str =
    "  - { name: s, uses: run-script@1, on: { role: web }, with: { script: \"echo run >> $HOME/runs\" } }\n";

/// A server that will die at a point the next time it passes it.
fn armed(server: &mut Server, folder: &Path, point: &str) -> Anything<()> {
    let plan = folder.join(point.replace('/', "-"));
    std::fs::write(&plan, point)?;
    server.set_env("WINDLASS_KILL_AT", plan.to_str().unwrap());
    server.restart()
}

async fn ask(
    server: &Server,
    path: &str,
    key: &str,
    body: &Value,
) -> Result<(StatusCode, bool, Value), reqwest::Error> {
    let url = format!("{}/api/v1/{path}", server.url());
    let request = reqwest::Client::new().request(Method::POST, url).bearer_auth(server.token());
    let answer = request.header("idempotency-key", key).json(body).send().await?;
    let replayed = answer.headers().contains_key("idempotency-replayed");
    Ok((answer.status(), replayed, answer.json().await?))
}

/// Asks for something, the server dies at the point, and it is asked again. Tells whether that was a repetition.
async fn repeated(
    server: &mut Server,
    folder: &Path,
    point: &str,
    (path, body): (&str, &Value),
) -> Anything<(bool, Value)> {
    armed(server, folder, point)?;
    assert!(ask(server, path, point, body).await.is_err(), "it was to die at {point}");
    server.wait()?;
    server.restart()?;
    let (status, replayed, made) = ask(server, path, point, body).await?;
    assert_eq!(status, StatusCode::CREATED, "{made:#}");
    let (status, replayed_again, again) = ask(server, path, point, body).await?;
    assert!(status == StatusCode::CREATED && replayed_again, "{again:#}");
    assert_eq!((&made["id"], &made["version"]), (&again["id"], &again["version"]));

    let mut other = body.clone();
    other["notes"] = json!("another body");
    let (status, _, refused) = ask(server, path, point, &other).await?;
    assert_eq!((status, &refused["code"]), (StatusCode::UNPROCESSABLE_ENTITY, &json!("idempotency-key-reused")));
    assert!(refused["fix"].as_str().is_some_and(|fix| fix.contains("new key")), "{refused:#}");
    // Known from the store alone, too.
    server.restart()?;
    let (status, _, refused) = ask(server, path, point, &other).await?;
    assert_eq!((status, &refused["code"]), (StatusCode::UNPROCESSABLE_ENTITY, &json!("idempotency-key-reused")));
    let (status, replayed_later, _) = ask(server, path, point, body).await?;
    assert!(status == StatusCode::CREATED && replayed_later);
    Ok((replayed, made))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_committed_before_the_server_died_is_not_made_again() -> Anything<()> {
    if !cfg!(debug_assertions) {
        eprintln!("this build has no failpoints");
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let mut site = Site::new(1, STEPS).await?;
    let server = &mut site.server;
    // Made for what it sets up in this process, on which the plain clients rely.
    let client = server.client()?;

    let body = json!({ "version": "1.0.0" });
    let release = ("projects/shop/releases", &body);
    let (replayed, made) = repeated(server, folder.path(), "api/create_release/done", release).await?;
    assert!(replayed && made["version"] == "1.0.0", "{made:#}");

    let body = json!({ "project": "shop", "environment": "test", "version": "1.0.0" });
    let (replayed, made) = repeated(server, folder.path(), "api/deploy/done", ("deployments", &body)).await?;
    assert!(replayed && made["id"] == 1, "{made:#}");

    let body = json!({ "name": "s", "text": "info(\"x\");" });
    let (replayed, made) = repeated(server, folder.path(), "api/run_script/done", ("scripts/run", &body)).await?;
    assert!(replayed && made["id"] == 2, "{made:#}");

    // Here it dies before the commit: there was no first time.
    let body = json!({ "name": "s", "text": "info(\"y\");" });
    let (replayed, made) =
        repeated(server, folder.path(), "scheduler/TaskQueued script s/before", ("scripts/run", &body)).await?;
    assert!(!replayed && made["id"] == 3, "{made:#}");

    let tasks = client.tasks(&Default::default()).await?.items;
    assert_eq!(tasks.len(), 3, "{tasks:#?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_made_anew_does_not_take_the_results_of_its_predecessor() -> Anything<()> {
    // Each has a task 1 with the same step on the same machine, which remembers what it ran.
    let mut targets = vec![windlass_tests::sshd::Sshd::start()?];
    for servers in 1..=2 {
        let mut site = Site::with(targets, STEPS).await?;
        site.release("1.0.0")?;
        site.server.cli(&["deploy", "shop", "-e", "test", "--version", "1.0.0"])?.good()?;
        assert_eq!(site.last_task().await?.summary.id.0, 1);
        targets = std::mem::take(&mut site.targets);
        let runs = std::fs::read_to_string(targets[0].home().join("runs"))?;
        assert_eq!(runs, "run\n".repeat(servers), "each ran its own command");
    }
    Ok(())
}
