//! Scenarios as data: limits, tasks and what befalls them. Played by the simulator here, and by a real server in
//! `tests/tests/e2e_timelines.rs`, so that the two cannot drift apart.

#![allow(dead_code, reason = "each test binary uses its own part")]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use windlass_model::{
    RunCondition, TaskId,
    manifest::{LockMode, LockNeed, LockScope},
};
use windlass_scheduler::{Isolation, Parent, Settings, StepPlan, TaskPlan, WaitOn};

use crate::common::{self, Scene, StepWords, run, step};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// What it is about.
    pub about: String,
    #[serde(default)]
    pub settings: BTreeMap<String, u64>,
    pub tasks: Vec<Task>,
    /// How long runs take, by `step/machine`; the others take 10.
    #[serde(default)]
    pub takes: BTreeMap<String, u64>,
    #[serde(default)]
    pub events: Vec<Happens>,
    pub timeline: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Task {
    /// Number; a range such as `1-50` makes many.
    pub id: String,
    #[serde(default)]
    pub at: u64,
    /// `{n}` stands for the number.
    pub project: String,
    #[serde(default)]
    pub max_parallelism: Option<u32>,
    /// The task whose first run queued it.
    #[serde(default)]
    pub parent: Option<u64>,
    pub steps: Vec<Step>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    pub name: String,
    pub on: String,
    #[serde(default)]
    pub with_previous: bool,
    #[serde(default)]
    pub child: bool,
    #[serde(default)]
    pub packages: bool,
    #[serde(default)]
    pub window: Option<u32>,
    #[serde(default)]
    pub when: Option<RunCondition>,
    /// `exclusive`, `shared`, or `resource name`.
    #[serde(default)]
    pub isolation: Option<String>,
    #[serde(default)]
    pub hold: Option<LockScope>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Happens {
    pub at: u64,
    #[serde(default)]
    pub cancel: Option<u64>,
    /// The first run of a task waits for the ends of others.
    #[serde(default)]
    pub waits: Option<(u64, Vec<u64>)>,
}

impl File {
    /// Reads a scenario by its name.
    pub fn named(name: &str) -> Self {
        let path = folder().join(format!("{name}.yaml"));
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// The same with at most so many tasks of each range.
    pub fn at_most(mut self, most: u64) -> Self {
        for task in &mut self.tasks {
            let numbers = task.numbers();
            let last = (*numbers.end()).min(numbers.start() + most - 1);
            task.id = format!("{}-{last}", numbers.start());
        }
        self
    }
}

impl Task {
    /// Its numbers: one, or a range.
    pub fn numbers(&self) -> std::ops::RangeInclusive<u64> {
        let (from, to) = self.id.split_once('-').unwrap_or((&self.id, &self.id));
        from.parse().unwrap()..=to.parse().unwrap()
    }
}

/// Where the scenarios are.
pub fn folder() -> PathBuf {
    let above = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
    let mut found = above.map(|folder| folder.join("host/scheduler/tests/data"));
    found.find(|folder| folder.is_dir()).expect("the scenarios are in host/scheduler/tests/data")
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

/// The scene that a file describes.
pub fn scene(file: &File) -> Scene {
    let mut scene = Scene::with(settings(file));
    for task in &file.tasks {
        for n in task.numbers() {
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
