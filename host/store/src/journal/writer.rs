//! Appending to the journal: one writer, one open segment.
//!
//! The scribe encodes a group of commits, writes it with one call and syncs it with one call. The writer knows
//! nothing of requests, acknowledgements or the index.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::disk::{Disk, SegmentFile};
use super::frame::{HEADER_LEN, Header, encode_frame};
use super::segment::{Segment, Tail, segment_name};
use crate::batch::Op;
use crate::record::Seq;
use crate::transfer::sync_parent;

/// How far zeros are filled in ahead.
const FILL: u64 = 1024 * 1024;

/// The open end of the journal.
pub(crate) struct Writer {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    path: PathBuf,
    file: Box<dyn SegmentFile>,
    salt: u32,
    first: Seq,
    next: Seq,
    durable: Seq,
    written_to: u64,
    filled_to: u64,
    group: Vec<u8>,
}

impl Writer {
    /// Begins a new segment whose first commit will be `first`. Everything before it must be durable.
    pub(crate) fn create(disk: Arc<dyn Disk>, dir: &Path, first: Seq) -> io::Result<Self> {
        let path = dir.join(segment_name(first));
        let partial = path.with_extension("partial");
        let salt = rand::random();
        let mut file = disk.open(&partial)?;
        let mut start = Header { salt, first }.encode();
        start.resize(usize::try_from(FILL).unwrap_or(HEADER_LEN), 0);
        file.truncate(0)?;
        file.write_all_at(&start, 0)?;
        file.sync_data()?;
        // The name appears only once the header is durable: a named segment always has one.
        fs::rename(&partial, &path)?;
        sync_parent(&path)?;
        Ok(Self {
            disk,
            dir: dir.to_owned(),
            path,
            file,
            salt,
            first,
            next: first,
            durable: Seq(first.0 - 1),
            written_to: HEADER_LEN as u64,
            filled_to: FILL,
            group: Vec::new(),
        })
    }

    /// Goes on behind the last good frame of a segment that was read. What is behind it is removed first, and what
    /// may never have reached the disk is written again: after a failed sync the system's cache and the disk can
    /// differ, and a plain sync would not notice.
    pub(crate) fn resume(disk: Arc<dyn Disk>, segment: &Segment) -> io::Result<Self> {
        let mut file = disk.open(&segment.path)?;
        let end = segment.end();
        let mut filled_to = segment.bytes.len() as u64;
        if segment.tail == Tail::Torn {
            file.truncate(end as u64)?;
            filled_to = end as u64;
        }
        let from = segment.unsynced_from();
        file.write_all_at(segment.bytes.get(from..end).unwrap_or_default(), from as u64)?;
        file.sync_data()?;
        let next = segment.next_seq();
        Ok(Self {
            disk,
            dir: segment.path.parent().unwrap_or(Path::new(".")).to_owned(),
            path: segment.path.clone(),
            file,
            salt: segment.header.salt,
            first: segment.header.first,
            next,
            durable: Seq(next.0 - 1),
            written_to: end as u64,
            filled_to,
            group: Vec::new(),
        })
    }

    /// Gives the next number to a commit and adds it to the group.
    pub(crate) fn add(&mut self, ops: &[Op]) -> Seq {
        let seq = self.next;
        encode_frame(&mut self.group, self.salt, seq, self.durable, ops);
        self.next.0 += 1;
        seq
    }

    /// Makes room for the group. The only step that can run out of disk, and harmless to repeat.
    pub(crate) fn reserve(&mut self) -> io::Result<()> {
        let needed = self.written_to + self.group.len() as u64;
        while self.filled_to < needed {
            let zeros = vec![0; usize::try_from(FILL).unwrap_or(HEADER_LEN)];
            self.file.write_all_at(&zeros, self.filled_to)?;
            self.filled_to += FILL;
        }
        Ok(())
    }

    /// Bytes that can be written without making room.
    pub(crate) fn room(&self) -> u64 {
        self.filled_to.saturating_sub(self.written_to + self.group.len() as u64)
    }

    /// Writes the group; it then survives the process, but not yet a power cut.
    pub(crate) fn write(&mut self) -> io::Result<()> {
        self.file.write_all_at(&self.group, self.written_to)?;
        self.written_to += self.group.len() as u64;
        self.group.clear();
        self.group.shrink_to(1 << 20);
        Ok(())
    }

    /// Makes everything written durable.
    pub(crate) fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()?;
        self.durable = Seq(self.next.0 - 1);
        Ok(())
    }

    /// How much of the segment is used.
    pub(crate) fn size(&self) -> u64 {
        self.written_to
    }

    /// The last commit written.
    pub(crate) fn last(&self) -> Seq {
        Seq(self.next.0 - 1)
    }

    /// Closes the segment and begins the next one, unless nothing was written to it.
    pub(crate) fn rotate(&mut self) -> io::Result<()> {
        if self.next == self.first {
            return Ok(());
        }
        self.sync()?;
        self.file.truncate(self.written_to)?;
        *self = Self::create(self.disk.clone(), &self.dir, self.next)?;
        Ok(())
    }

    /// The open segment, for error texts.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}
