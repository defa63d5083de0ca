//! What the journal promises of each entry, and when.

use std::collections::BTreeMap;

use windlass_model::manifest::LockMode;

use super::*;
use crate::{Content, HttpRequest, SessionHandle};

/// Notes every record in the order in which it is made.
#[derive(Default)]
struct Notes(Mutex<Vec<String>>);

#[async_trait]
impl JournalStore for Notes {
    async fn record(&self, entry: &Entry, promise: Promise) -> Result<(), String> {
        let state = if entry.state == EntryState::Started { "started" } else { "answered" };
        self.0.lock().unwrap().push(format!("{} {state}: {promise:?}", entry.effect));
        Ok(())
    }

    async fn local(&self, entry: Entry, _: &Effect) -> Result<Answer, String> {
        self.0.lock().unwrap().push(format!("{}: local", entry.effect));
        Ok(Ok(Outcome::Done))
    }
}

struct Willing;

#[async_trait]
impl Performer for Willing {
    async fn perform(&self, _: u64, _: &Effect, _: &CancelToken) -> Answer {
        Ok(Outcome::Done)
    }
}

fn file() -> Effect {
    let content = Content::Bytes(b"x".to_vec());
    Effect::WriteFile { session: SessionHandle(1), path: "a".into(), content, mode: 0o644 }
}

fn post() -> Effect {
    Effect::Http {
        request: HttpRequest {
            method: "POST".into(),
            url: "http://h/".into(),
            headers: vec![],
            body: vec![],
            timeout_ms: 1,
            max_body: 1,
            idempotency_key: None,
        },
    }
}

async fn records(recorded: Vec<Entry>, effects: &[Effect]) -> Vec<String> {
    let store = std::sync::Arc::new(Notes::default());
    let journal = Journaled::new(std::sync::Arc::clone(&store), Willing, recorded);
    for effect in effects {
        journal.call(effect, &CancelToken::new()).await.unwrap().unwrap();
    }
    let notes = store.0.lock().unwrap();
    notes.clone()
}

#[tokio::test]
async fn each_class_is_recorded_as_soon_as_it_needs() {
    let output = Effect::Output { name: "A".into(), value: "1".into(), sensitive: false };
    let lock = Effect::Acquire { resource: "r".into(), mode: LockMode::Shared, wait_ms: 1 };
    let cases: BTreeMap<&str, (Vec<Effect>, Vec<&str>)> = BTreeMap::from([
        ("pinned", (vec![Effect::Variable { name: "V".into() }], vec![])),
        ("observe", (vec![Effect::Now], vec!["now answered: Later"])),
        ("local", (vec![output], vec!["output: local"])),
        ("ticketed", (vec![file()], vec!["write_file started: Ordered", "write_file answered: Later"])),
        ("untracked", (vec![post()], vec!["http started: Durable", "http answered: Durable"])),
        ("wait", (vec![lock], vec!["acquire started: Durable", "acquire answered: Ordered"])),
    ]);
    for (class, (effects, expected)) in cases {
        assert_eq!(records(vec![], &effects).await, expected, "{class}");
    }
}

/// What goes to a machine may depend on what was seen: a replay must see the same, also after a power cut.
#[tokio::test]
async fn what_was_seen_is_durable_before_a_machine_is_told() {
    let seen = records(vec![], &[Effect::Now, file(), file()]).await;
    let started: Vec<_> = seen.iter().filter(|line| line.starts_with("write_file started")).collect();
    assert_eq!(started, ["write_file started: Durable", "write_file started: Ordered"]);

    // Seen before a restart: nobody knows whether that has reached the disk.
    let mut entry = Entry::started(0, &Effect::Now);
    entry.state = EntryState::Answered(Ok(Outcome::Number(1)));
    let again = records(vec![entry], &[Effect::Now, file()]).await;
    assert_eq!(again, ["write_file started: Durable", "write_file answered: Later"]);
}
