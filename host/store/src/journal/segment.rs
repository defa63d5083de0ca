//! Reading a segment back and judging what is wrong with it.
//!
//! A frame that does not pass is one of two things. If a later frame passes and says that the bad one had been
//! synced before, the file was damaged afterwards and reading stops with an error: going on would lose what was
//! acknowledged. Otherwise the bad frame is the torn tail of a write that nobody was told of, and it is cut off.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::frame::{BadHeader, FRAME_MAGIC, Frame, HEADER_LEN, Header, frame_at};
use crate::batch::Op;
use crate::record::Seq;

/// Why the journal cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// The file could not be read.
    #[error("read the journal segment {}: {source}; check the disk and the folder's permissions", path.display())]
    Io { path: PathBuf, source: io::Error },
    /// A later release wrote it.
    #[error("read the journal segment {}: it has format {found}; start the release that wrote it, or a later one", path.display())]
    Newer { path: PathBuf, found: u32 },
    /// What was once durable is no longer intact.
    #[error(
        "read the journal segment {}: damaged at byte {offset}, in commit {seq}, behind which {lost}; \
         restore the data folder from a backup, or, after copying the folder, give up that commit and all later ones: {fix}",
        path.display()
    )]
    Damaged { path: PathBuf, offset: usize, seq: Seq, lost: &'static str, fix: String },
    /// Segments do not follow each other.
    #[error(
        "read the journal segment {}: it begins with commit {found}, but commit {expected} comes next; \
         put the missing segment back, or, after copying the folder, give up what is in this one: {fix}",
        path.display()
    )]
    Gap { path: PathBuf, found: Seq, expected: Seq, fix: String },
}

/// What is behind the last good frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tail {
    /// Nothing, or the zeros filled in ahead of the writer.
    Clean,
    /// The rest of a write that was cut short.
    Torn,
}

/// A segment that was read and found good up to its tail.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) path: PathBuf,
    pub(crate) header: Header,
    pub(crate) bytes: Bytes,
    pub(crate) frames: Vec<Frame>,
    pub(crate) tail: Tail,
}

impl Segment {
    /// Reads the segment at `path`. Only the `last` segment may have a torn tail.
    pub(crate) fn read(path: &Path, last: bool) -> Result<Self, JournalError> {
        let bytes = fs::read(path).map_err(|source| JournalError::Io { path: path.to_owned(), source })?;
        let bytes = Bytes::from(bytes);
        let header = Header::decode(&bytes).map_err(|bad| match bad {
            BadHeader::Newer(found) => JournalError::Newer { path: path.to_owned(), found },
            // A segment gets its name only after its header is durable, so this is no torn write.
            BadHeader::Damaged => JournalError::Damaged {
                path: path.to_owned(),
                offset: 0,
                seq: first_from_name(path).unwrap_or_default(),
                lost: "is the segment's header",
                fix: format!("mv {0} {0}.damaged", path.display()),
            },
        })?;
        let mut segment = Self { path: path.to_owned(), header, bytes, frames: Vec::new(), tail: Tail::Clean };
        segment.read_frames();
        segment.judge_tail(last)?;
        Ok(segment)
    }

    fn read_frames(&mut self) {
        let mut at = HEADER_LEN;
        let mut expected = self.header.first;
        while let Some(frame) = frame_at(&self.bytes, at, self.header.salt).filter(|f| f.seq == expected) {
            at = frame.end;
            expected.0 += 1;
            self.frames.push(frame);
        }
    }

    fn judge_tail(&mut self, last: bool) -> Result<(), JournalError> {
        let end = self.end();
        let rest = self.bytes.get(end..).unwrap_or_default();
        if rest.iter().all(|&b| b == 0) {
            return Ok(());
        }
        let torn = self.next_seq();
        let proof = find_frame(&self.bytes, end + 1, self.header.salt, |f| f.durable >= torn);
        let lost = match (proof, last) {
            (Some(_), _) => "acknowledged commits follow",
            (None, false) => "another segment follows",
            (None, true) => {
                self.tail = Tail::Torn;
                return Ok(());
            }
        };
        let fix = give_up_from(&self.path, end);
        Err(JournalError::Damaged { path: self.path.clone(), offset: end, seq: torn, lost, fix })
    }

    /// The offset behind the last good frame.
    pub(crate) fn end(&self) -> usize {
        self.frames.last().map_or(HEADER_LEN, |f| f.end)
    }

    /// The commit that would come next.
    pub(crate) fn next_seq(&self) -> Seq {
        self.frames.last().map_or(self.header.first, |f| Seq(f.seq.0 + 1))
    }

    /// Where the frames begin that were not yet known to be synced when the last one was written.
    pub(crate) fn unsynced_from(&self) -> usize {
        let Some(durable) = self.frames.last().map(|f| f.durable) else { return HEADER_LEN };
        self.frames.iter().find(|f| f.seq > durable).map_or(self.end(), |f| f.start)
    }

    /// The commits after `after`, each with its changes.
    pub(crate) fn commits(&self, after: Seq) -> impl Iterator<Item = Result<(Seq, Vec<Op>), JournalError>> {
        self.frames.iter().filter(move |f| f.seq > after).map(|frame| {
            let ops = frame.ops(&self.bytes).ok_or_else(|| JournalError::Damaged {
                path: self.path.clone(),
                offset: frame.start,
                seq: frame.seq,
                lost: "is a payload this release does not understand",
                fix: give_up_from(&self.path, frame.start),
            })?;
            Ok((frame.seq, ops))
        })
    }
}

/// The commits of a damaged segment that can be read, in order, before the damage and behind it.
///
/// # Errors
/// When the file or its header cannot be read: then no frame can be told from noise.
pub(crate) fn salvaged_frames(path: &Path) -> Result<Vec<(Seq, Vec<Op>)>, JournalError> {
    let bytes = fs::read(path).map_err(|source| JournalError::Io { path: path.to_owned(), source })?;
    let bytes = Bytes::from(bytes);
    let header = Header::decode(&bytes).map_err(|_| JournalError::Damaged {
        path: path.to_owned(),
        offset: 0,
        seq: first_from_name(path).unwrap_or_default(),
        lost: "is the segment's header",
        fix: format!("mv {0} {0}.damaged", path.display()),
    })?;
    let (mut found, mut at, mut next) = (Vec::new(), HEADER_LEN, header.first);
    // A frame's checksum knows the segment's salt, so what passes was written here; the order tells left-overs.
    while let Some(frame) = find_frame(&bytes, at, header.salt, |frame| frame.seq >= next) {
        (at, next) = (frame.end, Seq(frame.seq.0 + 1));
        found.extend(frame.ops(&bytes).map(|ops| (frame.seq, ops)));
    }
    Ok(found)
}

/// The command that cuts a segment. The index has seen what is cut off, so it has to go as well.
fn give_up_from(segment: &Path, offset: usize) -> String {
    let root = segment.parent().and_then(Path::parent).unwrap_or(Path::new("."));
    format!("truncate -s {offset} {} && rm -rf {1}/index {1}/index.trust", segment.display(), root.display())
}

/// The first frame from `from` on, at any offset, that passes and satisfies `wanted`.
fn find_frame(bytes: &[u8], from: usize, salt: u32, wanted: impl Fn(&Frame) -> bool) -> Option<Frame> {
    let mut at = from;
    loop {
        let rest = bytes.get(at..)?;
        at += rest.iter().position(|b| *b == FRAME_MAGIC[0])?;
        if let Some(frame) = frame_at(bytes, at, salt).filter(&wanted) {
            return Some(frame);
        }
        at += 1;
    }
}

const SUFFIX: &str = ".segment";

/// The file name of the segment that begins with `first`; names sort as their commits do.
pub(crate) fn segment_name(first: Seq) -> String {
    format!("{:020}{SUFFIX}", first.0)
}

fn first_from_name(path: &Path) -> Option<Seq> {
    path.file_name()?.to_str()?.strip_suffix(SUFFIX)?.parse().ok().map(Seq)
}

/// The segments in a folder, oldest first.
pub(crate) fn list_segments(dir: &Path) -> Result<Vec<(Seq, PathBuf)>, JournalError> {
    let io = |source| JournalError::Io { path: dir.to_owned(), source };
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(io)? {
        let path = entry.map_err(io)?.path();
        if let Some(first) = first_from_name(&path) {
            found.push((first, path));
        }
    }
    found.sort_unstable();
    Ok(found)
}
