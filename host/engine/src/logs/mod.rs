//! Logs: from bytes and lines to numbered, masked, stored lines that live views see at once.
//!
//! Each node of a task has one [`NodeLog`]. Lines are numbered when they are taken in, written in chunks by one
//! writer for all nodes, and shown once they are written. `node` makes lines and knows which are repeated, `text` says
//! what they may look like, `read` brings them back. What one machine prints is bounded by back-pressure; what a
//! guest logs by the guest host's own caps.

mod node;
mod read;
mod text;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::{Notify, Semaphore, oneshot};
use windlass_effects::Masker;
use windlass_model::{
    TaskId,
    task::{LogLevel, LogLine, TaskChange},
};
use windlass_store::{Batch, Key, StoreError};

pub use node::{LogCursor, NodeLog, Printer, Stream};
pub use read::read;

use node::Source;

use crate::{
    driver::Shared,
    maps::give_back_room,
    records::{LOG_ENDS, LOGS, LogEnd},
};

/// Bytes of one stored chunk, as [`weight`] counts them: below what a record may hold.
const CHUNK: usize = 30 << 10;
/// What a line takes beside its text.
const LINE: usize = 90;
/// Bytes of text in one commit, about.
const SECTION: usize = 512 << 10;
/// Lines in one stored chunk.
const CHUNK_LINES: usize = 250;
/// Lines of all nodes that may wait for the writer before printers must wait.
const WAITING: usize = 20_000;
/// How long the writer gathers before it writes.
const GATHER: Duration = Duration::from_millis(25);

/// All logs of the server.
pub struct Logs {
    shared: Arc<Shared>,
    state: Mutex<State>,
    wake: Notify,
    urgent: Notify,
    room: Arc<Semaphore>,
}

#[derive(Default)]
struct State {
    nodes: HashMap<(TaskId, String), Pending>,
    /// Nodes with something to write.
    dirty: usize,
    /// What was taken out is being written.
    writing: bool,
    flushed: Vec<oneshot::Sender<()>>,
    closed: bool,
    /// The writer has ended: nobody answers any more.
    ended: bool,
}

#[derive(Default)]
struct Pending {
    /// Held by each log of the node too.
    users: Arc<()>,
    end: LogEnd,
    lines: Vec<LogLine>,
    /// Weight of those lines.
    bytes: usize,
    /// What came before them, cut so that each fits a commit.
    sections: Vec<Section>,
    permits: usize,
    dirty: bool,
}

/// Lines with where the log ends behind them.
struct Section {
    lines: Vec<LogLine>,
    end: LogEnd,
}

impl Pending {
    fn close_section(&mut self) {
        self.bytes = 0;
        self.sections.push(Section { lines: std::mem::take(&mut self.lines), end: self.end.clone() });
    }
}

impl Logs {
    /// Logs over a store; [`Logs::run`] must run for anything to be written.
    #[must_use]
    pub fn new(shared: Arc<Shared>) -> Arc<Self> {
        Arc::new(Self {
            shared,
            state: Mutex::default(),
            wake: Notify::new(),
            urgent: Notify::new(),
            room: Arc::new(Semaphore::new(WAITING)),
        })
    }

    /// The log of a node for a run, going on where it ended. What the run repeats of it is left out; an empty name
    /// is for what is no run.
    ///
    /// # Errors
    /// When the store stopped.
    pub async fn open(
        self: &Arc<Self>,
        task: TaskId,
        node: &str,
        run: &str,
        masker: &Masker,
    ) -> Result<Arc<NodeLog>, StoreError> {
        let stored = LOG_ENDS.get(&*self.shared.store, Key::of_id(task.0).text(node)).await?;
        let end = stored.map(|stored| stored.value).unwrap_or_default();
        let mut state = self.lock();
        let pending =
            state.nodes.entry((task, node.to_owned())).or_insert_with(|| Pending { end, ..Pending::default() });
        if !pending.end.cursor.is_of(run) {
            pending.end.cursor = LogCursor::of(run);
        }
        Ok(Arc::new(NodeLog {
            logs: Arc::clone(self),
            task,
            node: node.to_owned(),
            _user: Arc::clone(&pending.users),
            masker: masker.clone(),
            stored: Mutex::new(pending.end.cursor.clone()),
        }))
    }

    /// Writes until [`Logs::close`].
    ///
    /// # Errors
    /// When the store stopped: nothing can be logged any more.
    pub async fn run(self: Arc<Self>) -> Result<(), StoreError> {
        let result = self.write_on().await;
        let mut state = self.lock();
        state.ended = true;
        state.flushed.clear();
        result
    }

    async fn write_on(&self) -> Result<(), StoreError> {
        loop {
            self.wake.notified().await;
            tokio::select! {
                () = tokio::time::sleep(GATHER) => {}
                () = self.urgent.notified() => {}
            }
            self.write().await?;
            if self.lock().closed {
                return Ok(());
            }
        }
    }

    /// Waits until everything taken in so far is written.
    pub async fn flush(&self) {
        let (sender, receiver) = oneshot::channel();
        {
            let mut state = self.lock();
            if state.ended || (state.dirty == 0 && !state.writing) {
                return;
            }
            state.flushed.push(sender);
        }
        self.urgent.notify_one();
        self.wake.notify_one();
        // A writer that ended has nothing more to say.
        let _ = receiver.await;
    }

    /// Ends [`Logs::run`] after one more write.
    pub fn close(&self) {
        self.lock().closed = true;
        self.urgent.notify_one();
        self.wake.notify_one();
    }

    async fn write(&self) -> Result<(), StoreError> {
        let (written, flushed, permits, mut batches) = self.gather()?;
        for batch in &mut batches {
            batch.relaxed();
        }
        for batch in batches {
            self.shared.store.commit(batch).await?;
        }
        self.room.add_permits(permits);
        let now = self.shared.clock.now_ms();
        for (task, node, lines) in written {
            self.shared.hub.publish(task, now, TaskChange::Log { node, lines });
        }
        self.lock().writing = false;
        for sender in flushed {
            // Whoever asked may have gone away.
            let _ = sender.send(());
        }
        Ok(())
    }

    /// Takes out what waits, as chunks and as batches that fit the store's limits.
    #[allow(clippy::type_complexity, reason = "used once, a few lines above")]
    fn gather(
        &self,
    ) -> Result<(Vec<(TaskId, String, Vec<LogLine>)>, Vec<oneshot::Sender<()>>, usize, Vec<Batch>), StoreError> {
        let mut state = self.lock();
        let (mut written, mut batches, mut permits) = (Vec::new(), Vec::new(), 0);
        let mut batch = Batch::new();
        (state.dirty, state.writing) = (0, true);
        for ((task, node), pending) in &mut state.nodes {
            if !std::mem::take(&mut pending.dirty) {
                continue;
            }
            permits += std::mem::take(&mut pending.permits);
            pending.close_section();
            for Section { lines, end } in pending.sections.drain(..) {
                if batch.ops().len() >= 20 || batch.bytes() >= SECTION {
                    batches.push(std::mem::take(&mut batch));
                }
                // Lines and the end that counts them are in one batch: a kill between would bring the lines again.
                for chunk in chunks(lines) {
                    let first = chunk.first().map_or(0, |line| line.n);
                    LOGS.put(&mut batch, Key::of_id(task.0).text(node).id(first), &chunk)?;
                    written.push((*task, node.clone(), chunk));
                }
                LOG_ENDS.put(&mut batch, Key::of_id(task.0).text(node), &end)?;
            }
        }
        if !batch.is_empty() {
            batches.push(batch);
        }
        let flushed = std::mem::take(&mut state.flushed);
        Ok((written, flushed, permits, batches))
    }

    /// Forgets the nodes of a task that is over. Its lines must be flushed before.
    pub fn forget(&self, task: TaskId) {
        let mut state = self.lock();
        state.nodes.retain(|(of, _), pending| *of != task || pending.dirty);
        give_back_room(&mut state.nodes);
    }

    /// Forgets a node that nobody logs to for now. Its lines must be flushed before.
    pub fn let_go(&self, task: TaskId, node: &str) {
        let key = (task, node.to_owned());
        let mut state = self.lock();
        let unused = |pending: &Pending| !pending.dirty && Arc::strong_count(&pending.users) == 1;
        if state.nodes.get(&key).is_some_and(unused) {
            state.nodes.remove(&key);
            give_back_room(&mut state.nodes);
        }
    }

    fn add(&self, task: TaskId, node: &str, lines: Vec<(LogLevel, String)>, source: Source, permits: usize) {
        let at_ms = self.shared.clock.now_ms();
        let mut state = self.lock();
        let State { nodes, dirty, .. } = &mut *state;
        let pending = nodes.entry((task, node.to_owned())).or_default();
        let count = lines.len() as u64;
        for (level, text) in lines {
            pending.bytes += weight(&text);
            pending.lines.push(LogLine { n: pending.end.lines, at_ms, level, text });
            pending.end.lines += 1;
        }
        pending.end.cursor.advance(source, count);
        if pending.bytes >= SECTION {
            pending.close_section();
        }
        pending.permits += permits;
        *dirty += usize::from(!std::mem::replace(&mut pending.dirty, true));
        drop(state);
        self.wake.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The bytes of a line of that text as stored, at most: some characters are written as two.
fn weight(text: &str) -> usize {
    LINE + text.len() + text.bytes().filter(|byte| matches!(byte, b'"' | b'\\' | b'\t')).count()
}

fn chunks(lines: Vec<LogLine>) -> Vec<Vec<LogLine>> {
    let (mut chunks, mut chunk, mut bytes) = (Vec::new(), Vec::new(), 0);
    for line in lines {
        let weight = weight(&line.text);
        if !chunk.is_empty() && (bytes + weight > CHUNK || chunk.len() == CHUNK_LINES) {
            chunks.push(std::mem::take(&mut chunk));
            bytes = 0;
        }
        bytes += weight;
        chunk.push(line);
    }
    if !chunk.is_empty() {
        chunks.push(chunk);
    }
    chunks
}

#[cfg(test)]
mod tests {
    use super::{text::MAX_LINE, *};

    #[test]
    fn chunks_stay_small_and_lose_nothing() {
        let lines: Vec<_> = (0..1000)
            .map(|n| LogLine { n, at_ms: 0, level: LogLevel::Info, text: "x".repeat((n as usize * 37) % 5000) })
            .collect();
        let chunks = chunks(lines.clone());
        assert!(chunks.iter().all(|chunk| chunk.iter().map(|line| line.text.len()).sum::<usize>() <= CHUNK));
        assert_eq!(chunks.concat(), lines);
    }

    #[test]
    fn no_text_makes_a_chunk_too_large_for_a_record() {
        let texts = ["\"", "\\", "\t", "\u{fffd}", "x"].map(|one| text::clean(&one.repeat(MAX_LINE)));
        let lines = texts.iter().cycle().take(600).cloned().chain((0..5000).map(|_| "\"".repeat(90)));
        // What a build prints: many lines of the width of a terminal.
        let lines = lines.chain((0..2000).map(|_| "x".repeat(80)));
        let lines =
            lines.enumerate().map(|(n, text)| LogLine { n: n as u64, at_ms: u64::MAX, level: LogLevel::Stderr, text });
        for chunk in chunks(lines.collect()) {
            let mut batch = Batch::new();
            LOGS.put(&mut batch, Key::of_id(u64::MAX).text("a/node").id(u64::MAX), &chunk).unwrap();
            assert!(batch.bytes() <= windlass_store::MAX_VALUE_BYTES, "{} bytes", batch.bytes());
        }
    }
}
