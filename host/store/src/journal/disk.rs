//! The file operations the journal's promise rests on, and the disk's free space, behind a trait.
//!
//! Tests put a disk behind it that is full, fails, or lies about syncing. Everything else uses [`RealDisk`].

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::space::Space;

/// Opens segment files for writing.
pub trait Disk: Send + Sync + 'static {
    /// Opens the file, creating it if there is none.
    ///
    /// # Errors
    /// As the operating system says.
    fn open(&self, path: &Path) -> io::Result<Box<dyn SegmentFile>>;

    /// How much space there is where `folder` is.
    ///
    /// # Errors
    /// As the operating system says.
    fn space(&self, folder: &Path) -> io::Result<Space> {
        Space::of(folder)
    }
}

/// One open segment file.
pub trait SegmentFile: Send {
    /// Writes all of `bytes` at `offset`.
    ///
    /// # Errors
    /// As the operating system says; part of the bytes may have been written.
    fn write_all_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Makes everything written so far survive a power cut.
    ///
    /// # Errors
    /// As the operating system says; nothing is known about the file afterwards.
    fn sync_data(&mut self) -> io::Result<()>;

    /// Cuts the file to `length` and makes that durable.
    ///
    /// # Errors
    /// As the operating system says.
    fn truncate(&mut self, length: u64) -> io::Result<()>;
}

/// The operating system's files.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn open(&self, path: &Path) -> io::Result<Box<dyn SegmentFile>> {
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
        Ok(Box::new(file))
    }
}

impl SegmentFile for File {
    fn write_all_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        FileExt::write_all_at(self, bytes, offset)
    }

    fn sync_data(&mut self) -> io::Result<()> {
        File::sync_data(self)
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        self.set_len(length)?;
        self.sync_all()
    }
}
