//! What the journal of a run holds it to: it sees what it saw when it began, a replay of what is damaged says so, and a
//! run that sleeps does nothing more once it is cancelled.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test ends at its first surprise"
)]

use std::{
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use windlass_engine::{Engine, EngineConfig};
use windlass_model::{
    Machine, ProjectName, RunState, TaskId, TaskState,
    replay::{ReplayFault, ReplayStep},
    task::TaskDetail,
    views::{DeployRequest, ReleaseRequest},
};
use windlass_store::{Batch, EmbeddedOptions, EmbeddedStore, Key, OpenError, Store, TableName};
use windlass_tests::{engine, guests, shop};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(60);

async fn open(data: &Path) -> Engine {
    engine::opened(|| EngineConfig::new(data)).await.unwrap()
}

/// An engine with a deployment of these steps under way.
async fn deploying(data: &Path, machines: Vec<Machine>, steps: Value, variables: Value) -> (Engine, TaskId) {
    let engine = open(data).await;
    for plugin in guests::plugins().await.unwrap() {
        engine.install_plugin(std::fs::read(plugin).unwrap().into()).await.unwrap();
    }
    engine.apply(shop::workspace(machines, steps, variables).unwrap(), false).await.unwrap();
    let project: ProjectName = "shop".parse().unwrap();
    engine.create_release(&project, ReleaseRequest::default()).await.unwrap();
    let task = engine.deploy(DeployRequest::new(project, "test".parse().unwrap())).await.unwrap().id;
    (engine, task)
}

async fn until(engine: &Engine, task: TaskId, reached: impl Fn(&TaskDetail) -> bool) -> TaskDetail {
    engine::until(engine, task, PATIENCE, reached).await.unwrap()
}

async fn log(engine: &Engine, task: TaskId, node: &str) -> Vec<String> {
    engine.log(task, node, 0, 100).await.unwrap().into_iter().map(|line| line.text).collect()
}

/// Changes records of an engine that was just closed.
async fn change(data: &Path, make: impl FnOnce(&mut Batch)) {
    let open = async {
        loop {
            match EmbeddedStore::open(&data.join("store"), &EmbeddedOptions::default()) {
                Ok(store) => return store,
                Err(error) => assert!(matches!(error, OpenError::Locked { .. }), "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let store = tokio::time::timeout(PATIENCE, open).await.expect("the store stays locked");
    let mut batch = Batch::new();
    make(&mut batch);
    store.commit(batch).await.unwrap();
    store.close().await.unwrap();
}

fn local(home: &Path) -> Machine {
    let connection = json!({ "local": { "home": home } });
    serde_json::from_value(
        json!({ "name": "web0", "environments": ["test"], "roles": ["web"], "connection": connection }),
    )
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_taken_up_sees_nothing_that_came_after_it_began() {
    let dir = tempfile::tempdir().unwrap();
    let (data, pipe, begun) = (dir.path().join("data"), dir.path().join("pipe"), dir.path().join("begun"));
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let step = |name: &str, start: &str, script: String| {
        json!({ "name": name, "uses": "run-script@1", "on": { "role": "web" }, "start": start, "isolation": "shared",
                "with": { "script": script } })
    };
    let (begun, pipe) = (begun.display(), pipe.display());
    let steps = json!([
        step("first", "after-previous", format!("echo saw #{{Seen}}; : > {begun}; read line < {pipe} || true")),
        step("second", "with-previous", format!("while [ ! -e {begun} ]; do sleep 0.02; done; set_output Answer 42")),
        step("third", "after-previous", "echo saw #{Seen}".to_owned()),
    ]);
    let seen = "#{if Step[second].Output.Answer}the answer#{else}nothing#{/if}";
    let variables = json!([{ "name": "Seen", "value": seen }]);
    let (engine, task) = deploying(&data, vec![local(&dir.path().join("home"))], steps, variables).await;
    until(&engine, task, |task| task.steps[1].state == RunState::Succeeded).await;
    engine.close().await;
    drop(engine);
    drop(std::fs::OpenOptions::new().write(true).open(dir.path().join("pipe")).unwrap());

    let engine = open(&data).await;
    let ended = until(&engine, task, |task| task.summary.state.is_final()).await;
    assert_eq!(ended.summary.state, TaskState::Succeeded, "{:?}", ended.summary.error);
    assert_eq!(log(&engine, task, "first/web0").await[0], "saw nothing");
    assert_eq!(log(&engine, task, "third/web0").await[0], "saw the answer", "it was there to be seen");
    let run = ended.steps[0].runs[0].run.to_string();
    let view = engine.replay(&run).await.unwrap();
    assert_eq!((view.fault, view.ending.as_deref()), (None, Some("succeeded")));
    let effects = view.steps.iter().filter(|step| matches!(step, ReplayStep::Effect { index: Some(_), .. }));
    assert!(effects.count() > 0, "{:#?}", view.steps);
    engine.close().await;
    drop(engine);

    // A journal with a hole or a torn entry is not replayed as if it were whole.
    let (table, first) = (TableName::new("journal"), Key::of_text(&run).id(0).id(0));
    for (torn, told) in [(true, "an entry of it does not decode: "), (false, "entry 0 is missing; the next one is 1: ")]
    {
        let damage = |batch: &mut Batch| {
            let key = first.clone();
            if torn {
                batch.put(&table, key, &b"\x01{\"torn\":"[..]);
            } else {
                batch.require_exists(&table, key.clone()).delete(&table, key);
            }
        };
        change(&data, damage).await;
        let engine = open(&data).await;
        let view = engine.replay(&run).await.unwrap();
        let Some(ReplayFault::Damaged { what }) = &view.fault else { panic!("{view:#?}") };
        assert!(what.starts_with(told), "{what}");
        assert!(view.steps.is_empty() && view.ending.is_none(), "{view:#?}");
        engine.close().await;
    }
}

/// Answers every request with status 503, and counts them.
async fn unwell() -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            counted.fetch_add(1, SeqCst);
            let _ = stream.read(&mut [0; 4096]).await;
            let _ = stream.write_all(b"HTTP/1.1 503 Unwell\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await;
        }
    });
    (url, asked)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_sleeps_does_nothing_more_once_it_is_cancelled() {
    for restarted in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let (url, asked) = unwell().await;
        let with = json!({ "url": url, "attempts": 5, "interval_seconds": 3600 });
        let steps = json!([{ "name": "check", "uses": "http-check@1", "with": with }]);
        let (mut engine, task) = deploying(dir.path(), Vec::new(), steps, json!([])).await;
        let sleeps = |task: &TaskDetail| task.steps[0].runs[0].reason.as_ref().is_some_and(|why| why.kind == "sleep");
        until(&engine, task, sleeps).await;
        if restarted {
            engine.close().await;
            drop(engine);
            engine = open(dir.path()).await;
            assert!(sleeps(&engine.task(task).await.unwrap()), "it still sleeps");
        }
        engine.cancel(task).await.unwrap();
        let ended = until(&engine, task, |task| task.summary.state.is_final()).await;
        let states = (ended.summary.state, ended.steps[0].runs[0].state);
        assert_eq!(states, (TaskState::Cancelled, RunState::Cancelled), "restarted: {restarted}");
        assert_eq!(asked.load(SeqCst), 1, "restarted: {restarted}");
        let said = log(&engine, task, "check/server").await;
        assert_eq!(said.last().map(String::as_str), Some("cancelled"), "{said:#?}");
        assert_eq!(said.iter().filter(|line| line.starts_with("attempt 1 of 5")).count(), 1, "{said:#?}");
        engine.close().await;
    }
}
