//! Runs that lose their locks: what one that cannot be stopped held stays fenced until its machine proves that nothing of
//! it goes on, and one whose machine was taken away is refused there.

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
    scheduling::BreakRequest,
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

/// Two projects on one machine. What the first installs has two hooks and a file between them that is changed by the
/// server; the first hook ends when told to. Each command that does something writes it down.
struct Pair {
    engine: Engine,
    target: Sshd,
    _data: tempfile::TempDir,
}

const FIRST: &str = "echo first >> \"$HOME/ran\"; while [ ! -e \"$HOME/go\" ]; do sleep 0.05; done";

impl Pair {
    async fn new() -> Self {
        let (data, target) = (tempfile::tempdir().unwrap(), Sshd::start().unwrap());
        let engine = open(data.path()).await;
        for plugin in guests::plugins().await.unwrap() {
            engine.install_plugin(std::fs::read(plugin).unwrap().into()).await.unwrap();
        }
        let deploy = "echo second >> \"$HOME/ran\"";
        let files = [("PreDeploy.sh", FIRST), ("a.conf", "on #{Machine.Name}\n"), ("Deploy.sh", deploy)];
        let archive = shop::archive(&files).unwrap();
        engine.push_package("shop-web.1.0.0.tar.gz".parse().unwrap(), &*archive, Default::default()).await.unwrap();
        let step = |uses: &str, with: serde_json::Value| json!([{ "name": "s", "uses": uses, "on": { "role": "web" }, "with": with }]);
        let machines = vec![shop::machine("web0", "web", &target).unwrap()];
        let hooks = step("deploy-package@1", json!({ "package": "shop-web", "substitute": ["*.conf"] }));
        let mut workspace = shop::workspace(machines, hooks, json!([])).unwrap();
        let script = step("run-script@1", json!({ "script": "echo later >> \"$HOME/ran\"" }));
        let mut other = shop::workspace(Vec::new(), script, json!([])).unwrap().projects.remove(0);
        other.project.name = "other".parse().unwrap();
        workspace.projects.push(other);
        engine.apply(workspace, false).await.unwrap();
        Self { engine, target, _data: data }
    }

    async fn deploy(&self, project: &str) -> TaskId {
        let project: ProjectName = project.parse().unwrap();
        self.engine.create_release(&project, ReleaseRequest::default()).await.unwrap();
        self.engine.deploy(DeployRequest::new(project, "test".parse().unwrap())).await.unwrap().id
    }

    async fn ended(&self, task: TaskId) -> TaskDetail {
        until(&self.engine, task, |task| task.summary.state.is_final()).await
    }

    fn ran(&self) -> String {
        std::fs::read_to_string(self.target.home().join("ran")).unwrap_or_default()
    }

    async fn first_runs(&self) {
        let begun = async {
            while self.ran().is_empty() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), begun).await.expect("the first hook did not begin");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_lost_a_machine_starts_nothing_there_any_more() {
    let pair = Pair::new().await;
    let first = pair.deploy("shop").await;
    pair.first_runs().await;
    let second = pair.deploy("other").await;
    until(&pair.engine, second, |task| task.steps[0].runs[0].reason.is_some()).await;
    // A person takes the machine away from the first, believing that it is dead; it is not.
    let resource = "machine:web0".to_owned();
    let request = BreakRequest { resource, task: Some(first), reason: "it hangs".into() };
    pair.engine.break_lock(request, "anna").await.unwrap();
    assert_eq!(pair.ended(second).await.summary.state, TaskState::Succeeded);
    std::fs::write(pair.target.home().join("go"), "").unwrap();

    let ended = pair.ended(first).await;
    let log = pair.engine.log(first, "s/web0", 0, 100).await.unwrap();
    let log: String = log.into_iter().map(|line| line.text + "\n").collect();
    assert_eq!((ended.summary.state, ended.steps[0].runs[0].state), (TaskState::Failed, RunState::Failed), "{log}");
    assert_eq!(pair.ran(), "first\nlater\n", "{log}");
    for text in [
        "machine web0 refused to start the command, and nothing of it ran: this step has lost its lock of machine web0",
        "fix: see with windlass lock list who holds it now, and deploy again once that is over",
    ] {
        assert!(log.contains(text), "{text:?} is missing:\n{log}");
    }
    // Whoever takes the machine anew is not refused.
    assert_eq!(pair.ended(pair.deploy("shop").await).await.summary.state, TaskState::Succeeded);
    assert_eq!(pair.ran(), "first\nlater\nfirst\nsecond\n");
    pair.engine.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_kept_its_machine_goes_on_there() {
    let pair = Pair::new().await;
    let first = pair.deploy("shop").await;
    pair.first_runs().await;
    let second = pair.deploy("other").await;
    until(&pair.engine, second, |task| task.steps[0].runs[0].reason.is_some()).await;
    std::fs::write(pair.target.home().join("go"), "").unwrap();
    assert_eq!(pair.ended(first).await.summary.state, TaskState::Succeeded);
    assert_eq!(pair.ended(second).await.summary.state, TaskState::Succeeded);
    assert_eq!(pair.ran(), "first\nsecond\nlater\n");
    pair.engine.close().await;
}
