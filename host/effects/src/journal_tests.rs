//! What the journal promises of each entry, and when.

use std::collections::BTreeMap;

use windlass_model::manifest::LockMode;

use super::*;
use crate::{Command, Content, HttpRequest, Program, SessionHandle, Stdin, TAKEN_AS_DONE};

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
    let journal = Journaled::new(std::sync::Arc::clone(&store), Willing, Masker::default(), recorded);
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

/// A performer whose first answer is unknown, and the person who is asked about it.
struct Asked {
    verdict: Verdict,
    performed: Mutex<Vec<(u64, u32)>>,
}

#[async_trait]
impl Performer for Asked {
    async fn perform(&self, _: u64, _: &Effect, _: &CancelToken) -> Answer {
        Ok(Outcome::Done)
    }

    async fn attempt(&self, call: Call<'_>, _: &CancelToken) -> Attempt {
        self.performed.lock().unwrap().push((call.index, call.tries));
        if call.tries > 0 {
            return Attempt::Answered(Ok(Outcome::Flag(true)));
        }
        Attempt::Answered(Err(Failure::new(UNKNOWN_OUTCOME, "nobody knows")))
    }

    async fn undecided(&self, _: Call<'_>, failure: &Failure, _: &CancelToken) -> Verdict {
        assert_eq!(failure.code, UNKNOWN_OUTCOME);
        self.verdict.clone()
    }
}

fn decided(choice: DecidedAs) -> Verdict {
    Verdict::Decided(Decided { choice, by: "ann".into(), notes: "seen".into() })
}

/// What a run that asks for this effect is answered, what is recorded of it, and which tries were made.
async fn asked(
    verdict: Verdict,
    effect: &Effect,
    recorded: Vec<Entry>,
) -> (Result<Answer, Stop>, Vec<Entry>, Vec<(u64, u32)>) {
    let store = std::sync::Arc::new(MemoryJournal::default());
    let performer = std::sync::Arc::new(Asked { verdict, performed: Mutex::default() });
    let journal = Journaled::new(store.clone(), performer.clone(), Masker::default(), recorded);
    let answer = journal.call(effect, &CancelToken::new()).await;
    let performed = performer.performed.lock().unwrap().clone();
    (answer, store.entries(), performed)
}

#[tokio::test]
async fn a_persons_word_becomes_the_answer() {
    for effect in [post(), file()] {
        let (answer, entries, performed) = asked(decided(DecidedAs::Done), &effect, vec![]).await;
        assert_eq!(answer.unwrap().ok(), effect.taken_as_done(0));
        assert_eq!(entries[0].decided.as_ref().map(|by| by.by.as_str()), Some("ann"));
        assert_eq!(performed, [(0, 0)], "it was not done again");

        let (answer, entries, performed) = asked(decided(DecidedAs::Retry), &effect, vec![]).await;
        assert_eq!((answer.unwrap(), entries[0].tries), (Ok(Outcome::Flag(true)), 1));
        assert_eq!(performed, [(0, 0), (0, 1)], "once more, under a ticket of its own");

        let (answer, ..) = asked(decided(DecidedAs::Fail), &effect, vec![]).await;
        let failure = answer.unwrap().unwrap_err();
        assert_eq!(
            (failure.code.as_str(), failure.message.as_str()),
            ("taken-as-failed", "nobody knows; ann took it as failed (seen)")
        );

        let (answer, entries, _) = asked(Verdict::Suspended("ann answers".into()), &effect, vec![]).await;
        assert_eq!(answer.unwrap_err(), Stop::Suspended("ann answers".into()));
        assert_eq!(entries[0].state, EntryState::Started, "nothing is known yet");

        let (answer, ..) = asked(Verdict::Nobody, &effect, vec![]).await;
        assert_eq!(answer.unwrap().unwrap_err().code, UNKNOWN_OUTCOME);
    }
}

#[test]
fn what_is_made_up_for_a_person_can_be_told_from_what_was_received() {
    let run = |capture| Effect::Run {
        session: SessionHandle(1),
        command: Command {
            program: Program::Argv(vec!["deploy".into()]),
            env: BTreeMap::new(),
            stdin: Stdin::Empty,
            cwd: None,
            timeout_ms: None,
            capture,
            quiet: false,
        },
    };
    let exit = |effect: &Effect| match effect.taken_as_done(0) {
        Some(Outcome::Exit(exit)) => (exit.code, exit.truncated),
        other => panic!("{other:?}"),
    };
    assert_eq!((exit(&run(0)), exit(&run(1024))), ((0, false), (0, true)), "output that was asked for is missing");
    match post().taken_as_done(0) {
        Some(Outcome::Http(response)) => {
            assert!(response.truncated && response.headers.iter().any(|(name, _)| name == TAKEN_AS_DONE));
        }
        other => panic!("{other:?}"),
    }
    let substitute = Effect::Substitute { session: SessionHandle(1), root: "a".into(), globs: Vec::new() };
    assert_eq!(substitute.taken_as_done(0), None, "nobody can make up what it changed");
    assert!(substitute.can_be_retried());
}

#[tokio::test]
async fn after_a_crash_only_what_nobody_remembers_is_asked_about() {
    let started = |effect: &Effect| vec![Entry::started(0, effect)];
    // The machine knows its ticket: it is asked, and only then the person.
    let (_, _, performed) = asked(decided(DecidedAs::Done), &file(), started(&file())).await;
    assert_eq!(performed, [(0, 0)]);
    // A stranger does not: it is not sent again without a word.
    let (answer, _, performed) = asked(decided(DecidedAs::Done), &post(), started(&post())).await;
    assert!(matches!(answer.unwrap(), Ok(Outcome::Http(_))) && performed.is_empty());
    let (_, _, performed) = asked(decided(DecidedAs::Retry), &post(), started(&post())).await;
    assert_eq!(performed, [(0, 1)]);
}

#[tokio::test]
async fn a_mismatch_tells_both_sides_in_words() {
    let entry = Entry::started(0, &Effect::Sleep { ms: 5 });
    let journal = Journaled::new(MemoryJournal::default(), Willing, Masker::default(), [entry]);
    let stop = journal.call(&Effect::Sleep { ms: 6 }, &CancelToken::new()).await.unwrap_err().to_string();
    let (recorded, asked) = ("recorded sleep 5 ms [", "asked sleep 6 ms [");
    assert!(stop.starts_with("no longer matches its journal at entry 0: ") && stop.contains(recorded), "{stop}");
    assert!(stop.contains(asked), "{stop}");
}
