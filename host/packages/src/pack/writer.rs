//! Writes the entries of a package in one of two formats, hashing the file as it grows.
//!
//! Order is the caller's; times, owners, modes and header fields are fixed here.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use tar::{EntryType, Header};
use tempfile::NamedTempFile;
use zip::CompressionMethod;
use zip::write::{SimpleFileOptions, ZipWriter};

use super::{Item, PackError, What};
use crate::digest::{Blob, Hasher};

/// 1980-01-01, the first day that zip can express, in every entry of both formats.
const FIXED_TIME: u64 = 315_532_800;

/// Writes one package file.
pub(super) struct Writer(Kind);

enum Kind {
    TarGz(Box<tar::Builder<GzEncoder<NamedTempFile>>>),
    Zip(Box<ZipWriter<NamedTempFile>>),
}

impl Writer {
    pub(super) fn new(file: NamedTempFile, format: crate::name::Format) -> Self {
        Self(match format {
            crate::name::Format::Zip => Kind::Zip(Box::new(ZipWriter::new(file))),
            // No name and no time in the gzip header.
            _ => {
                let gzip = GzEncoder::new(file, Compression::default());
                Kind::TarGz(Box::new(tar::Builder::new(gzip)))
            }
        })
    }

    /// Adds one entry; `output` is only for messages.
    pub(super) fn add(&mut self, item: &Item, output: &Path) -> Result<(), PackError> {
        let written = |cause| PackError::Write { path: output.to_owned(), cause };
        match &item.what {
            What::Folder => self.folder(&item.name).map_err(written),
            What::Link { target } => self.link(&item.name, target).map_err(written),
            What::File { executable } => {
                let read = |cause| PackError::Read { path: item.source.clone(), cause };
                let file = File::open(&item.source).map_err(read)?;
                let size = file.metadata().map_err(read)?.len();
                let mut content = Exactly { file, left: size, fault: None };
                let added = self.file(&item.name, *executable, size, &mut content);
                match content.fault {
                    Some(Some(cause)) => Err(read(cause)),
                    Some(None) => Err(PackError::Changed(item.source.clone())),
                    None => added.map_err(written),
                }
            }
        }
    }

    fn folder(&mut self, name: &str) -> io::Result<()> {
        match &mut self.0 {
            Kind::TarGz(tar) => {
                let mut header = header(EntryType::Directory, 0o755, 0);
                tar.append_data(&mut header, format!("{name}/"), io::empty())
            }
            Kind::Zip(zip) => Ok(zip.add_directory(name, options(0o755, 0))?),
        }
    }

    fn link(&mut self, name: &str, target: &str) -> io::Result<()> {
        match &mut self.0 {
            Kind::TarGz(tar) => tar.append_link(&mut header(EntryType::Symlink, 0o777, 0), name, target),
            Kind::Zip(zip) => Ok(zip.add_symlink(name, target, options(0o777, 0))?),
        }
    }

    fn file(&mut self, name: &str, executable: bool, size: u64, content: &mut impl Read) -> io::Result<()> {
        let mode = if executable { 0o755 } else { 0o644 };
        match &mut self.0 {
            Kind::TarGz(tar) => tar.append_data(&mut header(EntryType::Regular, mode, size), name, content),
            Kind::Zip(zip) => {
                zip.start_file(name, options(mode, size))?;
                io::copy(content, zip.as_mut()).map(drop)
            }
        }
    }

    /// Ends the file and tells what it is now.
    pub(super) fn finish(self) -> io::Result<(NamedTempFile, Blob)> {
        let mut file = match self.0 {
            Kind::TarGz(tar) => tar.into_inner()?.finish()?,
            Kind::Zip(zip) => zip.finish()?,
        };
        // Zip goes back to fill in sizes, so only the finished file can be hashed.
        file.flush()?;
        file.seek(SeekFrom::Start(0))?;
        let mut hasher = Hasher::default();
        let mut buffer = vec![0; 256 << 10];
        loop {
            let read = file.read(&mut buffer)?;
            match buffer.get(..read) {
                Some(bytes) if read > 0 => hasher.update(bytes),
                _ => return Ok((file, hasher.finish())),
            }
        }
    }
}

fn header(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_mtime(FIXED_TIME);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(size);
    header
}

fn options(mode: u32, size: u64) -> SimpleFileOptions {
    SimpleFileOptions::default()
        .compression_method(CompressionMethod::Deflated)
        .last_modified_time(zip::DateTime::default())
        .unix_permissions(mode)
        .large_file(size >= u64::from(u32::MAX))
}

/// A file that must hold as many bytes as its size said, no fewer and no more.
struct Exactly {
    file: File,
    left: u64,
    /// What went wrong: reading failed, or (`None`) the size changed.
    fault: Option<Option<io::Error>>,
}

impl Read for Exactly {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = match self.file.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(error),
            Err(error) => {
                let kind = error.kind();
                self.fault = Some(Some(error));
                return Err(kind.into());
            }
            Ok(read) => read,
        };
        let short = read == 0 && !buffer.is_empty() && self.left > 0;
        match self.left.checked_sub(read as u64).filter(|_| !short) {
            Some(left) => self.left = left,
            None => {
                self.fault = Some(None);
                return Err(io::Error::other("the file changed while it was read"));
            }
        }
        Ok(read)
    }
}
