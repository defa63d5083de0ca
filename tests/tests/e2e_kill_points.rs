//! A server that dies at every boundary of its records once: before and after each record of each effect, each commit of
//! the scheduler, between the store's journal and its index, in the middle of a transfer, before an ack, between a
//! commit and its answer.
//!
//! A first deployment passes the points and names them (`windlass_store::failpoint`); a second one is killed at each.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test ends at its first surprise"
)]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use reqwest::Method;
use windlass_model::{TaskId, TaskState};
use windlass_tests::{
    shop::Anything,
    stage::{PATIENCE, Stage},
};

const FIRST: &str = "6.0.1";

fn lines(file: &Path) -> BTreeSet<String> {
    fs::read_to_string(file).unwrap_or_default().lines().map(str::to_owned).collect()
}

/// Starts the server until it stays, once for each point that kills it while it starts.
fn up(stage: &mut Stage, done: &Path) -> Anything<()> {
    loop {
        let before = lines(done).len();
        match stage.site.server.restart() {
            Ok(()) => return Ok(()),
            Err(_) if lines(done).len() > before => {}
            Err(error) => return Err(error),
        }
    }
}

/// Queues the script under a key, as often as it takes; the server dies in between.
async fn begin(stage: &mut Stage, version: &str, done: &Path) -> Anything<TaskId> {
    // Made for what it sets up in this process, on which the plain one relies.
    let _client = stage.site.client()?;
    let http = reqwest::Client::new();
    let since = Instant::now();
    loop {
        let url = format!("{}/api/v1/scripts/run", stage.site.server.url());
        let request = http.request(Method::POST, url).bearer_auth(stage.site.server.token());
        let request = request.header("idempotency-key", version).json(&Stage::request(version));
        let told = async { request.timeout(PATIENCE).send().await?.json::<serde_json::Value>().await };
        match told.await {
            Ok(task) => return Ok(TaskId(task["id"].as_u64().ok_or(format!("refused: {task:#}"))?)),
            Err(_) if stage.site.server.has_ended()?.is_some() => up(stage, done)?,
            // A link ends a little before its process does.
            Err(_) if since.elapsed() < PATIENCE => tokio::time::sleep(Duration::from_millis(20)).await,
            Err(error) => return Err(error.into()),
        }
    }
}

/// Plays a version to its end, the server started again whenever it died. Gives the script's task.
async fn play(stage: &mut Stage, version: &str, done: &Path) -> Anything<TaskId> {
    let task = begin(stage, version, done).await?;
    let mut progress = (Instant::now(), 0);
    loop {
        if stage.site.server.has_ended()?.is_some() {
            up(stage, done)?;
        }
        match stage.site.client()?.task(task).await {
            Ok(detail) if detail.summary.state.is_final() => {
                assert_eq!(detail.summary.state, TaskState::Succeeded, "{detail:#?}\n{}", stage.site.server.log());
                return Ok(task);
            }
            _ => tokio::time::sleep(Duration::from_millis(20)).await,
        }
        let passed = lines(done).len();
        if passed > progress.1 {
            progress = (Instant::now(), passed);
        }
        assert!(progress.0.elapsed() < PATIENCE, "it does not go on:\n{}", stage.site.server.log());
    }
}

/// The points that one deployment passes, in words without its version.
async fn points(stage: &mut Stage, folder: &Path) -> Anything<(BTreeSet<String>, windlass_tests::stage::Picture)> {
    let trace = folder.join("trace");
    stage.site.server.set_env("WINDLASS_KILL_TRACE", trace.to_str().unwrap());
    stage.site.server.restart()?;
    stage.release(FIRST)?;
    fs::write(&trace, "")?;
    let task = begin(stage, FIRST, &folder.join("none")).await?;
    stage.ended(task).await?;
    // What it still does once it is over, such as acks, belongs to it.
    stage.site.server.terminate();
    stage.site.server.wait()?;
    let points = lines(&trace).into_iter().filter(|point| !point.contains("/Tick")).collect();
    stage.site.server.set_env("WINDLASS_KILL_TRACE", "");
    stage.site.server.restart()?;
    let picture = stage.picture(task, FIRST).await?;
    picture.check()?;
    Ok((points, picture))
}

/// Writes the plan of points for a version, and starts the server with it. Gives the file of those that were reached.
fn armed(stage: &mut Stage, folder: &Path, version: &str, points: &BTreeSet<String>) -> Anything<PathBuf> {
    let plan = folder.join(version);
    let text: String = points.iter().map(|point| format!("{}\n", point.replace(FIRST, version))).collect();
    fs::write(&plan, text)?;
    let done = folder.join(format!("{version}.done"));
    stage.release(version)?;
    stage.site.server.set_env("WINDLASS_KILL_AT", plan.to_str().unwrap());
    up(stage, &done)?;
    Ok(done)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_dies_at_each_boundary_once_ends_its_deployment_as_if_nothing_had_been() -> Anything<()> {
    if !cfg!(debug_assertions) {
        eprintln!("this build has no failpoints");
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let mut stage = Stage::new().await?;
    let (all, expected) = points(&mut stage, folder.path()).await?;
    eprintln!("{} points", all.len());
    assert!(all.len() > 100, "too few to mean anything: {all:#?}");
    let mut left = all.clone();
    // What the first of them did not come by, for want of the same company in a commit, gets two more chances.
    for version in ["6.1.1", "6.2.1", "6.3.1"] {
        let begin = Instant::now();
        let done = armed(&mut stage, folder.path(), version, &left)?;
        let task = play(&mut stage, version, &done).await?;
        let reached: BTreeSet<_> = lines(&done).iter().map(|point| point.replace(version, FIRST)).collect();
        eprintln!("{version}: killed at {} points in {:?}", reached.len(), begin.elapsed());
        stage.site.server.set_env("WINDLASS_KILL_AT", "");
        stage.site.server.restart()?;
        let picture = stage.picture(task, version).await?;
        let wrong = picture.check().err().into_iter().chain(expected.differences(&picture)).collect::<Vec<_>>();
        assert!(wrong.is_empty(), "killed at {reached:#?}, it ended otherwise:\n{}", wrong.join("\n"));
        left = left.difference(&reached).cloned().collect();
        if left.is_empty() {
            break;
        }
    }
    let journal: Vec<_> = left.iter().filter(|point| point.starts_with("journal/")).collect();
    assert!(journal.is_empty(), "never reached: {journal:#?}");
    assert!(left.len() * 10 <= all.len(), "too many were never reached: {left:#?}");
    Ok(())
}
