//! Reads tar: POSIX ustar, pax extended headers, and GNU long names.
//!
//! The stream is read block by block and passed on unchanged, because a tar package is deployed as
//! it is. Whatever two unpackers could understand differently (sparse files, continued volumes,
//! unknown kinds of header) is refused. The field formats come from the `tar` crate; the walk is
//! our own, because that crate reads long names of any size into memory.

use std::io::{ErrorKind, Read};

use tar::{EntryType, Header};

use super::guard::{Entry, Guard, Kind};
use super::meter::Meter;
use super::{ArchiveError, Inspection, Limits, quote};

const BLOCK: usize = 512;
/// The largest long name or extended header taken, well above any sane path.
const MAX_EXTENSION: u64 = 64 << 10;
/// The first size that eleven octal digits cannot hold.
const PLAIN_SIZE_END: u64 = 8 << 30;

/// Names and sizes that extended headers announce for the next entry.
#[derive(Default)]
struct Pending {
    path: Option<String>,
    link: Option<String>,
    size: Option<u64>,
}

struct Walk<'a, 'r> {
    input: &'r mut dyn Read,
    format: &'static str,
    meter: Meter<'a>,
    read: u64,
    entry: String,
    buffer: Vec<u8>,
}

/// Inspects a tar stream, already inflated.
pub(super) fn inspect(
    input: &mut dyn Read,
    format: &'static str,
    limits: &Limits,
    meter: Meter<'_>,
) -> Result<Inspection, ArchiveError> {
    let mut walk = Walk { input, format, meter, read: 0, entry: "(the start)".into(), buffer: vec![0; 256 << 10] };
    let mut guard = Guard::new(limits);
    let mut pending = Pending::default();
    let mut headers = 0u64;
    while let Some(header) = walk.header()? {
        headers += 1;
        // Extended headers are no entries, so they are counted here against endless chains.
        if headers > limits.entries.saturating_mul(4) {
            return Err(walk.damaged("there are more headers than entries could need"));
        }
        pending = walk.entry(&header, pending, &mut guard)?;
    }
    walk.drain()?;
    let (entries, warnings) = guard.finish()?;
    Ok(Inspection { plain: walk.meter.finish()?, entries, warnings })
}

impl Walk<'_, '_> {
    /// The next header, or `None` at the end mark.
    fn header(&mut self) -> Result<Option<Header>, ArchiveError> {
        let mut header = Header::new_old();
        self.exact(header.as_mut_bytes())?;
        if header.as_bytes().iter().all(|byte| *byte == 0) {
            let mut second = [0; BLOCK];
            self.exact(&mut second)?;
            if second.iter().any(|byte| *byte != 0) {
                return Err(self.damaged("data follows the first half of the end mark"));
            }
            return Ok(None);
        }
        let sum: u32 = header
            .as_bytes()
            .iter()
            .enumerate()
            .map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u32::from(*byte) })
            .sum();
        if header.cksum().ok() != Some(sum) {
            return Err(self.damaged("a header's checksum is wrong"));
        }
        Ok(Some(header))
    }

    /// Deals with one header and what belongs to it. Returns what is announced for the next one.
    fn entry(&mut self, header: &Header, mut pending: Pending, guard: &mut Guard<'_>) -> Result<Pending, ArchiveError> {
        // For messages, until the real name is known.
        self.entry = String::from_utf8_lossy(&header.path_bytes()).into_owned();
        let declared = header.entry_size().map_err(|_| self.damaged("a size cannot be read"))?;
        match header.entry_type() {
            EntryType::GNULongName => {
                let name = self.long_name(declared)?;
                self.announce(&mut pending.path, name)?;
            }
            EntryType::GNULongLink => {
                let name = self.long_name(declared)?;
                self.announce(&mut pending.link, name)?;
            }
            EntryType::XHeader => self.pax(declared, &mut pending)?,
            EntryType::XGlobalHeader => self.global_pax(declared)?,
            kind => {
                let size = self.agreed_size(declared, pending.size)?;
                self.member(kind, header, size, pending, guard)?;
                pending = Pending::default();
            }
        }
        Ok(pending)
    }

    fn member(
        &mut self,
        kind: EntryType,
        header: &Header,
        size: u64,
        pending: Pending,
        guard: &mut Guard<'_>,
    ) -> Result<(), ArchiveError> {
        let path = match pending.path {
            Some(path) => path,
            None => self.text(&header.path_bytes())?,
        };
        self.entry.clone_from(&path);
        let link = match pending.link {
            Some(link) => link,
            None => match header.link_name_bytes() {
                Some(bytes) => self.text(&bytes)?,
                None => String::new(),
            },
        };
        let kind = match kind {
            // Before POSIX, a trailing slash was the only sign of a folder.
            EntryType::Regular | EntryType::Continuous if path.ends_with('/') => Kind::Folder,
            EntryType::Regular | EntryType::Continuous => Kind::File,
            EntryType::Directory => Kind::Folder,
            EntryType::Symlink => Kind::Symlink(&link),
            EntryType::Link => Kind::Hardlink(&link),
            other => return Err(unsupported(&path, other)),
        };
        if size > 0 && !matches!(kind, Kind::File) {
            return Err(self.damaged("a folder or link carries data"));
        }
        guard.admit(Entry { path: &path, kind })?;
        if matches!(kind, Kind::File) && header.mode().is_ok_and(|mode| mode & 0o6000 != 0) {
            guard.warn(format!("{} runs with its owner's rights (setuid or setgid)", quote(&path)));
        }
        self.skip(size)
    }

    /// Takes a name for the next entry. Of two names, unpackers would choose differently.
    fn announce(&mut self, slot: &mut Option<String>, name: String) -> Result<(), ArchiveError> {
        self.entry.clone_from(&name);
        match slot.replace(name) {
            None => Ok(()),
            Some(_) => Err(self.damaged("two names are announced for one entry")),
        }
    }

    /// A size in an extended header serves files too large for the plain field. Anywhere else it
    /// lets two unpackers see two different archives.
    fn agreed_size(&self, declared: u64, announced: Option<u64>) -> Result<u64, ArchiveError> {
        match announced {
            Some(size) if size != declared && size < PLAIN_SIZE_END => {
                Err(self.damaged("two sizes are announced for one entry"))
            }
            Some(size) => Ok(size),
            None => Ok(declared),
        }
    }

    fn long_name(&mut self, size: u64) -> Result<String, ArchiveError> {
        let mut bytes = self.extension(size)?;
        while bytes.last() == Some(&0) {
            bytes.pop();
        }
        self.text(&bytes)
    }

    /// The data of an extended header.
    fn extension(&mut self, size: u64) -> Result<Vec<u8>, ArchiveError> {
        if size > MAX_EXTENSION {
            return Err(self.damaged("an extended header is larger than 64 KiB"));
        }
        let mut bytes = vec![0; usize::try_from(size).unwrap_or(0)];
        self.exact(&mut bytes)?;
        self.padding(size)?;
        Ok(bytes)
    }

    fn pax(&mut self, size: u64, pending: &mut Pending) -> Result<(), ArchiveError> {
        for (key, value) in self.pax_records(size)? {
            match key.as_str() {
                "path" => {
                    let name = self.text(&value)?;
                    self.announce(&mut pending.path, name)?;
                }
                "linkpath" => {
                    let name = self.text(&value)?;
                    self.announce(&mut pending.link, name)?;
                }
                "size" => {
                    let size = std::str::from_utf8(&value).ok().and_then(|text| text.parse().ok());
                    pending.size = Some(size.ok_or_else(|| self.damaged("a size cannot be read"))?);
                }
                key if key.starts_with("GNU.sparse") => {
                    return Err(unsupported(&self.entry, EntryType::GNUSparse));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// `git archive` writes a comment this way, which is harmless. Names would apply to every
    /// entry in one unpacker and to none in another.
    fn global_pax(&mut self, size: u64) -> Result<(), ArchiveError> {
        let risky = ["path", "linkpath", "size", "hdrcharset"];
        let records = self.pax_records(size)?;
        if records.iter().any(|(key, _)| risky.contains(&key.as_str()) || key.starts_with("GNU.")) {
            return Err(self.damaged("a global header sets names or sizes"));
        }
        Ok(())
    }

    /// Records are `LENGTH key=value\n`, the length counting all of itself.
    fn pax_records(&mut self, size: u64) -> Result<Vec<(String, Vec<u8>)>, ArchiveError> {
        let bytes = self.extension(size)?;
        let mut rest = bytes.as_slice();
        let mut records = Vec::new();
        while !rest.is_empty() {
            let record = split_record(rest);
            let (key, value, tail) = record.ok_or_else(|| self.damaged("an extended header cannot be read"))?;
            records.push((key.to_owned(), value.to_vec()));
            rest = tail;
        }
        Ok(records)
    }

    /// Passes on the data of a member and its padding.
    fn skip(&mut self, size: u64) -> Result<(), ArchiveError> {
        let mut left = size;
        let mut buffer = std::mem::take(&mut self.buffer);
        while left > 0 {
            let want = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
            let Some(chunk) = buffer.get_mut(..want) else {
                break;
            };
            self.exact(chunk)?;
            left -= want as u64;
        }
        self.buffer = buffer;
        self.padding(size)
    }

    fn padding(&mut self, size: u64) -> Result<(), ArchiveError> {
        let mut padding = [0; BLOCK];
        let length = (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64;
        match padding.get_mut(..usize::try_from(length).unwrap_or(0)) {
            Some(padding) => self.exact(padding),
            None => Ok(()),
        }
    }

    /// Reads what follows the end mark. Only zeros may: writers fill up their last record.
    fn drain(&mut self) -> Result<(), ArchiveError> {
        let mut buffer = std::mem::take(&mut self.buffer);
        loop {
            let read = self.some(&mut buffer)?;
            let Some(bytes) = buffer.get(..read).filter(|bytes| !bytes.is_empty()) else {
                return Ok(());
            };
            if bytes.iter().any(|byte| *byte != 0) {
                return Err(self.damaged("data follows the end mark"));
            }
            self.meter.emit(bytes)?;
        }
    }

    fn exact(&mut self, buffer: &mut [u8]) -> Result<(), ArchiveError> {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.some(rest)? {
                0 => return Err(self.damaged("it ends too early")),
                read => filled += read,
            }
        }
        self.meter.emit(buffer)
    }

    fn some(&mut self, buffer: &mut [u8]) -> Result<usize, ArchiveError> {
        loop {
            match self.input.read(buffer) {
                Ok(read) => {
                    self.read += read as u64;
                    self.meter.inflated(read, &self.entry)?;
                    return Ok(read);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(self.damaged(&error.to_string())),
            }
        }
    }

    fn text(&self, bytes: &[u8]) -> Result<String, ArchiveError> {
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(text.to_owned()),
            Err(_) => {
                Err(ArchiveError::Path { entry: quote(&String::from_utf8_lossy(bytes)), reason: "it is not UTF-8" })
            }
        }
    }

    fn damaged(&self, cause: &str) -> ArchiveError {
        ArchiveError::Damaged {
            format: self.format,
            at: format!("after {} bytes, at the entry {}", self.read, quote(&self.entry)),
            cause: cause.to_owned(),
        }
    }
}

fn split_record(bytes: &[u8]) -> Option<(&str, &[u8], &[u8])> {
    let space = bytes.iter().position(|byte| *byte == b' ')?;
    let length: usize = std::str::from_utf8(bytes.get(..space)?).ok()?.parse().ok()?;
    let (record, tail) = bytes.split_at_checked(length)?;
    let body = record.get(space + 1..)?.strip_suffix(b"\n")?;
    let equals = body.iter().position(|byte| *byte == b'=')?;
    let key = std::str::from_utf8(body.get(..equals)?).ok()?;
    Some((key, body.get(equals + 1..)?, tail))
}

fn unsupported(path: &str, kind: EntryType) -> ArchiveError {
    let (what, fix) = match kind {
        EntryType::Char | EntryType::Block => ("a device", "a package holds files, folders and links only"),
        EntryType::Fifo => ("a named pipe", "a package holds files, folders and links only"),
        EntryType::GNUSparse => ("a sparse file", "pack it again without tar's --sparse"),
        _ => ("of an unknown kind", "pack it again with 'windlass package pack'"),
    };
    ArchiveError::Unsupported { entry: quote(path), what: what.to_owned(), fix }
}
