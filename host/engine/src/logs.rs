//! Logs: from bytes and lines to numbered, masked, stored lines that live views see at once.
//!
//! Each node of a task has one [`NodeLog`]. Lines are numbered when they are taken in, written in chunks by one
//! writer for all nodes, and shown once they are written. What one machine prints is bounded by back-pressure; what a
//! guest logs by the guest host's own caps.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::{Notify, Semaphore, oneshot};
use windlass_effects::{Line, LineSink, MaskStream, Masker};
use windlass_model::{
    TaskId,
    task::{LogLevel, LogLine, Progress, RunState, TaskChange},
};
use windlass_store::{Batch, Key, Store, StoreError};

use crate::{
    driver::Shared,
    records::{LOG_ENDS, LOGS, LogEnd},
};

/// Longest line kept whole, in bytes; longer ones are cut into several.
const MAX_LINE: usize = 16 << 10;
/// Bytes of text in one stored chunk.
const CHUNK: usize = 20 << 10;
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
    flushed: Vec<oneshot::Sender<()>>,
    closed: bool,
}

#[derive(Default)]
struct Pending {
    end: LogEnd,
    lines: Vec<LogLine>,
    permits: usize,
    dirty: bool,
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

    /// The log of a node, going on where it ended.
    ///
    /// # Errors
    /// When the store stopped.
    pub async fn open(self: &Arc<Self>, task: TaskId, node: &str, masker: &Masker) -> Result<Arc<NodeLog>, StoreError> {
        let stored = LOG_ENDS.get(&*self.shared.store, Key::of_id(task.0).text(node)).await?;
        let end = stored.map(|stored| stored.value).unwrap_or_default();
        let mut state = self.lock();
        let pending =
            state.nodes.entry((task, node.to_owned())).or_insert_with(|| Pending { end, ..Pending::default() });
        Ok(Arc::new(NodeLog {
            logs: Arc::clone(self),
            task,
            node: node.to_owned(),
            masker: masker.clone(),
            skip: Mutex::new(pending.end.guest_lines),
        }))
    }

    /// Writes until [`Logs::close`].
    ///
    /// # Errors
    /// When the store stopped: nothing can be logged any more.
    pub async fn run(self: Arc<Self>) -> Result<(), StoreError> {
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
        self.lock().flushed.push(sender);
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
        for ((task, node), pending) in &mut state.nodes {
            if !std::mem::take(&mut pending.dirty) {
                continue;
            }
            permits += std::mem::take(&mut pending.permits);
            for chunk in chunks(std::mem::take(&mut pending.lines)) {
                let first = chunk.first().map_or(0, |line| line.n);
                LOGS.put(&mut batch, Key::of_id(task.0).text(node).id(first), &chunk)?;
                written.push((*task, node.clone(), chunk));
                if batch.ops().len() >= 20 {
                    batches.push(std::mem::take(&mut batch));
                }
            }
            LOG_ENDS.put(&mut batch, Key::of_id(task.0).text(node), &pending.end)?;
        }
        if !batch.is_empty() {
            batches.push(batch);
        }
        let flushed = std::mem::take(&mut state.flushed);
        Ok((written, flushed, permits, batches))
    }

    /// Forgets the nodes of a task that is over. Its lines must be flushed before.
    pub fn forget(&self, task: TaskId) {
        self.lock().nodes.retain(|(of, _), pending| *of != task || pending.dirty);
    }

    fn add(&self, task: TaskId, node: &str, lines: Vec<(LogLevel, String)>, guest: bool, permits: usize) {
        let at_ms = self.shared.clock.now_ms();
        let mut state = self.lock();
        let pending = state.nodes.entry((task, node.to_owned())).or_default();
        for (level, text) in lines {
            pending.lines.push(LogLine { n: pending.end.lines, at_ms, level, text });
            pending.end.lines += 1;
        }
        pending.end.guest_lines += u64::from(guest);
        pending.permits += permits;
        pending.dirty = true;
        drop(state);
        self.wake.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn chunks(lines: Vec<LogLine>) -> Vec<Vec<LogLine>> {
    let (mut chunks, mut chunk, mut bytes) = (Vec::new(), Vec::new(), 0);
    for line in lines {
        if !chunk.is_empty() && (bytes + line.text.len() > CHUNK || chunk.len() == CHUNK_LINES) {
            chunks.push(std::mem::take(&mut chunk));
            bytes = 0;
        }
        bytes += line.text.len();
        chunk.push(line);
    }
    if !chunk.is_empty() {
        chunks.push(chunk);
    }
    chunks
}

/// The log of one node.
pub struct NodeLog {
    logs: Arc<Logs>,
    task: TaskId,
    node: String,
    masker: Masker,
    /// Lines of the guest that a replay repeats.
    skip: Mutex<u64>,
}

impl NodeLog {
    /// Adds what the host itself says.
    pub fn say(&self, level: LogLevel, text: &str) {
        let lines = clean_lines(&self.masker.mask(text)).map(|line| (level, line)).collect();
        self.logs.add(self.task, &self.node, lines, false, 0);
    }

    /// Adds printed lines, waiting while the writer is behind.
    pub async fn print(&self, level: LogLevel, texts: Vec<String>) {
        let wanted = u32::try_from(texts.len().min(WAITING)).unwrap_or(1);
        if let Ok(permit) = self.logs.room.acquire_many(wanted).await {
            permit.forget();
        }
        let lines = texts.into_iter().map(|text| (level, text)).collect();
        self.logs.add(self.task, &self.node, lines, false, wanted as usize);
    }

    /// Where what a command prints goes.
    #[must_use]
    pub fn printer(self: &Arc<Self>, level: LogLevel) -> Printer {
        Printer { log: Arc::clone(self), level, mask: self.masker.stream(), line: Vec::new() }
    }
}

impl LineSink for NodeLog {
    fn line(&self, line: Line) {
        {
            let mut skip = self.skip.lock().unwrap_or_else(PoisonError::into_inner);
            if *skip > 0 {
                *skip -= 1;
                return;
            }
        }
        let lines = clean_lines(&line.text).map(|text| (line.level, text)).collect();
        self.logs.add(self.task, &self.node, lines, true, 0);
    }

    fn progress(&self, done: u64, total: u64, note: String) {
        let progress = Some(Progress { done, total, note });
        let change =
            TaskChange::Run { node: self.node.clone(), state: RunState::Running, reason: None, error: None, progress };
        self.logs.shared.publish(self.task, change);
    }
}

/// Turns bytes that a command prints into masked lines.
pub struct Printer {
    log: Arc<NodeLog>,
    level: LogLevel,
    mask: MaskStream,
    line: Vec<u8>,
}

impl Printer {
    /// Takes bytes in.
    pub async fn push(&mut self, bytes: &[u8]) {
        let shown = self.mask.push(bytes);
        self.take(&shown).await;
    }

    /// Shows the rest, a last line without its end.
    pub async fn finish(&mut self) {
        let rest = self.mask.finish();
        self.take(&rest).await;
        if !self.line.is_empty() {
            let line = clean(&String::from_utf8_lossy(&std::mem::take(&mut self.line)));
            self.log.print(self.level, vec![line]).await;
        }
    }

    async fn take(&mut self, shown: &[u8]) {
        let mut lines = Vec::new();
        for piece in shown.split_inclusive(|&byte| byte == b'\n') {
            self.line.extend_from_slice(piece);
            if piece.ends_with(b"\n") || self.line.len() >= MAX_LINE {
                let line = std::mem::take(&mut self.line);
                if !is_message(&line) {
                    lines.push(clean(&String::from_utf8_lossy(&line)));
                }
            }
        }
        if !lines.is_empty() {
            self.log.print(self.level, lines).await;
        }
    }
}

/// Whether a line is a message to the step, such as `##windlass[setVariable …]`, and not meant for people: it may
/// carry a secret in a form that no mask knows yet.
fn is_message(line: &[u8]) -> bool {
    line.starts_with(b"##windlass[") || line.starts_with(b"##octopus[")
}

fn clean_lines(text: &str) -> impl Iterator<Item = String> {
    text.lines().map(clean)
}

/// A line without control sequences: a machine must not steer the reader's terminal.
fn clean(line: &str) -> String {
    let line = line.trim_end_matches(['\n', '\r']);
    // What overwrote itself by carriage returns is shown as it looked in the end.
    let line = line.rsplit('\r').next().unwrap_or_default();
    let mut out = String::with_capacity(line.len().min(MAX_LINE));
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\u{1b}' => skip_escape(&mut chars),
            '\t' => out.push('\t'),
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
        if out.len() >= MAX_LINE {
            out.push('…');
            break;
        }
    }
    out
}

fn skip_escape(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) {
    match chars.next() {
        // Control sequence: up to its final letter.
        Some('[') => while chars.next().is_some_and(|c| !('@'..='~').contains(&c)) {},
        // Operating system command and its kin: up to the bell or the string terminator.
        Some(']' | 'P' | 'X' | '^' | '_') => {
            while let Some(c) = chars.next() {
                if c == '\u{7}' || (c == '\u{1b}' && chars.next_if_eq(&'\\').is_some()) {
                    break;
                }
            }
        }
        _ => {}
    }
}

/// Lines of a node's log.
///
/// # Errors
/// When the store stopped or a chunk does not decode.
pub async fn read(
    store: &dyn Store,
    task: TaskId,
    node: &str,
    from: u64,
    limit: usize,
) -> Result<Vec<LogLine>, StoreError> {
    let prefix = Key::of_id(task.0).text(node);
    // The chunk that holds line `from` begins at or before it.
    let before =
        LOGS.starting_with(prefix.clone()).descending().limit(1).after(prefix.clone().id(from.saturating_add(1)));
    let start = LOGS.scan(store, before).await?.records.first().map(|record| record.key.clone());
    let mut scan = LOGS.starting_with(prefix.clone());
    let mut lines = Vec::new();
    if let Some(start) = start {
        if let Some(first) = store.get(LOGS.name(), &start).await? {
            lines.extend(LOGS.decode(first)?.value);
        }
        scan = scan.after(start);
    }
    lines.retain(|line| line.n >= from);
    while lines.len() < limit {
        let page = LOGS.scan(store, scan.clone().limit(16)).await?;
        let last = page.records.last().map(|record| record.key.clone());
        lines.extend(page.records.into_iter().flat_map(|record| record.value));
        match last {
            Some(last) if page.more => scan = scan.after(last),
            _ => break,
        }
    }
    lines.truncate(limit);
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_lose_what_could_steer_a_terminal() {
        for (line, expected) in [
            ("plain\r\n", "plain"),
            ("\u{1b}[31mred\u{1b}[0m text", "red text"),
            ("title \u{1b}]0;owned\u{7}done", "title done"),
            ("link \u{1b}]8;;http://x\u{1b}\\here", "link here"),
            ("10%\r50%\r100%", "100%"),
            ("bell\u{7}", "bell\u{fffd}"),
            ("a\tb", "a\tb"),
        ] {
            assert_eq!(clean(line), expected);
        }
    }

    #[test]
    fn chunks_stay_small_and_lose_nothing() {
        let lines: Vec<_> = (0..1000)
            .map(|n| LogLine { n, at_ms: 0, level: LogLevel::Info, text: "x".repeat((n as usize * 37) % 5000) })
            .collect();
        let chunks = chunks(lines.clone());
        assert!(chunks.iter().all(|chunk| chunk.iter().map(|line| line.text.len()).sum::<usize>() <= CHUNK + MAX_LINE));
        assert_eq!(chunks.concat(), lines);
    }
}
