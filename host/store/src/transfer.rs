//! Moving a whole store out and in: newline JSON that ends with its own SHA-256.
//!
//! The first line names the format and the commit the export shows, then follows one line a record in key order, and
//! the last line holds the digest of every byte before it. The embedded store uses the same files as its verified
//! exports, so there is one format to read, write and trust.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::batch::Batch;
use crate::error::StoreError;
use crate::record::{Seq, TableName};
use crate::store::Store;

const FORMAT: u32 = 1;
/// Every byte of the largest record may become six in JSON; this leaves room for the rest of the line.
const MAX_LINE: u64 = 6 * (32 * 1024 + 1024) + 1024;
const IMPORT_MARK: TableName = TableName::new("import-unfinished");

/// What an export holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exported {
    /// The export shows the store as of this commit.
    pub seq: Seq,
    /// How many records it holds.
    pub records: u64,
    /// The digest in its last line.
    pub sha256: String,
}

/// Why an export or import failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransferError {
    /// The file could not be read or written.
    #[error("{what} {}: {source}", path.display())]
    Io { what: &'static str, path: PathBuf, source: io::Error },
    /// The target of an export exists.
    #[error("export to {}: the file exists already; choose another name or remove it", .0.display())]
    Exists(PathBuf),
    /// The file is not an undamaged export.
    #[error("read the export {} at line {line}: {cause}; use an undamaged copy", path.display())]
    Damaged { path: PathBuf, line: u64, cause: String },
    /// The file comes from a newer release.
    #[error("read the export {}: it has export format {found} and this release knows formats up to {FORMAT}; use the release that wrote it, or a later one", path.display())]
    NewerFormat { path: PathBuf, found: u32 },
    /// The store to import into holds records.
    #[error("import: the store is not empty, it holds the table '{0}'; import into a new data folder")]
    NotEmpty(TableName),
    /// An earlier import into this store did not finish.
    #[error(
        "import: an earlier import into this store did not finish; remove its data folder and import into a new one"
    )]
    Unfinished,
    /// A part of the journal that an export is made from could not be read.
    #[error("export: {0}")]
    Journal(String),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Fills an empty store from an export. The whole file is verified before the first record is written.
///
/// Versions are given anew: a version read before an export means nothing after the import.
///
/// # Errors
/// If the file is damaged or from a newer release, or the store is not empty or fails.
pub async fn import(store: &dyn Store, from: &Path) -> Result<Exported, TransferError> {
    if let Some(table) = store.tables().await?.into_iter().next() {
        return Err(if table == IMPORT_MARK { TransferError::Unfinished } else { TransferError::NotEmpty(table) });
    }
    let path = from.to_owned();
    let exported = blocking(move || ExportReader::open(&path)?.verify()).await?;
    let mut begin = Batch::new();
    begin.require_absent(&IMPORT_MARK, "mark").put(&IMPORT_MARK, "mark", "");
    store.commit(begin).await?;

    let mut reader = ExportReader::open(from)?;
    loop {
        let taken;
        (reader, taken) = blocking(move || {
            let records: Vec<_> = reader.by_ref().take(500).collect::<Result<_, _>>()?;
            Ok((reader, records))
        })
        .await?;
        if taken.is_empty() {
            break;
        }
        // 500 records of 33 KiB would break the batch limit; 100 cannot.
        for chunk in taken.chunks(100) {
            let mut batch = Batch::new();
            for record in chunk {
                batch.put(&record.table, record.key.clone(), record.value.clone());
            }
            batch.relaxed();
            store.commit(batch).await?;
        }
    }
    let mut end = Batch::new();
    end.delete(&IMPORT_MARK, "mark");
    store.commit(end).await?;
    Ok(exported)
}

/// Runs file work off the async threads.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, TransferError> + Send + 'static,
) -> Result<T, TransferError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(e) => Err(StoreError::Stopped { reason: Arc::from(format!("a file task ended early: {e}")) }.into()),
    }
}

/// One record on its way in or out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ExportRecord {
    pub(crate) table: TableName,
    pub(crate) key: Bytes,
    pub(crate) version: Seq,
    pub(crate) value: Bytes,
}

#[derive(Serialize, Deserialize)]
struct Head {
    windlass_export: u32,
    seq: Seq,
}

#[derive(Serialize, Deserialize)]
struct Line<'a> {
    table: &'a str,
    key: Blob,
    version: Seq,
    value: Blob,
}

#[derive(Serialize, Deserialize)]
struct Tail {
    records: u64,
    sha256: String,
}

/// Bytes as text where they are text, so that a person can read and grep an export.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Blob {
    Text(String),
    Base64(String),
}

impl Blob {
    fn new(bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::Text(text.to_owned()),
            Err(_) => Self::Base64(BASE64.encode(bytes)),
        }
    }

    fn into_bytes(self) -> Result<Bytes, String> {
        match self {
            Self::Text(text) => Ok(text.into()),
            Self::Base64(text) => BASE64.decode(text).map(Bytes::from).map_err(|e| e.to_string()),
        }
    }
}

/// Writes a new export durably: beside its place, synced, then renamed. Leaves nothing behind if it fails.
pub(crate) fn write_new(
    to: &Path,
    seq: Seq,
    records: impl Iterator<Item = Result<ExportRecord, TransferError>>,
) -> Result<Exported, TransferError> {
    place_new(to, |partial| write_export(partial, seq, records))
}

/// Makes a new file appear whole: `write` fills and syncs one beside it, which is then renamed.
pub(crate) fn place_new<T>(
    to: &Path,
    write: impl FnOnce(&Path) -> Result<T, TransferError>,
) -> Result<T, TransferError> {
    if to.exists() {
        return Err(TransferError::Exists(to.to_owned()));
    }
    let mut partial = to.as_os_str().to_owned();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    let io = |what| move |source| TransferError::Io { what, path: to.to_owned(), source };
    let placed = write(&partial).and_then(|written| {
        fs::rename(&partial, to).map_err(io("rename"))?;
        sync_parent(to).map_err(io("sync the folder of"))?;
        Ok(written)
    });
    if placed.is_err() {
        // The error at hand tells more than a failed clean-up.
        let _ = fs::remove_file(&partial);
    }
    placed
}

fn write_export(
    path: &Path,
    seq: Seq,
    records: impl Iterator<Item = Result<ExportRecord, TransferError>>,
) -> Result<Exported, TransferError> {
    let io = |what| move |source| TransferError::Io { what, path: path.to_owned(), source };
    let file = File::create(path).map_err(io("create"))?;
    let mut out = Hashing { inner: BufWriter::with_capacity(1 << 18, file), hash: Sha256::new() };
    let mut line = Vec::with_capacity(4096);
    let mut count = 0u64;
    write_line(&mut out, &mut line, &Head { windlass_export: FORMAT, seq }).map_err(io("write"))?;
    for record in records {
        let record = record?;
        let shown = Line {
            table: record.table.as_str(),
            key: Blob::new(&record.key),
            version: record.version,
            value: Blob::new(&record.value),
        };
        write_line(&mut out, &mut line, &shown).map_err(io("write"))?;
        count += 1;
    }
    let sha256 = hex::encode(out.hash.clone().finalize());
    write_line(&mut out, &mut line, &Tail { records: count, sha256: sha256.clone() }).map_err(io("write"))?;
    let file = out.inner.into_inner().map_err(|e| io("write")(e.into_error()))?;
    file.sync_all().map_err(io("sync"))?;
    Ok(Exported { seq, records: count, sha256 })
}

fn write_line(out: &mut impl Write, line: &mut Vec<u8>, value: &impl Serialize) -> io::Result<()> {
    line.clear();
    serde_json::to_writer(&mut *line, value)?;
    line.push(b'\n');
    out.write_all(line)
}

/// Makes a created, renamed or removed name durable.
pub(crate) fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}

struct Hashing<W> {
    inner: W,
    hash: Sha256,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.inner.write_all(buf)?;
        self.hash.update(buf);
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Reads an export record by record. The digest is checked when the last line is reached, so a caller that must
/// not act on damaged data calls [`ExportReader::verify`] first or keeps what it built until the iterator ends well.
pub(crate) struct ExportReader {
    input: BufReader<File>,
    path: PathBuf,
    hash: Sha256,
    line_number: u64,
    records: u64,
    seq: Seq,
    end: Option<Exported>,
}

impl ExportReader {
    pub(crate) fn open(path: &Path) -> Result<Self, TransferError> {
        let file =
            File::open(path).map_err(|source| TransferError::Io { what: "open", path: path.to_owned(), source })?;
        let mut reader = Self {
            input: BufReader::with_capacity(1 << 18, file),
            path: path.to_owned(),
            hash: Sha256::new(),
            line_number: 0,
            records: 0,
            seq: Seq(0),
            end: None,
        };
        let line = reader.read_line()?;
        let head: Head = serde_json::from_slice(&line).map_err(|_| reader.damaged("it does not begin as an export"))?;
        if head.windlass_export > FORMAT {
            return Err(TransferError::NewerFormat { path: reader.path, found: head.windlass_export });
        }
        reader.hash.update(&line);
        reader.seq = head.seq;
        Ok(reader)
    }

    /// The commit this export shows.
    pub(crate) fn seq(&self) -> Seq {
        self.seq
    }

    /// Reads to the end and checks the digest.
    pub(crate) fn verify(mut self) -> Result<Exported, TransferError> {
        for record in self.by_ref() {
            record?;
        }
        let end = self.end.take();
        end.ok_or_else(|| self.damaged("its last line is missing"))
    }

    fn read_line(&mut self) -> Result<Vec<u8>, TransferError> {
        let mut line = Vec::new();
        self.line_number += 1;
        let read = self.input.by_ref().take(MAX_LINE).read_until(b'\n', &mut line);
        read.map_err(|source| TransferError::Io { what: "read", path: self.path.clone(), source })?;
        if line.last() == Some(&b'\n') {
            return Ok(line);
        }
        Err(self.damaged(if line.is_empty() { "its last line is missing" } else { "the line is cut or too long" }))
    }

    fn next_record(&mut self) -> Result<Option<ExportRecord>, TransferError> {
        if self.end.is_some() {
            return Ok(None);
        }
        let line = self.read_line()?;
        let parsed: Line = match serde_json::from_slice(&line) {
            Ok(parsed) => parsed,
            Err(e) => match serde_json::from_slice(&line) {
                Ok(tail) => return self.finish(tail).map(|()| None),
                Err(_) => return Err(self.damaged(e)),
            },
        };
        let record = ExportRecord {
            table: TableName::parse(parsed.table).ok_or_else(|| self.damaged("the table name is not valid"))?,
            key: parsed.key.into_bytes().map_err(|e| self.damaged(e))?,
            version: parsed.version,
            value: parsed.value.into_bytes().map_err(|e| self.damaged(e))?,
        };
        self.hash.update(&line);
        self.records += 1;
        Ok(Some(record))
    }

    fn finish(&mut self, tail: Tail) -> Result<(), TransferError> {
        let found = hex::encode(self.hash.clone().finalize());
        if found != tail.sha256 {
            return Err(self.damaged(format!("the content has SHA-256 {found}, the last line says {}", tail.sha256)));
        }
        if tail.records != self.records {
            return Err(self.damaged(format!("{} records found, the last line says {}", self.records, tail.records)));
        }
        let mut rest = [0u8; 1];
        if !matches!(self.input.read(&mut rest), Ok(0)) {
            return Err(self.damaged("there is something behind the last line"));
        }
        self.end = Some(Exported { seq: self.seq, records: self.records, sha256: found });
        Ok(())
    }

    fn damaged(&self, cause: impl ToString) -> TransferError {
        TransferError::Damaged { path: self.path.clone(), line: self.line_number, cause: cause.to_string() }
    }
}

impl Iterator for ExportReader {
    type Item = Result<ExportRecord, TransferError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_record().transpose()
    }
}
