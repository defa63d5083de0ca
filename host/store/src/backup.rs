//! A backup: everything a server keeps, in one tar file that proves itself.
//!
//! The first entry says what it is, the last one, `SHA256SUMS`, holds the digest of every entry before it, so a file
//! that was cut short or changed is never taken for a backup. Any tar program lists it and `sha256sum -c` checks it.
//! Entries under `blobs/` and `packages/` are named by their digest. What the records mean is not known here.

use std::io::{self, Read, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

const FORMAT: u32 = 1;
const HEAD: &str = "windlass-backup.json";
const SUMS: &str = "SHA256SUMS";
/// No head is larger.
const MAX_HEAD: u64 = 64 << 10;
/// Entries in a backup, and so the memory for its list.
const MAX_ENTRIES: usize = 10_000_000;

/// What a backup says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupHead {
    /// The format of the file.
    pub windlass_backup: u32,
    /// The release that made it.
    pub release: String,
    /// When, in milliseconds since 1970.
    pub created_ms: u64,
    /// It shows the store as of this commit.
    pub seq: u64,
    /// How many records it holds.
    pub records: u64,
    /// Which secret key opens the secrets in it.
    pub key: String,
}

impl BackupHead {
    /// A head in the format of this release.
    #[must_use]
    pub fn new(release: &str, created_ms: u64, exported: &crate::Exported, key: String) -> Self {
        let (seq, records) = (exported.seq.0, exported.records);
        Self { windlass_backup: FORMAT, release: release.to_owned(), created_ms, seq, records, key }
    }
}

/// Why a backup could not be written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackupError {
    /// Reading or writing failed.
    #[error("{what} the backup: {source}")]
    Io { what: &'static str, source: io::Error },
    /// It is not a whole and undamaged backup.
    #[error("the backup is damaged: {0}; use another one")]
    Damaged(String),
    /// It is none.
    #[error("this is no backup: it does not begin with {HEAD}")]
    NoBackup,
    /// A later release made it.
    #[error(
        "the backup has format {found} and this release knows formats up to {FORMAT}; use the release that made it, or a later one"
    )]
    NewerFormat { found: u32 },
}

fn failed(what: &'static str) -> impl FnOnce(io::Error) -> BackupError {
    move |source| BackupError::Io { what, source }
}

/// Writes a backup, entry by entry.
pub struct BackupWriter<W: Write> {
    tar: tar::Builder<W>,
    sums: String,
    modified: u64,
}

impl<W: Write> BackupWriter<W> {
    /// Begins a backup.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn new(out: W, head: &BackupHead) -> Result<Self, BackupError> {
        let json = serde_json::to_vec(head).map_err(|e| failed("describe")(e.into()))?;
        let mut writer = Self { tar: tar::Builder::new(out), sums: String::new(), modified: head.created_ms / 1000 };
        writer.add(HEAD, json.len() as u64, &mut json.as_slice())?;
        Ok(writer)
    }

    /// Adds an entry of exactly `size` bytes.
    ///
    /// # Errors
    /// If its content cannot be read, is shorter, or the backup cannot be written.
    pub fn add(&mut self, name: &str, size: u64, content: &mut dyn Read) -> Result<(), BackupError> {
        let mut hashing = Hashing { inner: content.take(size), hash: Sha256::new(), read: 0 };
        self.append(name, size, &mut hashing)?;
        if hashing.read != size {
            let text = format!("{name} has {} bytes instead of {size}", hashing.read);
            return Err(failed("write")(io::Error::other(text)));
        }
        self.sums.push_str(&format!("{}  {name}\n", hex::encode(hashing.hash.finalize())));
        Ok(())
    }

    fn append(&mut self, name: &str, size: u64, content: &mut dyn Read) -> Result<(), BackupError> {
        let mut header = tar::Header::new_gnu();
        header.set_size(size);
        header.set_mode(0o600);
        header.set_mtime(self.modified);
        self.tar.append_data(&mut header, name, content).map_err(failed("write"))
    }

    /// Ends the backup. Without this it is none.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn finish(mut self) -> Result<W, BackupError> {
        let sums = std::mem::take(&mut self.sums);
        self.append(SUMS, sums.len() as u64, &mut sums.as_bytes())?;
        self.tar.into_inner().map_err(failed("write"))
    }
}

/// What was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupRead {
    /// What it says of itself.
    pub head: BackupHead,
    /// Files in it beside the records.
    pub files: u64,
    /// Bytes in all.
    pub bytes: u64,
}

/// Reads a backup to its end and checks every digest. `take` gets each entry but the first and last; what it leaves
/// is read for it. What it took counts only once this has returned well.
///
/// # Errors
/// If it is no backup, damaged, from a later release, or `take` fails.
pub fn read_backup(
    input: impl Read,
    take: &mut dyn FnMut(&str, &mut dyn Read) -> io::Result<()>,
) -> Result<BackupRead, BackupError> {
    let damaged = |e: io::Error| BackupError::Damaged(e.to_string());
    let mut archive = tar::Archive::new(input);
    let (mut head, mut sums, mut files, mut bytes) = (None, String::new(), 0, 0);
    for (count, entry) in archive.entries().map_err(damaged)?.enumerate() {
        let entry = entry.map_err(if count == 0 { |_| BackupError::NoBackup } else { damaged })?;
        let name = entry_name(&entry)?;
        bytes += entry.size();
        if count > MAX_ENTRIES {
            return Err(BackupError::Damaged("it has too many entries".into()));
        }
        if name == SUMS {
            return if said(entry, &sums)? {
                head.map(|head| BackupRead { head, files, bytes }).ok_or(BackupError::NoBackup)
            } else {
                Err(BackupError::Damaged(format!("its entries are not those that {SUMS} lists")))
            };
        }
        let mut hashing = Hashing { inner: entry, hash: Sha256::new(), read: 0 };
        if head.is_none() {
            head = Some(read_head(&name, &mut hashing)?);
        } else {
            files += 1;
            take(&name, &mut hashing).map_err(failed("take over what is in"))?;
        }
        io::copy(&mut hashing, &mut io::sink()).map_err(damaged)?;
        let digest = hex::encode(hashing.hash.finalize());
        if named_digest(&name).is_some_and(|named| named != digest) {
            return Err(BackupError::Damaged(format!("the content of {name} has the digest {digest}")));
        }
        sums.push_str(&format!("{digest}  {name}\n"));
    }
    Err(if head.is_some() { BackupError::Damaged("its end is missing".into()) } else { BackupError::NoBackup })
}

/// The digest in the name of an entry that is named by it.
fn named_digest(name: &str) -> Option<&str> {
    name.strip_prefix("blobs/").or_else(|| name.strip_prefix("packages/"))
}

/// The name of an entry: plain words with at most one slash, so that it can lead nowhere.
fn entry_name<R: Read>(entry: &tar::Entry<'_, R>) -> Result<String, BackupError> {
    let strange = || BackupError::Damaged("an entry has a name that no backup has".into());
    let path = entry.path().map_err(|_| strange())?;
    let name = path.to_str().filter(|_| entry.header().entry_type().is_file()).ok_or_else(strange)?;
    let word = |word: &str| {
        let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
        !word.is_empty() && word.len() <= 80 && !word.starts_with('.') && word.bytes().all(good)
    };
    let good = name.split('/').count() <= 2 && name.split('/').all(word);
    let digest = named_digest(name).is_none_or(|d| d.len() == 64 && d.bytes().all(|b| b.is_ascii_hexdigit()));
    if good && digest { Ok(name.to_owned()) } else { Err(strange()) }
}

fn read_head(name: &str, content: &mut impl Read) -> Result<BackupHead, BackupError> {
    if name != HEAD {
        return Err(BackupError::NoBackup);
    }
    let mut json = Vec::new();
    content.take(MAX_HEAD).read_to_end(&mut json).map_err(failed("read"))?;
    // The format first: a later one may have another head.
    #[derive(Deserialize)]
    struct Format {
        windlass_backup: u32,
    }
    let not = |e: serde_json::Error| BackupError::Damaged(format!("{HEAD}: {e}"));
    let format: Format = serde_json::from_slice(&json).map_err(not)?;
    if format.windlass_backup > FORMAT {
        return Err(BackupError::NewerFormat { found: format.windlass_backup });
    }
    serde_json::from_slice(&json).map_err(not)
}

/// Whether the last entry says the same as was found.
fn said(entry: impl Read, found: &str) -> Result<bool, BackupError> {
    let mut said = Vec::new();
    entry.take(found.len() as u64 + 1).read_to_end(&mut said).map_err(failed("read"))?;
    Ok(said == found.as_bytes())
}

/// Adds every file in a folder of content-addressed files. `name` makes the entry's name of the path below `folder`,
/// or leaves the file out.
///
/// # Errors
/// If a file cannot be read, or the backup not be written.
pub fn add_folder<W: Write>(
    writer: &mut BackupWriter<W>,
    folder: &Path,
    name: &dyn Fn(&Path) -> Option<String>,
) -> Result<(), BackupError> {
    for shard in sorted(folder)? {
        if !shard.is_dir() {
            continue;
        }
        for file in sorted(&shard)? {
            let Some(name) = file.strip_prefix(folder).ok().and_then(name) else { continue };
            let mut content = std::fs::File::open(&file).map_err(failed("read a file for"))?;
            let size = content.metadata().map_err(failed("read a file for"))?.len();
            writer.add(&name, size, &mut content)?;
        }
    }
    Ok(())
}

fn sorted(folder: &Path) -> Result<Vec<std::path::PathBuf>, BackupError> {
    let mut paths = Vec::new();
    match std::fs::read_dir(folder) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(paths),
        entries => {
            for entry in entries.map_err(failed("list files for"))? {
                paths.push(entry.map_err(failed("list files for"))?.path());
            }
        }
    }
    paths.sort_unstable();
    Ok(paths)
}

struct Hashing<R> {
    inner: R,
    hash: Sha256,
    read: u64,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buf)?;
        self.hash.update(buf.get(..read).unwrap_or_default());
        self.read += read as u64;
        Ok(read)
    }
}
