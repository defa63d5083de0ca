//! Reads zip and nupkg, and rewrites them as a tar stream.
//!
//! A target then needs no `unzip`, and what is deployed is exactly what was inspected: whatever
//! else hides between the entries of a zip file never reaches a machine. Names come from the
//! central directory, in sorted order, so that equal content gives equal bytes. Every entry must
//! inflate to precisely the size it declares.

use std::borrow::Cow;
use std::io::{self, Cursor, Read, Seek, SeekFrom};

use tar::{EntryType, Header};

use zip::read::{Config, ZipFileEntry};
use zip::result::ZipError;
use zip::{CompressionMethod, ZipReadOptions};

use super::guard::{Entry, Guard, Kind};
use super::meter::Meter;
use super::{ArchiveError, Inspection, Limits, quote};

/// The largest text taken as the target of a symbolic link.
const MAX_LINK: u64 = 4096;
/// What a zip file's directory holds for an entry besides its names, at most, on average.
const DIRECTORY_BYTES_PER_ENTRY: u64 = 256;
/// For entries whose time is missing or nonsense: 1980-01-01, the first day of zip.
const FIXED_TIME: u64 = 315_532_800;

/// Which rules apply to the names inside.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Flavour {
    /// As they are.
    Plain,
    /// NuGet escapes names like URLs and adds entries that are not content.
    NuGet,
}

struct Member {
    path: String,
    kind: MemberKind,
    mode: u32,
    mtime: u64,
    entry: ZipFileEntry<'static>,
}

#[derive(PartialEq, Eq)]
enum MemberKind {
    File,
    Folder,
    Symlink,
}

/// Inspects a zip file and emits it as tar.
pub(super) fn inspect<R: Read + Seek>(
    mut input: R,
    flavour: Flavour,
    limits: &Limits,
    mut meter: Meter<'_>,
) -> Result<Inspection, ArchiveError> {
    let mut members = list(&mut input, flavour, limits)?;
    members.sort_by(|a, b| a.path.cmp(&b.path));
    let mut guard = Guard::new(limits);
    let mut buffer = vec![0; 256 << 10];
    for member in members {
        copy(member, &mut input, &mut guard, &mut meter, &mut buffer)?;
    }
    // The end mark of tar: two blocks of zeros.
    meter.emit(&[0; 1024])?;
    let (entries, warnings) = guard.finish()?;
    Ok(Inspection { plain: meter.finish()?, entries, warnings })
}

/// Reads the central directory, within the memory the limits allow.
fn list<R: Read + Seek>(input: &mut R, flavour: Flavour, limits: &Limits) -> Result<Vec<Member>, ArchiveError> {
    let at = "(the list of entries)";
    let bytes = limits
        .listing_bytes
        .saturating_add(limits.entries.saturating_mul(DIRECTORY_BYTES_PER_ENTRY))
        .saturating_add(1 << 20);
    let budget = Budget { inner: input, left: bytes };
    // The reader's own causes speak of its types here; a person needs the gist.
    let unlisted = |error| match error {
        ZipError::Io(error) if error.kind() == io::ErrorKind::Other => damaged(at, ZipError::Io(error)),
        _ => damaged(at, ZipError::InvalidArchive("the list at its end is missing or broken".into())),
    };
    let mut listing = zip::unstable::read::ZipIterable::try_new(budget, Config::default()).map_err(unlisted)?;
    if listing.len() as u64 > limits.entries {
        return Err(ArchiveError::Limit {
            entry: quote(at),
            what: format!("more than {} entries", limits.entries),
            setting: "packages.max_entries",
        });
    }
    let mut members = Vec::new();
    for entry in listing.files().map_err(unlisted)? {
        members.extend(member(entry.map_err(unlisted)?, flavour)?);
    }
    Ok(members)
}

/// Understands one entry of the central directory; `None` for NuGet's bookkeeping.
fn member(entry: ZipFileEntry<'static>, flavour: Flavour) -> Result<Option<Member>, ArchiveError> {
    let name = entry.name().map_err(|error| damaged("(a name)", error))?.into_owned();
    let Some(path) = clean_name(&name, flavour) else {
        return Ok(None);
    };
    if entry.encrypted() {
        return Err(unsupported(&path, "encrypted", "pack it without a password"));
    }
    let method = entry.compression();
    if !matches!(method, CompressionMethod::Stored | CompressionMethod::Deflated) {
        let what = format!("compressed by a method not supported ({method})");
        return Err(unsupported(&path, &what, "pack it with the usual 'deflate'"));
    }
    let mode = entry.unix_mode().unwrap_or(0);
    let kind = kind_of(&path, mode)?;
    let default_mode = if kind == MemberKind::Folder { 0o755 } else { 0o644 };
    let permissions = mode & 0o777;
    Ok(Some(Member {
        path,
        mode: if permissions == 0 { default_mode } else { permissions },
        mtime: entry.last_modified().map_or(FIXED_TIME, unix_time),
        kind,
        entry,
    }))
}

/// What an entry is, from its Unix mode, or from its name where it has none.
fn kind_of(path: &str, mode: u32) -> Result<MemberKind, ArchiveError> {
    const TYPE: u32 = 0o170_000;
    Ok(match mode & TYPE {
        0o120_000 => MemberKind::Symlink,
        // DOS and plain tools leave the type out; there a slash makes the folder.
        0 | 0o100_000 if !path.ends_with('/') => MemberKind::File,
        0 | 0o040_000 => MemberKind::Folder,
        0o100_000 => {
            return Err(unsupported(path, "a file named like a folder", "pack it again"));
        }
        _ => {
            let fix = "a package holds files, folders and links only";
            return Err(unsupported(path, "a device, pipe or socket", fix));
        }
    })
}

/// Old .NET writes backslashes between folders; NuGet writes `%20` for a space.
fn clean_name(name: &str, flavour: Flavour) -> Option<String> {
    let name = name.replace('\\', "/");
    if flavour == Flavour::Plain {
        return Some(name);
    }
    let bookkeeping =
        name == "[Content_Types].xml" || name.starts_with("_rels/") || name.starts_with("package/services/metadata/");
    // Decoded after the test and judged by the guard afterwards: `%2e%2e%2f` hides nothing.
    (!bookkeeping).then(|| percent_decoded(&name).replace('\\', "/"))
}

/// Decodes `%20` and the like. A `%` that starts no escape, or bytes that are no text, stay.
fn percent_decoded(name: &str) -> String {
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        let escaped = tail.split_at_checked(2).filter(|_| *first == b'%').and_then(|(hex, tail)| {
            let digits = std::str::from_utf8(hex).ok().filter(|hex| !hex.starts_with('+'))?;
            Some((u8::from_str_radix(digits, 16).ok()?, tail))
        });
        match escaped {
            Some((byte, tail)) => {
                bytes.push(byte);
                rest = tail;
            }
            None => bytes.push(*first),
        }
    }
    String::from_utf8(bytes).unwrap_or_else(|_| name.to_owned())
}

fn copy<R: Read + Seek>(
    member: Member,
    input: &mut R,
    guard: &mut Guard<'_>,
    meter: &mut Meter<'_>,
    buffer: &mut [u8],
) -> Result<(), ArchiveError> {
    let Member { path, kind, mode, mtime, entry } = member;
    let size = entry.size();
    let mut header = Header::new_gnu();
    header.set_mode(mode);
    header.set_mtime(mtime);
    header.set_size(0);
    match kind {
        MemberKind::Folder => {
            guard.admit(Entry { path: &path, kind: Kind::Folder })?;
            header.set_entry_type(EntryType::Directory);
            emit_header(&mut header, &path, None, meter)?;
            // A folder with data would smuggle bytes past the tar that is made here.
            if size > 0 {
                return Err(unsupported(&path, "a folder that carries data", "pack it again"));
            }
        }
        MemberKind::Symlink => {
            let target = link_target(&path, entry, input, meter)?;
            guard.admit(Entry { path: &path, kind: Kind::Symlink(&target) })?;
            header.set_entry_type(EntryType::Symlink);
            header.set_mode(0o777);
            emit_header(&mut header, &path, Some(&target), meter)?;
        }
        MemberKind::File => {
            guard.admit(Entry { path: &path, kind: Kind::File })?;
            header.set_entry_type(EntryType::Regular);
            header.set_size(size);
            emit_header(&mut header, &path, None, meter)?;
            copy_data(&path, entry, input, meter, buffer)?;
            pad(size, meter)?;
        }
    }
    Ok(())
}

fn copy_data<R: Read + Seek>(
    path: &str,
    entry: ZipFileEntry<'static>,
    input: &mut R,
    meter: &mut Meter<'_>,
    buffer: &mut [u8],
) -> Result<(), ArchiveError> {
    let declared = entry.size();
    let mut file = open(path, entry, input)?;
    let mut total = 0u64;
    loop {
        let read = match file.read(buffer) {
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(damaged(path, ZipError::Io(error))),
        };
        meter.inflated(read, path)?;
        total += read as u64;
        if total > declared || (read == 0 && total != declared) {
            return Err(ArchiveError::Damaged {
                format: "zip",
                at: format!("at the entry {}", quote(path)),
                cause: format!("it declares {declared} bytes and holds another number"),
            });
        }
        match buffer.get(..read) {
            Some(bytes) if read > 0 => meter.emit(bytes)?,
            _ => return Ok(()),
        }
    }
}

fn link_target<R: Read + Seek>(
    path: &str,
    entry: ZipFileEntry<'static>,
    input: &mut R,
    meter: &mut Meter<'_>,
) -> Result<String, ArchiveError> {
    let mut target = Vec::new();
    let file = open(path, entry, input)?;
    let read = file.take(MAX_LINK + 1).read_to_end(&mut target);
    meter.inflated(target.len(), path)?;
    read.map_err(|error| damaged(path, ZipError::Io(error)))?;
    if target.len() as u64 > MAX_LINK {
        return Err(unsupported(path, "a link longer than 4096 bytes", "pack the file it means"));
    }
    String::from_utf8(target).map_err(|_| unsupported(path, "a link whose target is not UTF-8", "rename its target"))
}

fn open<'e, R: Read + Seek>(
    path: &str,
    entry: ZipFileEntry<'e>,
    input: &'e mut R,
) -> Result<zip::read::ZipFile<'e, R>, ArchiveError> {
    entry.with_reader(input, ZipReadOptions::new()).map_err(|error| damaged(path, error))
}

/// Writes a tar header, with GNU long-name headers before it where a name does not fit.
fn emit_header(
    header: &mut Header,
    path: &str,
    target: Option<&str>,
    meter: &mut Meter<'_>,
) -> Result<(), ArchiveError> {
    let path = path.trim_start_matches("./").trim_start_matches('/');
    if path.is_empty() {
        return Ok(());
    }
    let mut builder = tar::Builder::new(Vec::with_capacity(512));
    match target {
        Some(target) => builder.append_link(header, path, target),
        // No data here: the header announces what the caller emits itself.
        None => builder.append_data(header, path, Cursor::new(&[])),
    }
    .map_err(ArchiveError::Io)?;
    meter.emit(&std::mem::take(builder.get_mut()))
}

fn pad(size: u64, meter: &mut Meter<'_>) -> Result<(), ArchiveError> {
    let length = usize::try_from((512 - size % 512) % 512).unwrap_or(0);
    meter.emit([0u8; 512].get(..length).unwrap_or_default())
}

/// Zip keeps local time without a zone. It is taken as UTC, so the result is the same everywhere.
fn unix_time(time: zip::DateTime) -> u64 {
    let (year, month, day) = (i64::from(time.year()), i64::from(time.month()), i64::from(time.day()));
    // Days from a civil date, counting years from March (Howard Hinnant's algorithm).
    let year = if month <= 2 { year - 1 } else { year };
    let shifted_month = (month + 9) % 12;
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (153 * shifted_month + 2) / 5 + day - 1 - 719_468;
    let seconds = i64::from(time.hour()) * 3600 + i64::from(time.minute()) * 60 + i64::from(time.second());
    u64::try_from(days * 86_400 + seconds).unwrap_or(FIXED_TIME)
}

/// Lets only so many bytes be read, because a directory's declared sizes prove nothing.
struct Budget<'r, R> {
    inner: &'r mut R,
    left: u64,
}

impl<R: Read> Read for Budget<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.left = self
            .left
            .checked_sub(read as u64)
            .ok_or_else(|| io::Error::other("its list of entries is larger than packages.max_listing_bytes allows"))?;
        Ok(read)
    }
}

impl<R: Seek> Seek for Budget<'_, R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.inner.seek(to)
    }
}

fn unsupported(path: &str, what: &str, fix: &'static str) -> ArchiveError {
    ArchiveError::Unsupported { entry: quote(path), what: what.to_owned(), fix }
}

fn damaged(path: &str, error: ZipError) -> ArchiveError {
    let cause: Cow<'static, str> = match error {
        ZipError::InvalidArchive(cause) => cause,
        ZipError::Io(cause) => cause.to_string().into(),
        error => error.to_string().into(),
    };
    ArchiveError::Damaged { format: "zip", at: format!("at the entry {}", quote(path)), cause: cause.into_owned() }
}
