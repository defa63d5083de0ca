//! What a plan says of the real engine, and that it changes nothing and asks no machine.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test ends at its first surprise"
)]

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use serde_json::{Value, json};
use windlass_engine::{Engine, EngineConfig};
use windlass_model::{
    ProjectName, RunState, TaskId, TaskState,
    scheduling::PlanView,
    task::TaskDetail,
    views::{DeployRequest, ReleaseRequest},
};
use windlass_packages::repository::PushOptions;
use windlass_store::{EmbeddedOptions, EmbeddedStore, Store};
use windlass_tests::{engine, guests, shop};

/// How long anything may take: far beyond what it does on a loaded machine.
const LONG: Duration = Duration::from_secs(120);

/// An engine over a folder, with local machines `m0`, `m1` … that keep what they hold in folders of their own.
struct Bed {
    folder: tempfile::TempDir,
    engine: Engine,
}

/// A machine of this host, its packages in a folder of its own.
fn local(folder: &Path, name: &str, role: &str) -> Value {
    let home = folder.join("machines").join(name);
    std::fs::create_dir_all(&home).unwrap();
    json!({ "name": name, "environments": ["test"], "roles": [role], "connection": { "local": { "home": home } } })
}

/// A machine that answers nobody.
fn unreachable(name: &str, role: &str) -> Value {
    let ssh = json!({ "host": "192.0.2.1", "user": "nobody", "auth": { "password": { "env": "NEVER_SET" } } });
    json!({ "name": name, "environments": ["test"], "roles": [role], "connection": { "ssh": ssh } })
}

impl Bed {
    async fn new(machines: impl FnOnce(&Path) -> Vec<Value>, steps: Value) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let engine = Engine::open(EngineConfig::new(folder.path().join("data"))).await.unwrap();
        for plugin in guests::plugins().await.unwrap() {
            engine.install_plugin(std::fs::read(plugin).unwrap().into()).await.unwrap();
        }
        let machines = machines(folder.path());
        let machines = machines.into_iter().map(|machine| serde_json::from_value(machine).unwrap()).collect();
        let variables = json!([{ "name": "Kind", "value": "web" }]);
        engine.apply(shop::workspace(machines, steps, variables).unwrap(), false).await.unwrap();
        Self { folder, engine }
    }

    async fn release(&self, version: &str, files: &[(&str, &str)]) {
        let bytes = shop::archive(files).unwrap();
        let name = format!("shop-web.{version}.tar.gz").parse().unwrap();
        self.engine.push_package(name, bytes.as_slice(), PushOptions::default()).await.unwrap();
        self.pin(version).await;
    }

    async fn pin(&self, version: &str) {
        let project: ProjectName = "shop".parse().unwrap();
        let request = ReleaseRequest { version: Some(version.into()), ..ReleaseRequest::default() };
        self.engine.create_release(&project, request).await.unwrap();
    }

    async fn plan(&self, version: &str) -> PlanView {
        tokio::time::timeout(LONG, self.engine.plan(request(version))).await.unwrap().unwrap()
    }

    async fn deploy(&self, version: &str) -> TaskDetail {
        let id = self.engine.deploy(request(version)).await.unwrap().id;
        self.ended(id).await
    }

    async fn ended(&self, id: TaskId) -> TaskDetail {
        let is_over = |task: &TaskDetail| task.summary.state.is_final();
        engine::until(&self.engine, id, LONG, is_over).await.unwrap()
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// The same folder under a new engine.
    async fn reopened(self) -> Self {
        let Self { folder, engine } = self;
        engine.close().await;
        drop(engine);
        let data = folder.path().join("data");
        let engine = engine::opened(|| EngineConfig::new(&data)).await.unwrap();
        Self { folder, engine }
    }
}

fn request(version: &str) -> DeployRequest {
    let request = json!({ "project": "shop", "environment": "test", "version": version });
    serde_json::from_value(request).unwrap()
}

/// What is to be moved: machine, packages, number held.
fn moves(plan: &PlanView) -> Vec<(String, Vec<String>, u32)> {
    let label = |delivery: &windlass_model::scheduling::PlannedDelivery| {
        delivery.packages.iter().map(|package| format!("{} {}", package.package, package.version)).collect()
    };
    plan.deliveries.iter().map(|delivery| (delivery.machine.to_string(), label(delivery), delivery.held)).collect()
}

fn at(machine: &str, packages: &[&str], held: u32) -> (String, Vec<String>, u32) {
    (machine.to_owned(), packages.iter().map(|package| (*package).to_owned()).collect(), held)
}

/// Installs a package whose name is a template, then runs a script on the same machines.
fn web_and_report() -> Value {
    json!([
        { "name": "web", "uses": "deploy-package@1", "on": { "role": "web" }, "with": { "package": "shop-#{Kind}" } },
        { "name": "report", "uses": "run-script@1", "on": { "role": "web" }, "with": { "script": "echo done" } },
        { "name": "elsewhere", "uses": "run-script@1", "on": { "role": "none" }, "with": { "script": "echo never" } },
    ])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_knows_what_machines_hold_and_what_was_learnt_and_asks_nobody() {
    let machines = |folder: &Path| vec![local(folder, "m0", "web"), local(folder, "m1", "web")];
    let bed = Bed::new(machines, web_and_report()).await;
    bed.release("1.0.0", &[("app.conf", "one\n")]).await;

    let one = ["shop-web 1.0.0"];
    let before = bed.plan("1.0.0").await;
    assert_eq!(moves(&before), [at("m0", &one, 0), at("m1", &one, 0)]);
    assert!(before.bytes > 0 && before.bytes == before.deliveries.iter().map(|delivery| delivery.bytes).sum::<u64>());
    assert!(before.runs.iter().all(|run| !run.learnt), "nothing was seen yet");
    let nodes: Vec<_> = before.runs.iter().map(|run| run.node.as_str()).collect();
    assert_eq!(nodes, ["web/m0", "web/m1", "report/m0", "report/m1"], "in the order in which they start");
    assert_eq!(before.skipped[0].step, "elsewhere");
    assert_eq!((before.state, before.error.as_deref()), (Some(TaskState::Succeeded), None));
    let there = before.deliveries.iter().filter_map(|delivery| delivery.there_in_ms).max();
    assert_eq!(there, Some(before.runs[0].starts_in_ms), "nothing starts before its packages are everywhere");
    let locks: Vec<_> = before.locks.iter().map(|lock| lock.resource.as_str()).collect();
    for lock in ["machine:m0", "machine:m1"] {
        assert!(locks.contains(&lock), "{locks:?}");
    }

    // What arrives is known from its acknowledgement on, and how long things took from their end on.
    let deployed = bed.deploy("1.0.0").await;
    assert_eq!(deployed.summary.state, TaskState::Succeeded, "{:?}", deployed.summary.error);
    let after = bed.plan("1.0.0").await;
    assert_eq!(moves(&after), [at("m0", &[], 1), at("m1", &[], 1)]);
    assert!(after.bytes == 0 && after.runs.iter().all(|run| run.learnt), "{after:#?}");
    assert!(after.ends_in_ms < before.ends_in_ms, "seconds were learnt where half a minute was a guess");

    // A restart forgets none of it, and a machine that answers nobody is planned for like any other.
    let bed = bed.reopened().await;
    bed.engine.put_machine(serde_json::from_value(unreachable("m2", "web")).unwrap()).await.unwrap();
    let third = bed.plan("1.0.0").await;
    assert_eq!(moves(&third), [at("m0", &[], 1), at("m1", &[], 1), at("m2", &one, 0)]);

    // It is a hint: the transfer asks the machine, and brings what is gone.
    std::fs::remove_dir_all(bed.folder.path().join("machines/m0/packages")).unwrap();
    let only: DeployRequest = DeployRequest { machines: vec!["m0".parse().unwrap()], ..request("1.0.0") };
    let id = bed.engine.deploy(only).await.unwrap().id;
    let again = bed.ended(id).await;
    assert_eq!(again.summary.state, TaskState::Succeeded, "{:?}", again.summary.error);
    let log = bed.engine.log(id, "@packages", 0, 100).await.unwrap();
    assert!(log.iter().any(|line| line.text.contains("m0: sending shop-web 1.0.0")), "{log:?}");
    bed.engine.close().await;
}

/// Everything in a folder's store, by table and key.
async fn stored(data: &Path) -> BTreeMap<(String, Vec<u8>), Vec<u8>> {
    let open = async {
        loop {
            match EmbeddedStore::open(&data.join("store"), &EmbeddedOptions::default()) {
                Ok(store) => return store,
                Err(error) => assert!(error.to_string().contains("in use"), "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let store = tokio::time::timeout(LONG, open).await.expect("the store stays locked");
    let mut all = BTreeMap::new();
    for table in store.tables().await.unwrap() {
        let mut scan = windlass_store::Scan::table(&table);
        loop {
            let page = store.scan(scan.clone()).await.unwrap();
            let last = page.records.last().map(|record| record.key.to_vec());
            for record in page.records {
                let (mut key, mut value) = (record.key.to_vec(), record.value.to_vec());
                if table.as_str() == "scheduler-snapshot" {
                    // Each start stores the same state under a new number.
                    let whole = String::from_utf8(value).unwrap();
                    value = whole.split_once(',').map_or("", |(_, state)| state).into();
                    key.drain(..key.len().min(8));
                }
                all.insert((table.to_string(), key), value);
            }
            match last {
                Some(last) if page.more => scan = scan.after(last),
                _ => break,
            }
        }
    }
    store.close().await.unwrap();
    all
}

/// Files below a folder with their sizes.
fn files(folder: &Path) -> Vec<(PathBuf, u64)> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(next) = open.pop() {
        for entry in std::fs::read_dir(next).into_iter().flatten().flatten() {
            match entry.metadata().unwrap() {
                about if about.is_dir() => open.push(entry.path()),
                about => found.push((entry.path(), about.len())),
            }
        }
    }
    found.sort();
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_changes_nothing_anywhere() {
    let machines = |folder: &Path| vec![local(folder, "m0", "web"), local(folder, "m1", "web")];
    let bed = Bed::new(machines, web_and_report()).await;
    bed.release("1.0.0", &[("app.conf", "one\n")]).await;
    assert_eq!(bed.deploy("1.0.0").await.summary.state, TaskState::Succeeded);
    bed.release("1.1.0", &[("app.conf", "two\n")]).await;
    // A start writes something of its own: what is compared lies between two ends.
    let bed = bed.reopened().await;
    let (data, folder) = (bed.data(), bed.folder);
    let looked =
        |folder: &Path| ["data/packages", "data/blobs", "machines"].map(|part| files(&folder.join(part))).concat();
    bed.engine.close().await;
    drop(bed.engine);
    let (records, there) = (stored(&data).await, looked(folder.path()));
    assert!(records.len() > 20 && !there.is_empty(), "there is something to be changed");

    let bed = Bed { engine: engine::opened(|| EngineConfig::new(&data)).await.unwrap(), folder };
    let events = bed.engine.events(None);
    for version in ["1.0.0", "1.1.0", "1.1.0"] {
        bed.plan(version).await;
    }
    assert_eq!(bed.engine.tasks(&Default::default()).await.unwrap().len(), 1, "no task came of it");
    drop(events);
    let Bed { engine, folder } = bed;
    engine.close().await;
    drop(engine);
    let after = stored(&data).await;
    let changed: Vec<_> =
        records.keys().chain(after.keys()).filter(|key| records.get(*key) != after.get(*key)).collect();
    assert!(changed.is_empty(), "{changed:?}");
    assert_eq!(looked(folder.path()), there);
}

/// 50 steps on 200 machines. An unoptimised build on a loaded machine is given much more than the 200 ms that are wanted.
#[tokio::test(flavor = "multi_thread")]
async fn a_large_plan_is_quick_and_as_large_a_deployment_goes_its_way() {
    let machines = |_: &Path| (0..200).map(|n| unreachable(&format!("m{n:03}"), "web")).collect();
    let step = |n: u32| match n % 10 {
        0 => json!({ "name": format!("s{n}"), "uses": "deploy-package@1", "on": { "role": "web" },
                     "with": { "package": "shop-#{Kind}" } }),
        _ => json!({ "name": format!("s{n}"), "uses": "run-script@1", "on": { "role": "web" },
                     "with": { "script": "true" } }),
    };
    let bed = Bed::new(machines, (0..50).map(step).collect()).await;
    bed.release("1.0.0", &[("app.conf", "one\n")]).await;
    let plan = bed.plan("1.0.0").await;
    assert_eq!((plan.runs.len(), plan.deliveries.len()), (50 * 200, 200));
    let mut took: Vec<_> = Vec::new();
    for _ in 0..5 {
        let begin = Instant::now();
        bed.plan("1.0.0").await;
        took.push(begin.elapsed());
    }
    took.sort();
    println!("plan of 50 steps on 200 machines by the engine: {took:?}");
    assert!(took[0] < Duration::from_secs(5), "{took:?}");

    // What can be planned can be queued, which is one commit, survive a restart, be cancelled, and fail.
    let tomorrow = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + Duration::from_secs(24 * 3600);
    let start_at_ms = Some(u64::try_from(tomorrow.as_millis()).unwrap());
    let later = DeployRequest { start_at_ms, ..request("1.0.0") };
    let id = bed.engine.deploy(later).await.unwrap().id;
    let bed = bed.reopened().await;
    bed.engine.cancel(id).await.unwrap();
    let cancelled = bed.ended(id).await;
    assert_eq!(cancelled.summary.state, TaskState::Cancelled);
    assert_eq!(states(&cancelled), [(RunState::Pending, 10_000)], "it had not begun");
    let failed = bed.deploy("1.0.0").await;
    assert_eq!(failed.summary.state, TaskState::Failed, "{:?}", failed.summary);
    assert_eq!(states(&failed), [(RunState::Pending, 10_000)], "no machine could be reached");
    bed.engine.close().await;
}

/// How many runs of the steps ended in which way.
fn states(task: &TaskDetail) -> Vec<(RunState, usize)> {
    let mut counts: Vec<(RunState, usize)> = Vec::new();
    for run in task.steps.iter().flat_map(|step| &step.runs) {
        match counts.iter_mut().find(|(state, _)| *state == run.state) {
            Some((_, count)) => *count += 1,
            None => counts.push((run.state, 1)),
        }
    }
    counts
}
