//! A run that was interrupted is run again from the top: its journal answers what was asked before.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test ends at its first surprise"
)]

mod common;

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use common::host;
use windlass_effects::{
    Answer, CancelToken, Effect, Entry, Exit, Grants, Layers, Line, LineSink, Masker, MemoryJournal, Outcome,
    Performer, SessionHandle, Stop,
};
use windlass_model::Capability;
use windlass_wasm::{LentSession, PluginHost, RunError, RunRequest};

/// Performs commands, and counts them.
#[derive(Default)]
struct Machine {
    performed: Mutex<Vec<&'static str>>,
}

#[async_trait]
impl Performer for Machine {
    async fn perform(&self, _: u64, effect: &Effect, _: &CancelToken) -> Answer {
        self.performed.lock().unwrap().push(effect.name());
        Ok(Outcome::Exit(Exit { stdout: b"hello\n".to_vec(), ..Exit::default() }))
    }
}

struct Quiet;

impl LineSink for Quiet {
    fn line(&self, _: Line) {}
    fn progress(&self, _: u64, _: u64, _: String) {}
}

/// Runs the plugin on a journal that holds these entries: how it ended, the journal, what was performed.
async fn run(
    host: &PluginHost,
    greeting: &str,
    recorded: Vec<Entry>,
) -> (Result<(), RunError>, Vec<Entry>, Vec<&'static str>) {
    let component: &[u8] = include_bytes!("released/hello-0.1.0.wasm");
    let plugin = host.load(component).await.unwrap();
    let capabilities: BTreeSet<_> = [Capability::Machine].into();
    let grants = Grants {
        capabilities: capabilities.clone(),
        sessions: [(SessionHandle(1), "web1".to_owned())].into(),
        ..Grants::default()
    };
    let (journal, machine) = (Arc::new(MemoryJournal::default()), Arc::new(Machine::default()));
    let layers = Layers::new(
        grants,
        journal.clone(),
        recorded,
        Masker::default(),
        machine.clone(),
        Arc::new(Quiet),
        CancelToken::new(),
    );
    let request = RunRequest {
        with: [("greeting".to_owned(), greeting.into())].into(),
        session: Some(LentSession { handle: SessionHandle(1), name: "web1".to_owned() }),
        grants: capabilities,
        ..RunRequest::default()
    };
    let ended = host.run(&plugin, request, Arc::new(layers)).await.map(drop);
    let performed = machine.performed.lock().unwrap().clone();
    (ended, journal.entries(), performed)
}

#[tokio::test]
async fn whatever_was_recorded_is_not_done_again() {
    let host = host();
    let (ended, entries, performed) = run(&host, "Hello", Vec::new()).await;
    ended.unwrap();
    assert_eq!(performed, ["run"]);
    assert_eq!(entries.iter().map(|entry| entry.effect.as_str()).collect::<Vec<_>>(), ["run", "output"]);
    // Cut off after every entry in turn.
    for kept in 0..=entries.len() {
        let recorded: Vec<_> = entries.iter().take(kept).cloned().collect();
        let (ended, added, performed) = run(&host, "Hello", recorded).await;
        ended.unwrap();
        assert_eq!(performed.len(), usize::from(kept == 0), "{kept} entries kept");
        assert_eq!(added.as_slice(), entries.get(kept..).unwrap(), "{kept} entries kept");
    }
}

#[tokio::test]
async fn a_guest_that_asks_for_something_else_is_stopped() {
    let host = host();
    let (_, entries, _) = run(&host, "Hello", Vec::new()).await;
    let (ended, _, performed) = run(&host, "Goodbye", entries).await;
    assert!(matches!(ended, Err(RunError::Stopped(Stop::Diverged(_)))), "{ended:?}");
    assert!(performed.is_empty());
}
