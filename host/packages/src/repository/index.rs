//! The small contract behind which package records live.
//!
//! The repository owns bytes; who keeps the records that name them (the store, several servers'
//! shared one, or memory in tests) is told by `Index`. One call is atomic: `insert`.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::digest::{Blob, Sha256};
use crate::name::{PackageId, PackageName};
use crate::payload::Payload;
use crate::version::Version;

/// The format of `PackageRecord` written by this release.
pub const RECORD_FORMAT: u32 = 1;

/// What is known about one version of one package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackageRecord {
    /// The format of this record; a reader refuses a newer one.
    pub record_format: u32,
    /// Id, version and format, as written by the first push.
    pub name: PackageName,
    /// The file as it was uploaded.
    pub original: Blob,
    /// The forms in which it is sent.
    pub payload: Payload,
    /// Files, folders and links inside.
    pub entries: u64,
    /// When it was pushed, in milliseconds since 1970, by the pusher's clock reading.
    pub pushed_at: u64,
    /// What the inspection found worth saying.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// What to do about an existing record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Insert {
    /// Leave it.
    IfAbsent,
    /// Put the new one in its place.
    Replace,
}

/// The keeper of the records failed. The text says how and what to do.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct IndexError(pub String);

/// Keeps package records. Ids and versions are compared by meaning, so `1.0` is `1.0.0`.
#[async_trait]
pub trait Index: Send + Sync {
    /// Stores a record durably and atomically. Returns the record that was there before; with
    /// `IfAbsent` that means the new one was not stored.
    async fn insert(&self, record: PackageRecord, mode: Insert) -> Result<Option<PackageRecord>, IndexError>;

    /// The record of one version.
    async fn get(&self, id: &PackageId, version: &Version) -> Result<Option<PackageRecord>, IndexError>;

    /// All versions of a package, newest first.
    async fn list(&self, id: &PackageId) -> Result<Vec<PackageRecord>, IndexError>;

    /// All package ids, sorted.
    async fn ids(&self) -> Result<Vec<PackageId>, IndexError>;

    /// Forgets one version and returns what was known.
    async fn remove(&self, id: &PackageId, version: &Version) -> Result<Option<PackageRecord>, IndexError>;

    /// True while any record, or any release that pins the bytes, still names this digest.
    async fn is_referenced(&self, sha256: &Sha256) -> Result<bool, IndexError>;
}

/// Records in memory, for tests and for trying things out.
#[derive(Default)]
pub struct MemoryIndex {
    records: Mutex<BTreeMap<(PackageId, Version), PackageRecord>>,
}

impl PackageRecord {
    /// The kept files of this record. A plain form beside a compressed one is not kept: it can be
    /// made again.
    pub fn blobs(&self) -> impl Iterator<Item = Blob> {
        [Some(self.original), self.payload.gzip].into_iter().flatten()
    }
}

impl MemoryIndex {
    fn with<T>(&self, act: impl FnOnce(&mut BTreeMap<(PackageId, Version), PackageRecord>) -> T) -> T {
        // A map stays whole when another test's thread panicked.
        act(&mut self.records.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[async_trait]
impl Index for MemoryIndex {
    async fn insert(&self, record: PackageRecord, mode: Insert) -> Result<Option<PackageRecord>, IndexError> {
        let key = (record.name.id.clone(), record.name.version.clone());
        Ok(self.with(|records| {
            let earlier = records.get(&key).cloned();
            if earlier.is_none() || mode == Insert::Replace {
                records.insert(key, record);
            }
            earlier
        }))
    }

    async fn get(&self, id: &PackageId, version: &Version) -> Result<Option<PackageRecord>, IndexError> {
        Ok(self.with(|records| records.get(&(id.clone(), version.clone())).cloned()))
    }

    async fn list(&self, id: &PackageId) -> Result<Vec<PackageRecord>, IndexError> {
        Ok(self.with(|records| {
            let of_id = records.values().rev().filter(|record| record.name.id == *id);
            of_id.cloned().collect()
        }))
    }

    async fn ids(&self) -> Result<Vec<PackageId>, IndexError> {
        Ok(self.with(|records| {
            let mut ids: Vec<_> = records.keys().map(|(id, _)| id.clone()).collect();
            ids.dedup();
            ids
        }))
    }

    async fn remove(&self, id: &PackageId, version: &Version) -> Result<Option<PackageRecord>, IndexError> {
        Ok(self.with(|records| records.remove(&(id.clone(), version.clone()))))
    }

    async fn is_referenced(&self, sha256: &Sha256) -> Result<bool, IndexError> {
        Ok(self.with(|records| records.values().flat_map(PackageRecord::blobs).any(|blob| blob.sha256 == *sha256)))
    }
}
