//! Tasks written down for tests: what happens in a text file, line by line, so that a screen can be read beside it.
//!
//! ```text
//! task 12 deploy shop 1.4.0 to production
//! step web: web1 web2
//! ---
//! 0.0 task executing
//! 0.1 web running
//! 0.1 web/web1 running
//! 0.2 web/web1 | a line            (also 2| standard error, ! error, ~ warning, % debug)
//! 0.3 web/web1 progress 1/4 copying
//! 0.4 web/web2 waiting target-busy: web2 is busy with task 11
//! 0.9 web/web1 failed exit code 3
//! look                             the screen is looked at
//! remark lost the server           the renderer is told something that is not about the task
//! ```
//! `step packages` is the package barrier. A state that waits, and any state of a step, takes a reason; one that ended
//! badly an error.

use std::{collections::BTreeMap, path::Path};

use serde_json::json;
use windlass_model::task::{LogLevel, LogLine, PACKAGES_NODE, Progress, Reason, TaskChange, TaskDetail};

use crate::view::Event;

/// Second 0 of every scene: 2026-11-20, 19:30 UTC.
pub const START: u64 = 1_795_203_000_000;

/// A task and what happens to it.
pub struct Scene {
    /// The task before anything happened.
    pub task: TaskDetail,
    /// What happens, in order.
    pub acts: Vec<Act>,
}

/// One line of a scene.
pub enum Act {
    /// The server tells this.
    Event(Box<Event>),
    /// The screen is looked at, at this moment.
    Look(u64),
    /// The renderer is told this.
    Remark(String),
}

impl Scene {
    /// All scenes there are, by name.
    pub fn all() -> Vec<(String, Self)> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenes");
        let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        paths
            .into_iter()
            .map(|path| {
                let name = path.file_stem().unwrap().to_string_lossy().into_owned();
                (name, Self::parse(&std::fs::read_to_string(path).unwrap()))
            })
            .collect()
    }

    /// What the server tells, in order.
    pub fn events(&self) -> Vec<Event> {
        self.acts
            .iter()
            .filter_map(|act| match act {
                Act::Event(event) => Some((**event).clone()),
                _ => None,
            })
            .collect()
    }

    fn parse(text: &str) -> Self {
        let (head, body) = text.split_once("---\n").unwrap();
        let task = task(head);
        let mut lines = BTreeMap::new();
        let mut now = START;
        let mut acts = Vec::new();
        for line in body.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            if line == "look" {
                acts.push(Act::Look(now));
            } else if let Some(text) = line.strip_prefix("remark ") {
                acts.push(Act::Remark(text.to_owned()));
            } else {
                let (seconds, rest) = line.split_once(' ').unwrap();
                now = START + (seconds.parse::<f64>().unwrap() * 1000.0) as u64;
                let change = change(rest, now, &mut lines);
                acts.push(Act::Event(Box::new(Event { task: task.summary.id, at_ms: now, change })));
            }
        }
        Self { task, acts }
    }
}

/// The task that the head of a scene describes.
fn task(head: &str) -> TaskDetail {
    let mut lines = head.lines().filter(|line| !line.starts_with('#'));
    let (id, title) = lines.next().unwrap().strip_prefix("task ").unwrap().split_once(' ').unwrap();
    let mut steps: Vec<serde_json::Value> = lines.map(step).collect();
    let is_barrier = steps.first().is_some_and(|step| step["node"] == PACKAGES_NODE);
    let packages = is_barrier.then(|| steps.remove(0));
    serde_json::from_value(json!({
        "id": id.parse::<u64>().unwrap(),
        "what": { "kind": "script", "name": "scene", "sha256": "", "arguments": {} },
        "title": title,
        "state": "queued",
        "created_ms": START,
        "packages": packages,
        "steps": steps,
        "seq": 0,
    }))
    .unwrap()
}

fn step(line: &str) -> serde_json::Value {
    let (name, places) = line.strip_prefix("step ").unwrap().split_once(':').unwrap();
    let node = if name == "packages" { PACKAGES_NODE } else { name };
    let run = |place: &str| {
        let machine = (place != "server").then_some(place);
        json!({ "node": format!("{node}/{place}"), "run": "1.0.x.1", "machine": machine, "state": "pending" })
    };
    let runs: Vec<_> = places.split_whitespace().map(run).collect();
    json!({ "node": node, "name": name, "state": "pending", "runs": runs })
}

fn change(text: &str, now: u64, lines: &mut BTreeMap<String, u64>) -> TaskChange {
    let (node, rest) = text.split_once(' ').unwrap();
    let node = match node.strip_prefix("packages") {
        Some(rest) => format!("{PACKAGES_NODE}{rest}"),
        None if node == "task" => String::new(),
        None => node.to_owned(),
    };
    let (word, rest) = rest.split_once(' ').unwrap_or((rest, ""));
    if let Some(level) = level(word) {
        let n = lines.entry(node.clone()).or_default();
        let line = LogLine { n: *n, at_ms: now, level, text: rest.replace("\\e", "\u{1b}") };
        *n += 1;
        return TaskChange::Log { node, lines: vec![line] };
    }
    if word == "progress" {
        let (counts, note) = rest.split_once(' ').unwrap_or((rest, ""));
        let (done, total) = counts.split_once('/').unwrap();
        let (done, total) = (done.parse().unwrap(), total.parse().unwrap());
        let progress = Some(Progress { done, total, note: note.to_owned() });
        let state = windlass_model::RunState::Running;
        return TaskChange::Run { node, state, reason: None, error: None, progress };
    }
    state(node, word, rest, now)
}

fn level(sign: &str) -> Option<LogLevel> {
    Some(match sign {
        "|" => LogLevel::Info,
        "2|" => LogLevel::Stderr,
        "!" => LogLevel::Error,
        "~" => LogLevel::Warning,
        "%" => LogLevel::Debug,
        _ => return None,
    })
}

fn state(node: String, word: &str, rest: &str, now: u64) -> TaskChange {
    let is_step = !node.is_empty() && !node.contains('/');
    let ended_badly = matches!(word, "failed" | "unknown" | "timed_out");
    let text = Some(rest.to_owned()).filter(|rest| !rest.is_empty());
    let (reason, error) = if is_step || !ended_badly { (text, None) } else { (None, text) };
    let reason = reason.map(|text| {
        let (kind, text) = text.split_once(": ").unwrap();
        Reason::new(kind, text, now)
    });
    let state = serde_json::Value::from(word);
    if node.is_empty() {
        TaskChange::Task { state: serde_json::from_value(state).unwrap(), reason, error }
    } else if is_step {
        TaskChange::Step { node, state: serde_json::from_value(state).unwrap(), reason }
    } else {
        TaskChange::Run { node, state: serde_json::from_value(state).unwrap(), reason, error, progress: None }
    }
}
