//! What a suspended run holds of the server's memory: no thread, and under 2 KiB.
//!
//! Measured where nothing flatters, in processes of their own: a server that has just been opened on a folder with
//! suspended runs, and one that suspended them itself. Each is measured with few runs and with many, and what is
//! between counts, so what a server needs for itself drops out. A deployment's run is told from a script's, because each
//! script is a whole task with its plan and its views, while a deployment shares these among its runs.
//!
//! What the engine holds is what is allocated with it, less what is left once it and its runtime are gone. The store is in
//! memory meanwhile and stays, so it does not count: the real one keeps caches, of a fixed size whatever is suspended,
//! and how full these happen to be would be counted as the runs'. What a whole server takes over its real store is shown
//! beside it, and is not judged.
//!
//! 2,500 runs ordinarily, 10,000 in the long form; `WINDLASS_SUSPENDED=N cargo test --test suspended_memory -- --nocapture`
//! measures as many, and shows the numbers.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test ends at its first surprise"
)]

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::{StreamExt, stream};
use serde_json::json;
use windlass_engine::{Engine, EngineConfig};
use windlass_model::{
    EnvironmentName, Machine, ProjectName, TaskId, Workspace,
    task::TaskDetail,
    views::{DeployRequest, ReleaseRequest, ScriptRequest},
};
use windlass_store::{Batch, EmbeddedOptions, EmbeddedStore, MemoryStore, Scan, Store};
use windlass_tests::{engine, guests, shop};

/// What one run may hold.
const LIMIT: i64 = 2 << 10;
/// What a script may hold: it is a whole task, with a plan and views of its own.
const SCRIPT_LIMIT: i64 = 4 << 10;
/// Runs on each side of what is measured.
const FEW: usize = 500;
/// Scripts that end at once: what keeps the latest of something, such as the events for those who resume, is then full
/// of theirs, whatever was suspended before.
const OTHERS: usize = 2000;
/// Steps that a deployment runs at once on each machine.
const STEPS: usize = 10;
/// Runs of one deployment, at most: its views fit one commit.
const TOGETHER: usize = 1050;
/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(900);

const SLEEPS: &str = "info(\"before\");\nsleep(\"9h\");\ninfo(\"after\");";

/// What is suspended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Runs of few deployments.
    Runs,
    /// Scripts.
    Scripts,
}

/// How a server comes to have suspended runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// It suspended them.
    Live,
    /// It was opened on them.
    Opened,
    /// The same, over its real store.
    Whole,
}

/// What was measured of a process.
#[derive(Debug, Clone, Copy)]
struct Measured {
    /// Bytes that the engine holds; of the whole process where its store is the real one.
    held: i64,
    /// Memory of its own that the process has, in bytes.
    resident: i64,
    /// The most that it ever had.
    peak: i64,
    threads: i64,
}

const NUMBERS: &str = "measured:";

impl Measured {
    /// Of this process, whose allocator has given back what it can.
    fn now() -> Self {
        // SAFETY: both only look at the allocator's own tables, under its locks.
        #[allow(unsafe_code)]
        let info = unsafe {
            libc::malloc_trim(0);
            libc::mallinfo2()
        };
        let text = std::fs::read_to_string("/proc/self/status").unwrap();
        let status = |name: &str| -> i64 {
            let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.trim_start_matches(':').split_whitespace().next().unwrap().parse().unwrap()
        };
        Self {
            held: i64::try_from(info.uordblks + info.hblkhd).unwrap(),
            resident: status("RssAnon") << 10,
            peak: status("VmHWM") << 10,
            threads: status("Threads"),
        }
    }

    fn tell(self) {
        println!("\n{NUMBERS} {} {} {} {}", self.held, self.resident, self.peak, self.threads);
    }

    fn told(output: &str) -> Self {
        let line = output.lines().find_map(|line| line.strip_prefix(NUMBERS)).expect("it tells what it measured");
        let numbers: Vec<i64> = line.split_whitespace().map(|number| number.parse().unwrap()).collect();
        Self { held: numbers[0], resident: numbers[1], peak: numbers[2], threads: numbers[3] }
    }
}

/// Waits until what is allocated stays what it is: what runs leave behind is cleared away a moment later.
async fn lull() {
    let mut seen = Vec::new();
    while seen.len() < 300 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        seen.push(Measured::now().held);
        let last = &seen[seen.len().saturating_sub(10)..];
        if last.len() == 10 && last.iter().max().unwrap() - last.iter().min().unwrap() < 16 << 10 {
            return;
        }
    }
    panic!("what is allocated does not come to rest: {seen:?}");
}

fn config(data: &Path, store: Option<Arc<dyn Store>>) -> EngineConfig {
    let mut config = EngineConfig::new(data);
    config.settings.runs_at_once = 100_000;
    config.settings.targets_at_once = 100_000;
    config.settings.steps_at_once = 100_000;
    config.store = store;
    config
}

/// A store that keeps as little in memory as it can, so that few runs fill its caches already.
fn embedded(data: &Path) -> EmbeddedStore {
    let options = EmbeddedOptions { cache_bytes: 1 << 20, segment_bytes: 1 << 20, ..EmbeddedOptions::default() };
    std::fs::create_dir_all(data).unwrap();
    EmbeddedStore::open(&data.join("store"), &options).unwrap()
}

async fn copy(from: &dyn Store, to: &dyn Store) {
    for table in from.tables().await.unwrap() {
        let mut scan = Scan::table(&table).limit(100);
        loop {
            let page = from.scan(scan.clone()).await.unwrap();
            let mut batch = Batch::new();
            for record in &page.records {
                batch.put(&table, record.key.clone(), record.value.clone());
            }
            to.commit(batch).await.unwrap();
            match page.records.last() {
                Some(last) if page.more => scan = scan.after(last.key.clone()),
                _ => break,
            }
        }
    }
}

fn sleeps(task: &TaskDetail) -> bool {
    let mut runs = task.steps.iter().flat_map(|step| &step.runs);
    runs.all(|run| run.reason.as_ref().is_some_and(|reason| reason.kind == "sleep"))
}

/// Waits until all runs of all tasks are suspended.
async fn suspended(engine: &Engine, tasks: u64) {
    for task in 1..=tasks {
        engine::until(engine, TaskId(task), PATIENCE, sleeps).await.unwrap();
    }
}

async fn scripts(engine: &Engine, text: &str, count: usize) -> Vec<TaskId> {
    let queue = |_| async {
        let request = ScriptRequest { name: "sleepy".into(), text: text.into(), arguments: BTreeMap::new() };
        engine.run_script(request).await.unwrap().id
    };
    stream::iter(0..count).map(queue).buffer_unordered(64).collect().await
}

/// Runs so many scripts that nothing but these is among the latest of anything.
async fn others(engine: &Engine) {
    for task in scripts(engine, "info(\"here\");", OTHERS).await {
        engine::until(engine, task, PATIENCE, |task| task.summary.state.is_final()).await.unwrap();
    }
}

/// Deployments of steps that ask a URL which nobody serves, on many machines, and sleep until they ask again.
async fn deployments(engine: &Engine, home: &Path, count: usize) {
    for plugin in guests::plugins().await.unwrap() {
        engine.install_plugin(std::fs::read(plugin).unwrap().into()).await.unwrap();
    }
    let environments: Vec<_> = (0..count.div_ceil(TOGETHER)).map(|n| format!("test{n}")).collect();
    let machine = |n: usize| -> Machine {
        let connection = json!({ "local": { "home": home } });
        let name = format!("web{n}");
        let machine = json!({ "name": name, "environments": environments, "roles": ["web"], "connection": connection });
        serde_json::from_value(machine).unwrap()
    };
    let step = |n| {
        let with = json!({ "url": "http://127.0.0.1:9/", "attempts": 1000, "interval_seconds": 3600 });
        let start = if n == 0 { "after-previous" } else { "with-previous" };
        json!({ "name": format!("step{n}"), "uses": "http-check@1", "on": { "role": "web" }, "start": start, "with": with })
    };
    let steps: Vec<_> = (0..STEPS).map(step).collect();
    let machines = count / STEPS / environments.len();
    assert_eq!(machines * STEPS * environments.len(), count, "so many runs cannot be shared out");
    let machines = (0..machines).map(machine).collect();
    let mut workspace: Workspace = shop::workspace(machines, json!(steps), json!([])).unwrap();
    workspace.environments =
        environments.iter().map(|name| serde_json::from_value(json!({ "name": name })).unwrap()).collect();
    engine.apply(workspace, false).await.unwrap();
    let project: ProjectName = "shop".parse().unwrap();
    engine.create_release(&project, ReleaseRequest::default()).await.unwrap();
    for name in &environments {
        let environment: EnvironmentName = name.parse().unwrap();
        engine.deploy(DeployRequest::new(project.clone(), environment)).await.unwrap();
    }
}

/// What the parent asks for is in `WINDLASS_MEASURE`.
#[test]
#[ignore = "it is one of the processes that the other test measures"]
fn process() {
    let Ok(asked) = std::env::var("WINDLASS_MEASURE") else { return };
    let words: Vec<_> = asked.split(' ').collect();
    let count: usize = words[2].parse().unwrap();
    let kind = if words[0] == "Runs" { Kind::Runs } else { Kind::Scripts };
    let way = [Way::Live, Way::Opened, Way::Whole].into_iter().find(|way| format!("{way:?}") == words[1]).unwrap();
    let data = PathBuf::from(words[3]);
    let runtime = || {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        // Threads that did something a moment ago do not count as those of suspended runs.
        runtime.worker_threads(2).thread_keep_alive(Duration::from_millis(100)).enable_all().build().unwrap()
    };
    let tasks = if kind == Kind::Runs { count.div_ceil(TOGETHER) } else { count } as u64;
    let memory = Arc::new(MemoryStore::new());
    if way == Way::Opened {
        runtime().block_on(async {
            let store = embedded(&data);
            copy(&store, &*memory).await;
            store.close().await.unwrap();
        });
    }
    let with = runtime();
    let measured = with.block_on(async {
        let store: Arc<dyn Store> = if way == Way::Whole { Arc::new(embedded(&data)) } else { memory.clone() };
        let engine = Engine::open(config(&data, Some(store))).await.unwrap();
        match (way, kind) {
            (Way::Live, Kind::Runs) => deployments(&engine, &data.with_extension("home"), count).await,
            (Way::Live, Kind::Scripts) => drop(scripts(&engine, SLEEPS, count).await),
            (Way::Opened | Way::Whole, _) => {}
        }
        suspended(&engine, tasks).await;
        if way == Way::Live {
            others(&engine).await;
        }
        lull().await;
        // Not closed: that would close the store, which is looked at below.
        Measured::now()
    });
    with.shutdown_timeout(Duration::from_secs(60));
    let left = if way == Way::Whole { 0 } else { Measured::now().held };
    Measured { held: measured.held - left, ..measured }.tell();
    if way == Way::Live {
        runtime().block_on(async {
            let store = embedded(&data);
            copy(&*memory, &store).await;
            store.close().await.unwrap();
        });
    }
}

fn measure(kind: Kind, way: Way, count: usize, data: &Path) -> Measured {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "process", "--nocapture"])
        .env("WINDLASS_MEASURE", format!("{kind:?} {way:?} {count} {}", data.display()))
        // Guests that are stopped are errors, and would be told at length.
        .env("RUST_BACKTRACE", "0")
        // Its caches for each thread count as allocated, whatever is in them.
        .env("GLIBC_TUNABLES", "glibc.malloc.tcache_count=0")
        .output()
        .unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}\n{err}");
    Measured::told(&out)
}

/// One at a time: how far lists and tables grow for a moment depends on what else the machine does.
static ALONE: Mutex<()> = Mutex::new(());
/// How often a server that suspended its runs itself is measured, if need be: from its fullest moments, which come as
/// they come, it keeps up to two mebibytes. What its runs hold is there each time.
const TRIES: usize = 3;

/// What each of many more runs holds.
fn compare(kind: Kind, way: Way, many: usize, folder: &Path) -> i64 {
    let [few, all] = [FEW, FEW + many].map(|count| measure(kind, way, count, &folder.join(count.to_string())));
    let each = |of: fn(&Measured) -> i64| (of(&all) - of(&few)) / many as i64;
    let held = each(|measured| measured.held);
    println!(
        "{kind:?}, {way:?}: {held} bytes held by each of {many} suspended runs; resident {} each, at the most {}; \
         {} threads with {FEW}, {} with all; {all:?}",
        each(|measured| measured.resident),
        each(|measured| measured.peak),
        few.threads,
        all.threads,
    );
    // Threads of the runtime that did something a moment ago are still there.
    assert!(all.threads < few.threads + 20, "{} threads, and {} with few runs", all.threads, few.threads);
    held
}

fn suspends(kind: Kind, limit: i64) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let ordinarily = if std::env::var_os("WINDLASS_LONG").is_some() { 10_000 } else { 2500 };
    let many = std::env::var("WINDLASS_SUSPENDED").map_or(ordinarily, |count| count.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let folder = |number: usize| dir.path().join(number.to_string());
    let good = (0..TRIES).find(|number| compare(kind, Way::Live, many, &folder(*number)) < limit);
    let good = folder(good.expect("a server that suspended its runs holds too much of each"));
    let held = compare(kind, Way::Opened, many, &good);
    assert!(held < limit, "{held} bytes are held by each suspended run of a server that was opened on them");
    compare(kind, Way::Whole, many, &good);
}

#[test]
fn a_suspended_run_holds_no_thread_and_less_than_two_kibibytes() {
    suspends(Kind::Runs, LIMIT);
}

#[test]
fn a_suspended_script_holds_no_thread_and_little_memory() {
    suspends(Kind::Scripts, SCRIPT_LIMIT);
}
