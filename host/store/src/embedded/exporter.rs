//! Verified exports: the journal's closed segments folded into the last export, in the background.
//!
//! A new export is made from files only, never from the index, so an error in the index can not creep into what the
//! index is rebuilt from. Segments go once an export that holds them was read back and its digest found right. The
//! newest of them stays one round longer: after a kill sled lags a little, and then need not be built anew.
//! (Flushing sled here instead was measured to hold up commits for seconds on a busy disk.)

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::iter::Peekable;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::folder::{Folder, export_name, list_exports};
use crate::batch::Op;
use crate::journal::{Segment, list_segments};
use crate::record::{Seq, TableName};
use crate::transfer::{self, ExportReader, ExportRecord, Exported, TransferError};

/// Closed segments are folded in once they are half as large as the last export, within these bounds: often enough
/// to keep opening fast, rarely enough that a large store is not written again and again.
const FOLD_AT_MOST: u64 = 256 * 1024 * 1024;

/// What the exporter is asked for.
pub(crate) enum Job {
    /// A segment was closed: see whether it is time for an export.
    Check,
    /// Export everything in closed segments to this file.
    Export(PathBuf, oneshot::Sender<Result<Exported, TransferError>>),
}

pub(crate) struct Exporter {
    pub(crate) folder: Arc<Folder>,
    pub(crate) segment_bytes: u64,
}

impl Exporter {
    /// Runs until the store is dropped.
    pub(crate) fn run(self, jobs: &Receiver<Job>) {
        for job in jobs {
            match job {
                Job::Check => {
                    // Nothing is lost if this fails: the segments stay, and the next closed one tries again.
                    if let Err(e) = self.fold_if_due() {
                        tracing::error!(error = %e, "the store could not write its export; the journal keeps growing");
                    }
                }
                Job::Export(to, reply) => {
                    // The asker may have gone away.
                    let _ = reply.send(self.export(&to));
                }
            }
        }
    }

    fn fold_if_due(&self) -> Result<(), TransferError> {
        let dir = self.folder.exports();
        let io = |source| TransferError::Io { what: "measure the files in", path: dir.clone(), source };
        let size = |path: &Path| fs::metadata(path).map(|m| m.len());
        let (exported_to, exported) = match list_exports(&dir).map_err(io)?.last() {
            Some((seq, path)) => (*seq, size(path).map_err(io)?),
            None => (Seq(0), 0),
        };
        let mut closed = 0;
        for segment in self.closed_segments()?.iter().filter(|s| s.last > exported_to) {
            closed += size(&segment.path).map_err(io)?;
        }
        // A segment is closed a little before or after its nominal size.
        let due = (exported / 2).min(FOLD_AT_MOST).max(self.segment_bytes / 2);
        if closed >= due { self.fold().map(drop) } else { Ok(()) }
    }

    fn export(&self, to: &Path) -> Result<Exported, TransferError> {
        let exported = self.fold()?;
        let from = self.folder.exports().join(export_name(exported.seq));
        transfer::place_new(to, |partial| {
            let copy = fs::copy(&from, partial).and_then(|_| fs::File::open(partial)?.sync_all());
            copy.map_err(|source| TransferError::Io { what: "copy the export to", path: to.to_owned(), source })
        })?;
        Ok(exported)
    }

    /// Folds all closed segments into a new export, verifies it, and removes what it replaces.
    fn fold(&self) -> Result<Exported, TransferError> {
        let dir = self.folder.exports();
        let io = |what, path: &Path| {
            let path = path.to_owned();
            move |source: io::Error| TransferError::Io { what, path, source }
        };
        let exports = list_exports(&dir).map_err(io("list", &dir))?;
        let base = exports.last();
        let base_seq = base.map_or(Seq(0), |(seq, _)| *seq);
        let closed = self.closed_segments()?;
        let (seq, changes) = collect_changes(&closed, base_seq)?;
        let made = match base {
            // Nothing new: the last export shows everything already.
            Some((_, path)) if seq == base_seq => ExportReader::open(path)?.verify()?,
            _ => {
                let to = dir.join(export_name(seq));
                let old = base.map(|(_, path)| ExportReader::open(path)).transpose()?;
                let merged = Merge { old: old.into_iter().flatten().peekable(), new: changes.into_iter().peekable() };
                let written = transfer::write_new(&to, seq, merged)?;
                let read = ExportReader::open(&to)?.verify()?;
                if read != written {
                    let cause = "it does not read back as it was written".into();
                    return Err(TransferError::Damaged { path: to, line: 0, cause });
                }
                tracing::info!(seq = seq.0, records = read.records, "store exported and verified");
                read
            }
        };
        for (old, path) in &exports {
            if *old < made.seq {
                fs::remove_file(path).map_err(io("remove", path))?;
            }
        }
        if let Some((_newest, older)) = closed.split_last() {
            // Oldest first: what a crash leaves is still a row without a gap.
            for Closed { path, .. } in older {
                fs::remove_file(path).map_err(io("remove", path))?;
            }
        }
        Ok(made)
    }

    /// The segments that have a successor, oldest first.
    fn closed_segments(&self) -> Result<Vec<Closed>, TransferError> {
        let segments = list_segments(&self.folder.journal()).map_err(unreadable)?;
        let successors = segments.iter().skip(1).map(|(first, _)| Seq(first.0.saturating_sub(1)));
        Ok(segments.iter().zip(successors).map(|((_, path), last)| Closed { last, path: path.clone() }).collect())
    }
}

struct Closed {
    last: Seq,
    path: PathBuf,
}

type Changes = BTreeMap<(TableName, Bytes), (Seq, Option<Bytes>)>;

fn collect_changes(segments: &[Closed], after: Seq) -> Result<(Seq, Changes), TransferError> {
    let mut changes = Changes::new();
    let mut last = after;
    for Closed { path, .. } in segments.iter().filter(|s| s.last > after) {
        let segment = Segment::read(path, false).map_err(unreadable)?;
        for commit in segment.commits(after) {
            let (seq, ops) = commit.map_err(unreadable)?;
            for op in ops {
                match op {
                    Op::Put { table, key, value } => changes.insert((table, key), (seq, Some(value))),
                    Op::Delete { table, key } => changes.insert((table, key), (seq, None)),
                };
            }
            last = seq;
        }
    }
    Ok((last, changes))
}

fn unreadable(e: crate::journal::JournalError) -> TransferError {
    TransferError::Journal(e.to_string())
}

/// The old export with newer changes over it, in key order.
struct Merge<O: Iterator<Item = Result<ExportRecord, TransferError>>, N: Iterator> {
    old: Peekable<O>,
    new: Peekable<N>,
}

impl<O, N> Iterator for Merge<O, N>
where
    O: Iterator<Item = Result<ExportRecord, TransferError>>,
    N: Iterator<Item = ((TableName, Bytes), (Seq, Option<Bytes>))>,
{
    type Item = Result<ExportRecord, TransferError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let take_old = match (self.old.peek(), self.new.peek()) {
                (Some(Ok(old)), Some(((table, key), _))) => (&old.table, &old.key) < (table, key),
                (Some(_), _) => true,
                (None, _) => false,
            };
            if take_old {
                return self.old.next();
            }
            let ((table, key), (version, value)) = self.new.next()?;
            // The change replaces the old record of the same key.
            self.old.next_if(|old| old.as_ref().is_ok_and(|o| o.table == table && o.key == key));
            if let Some(value) = value {
                return Some(Ok(ExportRecord { table, key, version, value }));
            }
        }
    }
}
