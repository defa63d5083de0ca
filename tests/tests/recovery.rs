//! Runs that were open when a server or a machine went: they are taken up again, and soon.
//!
//! For the time that takes, 20 runs ordinarily; `WINDLASS_OPEN_RUNS=1000 cargo test --test recovery -- --nocapture` measures as many.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test ends at its first surprise"
)]

use std::{
    cell::Cell,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use serde_json::json;
use windlass_engine::{Engine, EngineConfig};
use windlass_model::{
    Machine, ProjectName, RunState, TaskId, TaskState,
    task::{PACKAGES_NODE, TaskDetail},
    views::{DeployRequest, ReleaseRequest},
};
use windlass_store::{Batch, EmbeddedOptions, EmbeddedStore, Key, OpenError, Store, TableName};
use windlass_tests::{guests, shop, sshd::Sshd};

/// Steps that run at once on each machine.
const STEPS: usize = 10;
/// The node of the run that is under way in the meantime.
const STEP: &str = "step/web0";

async fn open(data: &Path) -> Engine {
    opened(data).await.0
}

/// Also tells when the opening that went well began.
async fn opened(data: &Path) -> (Engine, Instant) {
    let began = Cell::new(Instant::now());
    let config = || {
        began.set(Instant::now());
        let mut config = EngineConfig::new(data);
        config.settings.runs_at_once = 10_000;
        config.settings.targets_at_once = 10_000;
        config.settings.steps_at_once = 10_000;
        config
    };
    (windlass_tests::engine::opened(config).await.unwrap(), began.get())
}

async fn until(engine: &Engine, task: TaskId, reached: impl Fn(&TaskDetail) -> bool) -> TaskDetail {
    windlass_tests::engine::until(engine, task, Duration::from_secs(300), reached).await.unwrap()
}

/// Waits until so many commands have come to block on the pipe.
async fn started(folder: &Path, runs: usize) {
    let all = async {
        while std::fs::read_dir(folder).unwrap().count() < runs {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(300), all).await.expect("not all commands started");
}

/// What changed while the server was away, and what becomes of the step.
struct Change {
    name: &'static str,
    make: fn(&Path),
    /// Windlass' folder on the machine from then on.
    home: &'static str,
    task: TaskState,
    run: RunState,
    /// Whose log says so.
    node: &'static str,
    says: &'static [&'static str],
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changed_meanwhile_is_a_clear_state_of_the_step() {
    let changes = [
        Change {
            name: "nothing",
            make: |_| {},
            home: "home",
            task: TaskState::Succeeded,
            run: RunState::Succeeded,
            node: STEP,
            says: &[],
        },
        Change {
            name: "the plugin's component is lost",
            make: |data| {
                let lost = walk(&data.join("blobs"));
                assert!(!lost.is_empty());
                lost.into_iter().for_each(|file| std::fs::remove_file(file).unwrap());
            },
            home: "home",
            task: TaskState::Failed,
            run: RunState::Failed,
            node: STEP,
            says: &[
                "the component of run-script 1.0.0",
                "is gone from the server",
                "fix: windlass plugin install run-script.wasm",
            ],
        },
        Change {
            name: "the machine is another one",
            make: |_| {},
            home: "elsewhere",
            task: TaskState::Failed,
            run: RunState::Unknown,
            node: STEP,
            says: &[
                "the machine web0 was this machine in",
                "is another one now",
                "nobody can know how this ended",
                "run sh:",
                "fix: make web0 what it was",
            ],
        },
        Change {
            name: "the machine is removed",
            make: forget_machine,
            home: "home",
            task: TaskState::Failed,
            run: RunState::Unknown,
            node: STEP,
            says: &[
                "the machine web0 was removed from the server after this step had begun on it",
                "nobody can know how this ended",
                "run sh:",
                "fix: look on the machine for what the step did, add web0 again with windlass machine add",
            ],
        },
        Change {
            name: "the package of a later step is lost",
            make: |data| {
                let lost = walk(&data.join("packages"));
                assert!(!lost.is_empty());
                lost.into_iter().for_each(|file| std::fs::remove_file(file).unwrap());
            },
            home: "home",
            task: TaskState::Failed,
            run: RunState::Succeeded,
            node: PACKAGES_NODE,
            says: &[
                "web0: the bytes of shop-web.1.0.0",
                "are missing in ",
                "; windlass package push shop-web.1.0.0",
                "--if-exists replace, with the very same file, and deploy again",
            ],
        },
    ];
    for change in changes {
        let dir = tempfile::tempdir().unwrap();
        let (data, pipe, here) = (dir.path().join("data"), dir.path().join("pipe"), dir.path().join("started"));
        std::fs::create_dir(&here).unwrap();
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let script = format!(": > {}/one; read line < {} || true", here.display(), pipe.display());
        let steps = json!([
            { "name": "step", "uses": "run-script@1", "on": { "role": "web" }, "with": { "script": script } },
            { "name": "install", "uses": "deploy-package@1", "on": { "role": "web" }, "with": { "package": "shop-web" } },
        ]);
        let machine = |home: &str| -> Machine {
            serde_json::from_value(json!({ "name": "web0", "environments": ["test"], "roles": ["web"],
                "connection": { "local": { "home": dir.path().join(home) } } }))
            .unwrap()
        };
        let engine = open(&data).await;
        for plugin in guests::plugins().await.unwrap() {
            engine.install_plugin(std::fs::read(plugin).unwrap().into()).await.unwrap();
        }
        let package = shop::archive(&[("page", "hello\n")]).unwrap();
        engine.push_package("shop-web.1.0.0.tar.gz".parse().unwrap(), &*package, Default::default()).await.unwrap();
        engine.apply(shop::workspace(vec![machine("home")], steps, json!([])).unwrap(), false).await.unwrap();
        let project: ProjectName = "shop".parse().unwrap();
        engine.create_release(&project, ReleaseRequest::default()).await.unwrap();
        let request = DeployRequest::new(project, "test".parse().unwrap());
        let task = engine.deploy(request).await.unwrap().id;
        started(&here, 1).await;
        // It is changed while the run has its connection: it is the next start that looks again.
        engine.put_machine(machine(change.home)).await.unwrap();
        engine.close().await;
        drop(engine);
        (change.make)(&data);
        drop(std::fs::OpenOptions::new().write(true).open(&pipe).unwrap());

        let engine = open(&data).await;
        let ended = until(&engine, task, |detail| detail.summary.state.is_final()).await;
        let log: Vec<_> =
            engine.log(task, change.node, 0, 100).await.unwrap().into_iter().map(|line| line.text).collect();
        let (log, run) = (log.join("\n"), &ended.steps[0].runs[0]);
        assert_eq!((ended.summary.state, run.state), (change.task, change.run), "{}: {log}\n{run:#?}", change.name);
        for text in change.says {
            assert!(log.contains(text), "{}: {text:?} is missing:\n{log}", change.name);
        }
        engine.close().await;
    }
}

/// There is no command that removes a machine: it is taken out of the store.
fn forget_machine(data: &Path) {
    let forget = async {
        // The engine may not have let go of its folder yet.
        let begin = Instant::now();
        let store = loop {
            match EmbeddedStore::open(&data.join("store"), &EmbeddedOptions::default()) {
                Ok(store) => break store,
                Err(OpenError::Locked { .. }) if begin.elapsed() < Duration::from_secs(20) => {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                Err(error) => panic!("{error}"),
            }
        };
        let mut batch = Batch::new();
        let (table, key) = (TableName::new("machines"), Key::of_text("web0"));
        batch.require_exists(&table, key.clone()).delete(&table, key);
        store.commit(batch).await.unwrap();
        store.close().await.unwrap();
    };
    tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(forget));
}

fn walk(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() { files.extend(walk(&path)) } else { files.push(path) }
    }
    files
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_whose_machine_is_away_is_suspended_and_goes_on_once_it_is_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = EngineConfig::new(dir.path().join("data"));
    config.hold = Duration::from_secs(1);
    let engine = Engine::open(config).await.unwrap();
    for plugin in guests::plugins().await.unwrap() {
        engine.install_plugin(std::fs::read(plugin).unwrap().into()).await.unwrap();
    }
    let mut target = Sshd::start().unwrap();
    let script = "echo run >> $HOME/runs; echo before; while [ ! -e $HOME/go ]; do sleep 0.05; done; echo after";
    let steps =
        json!([{ "name": "step", "uses": "run-script@1", "on": { "role": "web" }, "with": { "script": script } }]);
    let machines = vec![shop::machine("web0", "web", &target).unwrap()];
    engine.apply(shop::workspace(machines, steps, json!([])).unwrap(), false).await.unwrap();
    let project: ProjectName = "shop".parse().unwrap();
    engine.create_release(&project, ReleaseRequest::default()).await.unwrap();
    let request = DeployRequest::new(project, "test".parse().unwrap());
    let task = engine.deploy(request).await.unwrap().id;
    let runs = target.home().join("runs");
    let begun = async {
        while !runs.exists() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), begun).await.expect("the command did not begin");

    target.stop();
    let away = until(&engine, task, |detail| detail.steps[0].runs[0].reason.is_some()).await;
    let reason = away.steps[0].runs[0].reason.clone().unwrap();
    assert!(
        reason.text.starts_with("waits for machine") && reason.text.contains("cannot be reached"),
        "{}",
        reason.text
    );
    std::fs::write(target.home().join("go"), "").unwrap();
    target.restart().unwrap();
    let ended = until(&engine, task, |detail| detail.summary.state.is_final()).await;
    assert_eq!(ended.summary.state, TaskState::Succeeded, "{:?}", ended.summary.error);
    assert_eq!(std::fs::read_to_string(runs).unwrap(), "run\n", "it did not run twice");
    let log = engine.log(task, "step/web0", 0, 100).await.unwrap();
    let said: Vec<_> =
        log.iter().map(|line| line.text.as_str()).filter(|text| ["before", "after"].contains(text)).collect();
    assert_eq!(said, ["before", "after"]);
    engine.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn open_runs_are_taken_up_in_time() {
    let runs: usize = std::env::var("WINDLASS_OPEN_RUNS").map_or(20, |runs| runs.parse().unwrap());
    let machines = runs.div_ceil(STEPS);
    let runs = machines * STEPS;
    let dir = tempfile::tempdir().unwrap();
    let (pipe, here) = (dir.path().join("pipe"), dir.path().join("started"));
    std::fs::create_dir(&here).unwrap();
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    // Blocks without a second process or a clock until somebody opens the pipe for writing.
    let script = |step: usize| {
        format!(": > {}/#{{Machine.Name}}-{step}; read line < {} || true", here.display(), pipe.display())
    };
    let steps: Vec<_> = (0..STEPS)
        .map(|step| {
            let start = if step == 0 { "after-previous" } else { "with-previous" };
            json!({ "name": format!("step{step}"), "uses": "run-script@1", "on": { "role": "web" }, "start": start,
                    "isolation": "shared", "with": { "script": script(step) } })
        })
        .collect();
    let machine = |n: usize| -> Machine {
        let home = dir.path().join(format!("home{n}"));
        serde_json::from_value(json!({ "name": format!("web{n}"), "environments": ["test"], "roles": ["web"],
            "connection": { "local": { "home": home } } }))
        .unwrap()
    };
    let data = dir.path().join("data");
    let engine = open(&data).await;
    for plugin in guests::plugins().await.unwrap() {
        engine.install_plugin(std::fs::read(plugin).unwrap().into()).await.unwrap();
    }
    let workspace = shop::workspace((0..machines).map(machine).collect(), json!(steps), json!([])).unwrap();
    engine.apply(workspace, false).await.unwrap();
    let project: ProjectName = "shop".parse().unwrap();
    engine.create_release(&project, ReleaseRequest::default()).await.unwrap();
    let request = DeployRequest::new(project, "test".parse().unwrap());
    let task = engine.deploy(request).await.unwrap().id;
    started(&here, runs).await;
    engine.close().await;
    drop(engine);
    // Every command ends while there is no server: what it takes up is a result it has never seen.
    drop(std::fs::OpenOptions::new().write(true).open(&pipe).unwrap());

    let (engine, began) = opened(&data).await;
    let opened = began.elapsed();
    let ended = until(&engine, task, |detail| detail.summary.state.is_final()).await;
    let took = began.elapsed();
    println!(
        "{runs} open runs on {machines} machines: opened in {opened:?}, all taken up and their ends known in {took:?}"
    );
    assert_eq!(ended.summary.state, TaskState::Succeeded, "{:?}", ended.summary.error);
    assert_eq!(std::fs::read_dir(&here).unwrap().count(), runs, "none ran twice");
    engine.close().await;
}
