//! The package repository: every version pushed once, kept under its digest, ready to be sent.
//!
//! Bytes live in `blobs`, records behind `index`, and `push` is the one way in. Bytes are on disk
//! before a record names them, and removed only after no record does, so a crash leaves at most
//! bytes nobody names; `collect_garbage` finds those. Memory never grows with package size.

mod blobs;
mod error;
mod index;
mod push;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::Mutex;

pub use error::{PushError, RepositoryError};
pub use index::{Index, IndexError, Insert, MemoryIndex, PackageRecord, RECORD_FORMAT};
pub use push::{Overwrite, PushOptions, PushOutcome, Pushed};

use crate::archive::Limits;
use crate::digest::{Blob, Sha256};
use crate::name::PackageId;
use crate::payload::{Form, PayloadSource};
use crate::range::VersionRange;
use crate::version::Version;
use blobs::Blobs;

/// What a repository needs to know.
#[derive(Debug, Clone)]
pub struct RepositoryConfig {
    /// The folder for all package bytes.
    pub folder: PathBuf,
    /// What a package may hold.
    pub limits: Limits,
    /// Disk for payloads expanded from gzip; those of the last day are kept in any case.
    pub expanded_bytes: u64,
}

/// Stores packages. Shared by reference; all methods may run at once.
pub struct Repository {
    blobs: Blobs,
    index: Arc<dyn Index>,
    limits: Limits,
    expanded_bytes: u64,
    /// Held while bytes get their name and record, or lose both, so that a removal never takes
    /// the bytes of a push that is just about to name them.
    commit: Mutex<()>,
    /// One expansion at a time: several wishes for one payload then cost one.
    expanding: Mutex<()>,
}

/// May `latest` answer with a pre-release?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PreReleases {
    /// Yes, if it is the newest.
    Allowed,
    /// No.
    Skipped,
}

/// What a second look at kept bytes found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// They are what their name says.
    Intact,
    /// There are none.
    Missing,
    /// They changed on disk; this is what they are now.
    Changed(Blob),
}

impl RepositoryConfig {
    /// The usual limits over a folder.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), limits: Limits::default(), expanded_bytes: 16 << 30 }
    }
}

impl Repository {
    /// Opens or creates the folder. Removes uploads left half-written more than a day ago, and
    /// expanded payloads, which are made again when they are wished for.
    pub async fn open(config: RepositoryConfig, index: Arc<dyn Index>) -> Result<Self, RepositoryError> {
        let folder = config.folder.clone();
        let blobs = blocking(&config.folder, move || Blobs::open(folder, SystemTime::now())).await?;
        Ok(Self {
            blobs,
            index,
            limits: config.limits,
            expanded_bytes: config.expanded_bytes,
            commit: Mutex::default(),
            expanding: Mutex::default(),
        })
    }

    /// The record of one version, or an error that lists the versions there are.
    pub async fn get(&self, id: &PackageId, version: &Version) -> Result<PackageRecord, RepositoryError> {
        match self.index.get(id, version).await? {
            Some(record) => readable(record),
            None => Err(self.not_found(id, Some(version)).await?),
        }
    }

    /// All versions of a package, newest first; empty for an unknown one.
    pub async fn list(&self, id: &PackageId) -> Result<Vec<PackageRecord>, RepositoryError> {
        self.index.list(id).await?.into_iter().map(readable).collect()
    }

    /// All package ids, sorted.
    pub async fn ids(&self) -> Result<Vec<PackageId>, RepositoryError> {
        Ok(self.index.ids().await?)
    }

    /// The newest version inside a range.
    pub async fn latest(
        &self,
        id: &PackageId,
        range: &VersionRange,
        pre_releases: PreReleases,
    ) -> Result<PackageRecord, RepositoryError> {
        let fits = |record: &PackageRecord| {
            let version = &record.name.version;
            range.contains(version) && (pre_releases == PreReleases::Allowed || !version.is_pre_release())
        };
        match self.index.list(id).await?.into_iter().find(fits) {
            Some(record) => readable(record),
            None => Err(self.not_found(id, None).await?),
        }
    }

    /// The file as it was uploaded, for download.
    pub async fn open_original(&self, record: &PackageRecord) -> Result<tokio::fs::File, RepositoryError> {
        let path = self.blobs.path(&record.original.sha256);
        match tokio::fs::File::open(&path).await {
            Ok(file) => Ok(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(self.damaged(record, "missing")),
            Err(cause) => Err(self.disk(cause)),
        }
    }

    /// The bytes to send to machines, in the wished form where the package has it.
    ///
    /// The plain form of a compressed package is unpacked once on this server and kept for a
    /// while, so ten machines cost one expansion.
    pub async fn open_payload(&self, record: &PackageRecord, wish: Form) -> Result<PayloadSource, RepositoryError> {
        let (form, blob) = record.payload.choose(wish);
        let kept = match (form, record.payload.gzip) {
            (Form::PlainTar, Some(gzip)) => return self.expanded(record, gzip, blob).await,
            _ => self.blobs.path(&blob.sha256),
        };
        match tokio::fs::metadata(&kept).await {
            Ok(known) if known.len() == blob.size => Ok(PayloadSource::new(blob, form, kept)),
            Ok(_) => Err(self.damaged(record, "cut short")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(self.damaged(record, "missing")),
            Err(cause) => Err(self.disk(cause)),
        }
    }

    /// Reads kept bytes again and compares them with their digest.
    pub async fn verify(&self, sha256: &Sha256) -> Result<Verdict, RepositoryError> {
        let (blobs, digest) = (self.blobs.clone(), *sha256);
        let found = blocking(self.blobs.root(), move || blobs.rehash(&digest)).await?;
        Ok(match found {
            None => Verdict::Missing,
            Some(blob) if blob.sha256 == *sha256 => Verdict::Intact,
            Some(blob) => Verdict::Changed(blob),
        })
    }

    /// Forgets a version, and its bytes unless something else names them.
    pub async fn remove(&self, id: &PackageId, version: &Version) -> Result<PackageRecord, RepositoryError> {
        let guard = self.commit.lock().await;
        let Some(record) = self.index.remove(id, version).await? else {
            drop(guard);
            return Err(self.not_found(id, Some(version)).await?);
        };
        for blob in record.blobs() {
            self.remove_unnamed(blob.sha256).await?;
        }
        Ok(record)
    }

    /// Removes bytes older than `min_age` that nothing names: what a crash or a replaced version
    /// left behind. Returns how many files went.
    pub async fn collect_garbage(&self, min_age: Duration) -> Result<u64, RepositoryError> {
        let before = SystemTime::now().checked_sub(min_age).unwrap_or(SystemTime::UNIX_EPOCH);
        let blobs = self.blobs.clone();
        let candidates = blocking(self.blobs.root(), move || blobs.older_than(before)).await?;
        let mut removed = 0;
        for digest in candidates {
            let _guard = self.commit.lock().await;
            removed += u64::from(self.remove_unnamed(digest).await?);
        }
        Ok(removed)
    }

    /// Call with `commit` held.
    async fn remove_unnamed(&self, digest: Sha256) -> Result<bool, RepositoryError> {
        if self.index.is_referenced(&digest).await? {
            return Ok(false);
        }
        let blobs = self.blobs.clone();
        blocking(self.blobs.root(), move || blobs.remove(&digest)).await?;
        Ok(true)
    }

    async fn expanded(
        &self,
        record: &PackageRecord,
        gzip: Blob,
        plain: Blob,
    ) -> Result<PayloadSource, RepositoryError> {
        let _one_at_a_time = self.expanding.lock().await;
        let (blobs, budget) = (self.blobs.clone(), self.expanded_bytes);
        let made = blocking(self.blobs.root(), move || {
            if blobs.use_expanded(plain) {
                return Ok(true);
            }
            push::expand(&blobs, gzip, plain, budget)
        });
        match made.await {
            Ok(true) => {
                let path = self.blobs.expanded_path(&plain.sha256);
                Ok(PayloadSource::new(plain, Form::PlainTar, path))
            }
            Ok(false) => Err(self.damaged(record, "changed")),
            Err(RepositoryError::Disk { cause, .. }) if cause.kind() == io::ErrorKind::NotFound => {
                Err(self.damaged(record, "missing"))
            }
            Err(error) => Err(error),
        }
    }

    async fn not_found(&self, id: &PackageId, version: Option<&Version>) -> Result<RepositoryError, RepositoryError> {
        let known = self.index.list(id).await?;
        let newest: Vec<_> = known.iter().take(5).map(|record| record.name.version.to_string()).collect();
        let file = format!("{id}.{}.zip", version.map_or("1.0.0", |version| version.as_str()));
        Ok(RepositoryError::NotFound {
            wanted: match version {
                Some(version) => format!("{id} {version}"),
                None => format!("{id} with a version that fits"),
            },
            known: if newest.is_empty() {
                format!("add it with: windlass package push {file}")
            } else {
                format!("the newest of {} versions: {}", known.len(), newest.join(", "))
            },
        })
    }

    fn damaged(&self, record: &PackageRecord, problem: &'static str) -> RepositoryError {
        let folder = self.blobs.root().to_owned();
        RepositoryError::Damaged { name: record.name.to_string(), problem, folder }
    }

    fn disk(&self, cause: io::Error) -> RepositoryError {
        RepositoryError::Disk { folder: self.blobs.root().to_owned(), cause }
    }
}

fn readable(record: PackageRecord) -> Result<PackageRecord, RepositoryError> {
    if record.record_format > RECORD_FORMAT {
        let (id, found) = (record.name.id.to_string(), record.record_format);
        return Err(RepositoryError::NewerFormat { id, found, known: RECORD_FORMAT });
    }
    Ok(record)
}

/// Runs disk work on a thread meant for it.
async fn blocking<T: Send + 'static>(
    folder: &Path,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, RepositoryError> {
    let result = match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(gone) => Err(io::Error::other(gone)),
    };
    result.map_err(|cause| RepositoryError::Disk { folder: folder.to_owned(), cause })
}
