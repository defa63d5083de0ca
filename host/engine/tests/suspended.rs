//! Runs that wait hold no guest, and nothing that a restart could lose. What they take of the server is measured by
//! `tests/tests/suspended_memory.rs`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test ends at its first surprise"
)]

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use windlass_engine::{Clock, Engine, EngineConfig, Followed};
use windlass_model::{TaskId, TaskState, task::TaskDetail, views::ScriptRequest};

/// A clock that is set by hand.
struct Hand(AtomicU64);

impl Clock for Hand {
    fn now_ms(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

async fn open(data: &Path, clock: Option<Arc<Hand>>) -> Engine {
    let again = async {
        loop {
            let mut config = EngineConfig::new(data);
            if let Some(clock) = &clock {
                config.clock = Arc::clone(clock) as Arc<dyn Clock>;
            }
            match Engine::open(config).await {
                Ok(engine) => return engine,
                Err(error) => assert!(error.message.contains("it is in use already"), "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), again).await.expect("the folder stays locked")
}

async fn script(engine: &Engine, name: &str, text: &str) -> TaskId {
    let request = ScriptRequest { name: name.into(), text: text.into(), arguments: BTreeMap::new() };
    engine.run_script(request).await.unwrap().id
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

fn waits_for(kind: &str) -> impl Fn(&TaskDetail) -> bool + '_ {
    move |detail| detail.steps[0].runs[0].reason.as_ref().is_some_and(|reason| reason.kind == kind)
}

async fn ended(engine: &Engine, task: TaskId) -> TaskDetail {
    until(engine, task, |detail| detail.summary.state.is_final()).await
}

async fn lines(engine: &Engine, task: TaskId, name: &str) -> Vec<String> {
    let node = format!("{name}/server");
    engine.log(task, &node, 0, 1000).await.unwrap().into_iter().map(|line| line.text).collect()
}

const SLEEPS: &str = "info(\"before\");\nsleep(\"9h\");\ninfo(\"after\");";

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_whose_time_passed_while_the_server_was_away_is_over_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(Hand(AtomicU64::new(1_900_000_000_000)));
    let engine = open(dir.path(), Some(Arc::clone(&clock))).await;
    let task = script(&engine, "sleepy", SLEEPS).await;
    until(&engine, task, waits_for("sleep")).await;
    engine.close().await;
    drop(engine);

    let engine = open(dir.path(), Some(Arc::clone(&clock))).await;
    assert!(waits_for("sleep")(&engine.task(task).await.unwrap()), "it still sleeps");
    engine.close().await;
    drop(engine);

    clock.0.fetch_add(9 * 3_600_000, Relaxed);
    let engine = open(dir.path(), Some(clock)).await;
    assert_eq!(ended(&engine, task).await.summary.state, TaskState::Succeeded);
    assert_eq!(lines(&engine, task, "sleepy").await, ["before", "after"]);
    engine.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_wait_survives_a_restart_and_wakes() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path(), None).await;
    let holds = "//! needs: [lock]\nlet held = lock(\"licence\");\nsleep(\"9h\");";
    let first = script(&engine, "first", holds).await;
    until(&engine, first, waits_for("sleep")).await;
    let locks = script(&engine, "locks", "//! needs: [lock]\nlock(\"licence\", \"9h\");\ninfo(\"mine\");").await;
    until(&engine, locks, waits_for("lock")).await;
    let text = "//! needs: [tasks-read]\nlet t = await_task(1, \"9h\");\ninfo(`it ${t.state}`);";
    let awaits = script(&engine, "awaits", text).await;
    until(&engine, awaits, waits_for("task")).await;
    engine.close().await;
    drop(engine);

    let engine = open(dir.path(), None).await;
    for (task, kind) in [(first, "sleep"), (locks, "lock"), (awaits, "task")] {
        assert!(waits_for(kind)(&engine.task(task).await.unwrap()), "{kind}");
    }
    engine.cancel(first).await.unwrap();
    assert_eq!(ended(&engine, first).await.summary.state, TaskState::Cancelled);
    for (task, name, said) in [(locks, "locks", "mine"), (awaits, "awaits", "it cancelled")] {
        assert_eq!(ended(&engine, task).await.summary.state, TaskState::Succeeded, "{name}");
        assert_eq!(lines(&engine, task, name).await, [said]);
    }
    engine.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_of_waits_hold_while_the_run_is_suspended() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path(), None).await;
    let first = script(&engine, "first", "//! needs: [lock]\nlock(\"licence\");\nsleep(\"9h\");").await;
    until(&engine, first, waits_for("sleep")).await;
    let texts = [
        ("locks", "//! needs: [lock]\ntry { lock(\"licence\", \"2s\"); } catch (err) { info(err.code); }"),
        ("awaits", "//! needs: [tasks-read]\ntry { await_task(1, \"2s\"); } catch (err) { info(err.code); }"),
    ];
    for (name, text) in texts {
        let task = script(&engine, name, text).await;
        assert_eq!(ended(&engine, task).await.summary.state, TaskState::Succeeded);
        assert_eq!(lines(&engine, task, name).await, ["timeout"]);
    }
    engine.cancel(first).await.unwrap();
    ended(&engine, first).await;
    engine.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_circle_of_waits_is_told_to_a_suspended_run() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path(), None).await;
    // The second waits for the first, which waits for the second.
    let first = script(&engine, "first", "//! needs: [tasks-read]\nsleep(2);\nawait_task(2, \"9h\");").await;
    until(&engine, first, waits_for("sleep")).await;
    let second = script(&engine, "second", "//! needs: [tasks-read]\nawait_task(1, \"9h\");").await;
    // Whichever closes the circle is told; the wait of the other is over with it.
    let mut states = [ended(&engine, first).await.summary.state, ended(&engine, second).await.summary.state];
    states.sort();
    assert_eq!(states, [TaskState::Failed, TaskState::Succeeded]);
    let log = [lines(&engine, first, "first").await, lines(&engine, second, "second").await].concat().join("\n");
    assert!(log.contains("deadlock"), "{log}");
    engine.close().await;
}
