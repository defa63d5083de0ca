//! The scenarios of the scheduler's simulator on a real server with real `sshd` targets: what happens is what was
//! simulated, in the same order and with the same overlaps. Both come from one file under `host/scheduler/tests/data`.
//!
//! Every run on a target stands at a gate of its own, a file that the test makes; so the test decides how long runs
//! last, as the simulator does, and nothing depends on how fast this machine is. What the simulator tells next must
//! come next; what must come before the test does something, such as opening a gate, is waited for.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test ends at its first surprise"
)]

#[path = "../../host/scheduler/tests/common/mod.rs"]
mod common;
#[path = "../../host/scheduler/tests/scenario/mod.rs"]
mod scenario;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use scenario::{File, Step};
use serde_json::{Value, json};
use windlass_client::Client;
use windlass_model::{
    ProjectName, RunState, TaskId,
    task::TaskChange,
    views::{DeployRequest, PushMode, ReleaseRequest},
};
use windlass_scheduler::Decision;
use windlass_tests::{events::Events, guests, server::Server, shop::Anything, sshd::Sshd};

/// Targets that all scenarios share: as many as the largest one has machines.
const TARGETS: usize = 10;
/// Tasks of a range at most: a handful shows what fifty do. `WINDLASS_LONG=1` plays all fifty.
fn at_most() -> u64 {
    if std::env::var_os("WINDLASS_LONG").is_some() { 50 } else { 5 }
}

/// How the steps that only hold child steps are named.
const PARENT: &str = "all-of-";

/// What the test does, and what is seen, in words such as `1: START web/web1`.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Queue(u64),
    Cancel(u64),
    Seen(String),
}

/// A task's number and a node, where a text tells of the end of a run: `1: web/web1 succeeded`.
fn ended(seen: &str) -> Option<(u64, &str)> {
    let (task, rest) = seen.split_once(": ")?;
    let (node, _) = rest.rsplit_once(' ').filter(|(node, _)| !node.starts_with("START"))?;
    Some((task.parse().ok()?, node))
}

/// What the simulator makes of a scenario. A task is queued just before the first that is decided about it.
fn simulated(file: &File) -> Vec<Part> {
    let children: BTreeSet<u64> =
        file.tasks.iter().filter(|task| task.parent.is_some()).flat_map(scenario::Task::numbers).collect();
    let cancelled: BTreeSet<u64> = file.events.iter().filter_map(|event| event.cancel).collect();
    let (mut queued, mut stopped, mut started) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    let mut parts = Vec::new();
    for (_, words, decision) in scenario::scene(file).play() {
        let task = decision.task().0;
        if queued.insert(task) && !children.contains(&task) {
            parts.push(Part::Queue(task));
        }
        let words = words.split([' ']).take_while(|word| !word.starts_with(['#', '('])).collect::<Vec<_>>().join(" ");
        match decision {
            Decision::TaskState { state: windlass_model::TaskState::Cancelling, .. }
                if cancelled.contains(&task) && stopped.insert(task) =>
            {
                parts.push(Part::Cancel(task));
            }
            Decision::StartRun { run, .. } if started.insert(run) => parts.push(Part::Seen(words)),
            Decision::RunState { run, state, .. } if state.is_final() && started.contains(&run) => {
                parts.push(Part::Seen(words));
            }
            Decision::TaskFinished { state, .. } => parts.push(Part::Seen(format!("task {task} {state}"))),
            _ => {}
        }
    }
    parts
}

/// A server, targets, and the numbers that its tasks have.
struct Stage {
    server: Server,
    client: Client,
    targets: Vec<Sshd>,
}

/// One scenario on that stage.
struct Play<'s> {
    stage: &'s Stage,
    name: &'s str,
    file: File,
    /// Machines of the scenario, each with the number of its target.
    machines: BTreeMap<String, usize>,
    /// Number of the task before the scenario's first.
    base: u64,
}

impl Play<'_> {
    fn target(&self, machine: &str) -> &Sshd {
        &self.stage.targets[self.machines[machine]]
    }

    /// Machines of a step of task number `n`; none on the server.
    fn places(step: &Step, n: u64) -> Vec<String> {
        let on = step.on.replace("{n}", &n.to_string());
        if on == "server" { Vec::new() } else { on.split_whitespace().map(str::to_owned).collect() }
    }

    /// Of this task alone: machines keep the roles that an earlier scenario gave them.
    fn role(&self, n: u64, step: &Step) -> String {
        format!("task{}-{}", self.base + n, step.name)
    }

    /// The release that task number `n` deploys.
    fn version(&self, n: u64) -> String {
        format!("1.{}.{n}", self.base)
    }

    fn project(&self, n: u64) -> Anything<ProjectName> {
        let task = self.file.tasks.iter().find(|task| task.numbers().contains(&n)).ok_or("no such task")?;
        Ok(task.project.replace("{n}", &n.to_string()).parse()?)
    }

    /// Where the gate of a run is, below the home of its target.
    fn gate(&self, n: u64, step: &str) -> String {
        format!("gates/{}.{n}.{step}", self.name)
    }

    /// What a step is on the real server.
    fn step(&self, n: u64, step: &Step) -> Value {
        // One that outlives the test ends with its target's folder.
        let gate = self.gate(n, &step.name);
        let script = format!("while [ ! -e ~/{gate} ]; do [ -d ~/gates ] || exit 1; sleep 0.02; done");
        let resource = step.isolation.as_deref().filter(|name| !matches!(*name, "exclusive" | "shared"));
        let mut real = if step.on == "server" {
            let deploy: Vec<_> = self.children(n).filter(|_| step.name == "children").collect();
            json!({ "uses": "train@1", "with": { "deploy": deploy, "environment": "test" } })
        } else if step.packages || resource.is_some() {
            let folder = resource.map_or_else(
                || format!("~/srv/{}/{}", self.name, step.name),
                |name| {
                    let (_, path) = name.split_once(':').expect("a resource is kind:path");
                    format!("~{}", path.replace("{n}", &n.to_string()))
                },
            );
            json!({ "uses": "deploy-package@1",
                    "with": { "package": "gated", "install_dir": folder, "force": true, "deploy": script } })
        } else {
            json!({ "uses": "run-script@1", "with": { "script": script } })
        };
        real["name"] = json!(step.name);
        if step.on != "server" {
            real["on"] = json!({ "role": self.role(n, step) });
        }
        if resource.is_none() {
            real["isolation"] = json!(step.isolation.as_deref().unwrap_or("exclusive"));
        }
        if step.with_previous {
            real["start"] = json!("with-previous");
        }
        if let Some(window) = step.window {
            real["rolling"] = json!({ "window": window });
        }
        if let Some(hold) = step.hold {
            real["hold"] = json!(hold);
        }
        if let Some(when) = step.when {
            real["when"] = json!(when);
        }
        real
    }

    /// The steps of a process. Where the simulator has child steps behind their first, a real process has them all in
    /// a step that does nothing itself.
    fn steps(&self, n: u64, steps: &[Step]) -> Vec<Value> {
        let mut real: Vec<Value> = Vec::new();
        for (step, next) in steps.iter().zip(steps.iter().skip(1).map(Some).chain([None])) {
            let mut one = self.step(n, step);
            if step.child {
                one.as_object_mut().unwrap().remove("on");
                real.last_mut().unwrap()["steps"].as_array_mut().unwrap().push(one);
            } else if next.is_some_and(|next| next.child) {
                let fields = one.as_object_mut().unwrap();
                let (on, rolling) = (fields.remove("on"), fields.remove("rolling"));
                real.push(
                    json!({ "name": format!("{PARENT}{}", step.name), "on": on, "rolling": rolling, "steps": [one] }),
                );
            } else {
                real.push(one);
            }
        }
        real
    }

    /// `project version` of the tasks that a task starts.
    fn children(&self, n: u64) -> impl Iterator<Item = String> {
        let of = self.file.tasks.iter().filter(move |task| task.parent == Some(n)).flat_map(scenario::Task::numbers);
        of.map(move |child| format!("{} {}", self.project(child).unwrap(), self.version(child)))
    }

    /// Applies machines and processes, and makes a release for each task.
    async fn prepare(&self) -> Anything<()> {
        let mut roles: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for task in &self.file.tasks {
            for n in task.numbers() {
                for step in &task.steps {
                    for machine in Self::places(step, n) {
                        roles.entry(machine).or_default().insert(self.role(n, step));
                    }
                }
            }
        }
        let machine = |(name, roles): (&String, &BTreeSet<String>)| {
            let target = self.target(name);
            std::fs::create_dir_all(target.home().join("gates"))?;
            let mut machine = serde_json::to_value(windlass_tests::shop::machine(name, "web", target)?)?;
            machine["roles"] = json!(roles);
            Anything::Ok(machine)
        };
        let machines = roles.iter().map(machine).collect::<Anything<Vec<_>>>()?;
        for task in &self.file.tasks {
            for n in task.numbers() {
                let mut process = json!({ "steps": self.steps(n, &task.steps) });
                if let Some(most) = task.max_parallelism {
                    process["max_parallelism"] = json!(most);
                }
                let project = self.project(n)?;
                let workspace = json!({
                    "environments": [{ "name": "test" }], "machines": machines,
                    "projects": [{ "project": { "name": project }, "process": process, "variables": [] }],
                });
                self.stage.client.apply(&serde_json::from_value(workspace)?, false).await?;
                let request = ReleaseRequest { version: Some(self.version(n)), ..ReleaseRequest::default() };
                self.stage.client.create_release(&project, &request).await?;
            }
        }
        Ok(())
    }

    /// Plays it; gives what was seen.
    async fn run(&self) -> Anything<()> {
        self.prepare().await?;
        let parts = simulated(&self.file);
        let mut seen = Seen {
            events: Events::follow(&self.stage.server, "/api/v1/events", None).await?,
            base: self.base,
            started: BTreeSet::new(),
            told: Vec::new(),
        };
        let words = |part: &Part| format!("{part:?}");
        let mut rest = parts.as_slice();
        while let Some((part, after)) = rest.split_first() {
            rest = after;
            match part {
                Part::Queue(n) => self.queue(*n).await?,
                Part::Cancel(n) => {
                    self.stage.client.cancel(TaskId(self.base + n)).await?;
                    // What is stopped on several machines ends in any order; that it ends so, and that nothing
                    // starts any more, is what counts.
                    let mut expected: Vec<_> = after.to_vec();
                    let mut found = Vec::new();
                    for _ in after {
                        found.push(Part::Seen(seen.next().await?));
                    }
                    expected.sort_by_key(words);
                    found.sort_by_key(words);
                    assert_eq!(found, expected, "{}: after its cancel", self.name);
                    rest = &[];
                }
                // The step that holds child steps is over on its machines in any order.
                Part::Seen(first) if first.contains("START") && self.has_children() => {
                    let starts = |part: &&Part| matches!(part, Part::Seen(words) if words.contains("START"));
                    let more = after.iter().take_while(starts);
                    let mut expected: Vec<_> = std::iter::once(part).chain(more).cloned().collect();
                    rest = &after[expected.len() - 1..];
                    let mut found = Vec::new();
                    for _ in &expected {
                        found.push(Part::Seen(seen.next().await?));
                    }
                    expected.sort_by_key(words);
                    found.sort_by_key(words);
                    assert_eq!(found, expected, "{}: after {:#?}", self.name, seen.told);
                }
                Part::Seen(expected) => {
                    if let Some((n, node)) = ended(expected) {
                        self.open(n, node)?;
                    }
                    let found = seen.next().await?;
                    assert_eq!(&found, expected, "{}: after {:#?}\nexpected {parts:#?}", self.name, seen.told);
                }
            }
        }
        Ok(())
    }

    fn has_children(&self) -> bool {
        self.file.tasks.iter().flat_map(|task| &task.steps).any(|step| step.child)
    }

    async fn queue(&self, n: u64) -> Anything<()> {
        let request = json!({ "project": self.project(n)?, "environment": "test", "version": self.version(n) });
        let request: DeployRequest = serde_json::from_value(request)?;
        let task = self.stage.client.deploy(&request).await?.id;
        assert_eq!(task, TaskId(self.base + n), "{}: tasks are numbered as in the file", self.name);
        Ok(())
    }

    /// Lets a run end. One on the server ends by itself.
    fn open(&self, n: u64, node: &str) -> Anything<()> {
        let (step, machine) = node.rsplit_once('/').ok_or("no node of a run")?;
        if machine != "server" {
            std::fs::write(self.target(machine).home().join(self.gate(n, step)), "")?;
        }
        Ok(())
    }
}

/// What the events of the server tell, in the words of the simulator.
struct Seen {
    events: Events,
    base: u64,
    started: BTreeSet<(u64, String)>,
    told: Vec<String>,
}

impl Seen {
    /// The next that matters: a first start, an end of what had started, or the end of a task.
    async fn next(&mut self) -> Anything<String> {
        loop {
            let event = self.events.next().await?.ok_or("the events ended")?;
            let Some(task) = event.data["task"].as_u64().and_then(|task| task.checked_sub(self.base)) else { continue };
            let Ok(change) = serde_json::from_value::<TaskChange>(event.data["change"].clone()) else { continue };
            let told = match change {
                TaskChange::Task { state, .. } if state.is_final() => format!("task {task} {state}"),
                TaskChange::Run { node, .. } if node.starts_with('@') || node.starts_with(PARENT) => continue,
                TaskChange::Run { node, state: RunState::Running, .. } => {
                    if !self.started.insert((task, node.clone())) {
                        continue;
                    }
                    format!("{task}: START {node}")
                }
                TaskChange::Run { node, state, .. }
                    if state.is_final() && self.started.contains(&(task, node.clone())) =>
                {
                    format!("{task}: {node} {state}")
                }
                _ => continue,
            };
            self.told.push(told.clone());
            return Ok(told);
        }
    }
}

impl Stage {
    async fn new() -> Anything<Self> {
        let targets = (0..TARGETS).map(|_| Sshd::start()).collect::<Result<Vec<_>, _>>()?;
        let server = Server::start().await?;
        let client = server.client()?;
        guests::plugins().await?;
        let train = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../plugins/target/wasm32-unknown-unknown/release/fixture_train.wasm");
        client.install_plugin(std::fs::read(train)?).await?;
        let archive = windlass_tests::shop::archive(&[("content", "x\n")])?;
        let size = archive.len() as u64;
        client.push_package("gated.1.0.0.tar.gz", std::io::Cursor::new(archive), size, None, PushMode::Fail).await?;
        Ok(Self { server, client, targets })
    }

    /// Starts the server again where a scenario has limits of its own.
    fn limit(&mut self, settings: &BTreeMap<String, u64>) -> Anything<()> {
        let mut text = "[limits]\n".to_owned();
        for (name, limit) in settings {
            let name = match name.as_str() {
                "task_cap" => "tasks",
                "steps_at_once" => "steps",
                "targets_at_once" => "machines",
                "runs_at_once" => "runs",
                other => return Err(format!("no scenario had the limit {other} so far").into()),
            };
            text.push_str(&format!("{name} = {limit}\n"));
        }
        let path = self.server.data().join("windlass.toml");
        std::fs::write(&path, text)?;
        self.server.restart_with(&["--config", &path.display().to_string()])
    }

    async fn play(&self, name: &str) -> Anything<()> {
        let file = File::named(name).at_most(at_most());
        let mut machines = BTreeMap::new();
        for task in &file.tasks {
            for n in task.numbers() {
                for machine in task.steps.iter().flat_map(|step| Play::places(step, n)) {
                    let next = machines.len();
                    machines.entry(machine).or_insert(next);
                }
            }
        }
        let last = self.client.tasks(&Default::default()).await?.items.first().map_or(0, |task| task.id.0);
        let begin = std::time::Instant::now();
        Play { stage: self, name, file, machines, base: last }.run().await?;
        println!("{name}: as simulated, in {:?}", begin.elapsed());
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happens_on_real_targets_is_what_was_simulated() -> Anything<()> {
    let mut stage = Stage::new().await?;
    // As many places as the simulator has, whatever this machine is.
    stage.limit(&[("task_cap".to_owned(), 5)].into())?;
    for name in [
        "four-web-servers-and-a-database",
        "ten-parallel-steps-three-at-once",
        "two-deployments-of-one-project",
        "fifty-mutex",
        "fifty-bypass",
        "fifty-deployment",
        "fifty-resources",
        "rolling-with-child-steps",
    ] {
        stage.play(name).await?;
    }
    for name in ["parent-of-children-at-a-cap-of-one", "cancelled-parent"] {
        stage.limit(&File::named(name).settings)?;
        stage.play(name).await?;
    }
    Ok(())
}
