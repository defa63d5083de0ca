//! Following changes: a bounded memory of recent commits that any number of watchers read at their own pace.
//!
//! There is no queue per watcher. The hub keeps the last commits up to a fixed count and size; a watcher keeps only
//! the number of the last commit it saw. One that falls behind the oldest commit kept is told so and reads the table
//! again. An implementation feeds the hub after a commit became visible.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::sync::watch;

use crate::batch::Op;
use crate::record::{Seq, TableName};
use crate::stop::StopSwitch;

const KEPT_COMMITS: usize = 4096;
const KEPT_BYTES: usize = 16 * 1024 * 1024;
/// A flat charge for each change, so that a flood of tiny ones is bounded as well.
const CHANGE_COST: usize = 128;

/// One record changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The commit; several changes of one commit carry the same number.
    pub seq: Seq,
    /// The table of the record.
    pub table: TableName,
    /// The key of the record.
    pub key: Bytes,
    /// The new value; `None` if the record was deleted.
    pub value: Option<Bytes>,
}

/// The watcher was too slow: commits after its last one are no longer kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("follow changes: this watcher lagged behind commit {resume_from}; read the table again and watch from there")]
pub struct Lagged {
    /// Read the table again; the watch goes on after this commit.
    pub resume_from: Seq,
}

/// Why a watch gave no changes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WatchEnd {
    /// See [`Lagged`]. The watch stays usable.
    #[error(transparent)]
    Lagged(#[from] Lagged),
    /// The store has stopped; no more changes will come.
    #[error("follow changes: the store has stopped: {0}")]
    Stopped(Arc<str>),
}

/// A place in the stream of changes; see [`crate::Store::watch`].
#[derive(Debug)]
pub struct Watch {
    hub: Arc<Hub>,
    table: TableName,
    prefix: Bytes,
    seen: Seq,
    latest: watch::Receiver<Seq>,
    stopped: watch::Receiver<Option<Arc<str>>>,
}

impl Watch {
    /// The changes of the next commit that touched a watched key. Waits until there is one. Safe to cancel.
    ///
    /// # Errors
    /// [`WatchEnd::Lagged`] if commits were missed, [`WatchEnd::Stopped`] if the store stopped.
    pub async fn next(&mut self) -> Result<Vec<Change>, WatchEnd> {
        loop {
            self.latest.mark_unchanged();
            let found = self.hub.find_after(&mut self.seen, &self.table, &self.prefix)?;
            if !found.is_empty() {
                return Ok(found);
            }
            if let Some(reason) = self.stopped.borrow().clone() {
                return Err(WatchEnd::Stopped(reason));
            }
            tokio::select! {
                changed = self.latest.changed() => {
                    if changed.is_err() {
                        return Err(WatchEnd::Stopped("the store was dropped".into()));
                    }
                }
                _ = self.stopped.changed() => {}
            }
        }
    }

    /// The last commit this watch has looked at.
    #[must_use]
    pub fn seen(&self) -> Seq {
        self.seen
    }
}

#[derive(Debug)]
struct Committed {
    seq: Seq,
    ops: Vec<Op>,
    bytes: usize,
}

#[derive(Debug)]
struct Recent {
    commits: VecDeque<Committed>,
    bytes: usize,
    /// The last commit that is no longer kept: whoever has not seen it has lagged.
    forgotten: Seq,
}

/// The recent commits of one store.
#[derive(Debug)]
pub(crate) struct Hub {
    recent: Mutex<Recent>,
    latest: watch::Sender<Seq>,
    stop: StopSwitch,
}

impl Hub {
    /// A hub that knows no commit up to `start`.
    pub(crate) fn new(start: Seq, stop: StopSwitch) -> Arc<Self> {
        let recent = Recent { commits: VecDeque::new(), bytes: 0, forgotten: start };
        Arc::new(Self { recent: Mutex::new(recent), latest: watch::Sender::new(start), stop })
    }

    pub(crate) fn latest(&self) -> Seq {
        *self.latest.borrow()
    }

    /// Makes commits known, in order. Called once their effects are visible to readers.
    pub(crate) fn publish(&self, commits: impl IntoIterator<Item = (Seq, Vec<Op>)>) {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let mut last = None;
        for (seq, ops) in commits {
            let bytes = ops.iter().map(|op| CHANGE_COST + op.bytes()).sum();
            recent.bytes += bytes;
            recent.commits.push_back(Committed { seq, ops, bytes });
            last = Some(seq);
        }
        while recent.commits.len() > KEPT_COMMITS || recent.bytes > KEPT_BYTES {
            let Some(oldest) = recent.commits.pop_front() else { break };
            recent.bytes -= oldest.bytes;
            recent.forgotten = oldest.seq;
        }
        drop(recent);
        if let Some(seq) = last {
            self.latest.send_replace(seq);
        }
    }

    pub(crate) fn watch(self: &Arc<Self>, table: &TableName, prefix: &[u8], from: Option<Seq>) -> Watch {
        Watch {
            hub: self.clone(),
            table: table.clone(),
            prefix: Bytes::copy_from_slice(prefix),
            seen: from.unwrap_or_else(|| self.latest()),
            latest: self.latest.subscribe(),
            stopped: self.stop.subscribe(),
        }
    }

    fn find_after(&self, seen: &mut Seq, table: &TableName, prefix: &[u8]) -> Result<Vec<Change>, Lagged> {
        let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if *seen < recent.forgotten {
            *seen = recent.commits.back().map_or(recent.forgotten, |c| c.seq);
            return Err(Lagged { resume_from: *seen });
        }
        let start = recent.commits.partition_point(|c| c.seq <= *seen);
        for commit in recent.commits.range(start..) {
            *seen = commit.seq;
            let found: Vec<Change> =
                commit.ops.iter().filter_map(|op| matching(commit.seq, op, table, prefix)).collect();
            if !found.is_empty() {
                return Ok(found);
            }
        }
        Ok(Vec::new())
    }
}

fn matching(seq: Seq, op: &Op, table: &TableName, prefix: &[u8]) -> Option<Change> {
    let (in_table, key) = op.target();
    if in_table != table || !key.starts_with(prefix) {
        return None;
    }
    let value = match op {
        Op::Put { value, .. } => Some(value.clone()),
        Op::Delete { .. } => None,
    };
    Some(Change { seq, table: table.clone(), key: key.clone(), value })
}
