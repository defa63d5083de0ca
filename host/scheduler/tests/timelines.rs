//! Scenarios as data: each file under `tests/data` holds limits, tasks, what befalls them, and the timeline that is
//! expected. `WINDLASS_BLESS=1` writes the timelines that are found.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod common;

use std::{collections::BTreeMap, fs, path::Path};

use common::{Scene, StepWords, run, step};
use serde::Deserialize;
use windlass_model::{
    RunCondition, RunState, TaskId, TaskState,
    manifest::{LockMode, LockNeed, LockScope},
};
use windlass_scheduler::{Decision, Isolation, Parent, Settings, StepPlan, TaskPlan, WaitOn};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    /// What it is about.
    about: String,
    #[serde(default)]
    settings: BTreeMap<String, u64>,
    tasks: Vec<Task>,
    /// How long runs take, by `step/machine`; the others take 10.
    #[serde(default)]
    takes: BTreeMap<String, u64>,
    #[serde(default)]
    events: Vec<Happens>,
    timeline: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Task {
    /// Number; a range such as `1-50` makes many.
    id: String,
    #[serde(default)]
    at: u64,
    /// `{n}` stands for the number.
    project: String,
    #[serde(default)]
    max_parallelism: Option<u32>,
    /// The task whose first run queued it.
    #[serde(default)]
    parent: Option<u64>,
    steps: Vec<Step>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    name: String,
    on: String,
    #[serde(default)]
    with_previous: bool,
    #[serde(default)]
    child: bool,
    #[serde(default)]
    packages: bool,
    #[serde(default)]
    window: Option<u32>,
    #[serde(default)]
    when: Option<RunCondition>,
    /// `exclusive`, `shared`, or `resource name`.
    #[serde(default)]
    isolation: Option<String>,
    #[serde(default)]
    hold: Option<LockScope>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Happens {
    at: u64,
    #[serde(default)]
    cancel: Option<u64>,
    /// The first run of a task waits for the ends of others.
    #[serde(default)]
    waits: Option<(u64, Vec<u64>)>,
}

fn plan_step(from: &Step, n: u64) -> StepPlan {
    let mut plan = step(&from.name, &from.on.replace("{n}", &n.to_string()));
    if from.with_previous {
        plan = plan.with_previous();
    }
    plan.child = from.child;
    plan.needs_packages = from.packages;
    plan.window = from.window;
    plan.condition = from.when.unwrap_or_default();
    plan.hold = from.hold.unwrap_or_default();
    plan.isolation = match from.isolation.as_deref() {
        None | Some("exclusive") => Isolation::Exclusive,
        Some("shared") => Isolation::Shared,
        Some(name) => {
            Isolation::Resources(vec![LockNeed::new(name.replace("{n}", &n.to_string()), LockMode::Exclusive)])
        }
    };
    plan
}

fn settings(from: &File) -> Settings {
    let mut value = serde_json::to_value(Settings::for_cores(2)).unwrap();
    for (name, limit) in &from.settings {
        assert!(value.get(name).is_some(), "no setting {name}");
        value[name] = (*limit).into();
    }
    serde_json::from_value(value).unwrap()
}

fn scene(file: &File) -> Scene {
    let mut scene = Scene::with(settings(file));
    for task in &file.tasks {
        let (from, to) = task.id.split_once('-').unwrap_or((&task.id, &task.id));
        for n in from.parse::<u64>().unwrap()..=to.parse().unwrap() {
            let project = task.project.replace("{n}", &n.to_string());
            let steps = task.steps.iter().map(|step| plan_step(step, n)).collect();
            let mut plan: TaskPlan = common::deploy(&project, "1.0.0", steps);
            plan.max_parallelism = task.max_parallelism;
            plan.parent = task.parent.map(|parent| Parent { run: run(parent, 0, 0), detached: false });
            scene = scene.task(task.at, n, plan);
        }
    }
    for (node, ms) in &file.takes {
        scene = scene.takes(node, *ms);
    }
    for happens in &file.events {
        if let Some(task) = happens.cancel {
            scene = scene.cancel(happens.at, task);
        }
        if let Some((task, others)) = &happens.waits {
            let on = WaitOn::Tasks(others.iter().copied().map(TaskId).collect());
            scene = scene.waits(happens.at, run(*task, 0, 0), on);
        }
    }
    scene
}

/// What is done and how it ends: one line a moment, and the makespan.
fn timeline(scene: Scene) -> Vec<String> {
    let mut lines: BTreeMap<u64, Vec<String>> = BTreeMap::new();
    let mut last = 0;
    for (at, words, decision) in scene.play() {
        last = at;
        let shown = match &decision {
            Decision::StartRun { .. }
            | Decision::StopRun { .. }
            | Decision::Acquire { .. }
            | Decision::ResumeRun { .. } => true,
            Decision::RunState { state, .. } => *state == RunState::Succeeded || *state == RunState::Failed,
            Decision::TaskFinished { .. } => true,
            Decision::TaskState { state, .. } => *state == TaskState::Cancelling,
            _ => false,
        };
        if shown {
            let words = words.split(" #").next().unwrap().to_owned();
            lines.entry(at).or_default().push(words);
        }
    }
    let mut told: Vec<_> = lines.into_iter().map(|(at, words)| format!("{at} | {}", words.join(" | "))).collect();
    if told.len() > 15 {
        told = Vec::new();
    }
    told.push(format!("all over at {last}"));
    told
}

#[test]
fn every_scenario_takes_the_expected_course() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 9);
    for path in files {
        let text = fs::read_to_string(&path).unwrap();
        let file: File = serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let found = timeline(scene(&file));
        if std::env::var_os("WINDLASS_BLESS").is_some() {
            let head = text.split("timeline:").next().unwrap();
            let lines: String = found.iter().map(|line| format!("  - \"{line}\"\n")).collect();
            fs::write(&path, format!("{head}timeline:\n{lines}")).unwrap();
        } else {
            assert_eq!(found, file.timeline, "{}: {}", path.display(), file.about);
        }
    }
}

/// Fifty projects on one host: what each way of sharing it is worth.
#[test]
fn fifty_projects_on_one_host() {
    let makespan = |name: &str| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/data/fifty-{name}.yaml"));
        let file: File = serde_saphyr::from_str(&fs::read_to_string(path).unwrap()).unwrap();
        scene(&file).play().last().unwrap().0
    };
    let names = ["mutex", "bypass", "deployment", "resources"];
    let spans = names.map(makespan);
    println!("makespans of fifty projects on one host: {:?}", names.iter().zip(spans).collect::<Vec<_>>());
    let [mutex, bypass, deployment, resources] = spans;
    assert_eq!(mutex, deployment, "one machine is never idle either way");
    assert!(resources * 5 <= mutex, "declared resources are at least five times as fast as the mutex");
    assert!(bypass <= resources);
}

/// While deployments hold their machine to the end, no two of them are mixed.
#[test]
fn deployments_that_hold_their_machine_do_not_mix() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/fifty-deployment.yaml");
    let file: File = serde_saphyr::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let mut open = None;
    for (at, words, decision) in scene(&file).play() {
        match decision {
            Decision::StartRun { run, .. } => {
                assert!(open.is_none_or(|task| task == run.task), "at {at}: {words}");
                open = Some(run.task);
            }
            Decision::TaskFinished { task, .. } if open == Some(task) => open = None,
            _ => {}
        }
    }
}
