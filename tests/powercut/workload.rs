//! What the crash tests write, and how they know afterwards what must be there.
//!
//! Each writer commits a fixed row of steps, one after another, so the whole state follows from one number a writer:
//! how many of its steps happened. A step touches three tables in one batch, hence half a batch cannot hide.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::Arc;

use windlass_store::{Batch, Key, Record, Scan, Seq, Store, StoreError, TableName};

const LATEST: TableName = TableName::new("latest");
const LEFT: TableName = TableName::new("left");
const RIGHT: TableName = TableName::new("right");
const SLOTS: u64 = 8;

/// One acknowledged commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack {
    pub writer: u64,
    pub step: u64,
    pub seq: Seq,
    pub durable: bool,
}

impl Ack {
    fn line(self) -> String {
        format!("ACK {} {} {} {}\n", self.writer, self.step, self.seq, u8::from(self.durable))
    }

    pub fn parse(line: &str) -> Option<Self> {
        let mut fields = line.strip_prefix("ACK ")?.split(' ').map(str::parse::<u64>);
        let mut next = || fields.next()?.ok();
        Some(Self { writer: next()?, step: next()?, seq: Seq(next()?), durable: next()? == 1 })
    }
}

/// What a crash must have left: per writer the fewest and the most steps that may be there.
#[derive(Clone, Debug, Default)]
pub struct Bounds(BTreeMap<u64, (u64, u64)>);

impl Bounds {
    /// After a kill every acknowledged commit is there, relaxed ones too.
    pub fn after_kill(acks: &[Ack]) -> Self {
        let mut bounds = Self::default();
        for ack in acks {
            bounds.0.insert(ack.writer, (ack.step, ack.step + 1));
        }
        bounds
    }

    /// After a power cut every commit up to the last durable one is there, of whatever kind.
    pub fn after_power_cut(acks: &[Ack]) -> Self {
        let durable = acks.iter().filter(|a| a.durable).map(|a| a.seq).max().unwrap_or_default();
        let mut bounds = Self::default();
        for ack in acks {
            let (least, most) = bounds.0.entry(ack.writer).or_default();
            *most = ack.step + 1;
            if ack.seq <= durable {
                *least = ack.step;
            }
        }
        bounds
    }

    /// One line a writer, for handing to another process.
    pub fn to_text(&self) -> String {
        self.0.iter().fold(String::new(), |mut text, (writer, (least, most))| {
            let _ = writeln!(text, "{writer} {least} {most}");
            text
        })
    }

    pub fn from_text(text: &str) -> Self {
        let line = |line: &str| {
            let mut fields = line.split(' ').map(|f| f.parse().unwrap());
            (fields.next().unwrap(), (fields.next().unwrap(), fields.next().unwrap()))
        };
        Self(text.lines().map(line).collect())
    }
}

/// A repeatable number for each (writer, step, purpose).
fn draw(writer: u64, step: u64, purpose: u64) -> u64 {
    let mut x = writer.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ step.wrapping_mul(0xbf58_476d_1ce4_e5b9) ^ (purpose << 56);
    for _ in 0..3 {
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x ^= x >> 27;
    }
    x
}

/// The value a step puts, or `None` if it deletes. Mostly small, sometimes as large as allowed.
fn value(writer: u64, step: u64) -> Option<Vec<u8>> {
    let length = match draw(writer, step, 1) % 20 {
        0..4 => return None,
        4..14 => 50 + draw(writer, step, 2) % 500,
        14..18 => draw(writer, step, 2) % 5_000,
        18 => draw(writer, step, 2) % 32_768,
        _ => 32_768,
    };
    let fill = draw(writer, step, 3).to_le_bytes();
    Some((0..length).map(|i| fill[(i % 8) as usize] ^ (i >> 3) as u8).collect())
}

fn is_relaxed(writer: u64, step: u64) -> bool {
    draw(writer, step, 4).is_multiple_of(4)
}

fn step_batch(writer: u64, step: u64, previous: Option<Seq>) -> Batch {
    let mut batch = Batch::new();
    let slot = Key::of_id(writer).id(step % SLOTS);
    match value(writer, step) {
        Some(value) => batch.put(&LEFT, slot.clone(), value.clone()).put(&RIGHT, slot, value),
        None => batch.delete(&LEFT, slot.clone()).delete(&RIGHT, slot),
    };
    batch.put(&LATEST, Key::of_id(writer), step.to_be_bytes().to_vec());
    let relaxed = is_relaxed(writer, step);
    match previous {
        // Without a requirement a writer writes it itself.
        _ if relaxed && draw(writer, step, 5).is_multiple_of(2) => &mut batch,
        Some(version) => batch.require_version(&LATEST, Key::of_id(writer), version),
        None => batch.require_absent(&LATEST, Key::of_id(writer)),
    };
    if relaxed {
        batch.relaxed();
    }
    batch
}

/// Runs the writers, each for `steps` more steps, going on where the store stands. Every acknowledgement is told.
///
/// # Errors
/// The first error any writer met; that writer ends, the others go on until they meet it too.
pub async fn run(store: &Arc<dyn Store>, writers: u64, steps: u64, tell: fn(Ack)) -> Result<(), StoreError> {
    let mut tasks = tokio::task::JoinSet::new();
    for writer in 0..writers {
        let store = store.clone();
        tasks.spawn(async move { write_steps(&*store, writer, steps, tell).await });
    }
    tasks.join_all().await.into_iter().collect()
}

async fn write_steps(store: &dyn Store, writer: u64, steps: u64, tell: fn(Ack)) -> Result<(), StoreError> {
    let latest = store.get(&LATEST, Key::of_id(writer).as_bytes()).await?;
    let mut version = latest.as_ref().map(|r| r.version);
    let done = latest.as_ref().map_or(0, step_of);
    if let Some(seq) = version {
        // What an opening found is durable from then on, even if its own acknowledgement was never told.
        tell(Ack { writer, step: done, seq, durable: true });
    }
    for step in done + 1..=done.saturating_add(steps) {
        let seq = store.commit(step_batch(writer, step, version)).await?;
        version = Some(seq);
        tell(Ack { writer, step, seq, durable: !is_relaxed(writer, step) });
    }
    Ok(())
}

/// Tells an acknowledgement on standard output. One line is one write, so a kill leaves whole lines.
pub fn print(ack: Ack) {
    std::io::stdout().lock().write_all(ack.line().as_bytes()).unwrap();
}

fn step_of(latest: &Record) -> u64 {
    u64::from_be_bytes(latest.value[..].try_into().unwrap())
}

/// Checks that the store holds what the bounds demand, and nothing half.
pub async fn check(store: &dyn Store, writers: u64, bounds: &Bounds) -> Result<(), String> {
    let mut expected = 0;
    for writer in 0..writers {
        let (least, most) = bounds.0.get(&writer).copied().unwrap_or((0, 1));
        let latest = store.get(&LATEST, Key::of_id(writer).as_bytes()).await.map_err(|e| e.to_string())?;
        let done = latest.as_ref().map_or(0, step_of);
        if done < least {
            return Err(format!("lost: writer {writer} is at step {done}, acknowledged was {least}"));
        }
        if done > most {
            return Err(format!("invented: writer {writer} is at step {done}, at most {most} was begun"));
        }
        for step in (done.saturating_sub(SLOTS - 1).max(1))..=done {
            let wanted = value(writer, step);
            expected += usize::from(wanted.is_some());
            let slot = Key::of_id(writer).id(step % SLOTS);
            for table in [&LEFT, &RIGHT] {
                let found = store.get(table, slot.as_bytes()).await.map_err(|e| e.to_string())?;
                if found.map(|r| r.value.to_vec()) != wanted {
                    return Err(format!(
                        "torn: writer {writer} is at step {done}, but {table} does not show step {step}"
                    ));
                }
            }
        }
    }
    for table in [LEFT, RIGHT] {
        let found = store.scan(Scan::table(&table)).await.map_err(|e| e.to_string())?.records.len();
        if found != expected {
            return Err(format!("torn: {table} holds {found} records, expected are {expected}"));
        }
    }
    Ok(())
}
