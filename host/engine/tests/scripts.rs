//! A task's life with coordination scripts: no machine, no plugin, everything else real.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test ends at its first surprise"
)]

use std::{collections::BTreeMap, path::Path, time::Duration};

use windlass_engine::{Engine, EngineConfig, ErrorKind, Followed};
use windlass_model::{
    RunState, TaskId, TaskState,
    task::{TaskChange, TaskDetail, TaskQuery, TaskSummary},
    views::ScriptRequest,
};

async fn open(data: &Path) -> Engine {
    Engine::open(EngineConfig::new(data)).await.unwrap()
}

/// Opens the folder again as soon as the engine before has let go of it.
async fn reopen(data: &Path) -> Engine {
    let again = async {
        loop {
            match Engine::open(EngineConfig::new(data)).await {
                Ok(engine) => return engine,
                Err(error) => assert!(error.message.contains("it is in use already"), "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), again).await.expect("the folder stays locked")
}

async fn script(engine: &Engine, name: &str, text: &str) -> TaskSummary {
    let request = ScriptRequest { name: name.into(), text: text.into(), arguments: BTreeMap::new() };
    engine.run_script(request).await.unwrap()
}

/// Waits for a task's end by following events, as every client does.
async fn ended(engine: &Engine, task: TaskId) -> TaskDetail {
    until(engine, task, |detail| detail.summary.state.is_final()).await
}

async fn until(engine: &Engine, task: TaskId, reached: impl Fn(&TaskDetail) -> bool) -> TaskDetail {
    let mut follower = engine.events(None);
    let wait = async {
        loop {
            let detail = engine.task(task).await.unwrap();
            if reached(&detail) {
                return detail;
            }
            assert_ne!(follower.next().await, Followed::End);
        }
    };
    tokio::time::timeout(Duration::from_secs(60), wait).await.expect("the task did not get there")
}

async fn lines(engine: &Engine, task: TaskId, node: &str) -> Vec<String> {
    engine.log(task, node, 0, 1000).await.unwrap().into_iter().map(|line| line.text).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_runs_logs_and_sets_outputs() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path()).await;
    let task = script(&engine, "hello", "info(\"hello\");\nwarn(\"careful\");\noutput(\"answer\", 42);").await;
    assert_eq!((task.id, task.state), (TaskId(1), TaskState::Queued));
    let detail = ended(&engine, task.id).await;
    assert_eq!(detail.summary.state, TaskState::Succeeded);
    let run = &detail.steps[0].runs[0];
    assert_eq!((run.state, run.outputs["answer"].as_str()), (RunState::Succeeded, "42"));
    assert!(run.started_ms.is_some() && run.ended_ms >= run.started_ms);
    assert_eq!(lines(&engine, task.id, "hello/server").await, ["hello", "careful"]);
    assert_eq!(engine.log(task.id, "hello/server", 1, 10).await.unwrap().len(), 1);
    engine.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_is_told_with_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path()).await;
    let task = script(&engine, "broken", "info(\"before\");\nfail(\"no luck\");").await;
    let detail = ended(&engine, task.id).await;
    assert_eq!(detail.summary.state, TaskState::Failed);
    let log = lines(&engine, task.id, "broken/server").await.join("\n");
    assert!(log.contains("no luck") && log.contains("broken:2"), "{log}");
    engine.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_run_is_refused_before_it_is_a_task() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path()).await;
    let request = ScriptRequest { name: "bad".into(), text: "let x = ;".into(), arguments: BTreeMap::new() };
    let error = engine.run_script(request).await.unwrap_err();
    assert_eq!((error.kind, error.code), (ErrorKind::Invalid, "script"));
    let error = engine.task(TaskId(1)).await.unwrap_err();
    assert_eq!((error.kind, error.message.as_str()), (ErrorKind::NotFound, "there is no task 1"));
    assert!(engine.tasks(&TaskQuery::default()).await.unwrap().is_empty());
    engine.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sleeping_script_says_so_and_is_cancelled_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path()).await;
    let task = script(&engine, "sleepy", "sleep(\"1h\");").await;
    let waiting = until(&engine, task.id, |detail| detail.steps[0].runs[0].reason.is_some()).await;
    let reason = waiting.steps[0].runs[0].reason.clone().unwrap();
    assert_eq!((reason.kind.as_str(), reason.text.as_str()), ("sleep", "sleeps for 60 min"));
    let before = std::time::Instant::now();
    engine.cancel(task.id).await.unwrap();
    let detail = ended(&engine, task.id).await;
    assert_eq!(detail.summary.state, TaskState::Cancelled);
    assert!(before.elapsed() < Duration::from_secs(10), "{:?}", before.elapsed());
    let error = engine.cancel(task.id).await.unwrap_err();
    assert_eq!((error.kind, error.message.as_str()), (ErrorKind::Conflict, "task 1 is over: it was cancelled"));
    engine.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_makes_the_second_wait_and_name_the_first() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path()).await;
    let text = "//! needs: [lock]\nlet held = lock(\"licence\");\ninfo(\"in\");\nsleep(3600);\nunlock(held);";
    let first = script(&engine, "first", text).await;
    until(&engine, first.id, |detail| {
        detail.steps[0].runs[0].reason.as_ref().is_some_and(|reason| reason.kind == "sleep")
    })
    .await;
    let second = script(&engine, "second", text).await;
    let waiting = until(&engine, second.id, |detail| detail.steps[0].runs[0].reason.is_some()).await;
    let reason = waiting.steps[0].runs[0].reason.clone().unwrap();
    assert_eq!(reason.holder, Some(first.id));
    assert!(reason.text.contains("lock licence") && reason.text.contains("task 1"), "{}", reason.text);
    engine.cancel(first.id).await.unwrap();
    until(&engine, second.id, |detail| {
        detail.steps[0].runs[0].reason.as_ref().is_some_and(|reason| reason.kind == "sleep")
    })
    .await;
    engine.cancel(second.id).await.unwrap();
    assert_eq!(ended(&engine, second.id).await.summary.state, TaskState::Cancelled);
    engine.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_waits_for_another_task() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path()).await;
    let first = script(&engine, "first", "sleep(3600);").await;
    let text = format!("//! needs: [tasks-read]\nlet t = await_task({}, \"1h\");\ninfo(`it ${{t.state}}`);", first.id);
    let second = script(&engine, "second", &text).await;
    let waiting = until(&engine, second.id, |detail| detail.steps[0].runs[0].reason.is_some()).await;
    assert_eq!(waiting.steps[0].runs[0].reason.clone().unwrap().text, "waits for task 1 (script first)");
    engine.cancel(first.id).await.unwrap();
    assert_eq!(ended(&engine, second.id).await.summary.state, TaskState::Succeeded);
    assert_eq!(lines(&engine, second.id, "second/server").await, ["it cancelled"]);
    engine.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_task_goes_on_after_a_restart_and_repeats_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path()).await;
    let text = "info(\"once\");\noutput(\"n\", now());\nsleep(2);\ninfo(\"after\");";
    let task = script(&engine, "long", text).await;
    let before = until(&engine, task.id, |detail| {
        detail.steps[0].runs[0].reason.is_some() && detail.steps[0].runs[0].outputs.contains_key("n")
    })
    .await;
    engine.close().await;
    drop(engine);

    let engine = reopen(dir.path()).await;
    let detail = ended(&engine, task.id).await;
    assert_eq!(detail.summary.state, TaskState::Succeeded);
    assert_eq!(detail.steps[0].runs[0].outputs, before.steps[0].runs[0].outputs, "the recorded time is given again");
    assert_eq!(lines(&engine, task.id, "long/server").await, ["once", "after"]);
    let next = script(&engine, "next", "info(\"x\");").await;
    assert_eq!(next.id, TaskId(2));
    engine.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_is_the_last_event_and_lines_come_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path()).await;
    let mut follower = engine.events(None);
    let task = script(&engine, "talk", "for i in 0..300 { info(`line ${i}`); }").await;
    let mut seen = 0;
    let wait = async {
        loop {
            let Followed::Event(event) = follower.next().await else { panic!("an event was lost") };
            match &event.change {
                TaskChange::Log { lines, .. } => {
                    assert_eq!(lines[0].n, seen);
                    seen += lines.len() as u64;
                }
                TaskChange::Task { state, .. } if state.is_final() => break,
                _ => {}
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), wait).await.unwrap();
    assert_eq!(seen, 300);
    let filtered = TaskQuery { state: vec![TaskState::Succeeded], ..TaskQuery::default() };
    assert_eq!(engine.tasks(&filtered).await.unwrap()[0].id, task.id);
    engine.close().await;
}
