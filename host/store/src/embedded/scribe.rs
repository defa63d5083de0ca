//! The scribe: what a commit does to the store, one group at a time.
//!
//! It checks each commit against the view and against its neighbours in the group, writes them to the journal at once,
//! syncs if any of them asks for it, shows them to readers at once, and only then answers. The committer holds it
//! while it writes a group. In between, a relaxed commit may be written by whoever makes it
//! ([`Scribe::write_alone`]): that is one write to the system's cache, which two changes of threads would outlast by
//! far. Nothing that could take long or need space is done there.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::committer::Commit;
use super::exporter::Job;
use super::folder::{Folder, IndexName};
use super::index::IndexError;
use super::view::View;
use super::watchdog::{Pulse, Working};
use crate::batch::{Batch, Durability, Op};
use crate::error::{StoreError, Unmet};
use crate::failpoint;
use crate::journal::Writer;
use crate::record::{Seq, TableName};
use crate::stop::StopSwitch;
use crate::watch::Hub;

/// How long relaxed commits may wait for a sync when no durable one brings it.
const RELAXED_SYNC: Duration = Duration::from_millis(100);

/// What a relaxed commit may hold at most to be written by whoever makes it.
const ALONE_BYTES: usize = 64 * 1024;
const ALONE_OPS: usize = 64;

/// The error that ends the scribe, and with it the store.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fatal {
    #[error("{what} the journal {path}: {source}")]
    Journal { what: &'static str, path: String, source: io::Error },
    #[error(transparent)]
    Index(#[from] IndexError),
    #[error("somebody panicked while writing a commit")]
    Panicked,
}

pub(crate) struct Scribe {
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

impl std::fmt::Debug for Scribe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scribe").field("last", &self.last()).finish_non_exhaustive()
    }
}

/// What the last group was like, as a guess at the next, and what it left to do.
#[derive(Default)]
pub(crate) struct Pace {
    /// Commits in it.
    group: usize,
    /// How long its sync took.
    sync: Duration,
    /// Since when something written waits for its sync.
    unsynced_since: Option<Instant>,
    /// A write of somebody else than the committer failed.
    failed: Option<Fatal>,
}

/// What became of a commit that its maker wanted to write.
pub(crate) enum Alone {
    /// It is written.
    Written(Seq),
    /// It is one for the committer.
    Not(Batch),
    /// It could not be written, which ends the store.
    Failed,
}

/// A commit with its number.
type Numbered = (Seq, Vec<Op>);

/// What the maker of a commit is told once its group is written.
struct Answer {
    reply: oneshot::Sender<Result<Seq, StoreError>>,
    outcome: Result<Seq, StoreError>,
    permit: OwnedSemaphorePermit,
}

impl Scribe {
    /// How long a sync may still wait; none if there is nothing to sync.
    pub(crate) fn sync_due_in(&self) -> Option<Duration> {
        self.pace.unsynced_since.map(|since| RELAXED_SYNC.saturating_sub(since.elapsed()))
    }

    /// What went wrong while somebody else wrote.
    pub(crate) fn check_failed(&mut self) -> Result<(), Fatal> {
        self.pace.failed.take().map_or(Ok(()), Err)
    }

    /// Marks the begin of work that may take long, for the watchdog.
    pub(crate) fn working(&self) -> Working {
        self.pulse.begin()
    }

    /// Commits of the last group, and how long to wait for as many again.
    pub(crate) fn pace(&self) -> (usize, Duration) {
        (self.pace.group, self.pace.sync / 2)
    }

    /// The last commit.
    pub(crate) fn last(&self) -> Seq {
        self.writer.last()
    }

    /// Commits a group, and keeps house.
    pub(crate) fn write_group(&mut self, group: Vec<Commit>) -> Result<(), Fatal> {
        let _working = self.working();
        self.pace.group = group.len();
        let durable = group.iter().any(|c| c.batch.durability == Durability::Durable && !c.batch.is_empty());
        // Relaxed commits that keep coming must not put off the sync of the first of them.
        let overdue = self.sync_due_in() == Some(Duration::ZERO);
        let (commits, answers) = self.decide(group)?;
        self.write(&commits, durable || overdue)?;
        self.hub.publish(commits);
        for Answer { reply, outcome, permit } in answers {
            // The caller may have gone away.
            let _ = reply.send(outcome);
            drop(permit);
        }
        if self.view.is_full() {
            self.view.settle()?;
        }
        if self.writer.size() >= self.segment_bytes {
            self.rotate()?;
        }
        Ok(())
    }

    /// Writes a relaxed commit if that is no more than a write to the system's cache. Also tells whether the committer
    /// has to look here.
    pub(crate) fn write_alone(&mut self, batch: Batch) -> (Alone, bool) {
        let quick = batch.durability == Durability::Relaxed
            && batch.requirements.is_empty()
            && !batch.is_empty()
            && batch.ops.len() <= ALONE_OPS
            && batch.bytes() <= ALONE_BYTES
            && self.writer.room() >= 2 * ALONE_BYTES as u64
            && self.sync_due_in() != Some(Duration::ZERO)
            && !self.view.is_full()
            && self.writer.size() < self.segment_bytes
            && self.pace.failed.is_none()
            && self.stop.reason().is_none();
        if !quick {
            return (Alone::Not(batch), false);
        }
        let _working = self.working();
        let first = self.sync_due_in().is_none();
        let seq = self.writer.add(&batch.ops);
        let commit = [(seq, batch.ops)];
        if let Err(fatal) = self.write(&commit, false) {
            self.pace.failed = Some(fatal);
            return (Alone::Failed, true);
        }
        self.hub.publish(commit);
        (Alone::Written(seq), first)
    }

    /// Checks each commit's requirements as if those before it were applied already, and numbers those that pass.
    fn decide(&mut self, group: Vec<Commit>) -> Result<(Vec<Numbered>, Vec<Answer>), Fatal> {
        let shared = group.len() > 1;
        let mut neighbours: HashMap<(TableName, Bytes), Option<Seq>> = HashMap::new();
        let (mut commits, mut answers) = (Vec::with_capacity(group.len()), Vec::with_capacity(group.len()));
        for Commit { batch, reply, permit } in group {
            let outcome = match self.check(&batch, &neighbours)? {
                Err(unmet) => Err(unmet.into()),
                Ok(()) if batch.is_empty() => Ok(self.writer.last()),
                Ok(()) => Ok(self.writer.add(&batch.ops)),
            };
            if let (Ok(seq), false) = (&outcome, batch.is_empty()) {
                for op in batch.ops.iter().filter(|_| shared) {
                    let (table, key) = op.target();
                    let version = matches!(op, Op::Put { .. }).then_some(*seq);
                    neighbours.insert((table.clone(), key.clone()), version);
                }
                commits.push((*seq, batch.ops));
            }
            answers.push(Answer { reply, outcome, permit });
        }
        Ok((commits, answers))
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
    fn write(&mut self, commits: &[Numbered], sync: bool) -> Result<(), Fatal> {
        if commits.is_empty() {
            return Ok(());
        }
        self.with_space("extend", Writer::reserve)?;
        pass("begun", commits);
        self.journal("write", Writer::write)?;
        self.pace.unsynced_since.get_or_insert_with(Instant::now);
        pass("written", commits);
        if sync {
            self.sync()?;
            pass("synced", commits);
        }
        self.view.apply(commits.iter().map(|(seq, ops)| (*seq, ops.as_slice())));
        pass("applied", commits);
        Ok(())
    }

    pub(crate) fn sync(&mut self) -> Result<(), Fatal> {
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

    /// Begins a new segment.
    pub(crate) fn rotate(&mut self) -> Result<(), Fatal> {
        self.with_space("rotate", Writer::rotate)?;
        self.pace.unsynced_since = None;
        // The index never lags behind the segments that an export may remove.
        self.view.settle()?;
        // The exporter lives as long as the store; if it is gone, so is the need.
        let _ = self.exporter.send(Job::Check);
        Ok(())
    }

    /// Makes everything durable. The index is marked as closed only if nothing was ever wrong with it.
    pub(crate) fn finish(&mut self) -> Result<(), Fatal> {
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

    pub(crate) fn distrust(&self) {
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
fn pass(moment: &str, commits: &[Numbered]) {
    if failpoint::are_armed() {
        for op in commits.iter().filter_map(|(_, ops)| ops.first()) {
            failpoint::pass(|| format!("store/{}/{moment}", op.target().0));
        }
    }
}
