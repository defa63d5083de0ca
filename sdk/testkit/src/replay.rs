//! Runs that are interrupted: a guest is stopped at every point of its journal and run again, as the server would after
//! a crash or a wait. Whatever it does must be the same as without.

use std::collections::BTreeMap;

use windlass_effects::Entry;

use crate::{
    fake::{SUSPENDED, State},
    run::Run,
};

/// What a run has behind it, and where it is to be suspended.
#[derive(Debug, Clone, Default)]
pub(crate) struct Past {
    /// Its journal.
    pub(crate) recorded: Vec<Entry>,
    /// The state of the world after each entry.
    pub(crate) later: Vec<State>,
    /// Index of the effect at which it is suspended.
    pub(crate) suspend_at: Option<u64>,
}

/// A replay that went another way than the run before it.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{how} entry {index} the run went another way\n-- first run:\n{first}\n-- replayed:\n{replayed}")]
pub struct ReplayMismatch {
    /// How it was interrupted.
    pub how: &'static str,
    /// Where.
    pub index: usize,
    /// The run without interruption.
    pub first: String,
    /// The other one.
    pub replayed: String,
}

/// Runs once to the end, then interrupted at every index in three ways: as if the server had died there, suspended there
/// and taken up again, and suspended at every index one after the other in one life.
pub(crate) async fn at_every_index(run: impl AsyncFn(Past) -> Run) -> Result<Run, Box<ReplayMismatch>> {
    let first = run(Past::default()).await;
    let mut life = Past::default();
    for index in 0..=first.journal.len() {
        let died = Past { suspend_at: None, ..first.past(index) };
        same("replayed from", index, &first, &run(died).await)?;
        if index == first.journal.len() {
            break;
        }
        let at = u64::try_from(index).ok();
        let part = run(Past { suspend_at: at, ..Past::default() }).await;
        stopped_there(index, &first, &part)?;
        same("suspended at", index, &first, &run(part.past(index)).await)?;
        let part = run(Past { suspend_at: at, ..life.clone() }).await;
        stopped_there(index, &first, &part)?;
        life = life.and(&part, index);
    }
    same("suspended at each one up to", first.journal.len(), &first, &run(life).await)?;
    Ok(first)
}

impl Run {
    /// What is known of it after so many entries; one that is begun may follow them.
    fn past(&self, entries: usize) -> Past {
        let begun =
            |entry: &&Entry| usize::try_from(entry.index).is_ok_and(|index| index < entries) || self.is_begun(entry);
        Past {
            recorded: self.journal.iter().filter(begun).cloned().collect(),
            later: self.history.iter().skip(1).take(entries).cloned().collect(),
            suspend_at: None,
        }
    }

    fn is_begun(&self, entry: &Entry) -> bool {
        self.journal.last().is_some_and(|last| last.index == entry.index)
            && entry.state == windlass_effects::EntryState::Started
    }
}

impl Past {
    /// The same after one more part of the run.
    fn and(self, part: &Run, entries: usize) -> Self {
        let mut recorded: BTreeMap<u64, Entry> = self.recorded.into_iter().map(|entry| (entry.index, entry)).collect();
        recorded.extend(part.journal.iter().map(|entry| (entry.index, entry.clone())));
        let later = part.history.iter().skip(1).take(entries).cloned().collect();
        Self { recorded: recorded.into_values().collect(), later, suspend_at: None }
    }
}

/// A guest that is suspended must end there, whatever it thinks of it.
fn stopped_there(index: usize, first: &Run, part: &Run) -> Result<(), Box<ReplayMismatch>> {
    let lines = part.transcript.lines();
    let (stop, before) = match lines.split_last() {
        Some((stop, before)) => (stop.as_str(), before),
        None => ("", lines),
    };
    if part.ending.contains(SUSPENDED) && stop.contains(SUSPENDED) && first.transcript.lines().starts_with(before) {
        return Ok(());
    }
    Err(mismatch("suspended at", index, first, part))
}

fn same(how: &'static str, index: usize, first: &Run, replayed: &Run) -> Result<(), Box<ReplayMismatch>> {
    if first.transcript == replayed.transcript && first.ending == replayed.ending {
        return Ok(());
    }
    Err(mismatch(how, index, first, replayed))
}

fn mismatch(how: &'static str, index: usize, first: &Run, replayed: &Run) -> Box<ReplayMismatch> {
    Box::new(ReplayMismatch { how, index, first: first.to_string(), replayed: replayed.to_string() })
}
