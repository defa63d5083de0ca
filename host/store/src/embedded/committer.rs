//! The committer: the one thread that writes.
//!
//! It takes whatever commits are waiting, checks each against the index and against its neighbours in the group,
//! writes them to the journal at once, syncs at once, shows them to readers at once, and only then answers.
//!
//! The sync is the time in which the next group gathers. Only after a group of several does the committer wait a
//! little longer, because the callers just answered tend to come back at once: two half groups cost two syncs. A
//! lone caller never waits for company.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::exporter::Job;
use super::folder::{Folder, IndexName};
use super::index::IndexError;
use super::view::View;
use super::watchdog::Pulse;
use crate::batch::{Batch, Durability, Op};
use crate::error::{StoreError, Unmet};
use crate::failpoint;
use crate::journal::Writer;
use crate::record::{Seq, TableName};
use crate::stop::StopSwitch;
use crate::watch::Hub;

const GROUP_COMMITS: usize = 256;
const GROUP_BYTES: usize = 4 * 1024 * 1024;
/// The longest wait for a group to fill up; half a sync if that is shorter.
const GATHER: Duration = Duration::from_millis(2);
/// How long relaxed commits may wait for a sync when no durable one brings it.
const RELAXED_SYNC: Duration = Duration::from_millis(100);

/// What the committer is asked for.
pub(crate) enum Request {
    Commit(Commit),
    /// Close the current segment; answers the last commit in closed segments.
    Seal(oneshot::Sender<Seq>),
    /// Make everything durable and end.
    Close(oneshot::Sender<()>),
}

pub(crate) struct Commit {
    pub(crate) batch: Batch,
    pub(crate) reply: oneshot::Sender<Result<Seq, StoreError>>,
    /// Held until answered, which bounds what can be queued.
    pub(crate) permit: OwnedSemaphorePermit,
}

/// The error that ends the committer, and with it the store.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fatal {
    #[error("{what} the journal {path}: {source}")]
    Journal { what: &'static str, path: String, source: io::Error },
    #[error(transparent)]
    Index(#[from] IndexError),
}

pub(crate) struct Committer {
    pub(crate) requests: Receiver<Request>,
    pub(crate) writer: Writer,
    pub(crate) view: Arc<View>,
    pub(crate) name: IndexName,
    pub(crate) folder: Arc<Folder>,
    pub(crate) boot: String,
    pub(crate) pulse: Arc<Pulse>,
    pub(crate) segment_bytes: u64,
    pub(crate) hub: Arc<Hub>,
    pub(crate) stop: StopSwitch,
    pub(crate) low_space: Arc<AtomicBool>,
    pub(crate) exporter: Sender<Job>,
    pub(crate) pace: Pace,
}

/// What the last group was like, as a guess at the next, and what it left to do.
#[derive(Default)]
pub(crate) struct Pace {
    group: usize,
    sync: Duration,
    /// Since when something written waits for its sync.
    unsynced_since: Option<Instant>,
}

/// Turns the stop switch when the committer ends, however it ends: callers wait for it once their answer is lost.
struct Ended(StopSwitch);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.stop("its committer ended unexpectedly");
    }
}

/// One commit of a group, with what was decided about it.
struct Decided {
    ops: Vec<Op>,
    outcome: Result<Seq, StoreError>,
    reply: oneshot::Sender<Result<Seq, StoreError>>,
    permit: OwnedSemaphorePermit,
}

impl Committer {
    /// Runs until closed, dropped by the store, or stopped by an error.
    pub(crate) fn run(mut self) {
        let _ended = Ended(self.stop.clone());
        let ended = self.serve().and_then(|closed| {
            let _working = self.pulse.begin();
            self.finish().map(|()| closed)
        });
        match ended {
            Ok(closed) => {
                self.stop.stop("it was closed");
                if let Some(closed) = closed {
                    // The closer may have gone away.
                    let _ = closed.send(());
                }
            }
            Err(fatal) => {
                let reason = self.stop.stop(fatal.to_string());
                tracing::error!(%reason, "the store stops");
                if matches!(fatal, Fatal::Index(_)) {
                    self.distrust();
                }
            }
        }
    }

    fn serve(&mut self) -> Result<Option<oneshot::Sender<()>>, Fatal> {
        loop {
            let Some(request) = self.next_request()? else { return Ok(None) };
            let mut pending = Some(request);
            while let Some(request) = pending.take() {
                match request {
                    Request::Commit(first) => pending = self.commit_group(first)?,
                    Request::Seal(reply) => {
                        let _working = self.pulse.begin();
                        self.rotate()?;
                        let _ = reply.send(self.writer.last());
                    }
                    Request::Close(reply) => return Ok(Some(reply)),
                }
            }
        }
    }

    /// Waits for the next request; meanwhile relaxed commits get their sync.
    fn next_request(&mut self) -> Result<Option<Request>, Fatal> {
        if let Some(since) = self.pace.unsynced_since {
            match self.requests.recv_timeout(RELAXED_SYNC.saturating_sub(since.elapsed())) {
                Ok(request) => return Ok(Some(request)),
                Err(RecvTimeoutError::Disconnected) => return Ok(None),
                Err(RecvTimeoutError::Timeout) => {
                    let _working = self.pulse.begin();
                    self.sync()?;
                }
            }
        }
        Ok(self.requests.recv().ok())
    }

    /// Gathers what is waiting behind `first` and commits it. Gives back a request of another kind it met.
    fn commit_group(&mut self, first: Commit) -> Result<Option<Request>, Fatal> {
        let (group, other) = self.gather(first);
        let _working = self.pulse.begin();
        self.pace.group = group.len();
        let durable = group.iter().any(|c| c.batch.durability == Durability::Durable && !c.batch.is_empty());
        // Relaxed commits that keep coming must not put off the sync of the first of them.
        let overdue = self.pace.unsynced_since.is_some_and(|since| since.elapsed() >= RELAXED_SYNC);
        let decided = self.decide(group)?;
        self.persist(&decided, durable || overdue)?;
        self.answer(decided);
        if self.view.is_full() {
            self.view.settle()?;
        }
        if self.writer.size() >= self.segment_bytes {
            self.rotate()?;
        }
        Ok(other)
    }

    /// Takes what is queued, and waits briefly for a group as large as the last one.
    fn gather(&self, first: Commit) -> (Vec<Commit>, Option<Request>) {
        let deadline = Instant::now() + (self.pace.sync / 2).min(GATHER);
        let mut bytes = first.batch.bytes();
        let mut group = vec![first];
        while group.len() < GROUP_COMMITS && bytes < GROUP_BYTES {
            let next = match self.requests.try_recv() {
                Err(TryRecvError::Empty) if group.len() < self.pace.group => {
                    self.requests.recv_timeout(deadline.saturating_duration_since(Instant::now())).ok()
                }
                next => next.ok(),
            };
            match next {
                Some(Request::Commit(commit)) => {
                    bytes += commit.batch.bytes();
                    group.push(commit);
                }
                other => return (group, other),
            }
        }
        (group, None)
    }

    /// Checks each commit's requirements as if those before it were applied already, and numbers those that pass.
    fn decide(&mut self, group: Vec<Commit>) -> Result<Vec<Decided>, Fatal> {
        let shared = group.len() > 1;
        let mut neighbours: HashMap<(TableName, Bytes), Option<Seq>> = HashMap::new();
        let mut decided = Vec::with_capacity(group.len());
        for Commit { batch, reply, permit } in group {
            let outcome = match self.check(&batch, &neighbours)? {
                Err(unmet) => Err(unmet.into()),
                Ok(()) if batch.is_empty() => Ok(self.writer.last()),
                Ok(()) => Ok(self.writer.add(&batch.ops)),
            };
            let ops = if outcome.is_ok() { batch.ops } else { Vec::new() };
            if shared && let Ok(seq) = outcome {
                for op in &ops {
                    let (table, key) = op.target();
                    let version = matches!(op, Op::Put { .. }).then_some(seq);
                    neighbours.insert((table.clone(), key.clone()), version);
                }
            }
            decided.push(Decided { ops, outcome, reply, permit });
        }
        Ok(decided)
    }

    fn check(
        &self,
        batch: &Batch,
        neighbours: &HashMap<(TableName, Bytes), Option<Seq>>,
    ) -> Result<Result<(), Unmet>, Fatal> {
        for (table, key, wanted) in &batch.requirements {
            let neighbour = if neighbours.is_empty() { None } else { neighbours.get(&(table.clone(), key.clone())) };
            let found = match neighbour {
                Some(version) => *version,
                None => self.view.version(table, key)?,
            };
            if !wanted.holds(found) {
                return Ok(Err(Unmet { table: table.clone(), key: key.clone(), wanted: *wanted, found }));
            }
        }
        Ok(Ok(()))
    }

    /// Journal first, then the readers.
    fn persist(&mut self, decided: &[Decided], sync: bool) -> Result<(), Fatal> {
        let numbered = |d: &'_ Decided| d.outcome.as_ref().ok().copied().filter(|_| !d.ops.is_empty());
        if decided.iter().all(|d| numbered(d).is_none()) {
            return Ok(());
        }
        self.with_space("extend", Writer::reserve)?;
        pass("begun", decided);
        self.journal("write", Writer::write)?;
        self.pace.unsynced_since.get_or_insert_with(Instant::now);
        pass("written", decided);
        if sync {
            self.sync()?;
            pass("synced", decided);
        }
        let commits = decided.iter().filter_map(|d| Some((numbered(d)?, d.ops.as_slice())));
        self.view.apply(commits);
        pass("applied", decided);
        Ok(())
    }

    fn sync(&mut self) -> Result<(), Fatal> {
        let begin = Instant::now();
        self.journal("sync", Writer::sync)?;
        self.pace.sync = begin.elapsed();
        self.pace.unsynced_since = None;
        Ok(())
    }

    /// A step that needs space; a full disk costs the reserve, once. The step must be harmless to repeat.
    fn with_space(&mut self, what: &'static str, step: fn(&mut Writer) -> io::Result<()>) -> Result<(), Fatal> {
        let Err(e) = step(&mut self.writer) else { return Ok(()) };
        let full = matches!(e.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        if !full || !self.folder.give_up_reserve().unwrap_or(false) {
            return Err(self.fatal(what, e));
        }
        tracing::error!("the disk is full: the store gave up its reserve; free space before starting anything new");
        self.low_space.store(true, Ordering::Relaxed);
        // What sled did with the full disk is not known; the index is built again at the next opening.
        self.view.doubt();
        self.distrust();
        self.journal(what, step)
    }

    fn answer(&self, decided: Vec<Decided>) {
        let mut published = Vec::with_capacity(decided.len());
        let mut replies = Vec::with_capacity(decided.len());
        for Decided { ops, outcome, reply, permit } in decided {
            if let (Ok(seq), false) = (&outcome, ops.is_empty()) {
                published.push((*seq, ops));
            }
            replies.push((reply, outcome, permit));
        }
        self.hub.publish(published);
        for (reply, outcome, permit) in replies {
            // The caller may have gone away.
            let _ = reply.send(outcome);
            drop(permit);
        }
    }

    fn rotate(&mut self) -> Result<(), Fatal> {
        self.with_space("rotate", Writer::rotate)?;
        self.pace.unsynced_since = None;
        // The index never lags behind the segments that an export may remove.
        self.view.settle()?;
        // The exporter lives as long as the store; if it is gone, so is the need.
        let _ = self.exporter.send(Job::Check);
        Ok(())
    }

    /// Makes everything durable. The index is marked as closed only if nothing was ever wrong with it.
    fn finish(&mut self) -> Result<(), Fatal> {
        self.sync()?;
        if self.stop.reason().is_some() || self.low_space.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.view.sync()?;
        if let Err(e) = self.folder.set_trust(&self.boot, true, &self.name) {
            tracing::warn!(error = %e, "cannot mark the index as closed; it is built anew if the machine restarts first");
        }
        Ok(())
    }

    fn distrust(&self) {
        if let Err(e) = self.folder.distrust() {
            tracing::error!(error = %e, "cannot take the trust mark away from the index");
        }
    }

    fn journal(&mut self, what: &'static str, step: fn(&mut Writer) -> io::Result<()>) -> Result<(), Fatal> {
        step(&mut self.writer).map_err(|e| self.fatal(what, e))
    }

    fn fatal(&self, what: &'static str, source: io::Error) -> Fatal {
        Fatal::Journal { what, path: self.writer.path().display().to_string(), source }
    }
}

/// The group's points, one for each table that its commits begin with.
fn pass(moment: &str, decided: &[Decided]) {
    if failpoint::are_armed() {
        for op in decided.iter().filter_map(|d| d.ops.first()) {
            failpoint::pass(|| format!("store/{}/{moment}", op.target().0));
        }
    }
}
