//! Types on top of bytes: a table of one Rust type, each record behind a format byte.
//!
//! A record is `[format][JSON]`. A format newer than the table knows is refused by name and never guessed at. An
//! older one is brought forward by the table's upgrade function when it is read, and stored in the new format when
//! it is next written.

use std::marker::PhantomData;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::batch::Batch;
use crate::error::{StoreError, describe_key};
use crate::key::Key;
use crate::record::{Record, Seq, TableName};
use crate::scan::Scan;
use crate::store::Store;

/// Brings a record of an older format (the first argument) to the current one.
pub type Upgrade = fn(u8, Value) -> Result<Value, String>;

/// A table that holds values of one type. Declare it as a `const`.
///
/// ```
/// use windlass_store::{Batch, Key, MemoryStore, Store, Table};
///
/// #[derive(serde::Serialize, serde::Deserialize)]
/// struct Machine { host: String }
/// const MACHINES: Table<Machine> = Table::new("machines", 1);
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), windlass_store::StoreError> {
/// let store = MemoryStore::new();
/// let mut batch = Batch::new();
/// MACHINES.put(&mut batch, "web-1", &Machine { host: "10.0.0.5".into() })?;
/// store.commit(batch).await?;
/// let found = MACHINES.get(&store, "web-1").await?;
/// assert_eq!(found.map(|m| m.value.host), Some("10.0.0.5".into()));
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Table<T> {
    name: TableName,
    format: u8,
    upgrade: Option<Upgrade>,
    holds: PhantomData<fn() -> T>,
}

/// A typed record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored<T> {
    /// The key in bytes; [`Key::parts`] takes it apart.
    pub key: Bytes,
    /// The value.
    pub value: T,
    /// The commit that wrote it last.
    pub version: Seq,
}

/// One page of a typed table.
#[derive(Clone, Debug)]
pub struct TypedPage<T> {
    /// The records, in the scan's direction.
    pub records: Vec<Stored<T>>,
    /// Whether there are more behind the last record.
    pub more: bool,
}

impl<T> Table<T> {
    /// A table with its name and the format its records are written in. Formats start at 1.
    ///
    /// # Panics
    /// On a bad name or format 0; in a `const` that is a compile error.
    #[must_use]
    pub const fn new(name: &'static str, format: u8) -> Self {
        assert!(format > 0, "record formats start at 1");
        Self { name: TableName::new(name), format, upgrade: None, holds: PhantomData }
    }

    /// Reads older formats through `upgrade`.
    #[must_use]
    pub const fn with_upgrade(mut self, upgrade: Upgrade) -> Self {
        self.upgrade = Some(upgrade);
        self
    }

    /// The name, for batches, scans and watches on bytes.
    #[must_use]
    pub const fn name(&self) -> &TableName {
        &self.name
    }

    /// Adds a delete to `batch`.
    pub fn delete(&self, batch: &mut Batch, key: impl Into<Key>) {
        batch.delete(&self.name, key.into());
    }

    /// Lets `batch` commit only if the record is absent.
    pub fn require_absent(&self, batch: &mut Batch, key: impl Into<Key>) {
        batch.require_absent(&self.name, key.into());
    }

    /// Lets `batch` commit only if the record still has the version that was read.
    pub fn require_version(&self, batch: &mut Batch, key: impl Into<Key>, version: Seq) {
        batch.require_version(&self.name, key.into(), version);
    }
}

impl<T: Serialize + DeserializeOwned> Table<T> {
    /// Adds a put to `batch`.
    ///
    /// # Errors
    /// If the value does not serialize. Its size is checked on commit.
    pub fn put(&self, batch: &mut Batch, key: impl Into<Key>, value: &T) -> Result<(), StoreError> {
        let key = key.into();
        let mut bytes = Vec::with_capacity(256);
        bytes.push(self.format);
        serde_json::to_writer(&mut bytes, value).map_err(|e| StoreError::Unencodable {
            table: self.name.clone(),
            key: describe_key(key.as_bytes()),
            cause: e.to_string(),
        })?;
        batch.put(&self.name, key, bytes);
        Ok(())
    }

    /// Reads one record.
    ///
    /// # Errors
    /// If the store has stopped or the record does not decode.
    pub async fn get(&self, store: &dyn Store, key: impl Into<Key>) -> Result<Option<Stored<T>>, StoreError> {
        let record = store.get(&self.name, key.into().as_bytes()).await?;
        record.map(|record| self.decode(record)).transpose()
    }

    /// Reads one page; build the scan with [`Table::all`] or [`Table::starting_with`].
    ///
    /// # Errors
    /// If the store has stopped or a record does not decode.
    pub async fn scan(&self, store: &dyn Store, scan: Scan) -> Result<TypedPage<T>, StoreError> {
        let page = store.scan(scan).await?;
        let records = page.records.into_iter().map(|record| self.decode(record)).collect::<Result<_, _>>()?;
        Ok(TypedPage { records, more: page.more })
    }

    /// A scan over the whole table.
    #[must_use]
    pub fn all(&self) -> Scan {
        Scan::table(&self.name)
    }

    /// A scan over the keys that begin with these parts.
    #[must_use]
    pub fn starting_with(&self, prefix: impl Into<Key>) -> Scan {
        Scan::table(&self.name).prefix(prefix.into())
    }

    /// Decodes a record, such as one a watch delivered.
    ///
    /// # Errors
    /// If its format is newer than this table's, or it is not what the table holds.
    pub fn decode(&self, record: Record) -> Result<Stored<T>, StoreError> {
        let value = self.decode_value(&record.key, &record.value)?;
        Ok(Stored { key: record.key, value, version: record.version })
    }

    /// Reads one page of the table, without the records that cannot be read; tells why they cannot.
    ///
    /// # Errors
    /// When the store stopped.
    pub async fn scan_readable(
        &self,
        store: &dyn Store,
        scan: Scan,
    ) -> Result<(TypedPage<T>, Option<Bytes>, Vec<StoreError>), StoreError> {
        let page = store.scan(scan).await?;
        let last = page.records.last().map(|record| record.key.clone());
        let (mut records, mut damaged) = (Vec::with_capacity(page.records.len()), Vec::new());
        for record in page.records {
            match self.decode(record) {
                Ok(record) => records.push(record),
                Err(error) => damaged.push(error),
            }
        }
        Ok((TypedPage { records, more: page.more }, last, damaged))
    }

    /// Decodes a value that belongs to `key`.
    ///
    /// # Errors
    /// As [`Table::decode`].
    pub fn decode_value(&self, key: &[u8], value: &[u8]) -> Result<T, StoreError> {
        let undecodable =
            |cause: String| StoreError::Undecodable { table: self.name.clone(), key: describe_key(key), cause };
        let (&found, json) = value.split_first().ok_or_else(|| undecodable("it is empty".into()))?;
        if found > self.format {
            return Err(StoreError::NewerFormat {
                table: self.name.clone(),
                key: describe_key(key),
                found,
                known: self.format,
            });
        }
        if found == self.format {
            return serde_json::from_slice(json).map_err(|e| undecodable(e.to_string()));
        }
        let upgrade =
            self.upgrade.ok_or_else(|| undecodable(format!("format {found} is no longer read by this release")))?;
        let old = serde_json::from_slice(json).map_err(|e| undecodable(e.to_string()))?;
        let new = upgrade(found, old).map_err(&undecodable)?;
        serde_json::from_value(new).map_err(|e| undecodable(e.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::memory::MemoryStore;

    #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
    struct Two {
        title: String,
    }
    const V1: Table<Value> = Table::new("things", 1);
    const V2: Table<Two> = Table::new("things", 2).with_upgrade(|_, mut old| {
        let name = old.get_mut("name").map(Value::take).ok_or("no name")?;
        Ok(json!({ "title": name }))
    });
    const V2_STRICT: Table<Two> = Table::new("things", 2);

    #[tokio::test]
    async fn formats_are_upgraded_refused_and_never_guessed() {
        let store = MemoryStore::new();
        let mut batch = Batch::new();
        V1.put(&mut batch, "old", &json!({ "name": "n" })).unwrap();
        V1.put(&mut batch, "odd", &json!({})).unwrap();
        V2.put(&mut batch, "new", &Two { title: "t".into() }).unwrap();
        store.commit(batch).await.unwrap();

        assert_eq!(V2.get(&store, "old").await.unwrap().unwrap().value, Two { title: "n".into() });
        assert_eq!(V2.get(&store, "none").await.unwrap(), None);
        let texts = [
            V1.get(&store, "new").await.unwrap_err().to_string(),
            V2_STRICT.get(&store, "old").await.unwrap_err().to_string(),
            V2.get(&store, "odd").await.unwrap_err().to_string(),
        ];
        assert_eq!(
            texts,
            [
                "read things/new\\00: it has record format 2 and this release knows formats up to 1; start the release that wrote it, or a later one",
                "read things/old\\00: the record does not decode: format 1 is no longer read by this release",
                "read things/odd\\00: the record does not decode: no name",
            ]
        );
    }
}
