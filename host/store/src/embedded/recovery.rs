//! Opening: from whatever a crash left behind to an index that shows exactly the journal.
//!
//! The journal is read first and nothing is changed until it was found whole. Then the index is used if it can be
//! trusted and is not ahead of the journal, or built anew from the last verified export. Commits it lacks are
//! replayed. What is built anew is said loudly, because it takes time and because it should be rare.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::folder::{Folder, IndexName, Trust, list_exports};
use super::index::{Index, IndexError};
use super::{EmbeddedOptions, OpenError};
use crate::batch::Op;
use crate::journal::{JournalError, Segment, Tail, Writer, list_segments};
use crate::record::{Record, Seq};
use crate::transfer::ExportReader;

/// How many records of an export go into one write of the index.
const LOAD_RECORDS: usize = 512;
/// How many bytes of replayed commits go into one write of the index.
const REPLAY_BYTES: usize = 4 * 1024 * 1024;

/// A store's parts after opening.
pub(crate) struct Recovered {
    pub(crate) index: Index,
    pub(crate) name: IndexName,
    pub(crate) writer: Writer,
    pub(crate) last: Seq,
}

/// Brings the folder into order and opens its parts.
pub(crate) fn recover(folder: &Folder, options: &EmbeddedOptions, boot: &str) -> Result<Recovered, OpenError> {
    let history = History::read(folder)?;
    let last = history.last_seq();
    let (index, name) = open_index(folder, options, boot, &history)?;
    let writer = history.writer(folder, options)?;
    tracing::info!(last = last.0, "store opened");
    Ok(Recovered { index, name, writer, last })
}

/// The index, showing what the journal holds and marked as in use.
fn open_index(
    folder: &Folder,
    options: &EmbeddedOptions,
    boot: &str,
    history: &History,
) -> Result<(Index, IndexName), OpenError> {
    let why = match folder.trust(boot) {
        Trust::Good(name) => {
            // Before sled writes anything: a power cut from here on must not find a mark that says "closed".
            set_trust(folder, boot, false, &name)?;
            match Index::open(&folder.index(&name), options.cache_bytes).and_then(|i| Ok((i.applied()?, i))) {
                Ok((applied, index)) if applied > history.last_seq() => {
                    // As it was found, so that the next opening, on whatever boot, refuses as well.
                    index.sync()?;
                    set_trust(folder, boot, true, &name)?;
                    return Err(journal_cut(folder, history, applied));
                }
                Ok((applied, index)) if applied >= history.base => {
                    replay(&index, history, applied)?;
                    return Ok((index, name));
                }
                Ok((applied, _)) => format!("it ends at commit {applied}, before the journal begins"),
                Err(e) => e.to_string(),
            }
        }
        Trust::MachineRestarted => "the machine restarted while it was open".into(),
        Trust::Unmarked => "it bears no mark that it can be trusted".into(),
    };
    if history.last_seq() > Seq(0) {
        tracing::warn!(%why, last = history.last_seq().0, "building the store's index anew from the last verified export and the journal");
    }
    let (index, name) = build_index(folder, options, history)?;
    // Only now: half an index stays unmarked and is built again.
    set_trust(folder, boot, false, &name)?;
    Ok((index, name))
}

pub(super) fn set_trust(folder: &Folder, boot: &str, closed: bool, index: &IndexName) -> Result<(), OpenError> {
    let io = |source| OpenError::Io { what: "write the trust mark of", path: folder.indexes(), source };
    folder.set_trust(boot, closed, index).map_err(io)
}

fn journal_cut(folder: &Folder, history: &History, applied: Seq) -> OpenError {
    OpenError::JournalCut { journal: folder.journal(), last: history.last_seq(), applied, index: folder.indexes() }
}

fn build_index(folder: &Folder, options: &EmbeddedOptions, history: &History) -> Result<(Index, IndexName), OpenError> {
    let io = |source| OpenError::Io { what: "make place for the index in", path: folder.indexes(), source };
    let name = folder.new_index().map_err(io)?;
    let index = Index::open(&folder.index(&name), options.cache_bytes)?;
    let mut from = Seq(0);
    if let Some(path) = &history.export {
        let mut reader = ExportReader::open(path)?;
        from = reader.seq();
        loop {
            let records: Vec<_> = reader.by_ref().take(LOAD_RECORDS).collect::<Result<_, _>>()?;
            if records.is_empty() {
                break;
            }
            index.load(
                records.into_iter().map(|r| (r.table, Record { key: r.key, value: r.value, version: r.version })),
            )?;
        }
    }
    replay(&index, history, from)?;
    if from == history.last_seq() {
        index.apply([(from, [].as_slice())])?;
    }
    Ok((index, name))
}

pub(super) fn replay(index: &Index, history: &History, after: Seq) -> Result<(), OpenError> {
    for (path, next_first) in &history.segments {
        if next_first.is_some_and(|next| next.0 <= after.0 + 1) {
            continue;
        }
        let segment = history.segment(path)?;
        let (mut step, mut bytes): (Vec<(Seq, Vec<Op>)>, usize) = (Vec::new(), 0);
        for commit in segment.commits(after) {
            let commit = commit?;
            bytes += commit.1.iter().map(Op::bytes).sum::<usize>();
            step.push(commit);
            if bytes >= REPLAY_BYTES {
                apply(index, &step)?;
                step.clear();
                bytes = 0;
            }
        }
        apply(index, &step)?;
    }
    Ok(())
}

fn apply(index: &Index, commits: &[(Seq, Vec<Op>)]) -> Result<(), IndexError> {
    index.apply(commits.iter().map(|(seq, ops)| (*seq, ops.as_slice())))
}

/// The export and the journal, checked to be whole.
pub(super) struct History {
    /// The last verified export.
    pub(super) export: Option<PathBuf>,
    /// The commit the journal follows on: with `export` (or nothing) the state before the first replayed commit.
    pub(super) base: Seq,
    /// The segments and, but for the last, where their successor begins.
    pub(super) segments: Vec<(PathBuf, Option<Seq>)>,
    last: Option<Arc<Segment>>,
    export_seq: Seq,
}

impl History {
    pub(super) fn read(folder: &Folder) -> Result<Self, OpenError> {
        let dir = folder.exports();
        let exports = list_exports(&dir).map_err(|source| OpenError::Io { what: "list", path: dir, source })?;
        let (export_seq, export) = exports.last().cloned().map_or((Seq(0), None), |(seq, path)| (seq, Some(path)));
        let listed = list_segments(&folder.journal())?;
        let mut base = export_seq;
        let mut expected: Option<Seq> = None;
        let mut segments = Vec::new();
        let mut last = None;
        let mut successors = listed.iter().skip(1).map(|(first, _)| *first);
        for (_, path) in &listed {
            let successor = successors.next();
            let segment = Segment::read(path, successor.is_none())?;
            let first = segment.header.first;
            match expected {
                // The first segment must reach back to the export: what lies between would be lost.
                None if first.0 > export_seq.0 + 1 => return Err(gap(&segment, Seq(export_seq.0 + 1))),
                None => base = Seq(first.0 - 1),
                // A disk may forget removals in any order. A gap below the export was such a removal.
                Some(expected) if first > expected && first.0 <= export_seq.0 + 1 => {
                    segments.clear();
                    base = Seq(first.0 - 1);
                }
                Some(expected) if first != expected => return Err(gap(&segment, expected)),
                Some(_) => {}
            }
            expected = Some(segment.next_seq());
            segments.push((path.clone(), successor));
            last = successor.is_none().then(|| Arc::new(segment));
        }
        Ok(Self { export, base, segments, last, export_seq })
    }

    /// A segment by its path; the last one is still in memory.
    pub(super) fn segment(&self, path: &Path) -> Result<Arc<Segment>, JournalError> {
        match &self.last {
            Some(last) if last.path == *path => Ok(Arc::clone(last)),
            _ => Segment::read(path, false).map(Arc::new),
        }
    }

    pub(super) fn last_seq(&self) -> Seq {
        let journal = self.last.as_ref().map_or(Seq(0), |s| Seq(s.next_seq().0 - 1));
        journal.max(self.export_seq)
    }

    /// The journal's open end. The torn tail goes here, after the index was compared with the journal.
    fn writer(&self, folder: &Folder, options: &EmbeddedOptions) -> Result<Writer, OpenError> {
        let io = |path: PathBuf| move |source| OpenError::Io { what: "prepare", path, source };
        let Some(last) = self.last.as_ref().filter(|s| s.next_seq() > self.export_seq) else {
            // Nothing in the journal is newer than the export: begin behind it.
            for (path, _) in &self.segments {
                fs::remove_file(path).map_err(io(path.clone()))?;
            }
            let dir = folder.journal();
            return Writer::create(Arc::clone(&options.disk), &dir, Seq(self.export_seq.0 + 1)).map_err(io(dir));
        };
        if last.tail == Tail::Torn {
            tracing::warn!(
                segment = %last.path.display(), offset = last.end(), next = last.next_seq().0,
                "cutting the torn tail of a write that was never acknowledged"
            );
        }
        Writer::resume(Arc::clone(&options.disk), last).map_err(io(last.path.clone()))
    }
}

fn gap(segment: &Segment, expected: Seq) -> OpenError {
    OpenError::Journal(JournalError::Gap {
        path: segment.path.clone(),
        found: segment.header.first,
        expected,
        fix: format!("mv {0} {0}.set-aside", segment.path.display()),
    })
}

impl From<IndexError> for OpenError {
    fn from(e: IndexError) -> Self {
        Self::Index(e.to_string())
    }
}
