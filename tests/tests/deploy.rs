//! Whole deployments by the engine: real plugins, real packages, real `sshd` servers.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test ends at its first surprise"
)]

use std::{path::Path, time::Duration};

use serde_json::json;
use windlass_engine::{Engine, EngineConfig, Followed};
use windlass_model::{
    MachineName, ProjectName, RunState, TaskId, TaskState,
    task::TaskDetail,
    views::{DeployRequest, ReleaseRequest},
};
use windlass_packages::repository::PushOptions;
use windlass_tests::{guests, shop, sshd::Sshd};

struct Bed {
    engine: Engine,
    targets: Vec<Sshd>,
    _data: tempfile::TempDir,
}

async fn engine(data: &Path) -> Engine {
    let engine = Engine::open(EngineConfig::new(data)).await.unwrap();
    for plugin in guests::plugins().await.unwrap() {
        engine.install_plugin(std::fs::read(plugin).unwrap().into()).await.unwrap();
    }
    engine
}

/// An engine with as many web machines and a project of these steps.
async fn bed(webs: usize, steps: serde_json::Value, variables: serde_json::Value) -> Bed {
    let data = tempfile::tempdir().unwrap();
    let engine = engine(data.path()).await;
    let targets: Vec<_> = (0..webs).map(|_| Sshd::start().unwrap()).collect();
    let machines = targets
        .iter()
        .enumerate()
        .map(|(n, target)| shop::machine(&format!("web{n}"), "web", target).unwrap())
        .collect();
    engine.apply(shop::workspace(machines, steps, variables).unwrap(), false).await.unwrap();
    Bed { engine, targets, _data: data }
}

impl Bed {
    async fn push(&self, name: &str, files: &[(&str, &str)]) {
        let bytes = shop::archive(files).unwrap();
        self.engine.push_package(name.parse().unwrap(), bytes.as_slice(), PushOptions::default()).await.unwrap();
    }

    async fn deploy(&self, version: &str) -> TaskDetail {
        let id = self.start(version).await;
        self.ended(id).await
    }

    async fn start(&self, version: &str) -> TaskId {
        let project: ProjectName = "shop".parse().unwrap();
        let request = ReleaseRequest { version: Some(version.into()), ..ReleaseRequest::default() };
        self.engine.create_release(&project, request).await.unwrap();
        let request =
            DeployRequest { version: Some(version.into()), ..DeployRequest::new(project, "test".parse().unwrap()) };
        self.engine.deploy(request).await.unwrap().id
    }

    async fn ended(&self, task: TaskId) -> TaskDetail {
        self.until(task, |detail| detail.summary.state.is_final()).await
    }

    async fn until(&self, task: TaskId, reached: impl Fn(&TaskDetail) -> bool) -> TaskDetail {
        let mut follower = self.engine.events(None);
        let wait = async {
            loop {
                let detail = self.engine.task(task).await.unwrap();
                if reached(&detail) {
                    return detail;
                }
                assert_ne!(follower.next().await, Followed::End);
            }
        };
        tokio::time::timeout(Duration::from_secs(120), wait).await.expect("the task did not get there")
    }

    async fn log(&self, task: TaskId, node: &str) -> String {
        let lines = self.engine.log(task, node, 0, 1000).await.unwrap();
        lines.into_iter().map(|line| line.text + "\n").collect()
    }

    /// A file of the newest installation on a target.
    fn installed(&self, target: usize, detail: &TaskDetail, file: &str) -> String {
        let folder = &detail.steps[0].runs[target].outputs["InstallationDirectory"];
        std::fs::read_to_string(Path::new(folder).join(file)).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_package_reaches_every_target_and_the_next_version_replaces_it() {
    let steps = json!([
        { "name": "web", "uses": "deploy-package@1", "on": { "role": "web" },
          "with": { "package": "shop-web", "substitute": ["conf/*.conf"] } },
        { "name": "report", "uses": "run-script@1", "on": { "role": "web" },
          "with": { "script": "echo version #{Step[web].Output.Version} on #{Machine.Name}" } },
    ]);
    let variables = json!([
        { "name": "Greeting", "value": "hello" },
        { "name": "Greeting", "value": "bonjour", "scope": { "machines": ["web1"] } },
        { "name": "Db.Password", "secret": "hunter2-secret" },
    ]);
    let bed = bed(3, steps, variables).await;
    let files = [
        ("conf/app.conf", "greeting=#{Greeting}\npassword=#{Db.Password}\n"),
        ("PostDeploy.sh", "echo the password is $(sed -n s/password=//p conf/app.conf)\n"),
    ];
    bed.push("shop-web.1.0.0.tar.gz", &files).await;
    let first = bed.deploy("1.0.0").await;
    assert_eq!(first.summary.state, TaskState::Succeeded, "{:?}", first.summary.error);
    assert_eq!(bed.installed(0, &first, "conf/app.conf"), "greeting=hello\npassword=hunter2-secret\n");
    assert_eq!(bed.installed(1, &first, "conf/app.conf"), "greeting=bonjour\npassword=hunter2-secret\n");
    let log = bed.log(first.summary.id, "web/web0").await;
    assert!(log.contains("the password is ********"), "{log}");
    assert!(bed.log(first.summary.id, "report/web1").await.contains("version 1.0.0 on web1"));
    let barrier = first.packages.unwrap();
    assert!(barrier.runs.iter().all(|run| run.state == RunState::Succeeded));

    bed.push("shop-web.1.1.0.tar.gz", &[("conf/app.conf", "v2 #{Greeting}\n")]).await;
    let second = bed.deploy("1.1.0").await;
    assert_eq!(second.summary.state, TaskState::Succeeded, "{:?}", second.summary.error);
    assert_eq!(bed.installed(2, &second, "conf/app.conf"), "v2 hello\n");
    assert_eq!(second.steps[0].runs[0].outputs["PreviousVersion"], "1.0.0");
    let again = bed.log(second.summary.id, "@packages").await;
    assert_eq!(again.matches("sending").count(), 3, "{again}");

    let third = bed.deploy("1.1.1").await;
    assert_eq!(third.summary.state, TaskState::Succeeded);
    let cached = bed.log(third.summary.id, "@packages").await;
    assert_eq!(
        (cached.matches("sending").count(), cached.matches("has shop-web 1.1.0 already").count()),
        (0, 3),
        "{cached}"
    );
    bed.engine.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_step_stops_what_follows_and_says_why() {
    let steps = json!([
        { "name": "first", "uses": "run-script@1", "on": { "role": "web" }, "with": { "script": "echo out; echo err >&2; exit 3" } },
        { "name": "second", "uses": "run-script@1", "on": { "role": "web" }, "with": { "script": "true" } },
        { "name": "clean-up", "uses": "run-script@1", "on": { "role": "web" }, "when": "always", "with": { "script": "echo cleaned" } },
    ]);
    let bed = bed(2, steps, json!([])).await;
    let detail = bed.deploy("1.0.0").await;
    assert_eq!(detail.summary.state, TaskState::Failed);
    let states: Vec<_> = detail.steps.iter().map(|step| step.state).collect();
    assert_eq!(states, [RunState::Failed, RunState::Skipped, RunState::Succeeded]);
    assert!(detail.steps[0].runs[0].error.as_deref().unwrap().contains('3'), "{:?}", detail.steps[0].runs[0].error);
    let log = bed.log(detail.summary.id, "first/web0").await;
    assert!(log.contains("out\n") && log.contains("err\n"), "{log}");
    bed.engine.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_ends_the_command_on_the_machine_within_seconds() {
    let steps = json!([{ "name": "long", "uses": "run-script@1", "on": { "role": "web" },
        "with": { "script": "echo started; echo $$ > \"$HOME/pid\"; sleep 600" } }]);
    let bed = bed(1, steps, json!([])).await;
    let id = bed.start("1.0.0").await;
    let mut follower = bed.engine.events(Some(0));
    while !bed.log(id, "long/web0").await.contains("started") {
        follower.next().await;
    }
    let before = std::time::Instant::now();
    bed.engine.cancel(id).await.unwrap();
    let detail = bed.ended(id).await;
    assert_eq!(detail.summary.state, TaskState::Cancelled, "{:?}", detail.summary.error);
    assert!(before.elapsed() < Duration::from_secs(20), "{:?}", before.elapsed());
    let pid = std::fs::read_to_string(bed.targets[0].home().join("pid")).unwrap();
    assert!(!Path::new("/proc").join(pid.trim()).exists(), "the script still runs");
    bed.engine.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_machine_fails_the_barrier_before_anything_is_installed() {
    let steps = json!([{ "name": "web", "uses": "deploy-package@1", "on": { "role": "web" }, "with": { "package": "shop-web" } }]);
    let mut bed = bed(2, steps, json!([])).await;
    bed.push("shop-web.1.0.0.tar.gz", &[("a", "a")]).await;
    bed.targets[1].stop();
    let detail = bed.deploy("1.0.0").await;
    assert_eq!(detail.summary.state, TaskState::Failed);
    let barrier = detail.packages.as_ref().unwrap();
    assert_eq!((barrier.runs[0].state, barrier.runs[1].state), (RunState::Succeeded, RunState::Failed));
    assert!(barrier.runs[1].error.as_deref().unwrap().contains("cannot be reached"), "{:?}", barrier.runs[1].error);
    assert!(
        detail.steps[0].runs.iter().all(|run| run.started_ms.is_none()),
        "a step began without its packages everywhere"
    );
    bed.engine.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_with_another_host_key_is_refused_until_it_is_trusted() {
    let steps = json!([{ "name": "s", "uses": "run-script@1", "on": { "role": "web" }, "with": { "script": "true" } }]);
    let bed = bed(1, steps, json!([])).await;
    let name = MachineName::new("web0").unwrap();
    let mut machine = bed.engine.machine(&name).await.unwrap();
    let windlass_model::Connection::Ssh { host_key, .. } = &mut machine.connection else { panic!("not ssh") };
    *host_key = Some("SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA".into());
    bed.engine.put_machine(machine).await.unwrap();
    let detail = bed.deploy("1.0.0").await;
    let error = detail.steps[0].runs[0].error.clone().unwrap();
    assert!(error.contains("SHA256:AAAA") && error.contains(bed.targets[0].host_key()), "{error}");
    let seen = bed.engine.trust_machine(&name, None).await.unwrap();
    assert!(!seen.trusted && seen.fingerprint == bed.targets[0].host_key());
    assert!(bed.engine.trust_machine(&name, Some("SHA256:other")).await.is_err());
    assert!(bed.engine.trust_machine(&name, Some(&seen.fingerprint)).await.unwrap().trusted);
    assert_eq!(bed.deploy("1.0.1").await.summary.state, TaskState::Succeeded);
    bed.engine.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_tasks_take_turns_on_a_machine_and_the_second_names_the_first() {
    let steps = json!([{ "name": "s", "uses": "run-script@1", "on": { "role": "web" },
        "with": { "script": "while [ ! -e \"$HOME/go\" ]; do sleep 0.05; done" } }]);
    let bed = bed(1, steps, json!([])).await;
    let first = bed.start("1.0.0").await;
    bed.until(first, |detail| detail.steps[0].runs[0].state == RunState::Running).await;
    let second = bed.start("1.0.1").await;
    let waiting = bed.until(second, |detail| detail.summary.reason.is_some()).await;
    let reason = waiting.summary.reason.unwrap();
    assert_eq!(reason.holder, Some(first));
    assert!(reason.text.contains("task 1"), "{}", reason.text);
    std::fs::write(bed.targets[0].home().join("go"), "").unwrap();
    assert_eq!(bed.ended(first).await.summary.state, TaskState::Succeeded);
    assert_eq!(bed.ended(second).await.summary.state, TaskState::Succeeded);
    bed.engine.close().await;
}
