//! The package feed's records in the store.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use windlass_packages::{
    digest::Sha256,
    name::PackageId,
    repository::{Index, IndexError, Insert, PackageRecord},
    version::Version,
};
use windlass_store::{Batch, Key, Store, StoreError};

use crate::records::{PACKAGES, PAYLOADS, RELEASES, all};

/// Package records in the store.
pub struct Feed(Arc<dyn Store>);

impl Feed {
    /// The feed's records in that store.
    #[must_use]
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self(store)
    }

    /// Every record.
    ///
    /// # Errors
    /// When the store stopped.
    pub async fn records(&self) -> Result<Vec<PackageRecord>, StoreError> {
        all(&*self.0, &PACKAGES, PACKAGES.all()).await
    }

    /// The package with this plain payload; where several have it, the first by name.
    ///
    /// # Errors
    /// When the store stopped.
    pub async fn by_payload(&self, sha256: &Sha256) -> Result<Option<PackageRecord>, StoreError> {
        let scan = PAYLOADS.starting_with(Key::of_text(&sha256.to_string())).limit(1);
        let found = PAYLOADS.scan(&*self.0, scan).await?.records.pop();
        let Some((id, version)) = found.map(|found| found.value) else {
            return Ok(None);
        };
        Ok(PACKAGES.get(&*self.0, Key::of_text(&id).text(&version)).await?.map(|stored| stored.value))
    }
}

fn key(id: &PackageId, version: &Version) -> Key {
    Key::of_text(&id.key()).text(&version.key())
}

fn payload_key(record: &PackageRecord) -> Key {
    Key::of_text(&record.payload.plain.sha256.to_string()).text(&record.name.id.key()).text(&record.name.version.key())
}

fn index(error: StoreError) -> IndexError {
    IndexError(error.to_string())
}

#[async_trait]
impl Index for Feed {
    async fn insert(&self, record: PackageRecord, mode: Insert) -> Result<Option<PackageRecord>, IndexError> {
        let key = key(&record.name.id, &record.name.version);
        let before = PACKAGES.get(&*self.0, key.clone()).await.map_err(index)?;
        let mut batch = Batch::new();
        match (&before, mode) {
            (Some(_), Insert::IfAbsent) => return Ok(before.map(|stored| stored.value)),
            (Some(stored), Insert::Replace) => {
                PACKAGES.require_version(&mut batch, key.clone(), stored.version);
                PAYLOADS.delete(&mut batch, payload_key(&stored.value));
            }
            (None, _) => PACKAGES.require_absent(&mut batch, key.clone()),
        }
        PACKAGES.put(&mut batch, key.clone(), &record).map_err(index)?;
        let names = (record.name.id.key(), record.name.version.key());
        PAYLOADS.put(&mut batch, payload_key(&record), &names).map_err(index)?;
        match self.0.commit(batch).await {
            Ok(_) => Ok(before.map(|stored| stored.value)),
            // Somebody else was first: theirs is what is there.
            Err(StoreError::Unmet(_)) => {
                Ok(PACKAGES.get(&*self.0, key).await.map_err(index)?.map(|stored| stored.value))
            }
            Err(error) => Err(index(error)),
        }
    }

    async fn get(&self, id: &PackageId, version: &Version) -> Result<Option<PackageRecord>, IndexError> {
        Ok(PACKAGES.get(&*self.0, key(id, version)).await.map_err(index)?.map(|stored| stored.value))
    }

    async fn list(&self, id: &PackageId) -> Result<Vec<PackageRecord>, IndexError> {
        let scan = PACKAGES.starting_with(Key::of_text(&id.key()));
        let mut records = all(&*self.0, &PACKAGES, scan).await.map_err(index)?;
        records.sort_by(|a, b| b.name.version.cmp(&a.name.version));
        Ok(records)
    }

    async fn ids(&self) -> Result<Vec<PackageId>, IndexError> {
        let mut seen = BTreeMap::new();
        for record in self.records().await.map_err(index)? {
            seen.entry(record.name.id.key()).or_insert(record.name.id);
        }
        Ok(seen.into_values().collect())
    }

    async fn remove(&self, id: &PackageId, version: &Version) -> Result<Option<PackageRecord>, IndexError> {
        let Some(stored) = PACKAGES.get(&*self.0, key(id, version)).await.map_err(index)? else {
            return Ok(None);
        };
        let mut batch = Batch::new();
        PACKAGES.require_version(&mut batch, key(id, version), stored.version);
        PACKAGES.delete(&mut batch, key(id, version));
        PAYLOADS.delete(&mut batch, payload_key(&stored.value));
        self.0.commit(batch).await.map_err(index)?;
        Ok(Some(stored.value))
    }

    async fn is_referenced(&self, sha256: &Sha256) -> Result<bool, IndexError> {
        let text = sha256.to_string();
        let records = self.records().await.map_err(index)?;
        let names = |record: &PackageRecord| {
            record.original.sha256 == *sha256
                || record.payload.plain.sha256 == *sha256
                || record.payload.gzip.is_some_and(|blob| blob.sha256 == *sha256)
        };
        if records.iter().any(names) {
            return Ok(true);
        }
        let releases = RELEASES.all(&*self.0, Key::new()).await.map_err(index)?;
        Ok(releases.iter().any(|(_, release)| release.packages.values().any(|pinned| pinned.sha256 == text)))
    }
}
