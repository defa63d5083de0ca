//! A small world for the tests of this crate: answers every effect, remembers what was asked.

#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, reason = "shared by tests, each of which uses a part")]

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use windlass_effects::{
    Answer, CancelToken, Effect, Entry, EntryState, Exit, Failure, Grants, HttpResponse, JournalStore, Layers, Line,
    LineSink, LockGrant, Masker, MemoryJournal, Outcome, Performer, Promise, SessionHandle,
};
use windlass_model::{Capability, TaskId, TaskKind, TaskState, task::TaskSummary};
use windlass_script::{Ending, Limits, Request, Script, ScriptHost};

/// What a run did, in order.
pub type Transcript = Vec<String>;

/// Performs effects the same way every time, and counts what it did.
#[derive(Default)]
pub struct World {
    performed: Mutex<Vec<String>>,
    lines: Mutex<Vec<String>>,
    journal: MemoryJournal,
}

#[async_trait]
impl Performer for World {
    async fn perform(&self, index: u64, effect: &Effect, cancel: &CancelToken) -> Answer {
        self.note(effect);
        answer(index, effect, cancel).await
    }
}

impl World {
    fn note(&self, effect: &Effect) {
        self.performed.lock().unwrap().push(serde_json::to_string(effect).unwrap());
    }

    pub fn performed(&self) -> Vec<String> {
        self.performed.lock().unwrap().clone()
    }

    pub fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }

    pub fn entries(&self) -> Vec<Entry> {
        self.journal.entries()
    }
}

#[async_trait]
impl JournalStore for World {
    async fn record(&self, entry: &Entry, promise: Promise) -> Result<(), String> {
        self.journal.record(entry, promise).await
    }

    async fn local(&self, mut entry: Entry, effect: &Effect) -> Result<Answer, String> {
        self.note(effect);
        let answer = answer(entry.index, effect, &CancelToken::new()).await;
        entry.state = EntryState::Answered(answer.clone());
        self.journal.record(&entry, Promise::Durable).await?;
        Ok(answer)
    }
}

impl LineSink for World {
    fn line(&self, line: Line) {
        let mut lines = self.lines.lock().unwrap();
        if lines.len() < 50_000 {
            lines.push(format!("{:?}: {}", line.level, line.text));
        }
    }

    fn progress(&self, done: u64, total: u64, note: String) {
        self.lines.lock().unwrap().push(format!("progress {done}/{total} {note}"));
    }
}

async fn answer(index: u64, effect: &Effect, cancel: &CancelToken) -> Answer {
    Ok(match effect {
        Effect::Now => Outcome::Number(1_700_000_000_000 + index * 1_000),
        // A sleep of more than an hour lasts until it is cancelled; one of a day ignores even that.
        Effect::Sleep { ms } if *ms >= 86_400_000 => std::future::pending().await,
        Effect::Sleep { ms } if *ms >= 3_600_000 => {
            cancel.cancelled().await;
            return Err(Failure::cancelled());
        }
        Effect::Sleep { .. } | Effect::AwaitQuiet { .. } | Effect::Output { .. } | Effect::Release { .. } => {
            Outcome::Done
        }
        Effect::Variable { name } => Outcome::MaybeText((name != "none").then(|| format!("<{name}>"))),
        Effect::Expand { text } => Outcome::Text(text.replace("#{Name}", "shop")),
        Effect::HasSecret { name } => Outcome::Flag(name == "Api.Token"),
        Effect::Deploy { .. } => Outcome::Number(100 + index),
        Effect::Tasks { .. } => Outcome::Tasks(vec![task(8, TaskState::Executing), task(7, TaskState::Queued)]),
        Effect::AwaitTask { task: 404, .. } => Outcome::Tasks(vec![]),
        Effect::AwaitTask { task: 9, .. } => {
            return Err(Failure::new("timeout", "task 9 did not end within 2h").fix("wait longer"));
        }
        Effect::AwaitTask { task: id, .. } => Outcome::Tasks(vec![task(*id, TaskState::Succeeded)]),
        Effect::Acquire { .. } => Outcome::Lock(LockGrant { token: index + 1 }),
        Effect::Http { .. } => Outcome::Http(HttpResponse {
            status: 200,
            headers: vec![("content-type".into(), "application/json".into())],
            body: br#"{"free":true,"slots":[1,2]}"#.to_vec(),
            truncated: false,
        }),
        Effect::Run { .. } => Outcome::Exit(Exit { code: 0, stdout: b"Linux\n".to_vec(), ..Exit::default() }),
        other => {
            return Err(Failure::new("unavailable", format!("{} is not here", other.name())));
        }
    })
}

fn task(id: u64, state: TaskState) -> TaskSummary {
    TaskSummary {
        id: TaskId(id),
        what: TaskKind::Deployment {
            project: "shop".parse().unwrap(),
            version: "1.2.0".into(),
            environment: "test".parse().unwrap(),
            machines: vec![],
            skip: vec![],
        },
        title: "deploy shop 1.2.0 to test".into(),
        state,
        reason: None,
        error: None,
        created_ms: 1_000,
        started_ms: Some(2_000),
        ended_ms: None,
    }
}

/// Everything a test may want to say about a run.
pub struct Setup {
    pub limits: Limits,
    pub request: Request,
    pub cancel: CancelToken,
    pub recorded: Vec<Entry>,
    pub granted: Vec<Capability>,
}

impl Default for Setup {
    fn default() -> Self {
        let session = SessionHandle(1);
        Self {
            limits: Limits::default(),
            request: Request {
                task: Some(TaskId(5)),
                sessions: BTreeMap::from([("web1".into(), session)]),
                ..Request::default()
            },
            cancel: CancelToken::new(),
            recorded: vec![],
            granted: Capability::ALL.to_vec(),
        }
    }
}

/// Runs a text in a fresh world.
pub async fn run(source: &str, setup: Setup) -> (Ending, Arc<World>) {
    let world = Arc::new(World::default());
    let script = match Script::compile("test.rhai", source) {
        Ok(script) => Arc::new(script),
        Err(fault) => return (Ending::Failed(fault), world),
    };
    let grants = Grants {
        capabilities: setup.granted.into_iter().collect(),
        sessions: BTreeMap::from([(SessionHandle(1), "web1".into())]),
        packages: BTreeMap::new(),
        secrets: [windlass_effects::SecretHandle("Api.Token".into())].into(),
    };
    let layers = Layers::new(
        grants,
        Arc::clone(&world),
        setup.recorded,
        Masker::default(),
        Arc::clone(&world),
        Arc::clone(&world) as Arc<dyn LineSink>,
        setup.cancel,
    );
    let host = ScriptHost::new(setup.limits);
    let run = host.run(script, setup.request, Arc::new(layers));
    let ending = tokio::time::timeout(Duration::from_secs(120), run).await.expect("the run ends");
    (ending, world)
}

/// How a run ended, as a person reads it.
pub fn told(ending: &Ending) -> String {
    match ending {
        Ending::Finished => "finished".into(),
        Ending::Failed(fault) => fault.to_string(),
        Ending::Cancelled => "cancelled".into(),
        Ending::Stopped(stop) => format!("stopped: {stop}"),
    }
}
