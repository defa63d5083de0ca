//! A run's journal in the store, and the effects that share its transaction.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use async_trait::async_trait;
use windlass_effects::{
    Answer, Effect, EffectClass, Entry, EntryState, Failure, JournalStore, LockGrant, Outcome, Promise,
};
use windlass_model::{MachineName, RunId};
use windlass_scheduler::{Event, LockRequest, RunKey};
use windlass_store::{Batch, Key, failpoint};

use super::context::{TaskContext, output_place};
use crate::{
    gate::Pass,
    records::{JOURNAL, OUTPUTS, PINS, Pin, RESUMES, StoredOutput, StoredValue, run_key},
    services::Services,
    tasks,
};

/// Bytes of entries that may wait for the next one. Many runs end in one commit, whose size is bounded.
const MAX_WAITING: usize = 16 << 10;

/// Writes a run's journal.
pub struct StoredJournal {
    services: Arc<Services>,
    context: Arc<TaskContext>,
    run: RunKey,
    id: RunId,
    step: String,
    machine: Option<String>,
    /// Which wish a lock's token belongs to.
    locks: Mutex<HashMap<u64, u64>>,
    /// Entries that are written with the next one, or with the run's end.
    waiting: Mutex<Batch>,
    /// Effects under way that must not be cut off: nobody could know their outcome.
    open: Mutex<HashMap<u64, Pass>>,
    /// What the run sees, to be stored with its first entry.
    pin: Mutex<Option<Pin>>,
    /// Whether what it was told as it goes on is to go with its next entry, which holds what it made of it.
    told: AtomicBool,
}

/// What is stored besides entries.
#[derive(Default)]
pub struct Aside {
    /// What a new run sees of its task.
    pub pin: Option<Pin>,
    /// Whether it was told something as it goes on.
    pub told: bool,
}

/// Reads what is recorded of a run.
///
/// # Errors
/// When the store stopped or an entry does not decode.
pub async fn recorded(services: &Services, id: &RunId) -> Result<Vec<Entry>, windlass_store::StoreError> {
    let entries = JOURNAL.all(&*services.shared.store, Key::of_text(id.as_str())).await?;
    Ok(entries.into_iter().map(|(_, entry)| entry).collect())
}

impl StoredJournal {
    /// The journal of a run that has these entries already.
    #[must_use]
    pub fn new(
        services: Arc<Services>,
        context: Arc<TaskContext>,
        run: RunKey,
        id: RunId,
        (step, machine): (&str, Option<&MachineName>),
        entries: &[Entry],
        aside: Aside,
    ) -> Self {
        let (step, machine) = (step.to_owned(), machine.map(ToString::to_string));
        let locks = entries
            .iter()
            .filter_map(|entry| match &entry.state {
                EntryState::Answered(Ok(Outcome::Lock(LockGrant { token }))) => Some((*token, entry.index)),
                _ => None,
            })
            .collect();
        let (pin, told) = (Mutex::new(aside.pin), AtomicBool::new(aside.told));
        let (locks, waiting, open) = (Mutex::new(locks), Mutex::default(), Mutex::default());
        Self { services, context, run, id, step, machine, locks, waiting, open, pin, told }
    }

    fn key(&self, index: u64) -> Key {
        Key::of_text(self.id.as_str()).id(index)
    }

    fn put(&self, batch: &mut Batch, entry: &Entry) -> Result<(), String> {
        if self.told.swap(false, Ordering::Relaxed) {
            RESUMES.delete(batch, self.id.as_str());
        }
        let failed = |error: windlass_store::StoreError| error.to_string();
        if let Some(pin) = self.pin.lock().unwrap_or_else(PoisonError::into_inner).take() {
            PINS.put(batch, Key::of_text(self.id.as_str()), &pin).map_err(failed)?;
        }
        JOURNAL.put(batch, self.key(entry.index), entry).map(|_| ()).map_err(failed)
    }

    /// What waits to be written: it belongs in front of whatever is written next.
    pub fn take_waiting(&self) -> Batch {
        std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Writes what waits, as the run is suspended.
    ///
    /// # Errors
    /// When the store stopped.
    pub async fn keep_waiting(&self) -> Result<(), String> {
        let waiting = self.take_waiting();
        if waiting.is_empty() { Ok(()) } else { self.commit(waiting).await }
    }

    /// Where a test may end the process: around each record of each effect of each run.
    fn point(&self, entry: &Entry, moment: &str) {
        failpoint::pass(|| {
            let place = self.machine.as_deref().unwrap_or("server");
            let state = if entry.state == EntryState::Started { "started" } else { "answered" };
            format!("journal/{}/{place}/{} {}/{state}/{moment}", self.step, entry.index, entry.effect)
        });
    }

    async fn commit(&self, batch: Batch) -> Result<(), String> {
        self.services.shared.store.commit(batch).await.map(|_| ()).map_err(|error| error.to_string())
    }

    fn output(
        &self,
        batch: &mut Batch,
        index: u64,
        name: &str,
        value: &str,
        sensitive: bool,
    ) -> Result<StoredOutput, Failure> {
        let failed = |error: String| Failure::new("io", error);
        let value = if sensitive {
            let secret = windlass_model::SecretText::new(value);
            let place = output_place(self.run.task, name);
            StoredValue::Secret(self.services.vault.seal(&place, &secret).map_err(|error| failed(error.to_string()))?)
        } else {
            StoredValue::Text(value.to_owned())
        };
        let output =
            StoredOutput { step: self.step.clone(), machine: self.machine.clone(), name: name.to_owned(), value };
        let key = run_key(self.run.task, self.run.step, self.run.place).text(&name.to_lowercase());
        let key = key.text(self.id.as_str()).id(index);
        OUTPUTS.put(batch, key, &output).map_err(|error| failed(error.to_string()))?;
        Ok(output)
    }

    async fn release(&self, mut entry: Entry, token: u64) -> Result<Answer, String> {
        let number = self.locks.lock().unwrap_or_else(PoisonError::into_inner).remove(&token);
        let Some(number) = number else {
            return self.finish(entry, Err(Failure::denied("this run does not hold that lock"))).await;
        };
        entry.state = EntryState::Answered(Ok(Outcome::Done));
        let mut batch = self.take_waiting();
        self.put(&mut batch, &entry)?;
        let event = Event::LockReleased { request: LockRequest { run: self.run, number } };
        self.services.driver.submit(event, None, batch).await.map_err(|error| error.to_string())?;
        Ok(Ok(Outcome::Done))
    }

    async fn deploy(&self, mut entry: Entry, effect: &Effect) -> Result<Answer, String> {
        let Effect::Deploy { project, environment, version, detached } = effect else {
            return Err(format!("{} is no local effect", effect.name()));
        };
        let wanted = tasks::deployment_request(project, environment, version.as_deref());
        let prepared = match wanted {
            Ok(request) => tasks::prepare_deployment(&self.services, request).await,
            Err(error) => Err(error),
        };
        let prepared = match prepared {
            Ok(prepared) => prepared,
            Err(error) => {
                let failure = Failure::new(error.code, error.message).fix(error.fix.unwrap_or_default());
                return self.finish(entry, Err(failure)).await;
            }
        };
        let task = prepared.id();
        entry.state = EntryState::Answered(Ok(Outcome::Number(task.0)));
        let mut batch = self.take_waiting();
        self.put(&mut batch, &entry)?;
        prepared.child_of(self.run, *detached).queue(&self.services, batch).await.map_err(|error| error.to_string())?;
        Ok(Ok(Outcome::Number(task.0)))
    }

    async fn finish(&self, mut entry: Entry, answer: Answer) -> Result<Answer, String> {
        entry.state = EntryState::Answered(answer.clone());
        let mut batch = self.take_waiting();
        batch.relaxed();
        self.put(&mut batch, &entry)?;
        self.commit(batch).await?;
        Ok(answer)
    }
}

#[async_trait]
impl JournalStore for StoredJournal {
    async fn record(&self, entry: &Entry, promise: Promise) -> Result<(), String> {
        let pass = match &entry.state {
            EntryState::Started => Some(self.services.gate.pass().await),
            EntryState::Answered(_) => None,
        };
        if let EntryState::Answered(Ok(Outcome::Lock(grant))) = &entry.state {
            self.locks.lock().unwrap_or_else(PoisonError::into_inner).insert(grant.token, entry.index);
        }
        self.point(entry, "before");
        self.write(entry, promise).await?;
        self.point(entry, "recorded");
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        match pass.filter(|_| entry.class == EffectClass::Untracked) {
            Some(pass) => open.insert(entry.index, pass),
            None => open.remove(&entry.index),
        };
        Ok(())
    }

    async fn local(&self, entry: Entry, effect: &Effect) -> Result<Answer, String> {
        let _pass = self.services.gate.pass().await;
        self.point(&entry, "before");
        let done = self.perform_local(entry.clone(), effect).await;
        self.point(&entry, "recorded");
        done
    }

    fn now_ms(&self) -> u64 {
        self.services.shared.clock.now_ms()
    }
}

impl StoredJournal {
    async fn write(&self, entry: &Entry, promise: Promise) -> Result<(), String> {
        let mut batch = self.take_waiting();
        self.put(&mut batch, entry)?;
        match promise {
            Promise::Later if batch.bytes() <= MAX_WAITING => {
                *self.waiting.lock().unwrap_or_else(PoisonError::into_inner) = batch;
                return Ok(());
            }
            Promise::Later | Promise::Ordered => batch.relaxed(),
            Promise::Durable => &mut batch,
        };
        self.commit(batch).await
    }

    async fn perform_local(&self, entry: Entry, effect: &Effect) -> Result<Answer, String> {
        match effect {
            Effect::Output { name, value, sensitive } => {
                // Ordered before the end of the run, which is durable.
                let mut batch = self.take_waiting();
                batch.relaxed();
                let output = self.output(&mut batch, entry.index, name, value, *sensitive);
                let answer = output.as_ref().map(|_| Outcome::Done).map_err(Clone::clone);
                let entry = Entry { state: EntryState::Answered(answer.clone()), ..entry };
                self.put(&mut batch, &entry)?;
                let _under_way = self.context.output_under_way().await;
                self.commit(batch).await?;
                if let Ok(output) = output {
                    self.context.note(output);
                }
                Ok(answer)
            }
            Effect::Release { token } => self.release(entry, *token).await,
            Effect::Deploy { .. } => self.deploy(entry, effect).await,
            other => Err(format!("{} is no local effect", other.name())),
        }
    }
}
