//! Every table of the store, in one place.
//!
//! Names sort the way they are looked up: by their key form, with numbers big-endian. Values that may outgrow one
//! record are [`Parts`].

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use windlass_effects::Entry;
use windlass_model::{
    Environment, Machine, Process, Project, Release, Scope, TaskId,
    scheduling::BrokenLock,
    task::{LogLine, RunView, StepView, TaskSummary},
    views::PluginRecord,
};
use windlass_packages::repository::PackageRecord;
use windlass_scheduler::{Event, Snapshot, progress::Resume};
use windlass_store::{Batch, Key, Scan, Seq, Store, StoreError, Stored, Table};

use crate::{
    history::Learnt,
    holdings::Rate,
    logs::LogCursor,
    once::StoredOnce,
    runs::{Away, Done},
    vault::Sealed,
};

pub const ENVIRONMENTS: Table<Environment> = Table::new("environments", 1);
pub const MACHINES: Table<Machine> = Table::new("machines", 1);
pub const PROJECTS: Table<Project> = Table::new("projects", 1);
pub const PROCESSES: Parts<Process> = Parts::new("processes");
/// By project and place in the list.
pub const VARIABLES: Table<StoredVariable> = Table::new("variables", 1);
/// By project and version.
pub const RELEASES: Parts<Release> = Parts::new("releases");
/// By project, version and place in the list.
pub const RELEASE_VARIABLES: Table<StoredVariable> = Table::new("release-variables", 1);
/// By id and canonical version.
pub const PACKAGES: Table<PackageRecord> = Table::new("packages", 1);
/// Id and version of the packages with a payload: by SHA-256 of the plain payload, id and version.
pub const PAYLOADS: Table<(String, String)> = Table::new("payloads", 1);
/// By id and version.
pub const PLUGINS: Parts<PluginRecord> = Parts::new("plugins");
/// Texts of scripts by SHA-256.
pub const SCRIPTS: Parts<String> = Parts::new("scripts");
pub const TASKS: Table<TaskSummary> = Table::new("tasks", 1);
/// Which tasks have work on a machine: by machine and task.
pub const MACHINE_TASKS: Table<()> = Table::new("machine-tasks", 1);
/// By task and step.
pub const STEPS: Table<StepView> = Table::new("steps", 1);
/// By task, step and place.
pub const RUNS: Table<RunView> = Table::new("runs", 1);
/// By task, step, place, name, run and entry: what was there before is kept, because a run may have seen it.
pub const OUTPUTS: Table<StoredOutput> = Table::new("outputs", 1);
/// What a suspended run is told when it goes on, until its journal holds what it made of it. By run.
pub const RESUMES: Table<Resume> = Table::new("resumes", 1);
/// What a run saw of its task when it began. By run.
pub const PINS: Parts<Pin> = Parts::new("run-pins");
/// Since when a run misses its machine. By task, step and place.
pub const AWAY: Table<Away> = Table::new("away", 1);
/// What files are to hold after their variables were replaced. By run and index.
pub const SUBSTITUTIONS: Parts<Done> = Parts::new("substitutions");
/// By run and index.
pub const JOURNAL: Parts<Entry> = Parts::new("journal");
/// By task, node and number of the first line.
pub const LOGS: Table<Vec<LogLine>> = Table::new("logs", 1);
/// By task and node.
pub const LOG_ENDS: Table<LogEnd> = Table::new("log-ends", 1);
/// The scheduler's events since its last snapshot, by number.
pub const EVENTS: Parts<StoredEvent> = Parts::new("scheduler-events");
/// By the number of the last event it includes; the newest counts.
pub const SNAPSHOT: Parts<StoredSnapshot> = Parts::new("scheduler-snapshot");
/// How long steps take: by project and node.
pub const DURATIONS: Table<Learnt> = Table::new("durations", 1);
/// Payloads that were seen on machines: by place and SHA-256 of the bytes that are sent.
pub const HELD: Table<()> = Table::new("held", 1);
/// How fast machines are reached: by place.
pub const RATES: Table<Rate> = Table::new("rates", 1);
/// Locks that people broke: by time and resource.
pub const BROKEN_LOCKS: Table<BrokenLock> = Table::new("broken-locks", 1);
/// Numbers that only grow, by name.
pub const COUNTERS: Table<u64> = Table::new("counters", 1);
/// What requests with an idempotency key made: by the digest of the key with its scope.
pub const ONCE: Table<StoredOnce> = Table::new("idempotency-keys", 1);
/// SHA-256 of bearer tokens, with their names.
pub const TOKENS: Table<String> = Table::new("tokens", 1);

/// A variable as stored: a secret is sealed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredVariable {
    pub name: String,
    pub value: StoredValue,
    pub scope: Scope,
}

/// A value as stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StoredValue {
    Text(String),
    Secret(Sealed),
}

/// An output variable as stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredOutput {
    /// Step that set it.
    pub step: String,
    /// Machine it was set on.
    pub machine: Option<String>,
    pub name: String,
    pub value: StoredValue,
}

/// What a run saw of its task when it began: a replay sees the same, whatever came since.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pin {
    /// The last commit whose outputs of other runs it sees.
    pub upto: u64,
    /// Its machine.
    pub machine: Option<Machine>,
    /// What had gone wrong in its task.
    #[serde(default)]
    pub error: Option<String>,
}

/// Where the log of a node ends.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LogEnd {
    /// Lines stored.
    pub lines: u64,
    /// How much of its run they hold.
    pub cursor: LogCursor,
}

/// An event the scheduler has taken in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StoredEvent {
    pub at_ms: u64,
    pub event: Event,
}

/// The scheduler's state after an event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StoredSnapshot {
    /// Number of the last event it includes.
    pub upto: u64,
    pub snapshot: Snapshot,
}

/// Key of a run's records.
pub fn run_key(task: TaskId, step: u32, place: u32) -> Key {
    Key::of_id(task.0).id(u64::from(step)).id(u64::from(place))
}

/// Bytes of one part, well below what a record may hold.
const PART: usize = 24 << 10;
/// Parts of one batch, well below what a batch may hold.
const PARTS_TOGETHER: u64 = 64;

/// A table of values that may be larger than one record: each lies in parts under its key.
pub struct Parts<T> {
    table: Table<String>,
    holds: std::marker::PhantomData<fn() -> T>,
}

impl<T: Serialize + DeserializeOwned> Parts<T> {
    /// The table that the parts lie in.
    pub const fn table(&self) -> &Table<String> {
        &self.table
    }

    pub const fn new(name: &'static str) -> Self {
        Self { table: Table::new(name, 1), holds: std::marker::PhantomData }
    }

    /// Adds a put, tells how many parts it took. Parts of a longer older value stay behind the end mark and are
    /// ignored.
    ///
    /// # Errors
    /// When the value does not serialize.
    pub fn put(&self, batch: &mut Batch, key: Key, value: &T) -> Result<u64, StoreError> {
        let mut parts = 0;
        for part in pieces(&self.encode(&key, value)?) {
            self.table.put(batch, key.clone().id(parts), &part)?;
            parts += 1;
        }
        Ok(parts)
    }

    /// A put of a value that may be larger than one batch, under a key that is not in use: batches to commit first, then
    /// the one that makes it count, and how many parts it took.
    ///
    /// # Errors
    /// When the value does not serialize.
    pub fn put_large(&self, key: &Key, value: &T) -> Result<(Vec<Batch>, Batch, u64), StoreError> {
        let (mut before, mut last, mut parts) = (Vec::new(), Batch::new(), 0);
        for part in pieces(&self.encode(key, value)?) {
            // Without its first part a value is none.
            let batch = match parts {
                0 => &mut last,
                _ => {
                    if parts % PARTS_TOGETHER == 1 {
                        before.push(Batch::new());
                    }
                    before.last_mut().map_or(&mut last, Batch::relaxed)
                }
            };
            self.table.put(batch, key.clone().id(parts), &part)?;
            parts += 1;
        }
        Ok((before, last, parts))
    }

    fn encode(&self, key: &Key, value: &T) -> Result<String, StoreError> {
        serde_json::to_string(value).map_err(|error| StoreError::Unencodable {
            table: self.table.name().clone(),
            key: String::from_utf8_lossy(key.as_bytes()).into_owned(),
            cause: error.to_string(),
        })
    }

    /// Lets the batch commit only if there is no such value.
    pub fn require_absent(&self, batch: &mut Batch, key: Key) {
        self.table.require_absent(batch, key.id(0));
    }

    /// Adds a delete of a value that has at most so many parts.
    pub fn delete(&self, batch: &mut Batch, key: &Key, parts: u64) {
        for index in 0..parts {
            self.table.delete(batch, key.clone().id(index));
        }
    }

    /// Adds deletes of every part in the table.
    ///
    /// # Errors
    /// When the store stopped.
    pub async fn clear(&self, store: &dyn Store, batch: &mut Batch) -> Result<(), StoreError> {
        let mut scan = self.table.all();
        loop {
            let page = store.scan(scan.clone()).await?;
            for record in &page.records {
                batch.delete(self.table.name(), record.key.clone());
            }
            match page.records.last() {
                Some(last) if page.more => scan = scan.after(last.key.clone()),
                _ => return Ok(()),
            }
        }
    }

    /// Reads one value.
    ///
    /// # Errors
    /// When the store stopped or the value does not decode.
    pub async fn get(&self, store: &dyn Store, key: Key) -> Result<Option<T>, StoreError> {
        let mut json = String::new();
        for index in 0.. {
            let Some(part) = self.table.get(store, key.clone().id(index)).await? else {
                return Ok(None);
            };
            let mut chars = part.value.chars();
            let mark = chars.next();
            json.push_str(chars.as_str());
            if mark == Some('.') {
                break;
            }
        }
        Ok(Some(self.decode(key.as_bytes(), &json)?))
    }

    /// Reads all values whose key begins with `prefix`, with their keys, in key order.
    ///
    /// # Errors
    /// When the store stopped or a value does not decode.
    pub async fn all(&self, store: &dyn Store, prefix: Key) -> Result<Vec<(Vec<u8>, T)>, StoreError> {
        let mut all = Vec::new();
        // The value whose parts are being read: its key, and its text so far.
        let mut open: Option<(Vec<u8>, String)> = None;
        let mut scan = self.table.starting_with(prefix);
        loop {
            let page = self.table.scan(store, scan.clone()).await?;
            let last = page.records.last().map(|record| record.key.clone());
            for record in page.records {
                let Some((key, index)) = record.key.split_last_chunk::<8>() else {
                    continue;
                };
                if *index == [0; 8] {
                    open = Some((key.to_vec(), String::new()));
                }
                // A part behind the end mark belongs to an older, longer value.
                let Some((_, json)) = open.as_mut().filter(|(of, _)| of == key) else {
                    continue;
                };
                let mut chars = record.value.chars();
                let mark = chars.next();
                json.push_str(chars.as_str());
                if mark == Some('.')
                    && let Some((key, json)) = open.take()
                {
                    let value = self.decode(&key, &json)?;
                    all.push((key, value));
                }
            }
            match last {
                Some(last) if page.more => scan = scan.after(last),
                _ => return Ok(all),
            }
        }
    }

    fn decode(&self, key: &[u8], json: &str) -> Result<T, StoreError> {
        serde_json::from_str(json).map_err(|error| StoreError::Undecodable {
            table: self.table.name().clone(),
            key: String::from_utf8_lossy(key).into_owned(),
            cause: error.to_string(),
        })
    }
}

/// A text in parts. The last one, possibly empty, is marked by a full stop in front; the others by a plus sign.
fn pieces(text: &str) -> Vec<String> {
    let (mut rest, mut parts) = (text, Vec::new());
    loop {
        let (part, tail) = rest.split_at(rest.floor_char_boundary(PART));
        parts.push(format!("{}{part}", if tail.is_empty() { '.' } else { '+' }));
        if tail.is_empty() {
            return parts;
        }
        rest = tail;
    }
}

/// Reads every record of a table under a prefix but those that cannot be read, which are named in the server's log: for
/// what is only shown.
///
/// # Errors
/// When the store stopped.
pub async fn readable<T: Serialize + DeserializeOwned>(
    store: &dyn Store,
    table: &Table<T>,
    mut scan: Scan,
) -> Result<Vec<T>, StoreError> {
    let mut values = Vec::new();
    loop {
        let (page, last, damaged) = table.scan_readable(store, scan.clone()).await?;
        for error in damaged {
            tracing::error!(%error, "a record is damaged and not shown: windlass store check tells more");
        }
        values.extend(page.records.into_iter().map(|record| record.value));
        match last {
            Some(last) if page.more => scan = scan.after(last),
            _ => return Ok(values),
        }
    }
}

/// Reads every record of a table under a prefix.
///
/// # Errors
/// When the store stopped or a record does not decode.
pub async fn all<T: Serialize + DeserializeOwned>(
    store: &dyn Store,
    table: &Table<T>,
    scan: Scan,
) -> Result<Vec<T>, StoreError> {
    Ok(all_stored(store, table, scan).await?.into_iter().map(|record| record.value).collect())
}

/// The same, each with its key and its commit.
///
/// # Errors
/// When the store stopped or a record does not decode.
async fn all_stored<T: Serialize + DeserializeOwned>(
    store: &dyn Store,
    table: &Table<T>,
    scan: Scan,
) -> Result<Vec<Stored<T>>, StoreError> {
    let mut scan = scan;
    let mut found = Vec::new();
    loop {
        let page = table.scan(store, scan.clone()).await?;
        let last = page.records.last().map(|record| record.key.clone());
        found.extend(page.records);
        match last {
            Some(last) if page.more => scan = scan.after(last),
            _ => return Ok(found),
        }
    }
}

/// Outputs of a task that were there with a commit, the newest last.
///
/// # Errors
/// When the store stopped or a record does not decode.
pub async fn outputs(store: &dyn Store, task: TaskId, upto: Seq) -> Result<Vec<StoredOutput>, StoreError> {
    let mut found = all_stored(store, &OUTPUTS, OUTPUTS.starting_with(task.0)).await?;
    found.retain(|output| output.version <= upto);
    found.sort_by_key(|output| output.version);
    Ok(found.into_iter().map(|output| output.value).collect())
}
