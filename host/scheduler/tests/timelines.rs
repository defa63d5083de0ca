//! Scenarios as data: each file under `tests/data` holds limits, tasks, what befalls them, and the timeline that is
//! expected. `WINDLASS_BLESS=1` writes the timelines that are found.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod common;
mod scenario;

use std::{collections::BTreeMap, fs};

use common::Scene;
use scenario::{File, scene};
use windlass_model::{RunState, TaskState};
use windlass_scheduler::Decision;

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
    let mut files: Vec<_> = fs::read_dir(scenario::folder()).unwrap().map(|entry| entry.unwrap().path()).collect();
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
        let file = File::named(&format!("fifty-{name}"));
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
    let file = File::named("fifty-deployment");
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
