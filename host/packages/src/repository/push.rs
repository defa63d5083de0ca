//! Taking in a package: stream to disk, check, name, record; all or nothing.
//!
//! The upload is hashed as it is written, inspected in one pass over the written file, and where
//! it is a zip that same pass makes the tar payload. Of several pushes of one version exactly one
//! wins, because the index inserts atomically. Dropping the future leaves nothing behind.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use tempfile::NamedTempFile;
use tokio::io::{AsyncRead, AsyncReadExt as _};

use super::blobs::Blobs;
use super::{Insert, PackageRecord, PushError, RECORD_FORMAT, Repository, RepositoryError, blocking};
use crate::archive::{self, ArchiveError, Inspection, Limits, StopFlag};
use crate::digest::{Blob, Hasher, Sha256};
use crate::name::{Format, PackageName};
use crate::payload::Payload;

/// The one buffer of a push. Its size is what a push costs in memory.
const BUFFER: usize = 1 << 20;

/// What to do when the version is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Overwrite {
    /// Refuse.
    #[default]
    Fail,
    /// Succeed if the bytes are the same, else refuse. For builds that may run twice.
    IgnoreSame,
    /// Put the new bytes in its place.
    Replace,
}

/// How to push.
#[derive(Debug, Clone)]
pub struct PushOptions {
    /// What to do when the version is there already.
    pub overwrite: Overwrite,
    /// The digest of the file, if the sender knows it.
    pub expected_sha256: Option<Sha256>,
    /// The size of the file, if the sender knows it.
    pub expected_size: Option<u64>,
    /// The time to record, in milliseconds since 1970.
    pub pushed_at: u64,
    /// How long the sender may be silent.
    pub stall_limit: Duration,
}

impl Default for PushOptions {
    fn default() -> Self {
        Self {
            overwrite: Overwrite::Fail,
            expected_sha256: None,
            expected_size: None,
            pushed_at: 0,
            stall_limit: Duration::from_secs(60),
        }
    }
}

/// A push that succeeded.
#[derive(Debug, Clone)]
pub struct Pushed {
    /// What the repository now holds.
    pub record: PackageRecord,
    /// What it did.
    pub outcome: PushOutcome,
}

/// What a successful push did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PushOutcome {
    /// Added a version.
    Added,
    /// Nothing: the same bytes were there.
    AlreadyThere,
    /// Put other bytes in the place of the earlier ones.
    Replaced,
}

/// Checked bytes that wait for their names.
struct Checked {
    files: Vec<(NamedTempFile, Blob)>,
    payload: Payload,
    inspection: Inspection,
}

impl Repository {
    /// Takes in one package from a stream.
    pub async fn push(
        &self,
        name: PackageName,
        upload: impl AsyncRead + Unpin + Send,
        options: PushOptions,
    ) -> Result<Pushed, PushError> {
        // Before the upload, so that nobody sends a gigabyte to learn this.
        if let Some(pushed) = self.settled_early(&name, &options).await? {
            return Ok(pushed);
        }
        let (file, original) = self.receive(&name, upload, &options).await?;
        check_announced(&name, original, &options)?;
        let checked = self.check(&name, file, original).await?;
        let record = PackageRecord {
            record_format: RECORD_FORMAT,
            name,
            original,
            payload: checked.payload,
            entries: checked.inspection.entries,
            pushed_at: options.pushed_at,
            warnings: checked.inspection.warnings,
        };
        self.commit(record, checked.files, options.overwrite).await
    }

    async fn settled_early(&self, name: &PackageName, options: &PushOptions) -> Result<Option<Pushed>, PushError> {
        let known = self.index.get(&name.id, &name.version).await;
        let Some(record) = known.map_err(RepositoryError::from)? else {
            return Ok(None);
        };
        match (options.overwrite, options.expected_sha256) {
            (Overwrite::Replace, _) | (Overwrite::IgnoreSame, None) => Ok(None),
            (overwrite, expected) => {
                let same = expected.map(|digest| digest == record.original.sha256);
                exists(name, record, same, overwrite).map(Some)
            }
        }
    }

    /// Writes the upload to a file that has no name yet, hashing as it goes.
    async fn receive(
        &self,
        name: &PackageName,
        mut upload: impl AsyncRead + Unpin + Send,
        options: &PushOptions,
    ) -> Result<(NamedTempFile, Blob), PushError> {
        let blobs = self.blobs.clone();
        let mut file = blocking(self.blobs.root(), move || blobs.partial()).await?;
        let mut hasher = Hasher::default();
        let mut buffer = Vec::with_capacity(BUFFER);
        loop {
            let limit = options.stall_limit;
            let more = fill(&mut upload, &mut buffer, limit).await.map_err(|fault| {
                let (name, received) = (name.to_string(), hasher.size() + buffer.len() as u64);
                match fault {
                    Some(cause) => PushError::Interrupted { name, received, cause },
                    None => PushError::Stalled { name, received, seconds: limit.as_secs() },
                }
            })?;
            let limit = self.limits.packed_bytes;
            if hasher.size() + buffer.len() as u64 > limit {
                return Err(PushError::TooLarge { name: name.to_string(), limit });
            }
            // Hashing and writing a full buffer takes a millisecond: too long for an async thread.
            (file, hasher, buffer) = blocking(self.blobs.root(), move || {
                hasher.update(&buffer);
                file.write_all(&buffer)?;
                buffer.clear();
                Ok((file, hasher, buffer))
            })
            .await?;
            if !more {
                return Ok((file, hasher.finish()));
            }
        }
    }

    async fn check(&self, name: &PackageName, file: NamedTempFile, original: Blob) -> Result<Checked, PushError> {
        let (blobs, limits, format) = (self.blobs.clone(), self.limits.clone(), name.format);
        let stop = StopOnDrop::default();
        let flag = Arc::clone(&stop.0);
        let checked =
            blocking(self.blobs.root(), move || Ok(check(&blobs, file, original, format, &limits, &flag))).await?;
        checked.map_err(|cause| match cause {
            ArchiveError::Io(cause) => PushError::Repository(self.disk(cause)),
            cause => PushError::Archive { name: name.to_string(), cause },
        })
    }

    async fn commit(
        &self,
        record: PackageRecord,
        files: Vec<(NamedTempFile, Blob)>,
        overwrite: Overwrite,
    ) -> Result<Pushed, PushError> {
        let name = record.name.clone();
        let _guard = self.commit.lock().await;
        let known = self.index.get(&name.id, &name.version).await.map_err(RepositoryError::from)?;
        if let Some(known) = known
            && overwrite != Overwrite::Replace
        {
            let same = Some(known.original == record.original);
            return exists(&name, known, same, overwrite);
        }
        let blobs = self.blobs.clone();
        blocking(self.blobs.root(), move || files.into_iter().try_for_each(|(file, blob)| blobs.keep(file, blob)))
            .await?;
        let mode = match overwrite {
            Overwrite::Replace => Insert::Replace,
            Overwrite::Fail | Overwrite::IgnoreSame => Insert::IfAbsent,
        };
        let earlier = self.index.insert(record.clone(), mode).await.map_err(RepositoryError::from)?;
        match earlier {
            None => Ok(Pushed { record, outcome: PushOutcome::Added }),
            Some(_) if mode == Insert::Replace => Ok(Pushed { record, outcome: PushOutcome::Replaced }),
            // Another server was faster. Bytes nobody names are collected later.
            Some(earlier) => {
                let same = Some(earlier.original == record.original);
                exists(&name, earlier, same, overwrite)
            }
        }
    }
}

/// The answer to a push of a version that is there.
fn exists(
    name: &PackageName,
    record: PackageRecord,
    same: Option<bool>,
    overwrite: Overwrite,
) -> Result<Pushed, PushError> {
    if same == Some(true) && overwrite == Overwrite::IgnoreSame {
        return Ok(Pushed { record, outcome: PushOutcome::AlreadyThere });
    }
    Err(PushError::Exists { name: name.to_string(), same })
}

/// Fills the buffer; false at the end of the stream. `Err(None)` means silence.
async fn fill(
    upload: &mut (impl AsyncRead + Unpin),
    buffer: &mut Vec<u8>,
    stall_limit: Duration,
) -> Result<bool, Option<io::Error>> {
    while buffer.len() < BUFFER {
        let mut room = upload.take((BUFFER - buffer.len()) as u64);
        let read = tokio::time::timeout(stall_limit, room.read_buf(buffer)).await;
        match read {
            Err(_silence) => return Err(None),
            Ok(Err(cause)) => return Err(Some(cause)),
            Ok(Ok(0)) => return Ok(false),
            Ok(Ok(_)) => {}
        }
    }
    Ok(true)
}

fn check_announced(name: &PackageName, original: Blob, options: &PushOptions) -> Result<(), PushError> {
    if let Some(expected) = options.expected_size.filter(|size| *size != original.size) {
        return Err(PushError::Length { name: name.to_string(), received: original.size, expected });
    }
    match options.expected_sha256.filter(|digest| *digest != original.sha256) {
        Some(expected) => Err(PushError::Digest { name: name.to_string(), expected, actual: original.sha256 }),
        None => Ok(()),
    }
}

fn check(
    blobs: &Blobs,
    file: NamedTempFile,
    original: Blob,
    format: Format,
    limits: &Limits,
    stop: &StopFlag,
) -> Result<Checked, ArchiveError> {
    let input = file.as_file();
    let checked = if matches!(format, Format::Zip | Format::Nupkg) {
        let partial = blobs.partial().map_err(ArchiveError::Io)?;
        // No name and no time go into the header, so equal content gives equal bytes.
        let mut gzip = GzEncoder::new(HashingFile::new(partial), Compression::default());
        let inspection = archive::inspect(input, format, limits, stop, &mut gzip)?;
        let (partial, blob) = gzip.finish().map_err(ArchiveError::Io)?.finish();
        let payload = Payload { gzip: Some(blob), plain: inspection.plain };
        Checked { files: vec![(file, original), (partial, blob)], payload, inspection }
    } else {
        let inspection = archive::inspect(input, format, limits, stop, &mut io::sink())?;
        let payload = Payload { gzip: (format != Format::Tar).then_some(original), plain: inspection.plain };
        Checked { files: vec![(file, original)], payload, inspection }
    };
    // Here, so that nobody waits for this disk while the commit is held.
    for (file, _) in &checked.files {
        file.as_file().sync_all().map_err(ArchiveError::Io)?;
    }
    Ok(checked)
}

/// Unpacks gzip into the expanded form. False when the result is not what was recorded.
pub(super) fn expand(blobs: &Blobs, gzip: Blob, plain: Blob, budget: u64) -> io::Result<bool> {
    let packed = io::BufReader::with_capacity(256 << 10, std::fs::File::open(blobs.path(&gzip.sha256))?);
    // One byte more than recorded is enough to know better.
    let inflated = flate2::bufread::MultiGzDecoder::new(packed);
    let mut inflated = io::Read::take(inflated, plain.size.saturating_add(1));
    let mut out = HashingFile::new(blobs.partial()?);
    match io::copy(&mut inflated, &mut out) {
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof
            ) =>
        {
            return Ok(false);
        }
        copied => copied?,
    };
    let (partial, blob) = out.finish();
    if blob != plain {
        return Ok(false);
    }
    blobs.keep_expanded(partial, plain, budget)?;
    Ok(true)
}

/// Hashes what is written to a file.
struct HashingFile {
    file: NamedTempFile,
    hasher: Hasher,
}

impl HashingFile {
    fn new(file: NamedTempFile) -> Self {
        Self { file, hasher: Hasher::default() }
    }

    fn finish(self) -> (NamedTempFile, Blob) {
        (self.file, self.hasher.finish())
    }
}

impl Write for HashingFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hasher.update(bytes.get(..written).unwrap_or_default());
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Stops the inspection when whoever waits for it is gone.
#[derive(Default)]
struct StopOnDrop(Arc<StopFlag>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.stop();
    }
}
