//! A run that cannot be stopped: what it held stays fenced until its machine proves that nothing of it goes on.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test ends at its first surprise"
)]

use std::{path::Path, time::Duration};

use serde_json::json;
use windlass_engine::{Engine, EngineConfig};
use windlass_model::{
    ProjectName, RunState, TaskId, TaskState,
    task::TaskDetail,
    views::{DeployRequest, ReleaseRequest},
};
use windlass_tests::{engine, guests, shop, sshd::Sshd};

/// An engine that is not patient with runs that do not stop.
async fn open(data: &Path) -> Engine {
    let config = || {
        let mut config = EngineConfig::new(data);
        (config.settings.grace_ms, config.settings.kill_ms) = (200, 200);
        config
    };
    engine::opened(config).await.unwrap()
}

async fn until(engine: &Engine, task: TaskId, reached: impl Fn(&TaskDetail) -> bool) -> TaskDetail {
    windlass_tests::engine::until(engine, task, Duration::from_secs(90), reached).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fence_is_lifted_once_the_machine_proves_that_nothing_goes_on() {
    let (data, target) = (tempfile::tempdir().unwrap(), Sshd::start().unwrap());
    let engine = open(data.path()).await;
    for plugin in guests::plugins().await.unwrap() {
        engine.install_plugin(std::fs::read(plugin).unwrap().into()).await.unwrap();
    }
    let script =
        "[ -e \"$HOME/pid\" ] && exit 0; echo $$ > \"$HOME/pid.new\"; mv \"$HOME/pid.new\" \"$HOME/pid\"; sleep 600";
    let steps = json!([{ "name": "s", "uses": "run-script@1", "on": { "role": "web" }, "with": { "script": script } }]);
    let machines = vec![shop::machine("web0", "web", &target).unwrap()];
    engine.apply(shop::workspace(machines, steps, json!([])).unwrap(), false).await.unwrap();
    let project: ProjectName = "shop".parse().unwrap();
    engine.create_release(&project, ReleaseRequest::default()).await.unwrap();
    let request = DeployRequest::new(project, "test".parse().unwrap());
    let first = engine.deploy(request.clone()).await.unwrap().id;
    until(&engine, first, |task| task.steps[0].runs[0].state == RunState::Running).await;
    let begun = async {
        while !target.home().join("pid").exists() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), begun).await.expect("the script did not begin");

    // The machine falls silent, so the cancel does not reach it.
    target.freeze();
    engine.cancel(first).await.unwrap();
    let ended = until(&engine, first, |task| task.summary.state.is_final()).await;
    assert_eq!((ended.summary.state, ended.steps[0].runs[0].state), (TaskState::Cancelled, RunState::Unknown));
    let locks = engine.locks().await.unwrap();
    assert_eq!(locks[0].resource, "machine:web0");
    assert_eq!((locks[0].holders[0].task, locks[0].holders[0].scope.as_str()), (first, "fence"));
    let second = engine.deploy(request).await.unwrap().id;
    let kind = |task: &TaskDetail| task.steps[0].runs[0].reason.as_ref().map(|why| why.kind.clone());
    until(&engine, second, |task| kind(task).as_deref() == Some("fenced")).await;

    // Another process asks the machine again, ends what still runs there, and gives the lock to who waits.
    engine.close().await;
    drop(engine);
    let engine = open(data.path()).await;
    let ended = until(&engine, second, |task| task.summary.state.is_final()).await;
    assert_eq!(ended.summary.state, TaskState::Succeeded, "{:?}", ended.summary.error);
    let pid = std::fs::read_to_string(target.home().join("pid")).unwrap();
    assert!(!Path::new("/proc").join(pid.trim()).exists(), "the abandoned script still runs");
    assert!(engine.locks().await.unwrap().is_empty());
    engine.close().await;
}
