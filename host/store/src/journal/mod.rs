//! The journal of record: the truth that everything else in the embedded store can be rebuilt from.
//!
//! It is a row of segment files. A commit is one checksummed frame; a group of commits is one write and one
//! fdatasync. Segments are filled with zeros ahead of the writer, so that a sync moves data only and no file size
//! (measured: 0.1–0.4 ms instead of 0.8–1.7 ms). `frame` owns the bytes, `segment` reading and judging damage,
//! `writer` appending, `disk` the few file operations that tests replace.

mod disk;
mod frame;
mod segment;
mod writer;

pub use disk::{Disk, RealDisk, SegmentFile};
pub use segment::JournalError;
pub(crate) use segment::{Segment, Tail, list_segments, salvaged_frames};
pub(crate) use writer::Writer;
