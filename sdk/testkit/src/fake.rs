//! The fake world itself: what it holds, and its part as performer and journal.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use windlass_effects::{
    Answer, Attempt, Call, CancelToken, Effect, EffectClass, Entry, EntryState, HttpResponse, JournalStore, Line,
    LineSink, MemoryJournal, PackageInfo, Performer, Promise,
};
use windlass_model::{SecretText, TaskId, TaskState, manifest::LockMode};

use crate::{machine::FakeMachine, replay::Past, task::FakeTask};

/// Everything outside a guest, made for one test. Each run starts from it as it was built.
#[derive(Debug, Clone, Default)]
pub struct FakeWorld {
    pub(crate) start: State,
    pub(crate) own_task: Option<TaskId>,
}

/// What can change while a guest runs. Kept for every point of the journal, so that a replay finds it as it was.
#[derive(Debug, Clone, Default)]
pub(crate) struct State {
    /// Unix time at which the test starts.
    pub(crate) start_ms: u64,
    /// Virtual time since then.
    pub(crate) now_ms: u64,
    pub(crate) variables: BTreeMap<String, String>,
    pub(crate) secrets: BTreeMap<String, SecretText>,
    pub(crate) machines: Vec<FakeMachine>,
    pub(crate) packages: Vec<(PackageInfo, Arc<[u8]>)>,
    pub(crate) tasks: Vec<FakeTask>,
    /// How deployments end that the guest queues, by project: after how long, and as what.
    pub(crate) deployments: BTreeMap<String, (u64, TaskState)>,
    pub(crate) busy_locks: BTreeMap<String, (String, Option<u64>)>,
    pub(crate) held: BTreeMap<u64, (String, LockMode)>,
    pub(crate) tokens: u64,
    pub(crate) http: Vec<(String, String, HttpResponse)>,
    /// Commands that were started: their output, kept until the end of the run.
    pub(crate) processes: BTreeMap<u64, windlass_effects::Exit>,
}

impl FakeWorld {
    /// An empty world, on 1 January 2030.
    #[must_use]
    pub fn new() -> Self {
        let start = State { start_ms: 1_893_456_000_000, ..State::default() };
        Self { start, own_task: Some(TaskId(1)) }
    }

    /// The same, with this number for the guest's own task; 1 unless set.
    #[must_use]
    pub fn own_task(mut self, id: u64) -> Self {
        self.own_task = Some(TaskId(id));
        self
    }

    /// The same, with a variable.
    #[must_use]
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.start.variables.insert(name.to_owned(), value.to_owned());
        self
    }

    /// The same, with a secret.
    #[must_use]
    pub fn secret(mut self, name: &str, value: &str) -> Self {
        self.start.secrets.insert(name.to_owned(), SecretText::new(value));
        self
    }

    /// The same, with a machine that is lent to the guest. Its handle is its place in the order of adding, from 1.
    #[must_use]
    pub fn machine(mut self, machine: FakeMachine) -> Self {
        self.start.machines.push(machine);
        self
    }

    /// The same, with a package that is lent to the guest. Its handle is its place in the order of adding, from 1.
    #[must_use]
    pub fn package(mut self, id: &str, version: &str, content: impl AsRef<[u8]>) -> Self {
        use sha2::{Digest, Sha256};
        let content: Arc<[u8]> = content.as_ref().into();
        let info = PackageInfo {
            id: id.to_owned(),
            version: version.to_owned(),
            sha256: hex::encode(Sha256::digest(&content)),
            size: content.len() as u64,
        };
        self.start.packages.push((info, content));
        self
    }

    /// The same, with another task.
    #[must_use]
    pub fn task(mut self, task: FakeTask) -> Self {
        self.start.tasks.push(task);
        self
    }

    /// The same; deployments of this project that the guest queues take so long and end like this. Without, they
    /// take a minute and succeed.
    #[must_use]
    pub fn deployments(mut self, project: &str, take_ms: u64, end_as: TaskState) -> Self {
        self.start.deployments.insert(project.to_owned(), (take_ms, end_as));
        self
    }

    /// The same, with a lock that somebody holds until a time after the start, or for ever.
    #[must_use]
    pub fn busy_lock(mut self, name: &str, holder: &str, until_ms: Option<u64>) -> Self {
        self.start.busy_locks.insert(name.to_owned(), (holder.to_owned(), until_ms));
        self
    }

    /// The same, with an answer to an HTTP request.
    #[must_use]
    pub fn http(mut self, method: &str, url: &str, status: u16, body: &str) -> Self {
        let response = HttpResponse { status, headers: Vec::new(), body: body.as_bytes().to_vec(), truncated: false };
        self.start.http.push((method.to_owned(), url.to_owned(), response));
        self
    }
}

/// A world while a guest runs in it.
pub(crate) struct Live {
    /// State after each effect; the first is the state before any.
    history: Mutex<Vec<State>>,
    journal: MemoryJournal,
    /// The run is suspended when it asks for the effect of this index.
    suspend_at: Option<u64>,
}

/// What a run is told that is suspended by a test.
pub(crate) const SUSPENDED: &str = "it goes on as the test wants";

impl Live {
    /// A world that has this history already. It is never empty: the first state is the start.
    pub(crate) fn new(start: State, past: Past) -> Self {
        let history = std::iter::once(start).chain(past.later).collect();
        Self { history: Mutex::new(history), journal: MemoryJournal::default(), suspend_at: past.suspend_at }
    }

    fn stops(&self, index: u64) -> bool {
        self.suspend_at == Some(index)
    }

    pub(crate) fn history(&self) -> Vec<State> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn entries(&self) -> Vec<Entry> {
        self.journal.entries()
    }

    fn answer(&self, index: u64, effect: &Effect) -> Answer {
        let mut history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        let mut state = history.last().cloned().unwrap_or_default();
        let answer = state.answer(index, effect);
        // What is never recorded is asked again by a replay, and changes nothing.
        if effect.class() != EffectClass::Pinned {
            history.push(state);
        }
        answer
    }
}

#[async_trait]
impl Performer for Live {
    async fn perform(&self, index: u64, effect: &Effect, _: &CancelToken) -> Answer {
        self.answer(index, effect)
    }

    async fn attempt(&self, call: Call<'_>, cancel: &CancelToken) -> Attempt {
        if self.stops(call.index) {
            return Attempt::Suspended(SUSPENDED.to_owned());
        }
        Attempt::Answered(self.perform(call.index, call.effect, cancel).await)
    }
}

#[async_trait]
impl JournalStore for Live {
    async fn record(&self, entry: &Entry, promise: Promise) -> Result<(), String> {
        // Of what nobody remembers, a server that stops after its record asks a person.
        if self.stops(entry.index) && entry.class == EffectClass::Untracked {
            return Err(SUSPENDED.to_owned());
        }
        self.journal.record(entry, promise).await
    }

    async fn local(&self, mut entry: Entry, effect: &Effect) -> Result<Answer, String> {
        if self.stops(entry.index) {
            return Err(SUSPENDED.to_owned());
        }
        let answer = self.answer(entry.index, effect);
        entry.state = EntryState::Answered(answer.clone());
        self.journal.record(&entry, Promise::Durable).await?;
        Ok(answer)
    }
}

/// The transcript has every line already.
impl LineSink for Live {
    fn line(&self, _: Line) {}
    fn progress(&self, _: u64, _: u64, _: String) {}
}
