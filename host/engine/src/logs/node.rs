//! The log of one node: what the host says, what the guest says, what commands print, each line once.
//!
//! A run that is taken up after a restart repeats what it logged before: its guest is replayed, and what a command
//! printed is read again from its first byte. So the log keeps, with its lines and in the same commit, a
//! [`LogCursor`]: how many lines of each source it holds. That many are left out when they come again.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde::{Deserialize, Serialize};
use windlass_effects::{Line, LineSink, MaskStream, Masker};
use windlass_model::{
    TaskId,
    task::{LogLevel, Progress, RunState, TaskChange},
};

use super::{
    Logs, WAITING,
    text::{MAX_LINE, clean, clean_lines, is_message},
};

/// Effects of which a cursor knows how much they logged. A guest waits for each effect but for the processes it
/// started, so older ones were answered long ago and never print again.
const MAX_EFFECTS: usize = 64;

/// Who a line comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// The host, about what happens now: never repeated.
    Host,
    /// The guest: repeated by a replay in the same order.
    Guest,
    /// What is done for the effect of that index: repeated when it is taken up again.
    Effect(u64, Stream),
}

/// What a line of an effect is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Printed to standard output.
    Out,
    /// Printed to standard error.
    Err,
    /// Said about it by the host.
    Note,
}

/// How much of a run's log is stored.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LogCursor {
    /// The run; another attempt begins anew.
    run: String,
    /// Lines that its guest logged.
    guest: u64,
    /// Lines by effect: output, errors, notes.
    effects: BTreeMap<u64, [u64; 3]>,
}

impl LogCursor {
    pub(super) fn of(run: &str) -> Self {
        Self { run: run.to_owned(), ..Self::default() }
    }

    pub(super) fn is_of(&self, run: &str) -> bool {
        self.run == run
    }

    /// Takes in what is written.
    pub(super) fn advance(&mut self, source: Source, lines: u64) {
        match source {
            Source::Host => {}
            Source::Guest => self.guest += 1,
            Source::Effect(index, stream) => *self.count(index, stream) += lines,
        }
    }

    /// How many of the lines that come now were written before.
    fn repeated(&mut self, source: Source, lines: u64) -> u64 {
        let left = match source {
            Source::Host => return 0,
            Source::Guest => &mut self.guest,
            Source::Effect(index, stream) => self.count(index, stream),
        };
        let repeated = lines.min(*left);
        *left -= repeated;
        repeated
    }

    fn count(&mut self, index: u64, stream: Stream) -> &mut u64 {
        if self.effects.len() >= MAX_EFFECTS && !self.effects.contains_key(&index) {
            self.effects.pop_first();
        }
        let [out, err, note] = self.effects.entry(index).or_default();
        match stream {
            Stream::Out => out,
            Stream::Err => err,
            Stream::Note => note,
        }
    }
}

/// The log of one node.
pub struct NodeLog {
    pub(super) logs: Arc<Logs>,
    pub(super) task: TaskId,
    pub(super) node: String,
    /// Says that the node is in use.
    pub(super) _user: Arc<()>,
    pub(super) masker: Masker,
    /// What will come again of what is stored already.
    pub(super) stored: Mutex<LogCursor>,
}

impl NodeLog {
    /// Adds what the host itself says.
    pub fn say(&self, level: LogLevel, text: &str) {
        self.add(Source::Host, level, text);
    }

    /// Adds what the host says at the end of a run, which a replay comes to again.
    pub fn conclude(&self, level: LogLevel, text: &str) {
        self.add(Source::Guest, level, text);
    }

    /// Adds what the host says about an effect.
    pub fn note(&self, effect: u64, level: LogLevel, text: &str) {
        self.add(Source::Effect(effect, Stream::Note), level, text);
    }

    /// Where what an effect prints goes.
    #[must_use]
    pub fn printer(self: &Arc<Self>, effect: u64, stream: Stream) -> Printer {
        Printer { log: Arc::clone(self), effect, stream, mask: self.masker.stream(), line: Vec::new() }
    }

    /// Waits until what was taken in is written: what happens next may rely on it.
    pub async fn flush(&self) {
        self.logs.flush().await;
    }

    fn add(&self, source: Source, level: LogLevel, text: &str) {
        if self.stored().repeated(source, 1) > 0 {
            return;
        }
        let lines = clean_lines(&self.masker.mask(text)).map(|line| (level, line)).collect();
        self.logs.add(self.task, &self.node, lines, source, 0);
    }

    /// Adds printed lines, waiting while the writer is behind.
    async fn print(&self, effect: u64, stream: Stream, mut texts: Vec<String>) {
        let source = Source::Effect(effect, stream);
        let repeated = self.stored().repeated(source, texts.len() as u64);
        texts.drain(..usize::try_from(repeated).unwrap_or(usize::MAX).min(texts.len()));
        if texts.is_empty() {
            return;
        }
        let wanted = u32::try_from(texts.len().min(WAITING)).unwrap_or(1);
        if let Ok(permit) = self.logs.room.acquire_many(wanted).await {
            permit.forget();
        }
        let level = if stream == Stream::Out { LogLevel::Info } else { LogLevel::Stderr };
        let lines = texts.into_iter().map(|text| (level, text)).collect();
        self.logs.add(self.task, &self.node, lines, source, wanted as usize);
    }

    fn stored(&self) -> MutexGuard<'_, LogCursor> {
        self.stored.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LineSink for NodeLog {
    fn line(&self, line: Line) {
        if self.stored().repeated(Source::Guest, 1) > 0 {
            return;
        }
        // The layers above have masked it.
        let lines = clean_lines(&line.text).map(|text| (line.level, text)).collect();
        self.logs.add(self.task, &self.node, lines, Source::Guest, 0);
    }

    fn progress(&self, done: u64, total: u64, note: String) {
        let progress = Some(Progress { done, total, note });
        let change =
            TaskChange::Run { node: self.node.clone(), state: RunState::Running, reason: None, error: None, progress };
        self.logs.shared.publish(self.task, change);
    }
}

/// Turns bytes that a command prints into masked lines. How the bytes are cut into pieces changes nothing.
pub struct Printer {
    log: Arc<NodeLog>,
    effect: u64,
    stream: Stream,
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
        let line = std::mem::take(&mut self.line);
        if !line.is_empty() && !is_message(&line) {
            self.log.print(self.effect, self.stream, vec![clean(&String::from_utf8_lossy(&line))]).await;
        }
    }

    async fn take(&mut self, shown: &[u8]) {
        let mut lines = Vec::new();
        for mut piece in shown.split_inclusive(|&byte| byte == b'\n') {
            while !piece.is_empty() {
                let (taken, rest) = piece.split_at(piece.len().min(MAX_LINE - self.line.len()));
                self.line.extend_from_slice(taken);
                piece = rest;
                if self.line.ends_with(b"\n") || self.line.len() == MAX_LINE {
                    let line = std::mem::take(&mut self.line);
                    if !is_message(&line) {
                        lines.push(clean(&String::from_utf8_lossy(&line)));
                    }
                }
            }
        }
        if !lines.is_empty() {
            self.log.print(self.effect, self.stream, lines).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_is_left_out_once() {
        let mut stored = LogCursor::of("t1");
        for (source, lines) in [
            (Source::Guest, 2),
            (Source::Guest, 1),
            (Source::Effect(3, Stream::Out), 5),
            (Source::Effect(3, Stream::Err), 1),
            (Source::Host, 9),
        ] {
            stored.advance(source, lines);
        }
        let mut again = stored;
        assert_eq!(again.repeated(Source::Guest, 1), 1);
        assert_eq!(again.repeated(Source::Host, 1), 0);
        assert_eq!(again.repeated(Source::Effect(3, Stream::Out), 3), 3);
        assert_eq!(again.repeated(Source::Effect(3, Stream::Out), 3), 2, "the sixth is new");
        assert_eq!(again.repeated(Source::Effect(3, Stream::Note), 1), 0);
        assert_eq!(again.repeated(Source::Guest, 1), 1);
        assert_eq!(again.repeated(Source::Guest, 1), 0);
    }

    #[test]
    fn a_cursor_stays_small() {
        let mut cursor = LogCursor::of("t1");
        for effect in 0..10_000 {
            cursor.advance(Source::Effect(effect, Stream::Out), 1);
        }
        assert_eq!(cursor.effects.len(), MAX_EFFECTS);
        assert_eq!(cursor.repeated(Source::Effect(9_999, Stream::Out), 1), 1);
    }
}
