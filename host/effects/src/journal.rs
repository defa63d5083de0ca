//! The layer that records effects, and answers from the record when a run is replayed.
//!
//! It owns the order of things: what is recorded before an effect starts, what after it, and what must be on
//! disk at which moment. Where records are kept is the [`JournalStore`]'s business, when to replay the engine's.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    cancel::CancelToken,
    effect::{Effect, EffectClass},
    mask::Masker,
    outcome::{Answer, Failure, Outcome},
    undecided::{Decided, DecidedAs, UNKNOWN_OUTCOME, Verdict},
    waist::{Attempt, Call, Diverged, Performer, Stop},
};

/// Longest journal of a run. A guest that wants more is in a loop that should wait.
pub const MAX_ENTRIES: u64 = 10_000;

/// One effect of a run, as recorded.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Place in the journal, from 0.
    pub index: u64,
    /// Name of the effect.
    pub effect: String,
    /// Its class.
    pub class: EffectClass,
    /// SHA-256 of the effect's canonical JSON: a replay must ask for the same.
    pub digest: String,
    /// What was asked for, in words and masked.
    #[serde(default)]
    pub what: String,
    /// When it was first asked for, milliseconds since 1970 UTC. A wait counts from there.
    #[serde(default)]
    pub at_ms: u64,
    /// How often a person had it done once more.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub tries: u32,
    /// What a person decided last when nobody could know how it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decided: Option<Decided>,
    /// How far it came.
    pub state: EntryState,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde asks for")]
fn is_zero(tries: &u32) -> bool {
    *tries == 0
}

/// How far a recorded effect came.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EntryState {
    /// It was about to start, nothing more is known.
    Started,
    /// It was answered.
    Answered(Answer),
}

impl Entry {
    /// The entry of an effect that is about to start.
    #[must_use]
    pub fn started(index: u64, effect: &Effect) -> Self {
        Self {
            index,
            effect: effect.name().to_owned(),
            class: effect.class(),
            digest: digest(effect),
            what: effect.in_words(),
            at_ms: 0,
            tries: 0,
            decided: None,
            state: EntryState::Started,
        }
    }
}

/// SHA-256 of an effect, the same for equal effects in every process and release.
fn digest(effect: &Effect) -> String {
    // Maps in effects are ordered, so equal effects have equal JSON. Serializing them cannot fail.
    let json = serde_json::to_vec(effect).unwrap_or_default();
    hex::encode(Sha256::digest(&json))
}

/// How soon an entry must be safe. Entries keep their order, whatever their promise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Promise {
    /// With the next entry that promises more, or with the run's end: until then the world would answer the same again.
    Later,
    /// It survives a kill of the server once it is recorded, and a power cut once any later durable entry does.
    Ordered,
    /// It survives a power cut once it is recorded.
    Durable,
}

/// Keeps a run's journal.
#[async_trait]
pub trait JournalStore: Send + Sync {
    /// Records an entry.
    ///
    /// # Errors
    /// When the store cannot take it; the run must stop.
    async fn record(&self, entry: &Entry, promise: Promise) -> Result<(), String>;

    /// Performs a local effect in the same transaction as its record.
    ///
    /// # Errors
    /// When the store cannot take it; the run must stop.
    async fn local(&self, entry: Entry, effect: &Effect) -> Result<Answer, String>;

    /// The time, for entries.
    fn now_ms(&self) -> u64 {
        0
    }
}

/// Records what is new and replays what is recorded, on top of a performer.
pub struct Journaled<S, P> {
    store: S,
    performer: P,
    masker: Masker,
    recorded: BTreeMap<u64, Entry>,
    next: AtomicU64,
    /// Something was observed that a power cut might still take back.
    observed: AtomicBool,
}

impl<S: JournalStore, P: Performer> Journaled<S, P> {
    /// A journal with these entries recorded already; none for a new run.
    pub fn new(store: S, performer: P, masker: Masker, recorded: impl IntoIterator<Item = Entry>) -> Self {
        let recorded: BTreeMap<_, _> = recorded.into_iter().map(|entry| (entry.index, entry)).collect();
        let observed = recorded.values().any(|entry| entry.class == EffectClass::Observe);
        Self { store, performer, masker, recorded, next: AtomicU64::new(0), observed: AtomicBool::new(observed) }
    }

    /// Whether the next effect is one that is recorded already.
    #[must_use]
    pub fn replaying(&self) -> bool {
        self.recorded.contains_key(&self.next.load(Ordering::Relaxed))
    }

    /// Answers an effect, from the record or by performing it.
    ///
    /// # Errors
    /// [`Stop`] when the guest diverges from its journal, is to be suspended, or the journal cannot be kept.
    pub async fn call(&self, effect: &Effect, cancel: &CancelToken) -> Result<Answer, Stop> {
        if effect.class() == EffectClass::Pinned {
            return Ok(self.performer.perform(self.next.load(Ordering::Relaxed), effect, cancel).await);
        }
        let index = self.next.fetch_add(1, Ordering::Relaxed);
        if index >= MAX_ENTRIES {
            return Ok(Err(Failure::new("too-large", format!("a run may do at most {MAX_ENTRIES} things"))));
        }
        match self.recorded.get(&index) {
            Some(entry) => self.replay(index, entry, effect, cancel).await,
            None => self.perform_new(index, effect, cancel).await,
        }
    }

    fn entry(&self, index: u64, effect: &Effect) -> Entry {
        let mut entry = Entry::started(index, effect);
        entry.what = self.masker.mask(&entry.what).into_owned();
        entry.at_ms = self.store.now_ms();
        entry
    }

    async fn replay(&self, index: u64, entry: &Entry, effect: &Effect, cancel: &CancelToken) -> Result<Answer, Stop> {
        let asked = self.entry(index, effect);
        if (&asked.effect, &asked.digest) != (&entry.effect, &entry.digest) {
            return Err(Stop::Diverged(Diverged { index, recorded: entry.in_words(), asked: asked.in_words() }));
        }
        match &entry.state {
            EntryState::Answered(answer) => {
                self.performer.replayed(index, effect, answer);
                Ok(answer.clone())
            }
            EntryState::Started => {
                let lost = (entry.class == EffectClass::Untracked).then(|| unknown(effect));
                self.perform_and_record(entry.clone(), effect, lost, cancel).await
            }
        }
    }

    async fn perform_new(&self, index: u64, effect: &Effect, cancel: &CancelToken) -> Result<Answer, Stop> {
        let entry = self.entry(index, effect);
        match entry.class {
            EffectClass::Local => return self.store.local(entry, effect).await.map_err(Stop::Host),
            // Nothing to know about an observation before it is made.
            EffectClass::Observe | EffectClass::Pinned => {}
            // The machine knows its ticket, so the same guest that asks the same again does no harm. But a guest
            // asks the same only if what it has seen since is the same, too.
            EffectClass::Ticketed if !self.observed.load(Ordering::Relaxed) => {
                self.store.record(&entry, Promise::Ordered).await.map_err(Stop::Host)?;
            }
            EffectClass::Ticketed | EffectClass::Untracked | EffectClass::Wait => self.record_durably(&entry).await?,
        }
        self.perform_and_record(entry, effect, None, cancel).await
    }

    /// Performs until there is an answer to record. `lost` says why nobody can know how it ended the last time.
    async fn perform_and_record(
        &self,
        mut entry: Entry,
        effect: &Effect,
        mut lost: Option<Failure>,
        cancel: &CancelToken,
    ) -> Result<Answer, Stop> {
        loop {
            let call = Call { index: entry.index, since_ms: entry.at_ms, tries: entry.tries, effect };
            let failure = match lost.take() {
                Some(failure) => failure,
                None => match self.performer.attempt(call, cancel).await {
                    Attempt::Suspended(until) => return Err(Stop::Suspended(until)),
                    // An answer that only tells of the cancel is no fact about the world.
                    Attempt::Answered(Err(failure)) if failure.code == "cancelled" => return Ok(Err(failure)),
                    Attempt::Answered(Err(failure)) if failure.code == UNKNOWN_OUTCOME => failure,
                    Attempt::Answered(answer) => return self.answered(entry, answer).await,
                },
            };
            let decided = match self.performer.undecided(call, &failure, cancel).await {
                Verdict::Nobody => return self.answered(entry, Err(failure)).await,
                Verdict::Suspended(until) => return Err(Stop::Suspended(until)),
                Verdict::Decided(decided) => decided,
            };
            let choice = decided.choice;
            entry.decided = Some(decided);
            match (choice, effect.taken_as_done(entry.index)) {
                (DecidedAs::Done, Some(outcome)) => return self.answered(entry, Ok(outcome)).await,
                (DecidedAs::Retry, _) => {
                    entry.tries = entry.tries.saturating_add(1);
                    self.record_durably(&entry).await?;
                }
                (DecidedAs::Done | DecidedAs::Fail, _) => {
                    let failure = entry.decided.as_ref().map_or(failure.clone(), |by| by.as_failure(&failure));
                    return self.answered(entry, Err(failure)).await;
                }
            }
        }
    }

    async fn answered(&self, mut entry: Entry, answer: Answer) -> Result<Answer, Stop> {
        entry.state = EntryState::Answered(answer);
        match entry.class {
            // Only what no one else remembers must be on disk before the guest goes on.
            EffectClass::Untracked => self.record_durably(&entry).await?,
            // A person's word is not asked for twice.
            _ if entry.decided.is_some() => self.record_durably(&entry).await?,
            // The machine gives the same answer until the run's end is durable and confirmed to it.
            EffectClass::Ticketed => self.store.record(&entry, Promise::Later).await.map_err(Stop::Host)?,
            EffectClass::Observe | EffectClass::Pinned => {
                self.observed.store(true, Ordering::Relaxed);
                self.store.record(&entry, Promise::Later).await.map_err(Stop::Host)?;
            }
            EffectClass::Local | EffectClass::Wait => {
                self.store.record(&entry, Promise::Ordered).await.map_err(Stop::Host)?;
            }
        }
        match entry.state {
            EntryState::Answered(answer) => Ok(answer),
            EntryState::Started => Err(Stop::Host("an answer was lost".to_owned())),
        }
    }

    async fn record_durably(&self, entry: &Entry) -> Result<(), Stop> {
        // Before the record: what is observed while it is written is not in it.
        self.observed.store(false, Ordering::Relaxed);
        self.store.record(entry, Promise::Durable).await.map_err(Stop::Host)
    }
}

impl Entry {
    /// What was asked for, in words, with the beginning of its digest.
    #[must_use]
    pub fn in_words(&self) -> String {
        let what = if self.what.is_empty() { &self.effect } else { &self.what };
        format!("{what} [{}]", self.digest.get(..8).unwrap_or_default())
    }
}

fn unknown(effect: &Effect) -> Failure {
    Failure::new(UNKNOWN_OUTCOME, format!("{} was begun, and nobody can know how it ended", effect.in_words()))
        .fix("look at the receiver, then retry the step, take it as done, or fail it")
}

/// A journal in memory, for tests and for runs that nobody needs to resume.
#[derive(Debug, Default)]
pub struct MemoryJournal(Mutex<BTreeMap<u64, Entry>>);

impl MemoryJournal {
    /// Everything recorded so far.
    #[must_use]
    pub fn entries(&self) -> Vec<Entry> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }
}

#[async_trait]
impl JournalStore for MemoryJournal {
    async fn record(&self, entry: &Entry, _promise: Promise) -> Result<(), String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(entry.index, entry.clone());
        Ok(())
    }

    async fn local(&self, mut entry: Entry, effect: &Effect) -> Result<Answer, String> {
        let answer = match effect {
            Effect::Output { .. } | Effect::Release { .. } => Ok(Outcome::Done),
            other => Err(Failure::new("unavailable", format!("{} is not available here", other.name()))),
        };
        entry.state = EntryState::Answered(answer.clone());
        self.record(&entry, Promise::Durable).await?;
        Ok(answer)
    }
}

#[async_trait]
impl<T: JournalStore + ?Sized> JournalStore for std::sync::Arc<T> {
    async fn record(&self, entry: &Entry, promise: Promise) -> Result<(), String> {
        (**self).record(entry, promise).await
    }
    async fn local(&self, entry: Entry, effect: &Effect) -> Result<Answer, String> {
        (**self).local(entry, effect).await
    }
    fn now_ms(&self) -> u64 {
        (**self).now_ms()
    }
}

#[cfg(test)]
#[path = "journal_tests.rs"]
mod tests;
