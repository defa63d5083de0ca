//! What a caller asks to be written: puts and deletes that happen together, and what must be true for them.
//!
//! The limits live here, so that every implementation refuses the same batches with the same words. Encoding and
//! applying a batch is left to the implementations.

use bytes::Bytes;

use crate::error::{StoreError, describe_key};
use crate::key::MAX_KEY_BYTES;
use crate::record::{Seq, TableName};

/// The largest value a record may hold. Larger things go to [`crate::Blobs`], and the record keeps the digest.
pub const MAX_VALUE_BYTES: usize = 32 * 1024;
/// The most puts, deletes and requirements in one batch: what must happen together may be much.
pub const MAX_BATCH_OPS: usize = 64 * 1024;
/// The most bytes of keys and values in one batch.
pub const MAX_BATCH_BYTES: usize = 32 * 1024 * 1024;

/// One change to one record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Write the value, replacing an older one.
    Put { table: TableName, key: Bytes, value: Bytes },
    /// Remove the record; removing what is not there is no error.
    Delete { table: TableName, key: Bytes },
}

impl Op {
    /// The table and key this changes.
    #[must_use]
    pub fn target(&self) -> (&TableName, &Bytes) {
        match self {
            Self::Put { table, key, .. } | Self::Delete { table, key } => (table, key),
        }
    }

    /// The bytes of its key and value.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Put { key, value, .. } => key.len() + value.len(),
            Self::Delete { key, .. } => key.len(),
        }
    }
}

/// What must be true of a record before a batch may commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Requirement {
    /// There is no such record.
    Absent,
    /// The record exists, whatever its version.
    Exists,
    /// The record exists and was last written by this commit.
    Version(Seq),
}

impl Requirement {
    /// Whether a record with this version (or none) satisfies the requirement.
    #[must_use]
    pub fn holds(self, found: Option<Seq>) -> bool {
        match self {
            Self::Absent => found.is_none(),
            Self::Exists => found.is_some(),
            Self::Version(wanted) => found == Some(wanted),
        }
    }
}

/// When a commit is acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// Once it would survive a power cut.
    #[default]
    Durable,
    /// Once it is visible to readers and would survive a kill of the process. A power cut within about 100 ms may
    /// take it back, though never while keeping a later commit. For progress facts, such as how far a log was read.
    Relaxed,
}

/// Changes that happen together or not at all.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    pub(crate) ops: Vec<Op>,
    pub(crate) requirements: Vec<(TableName, Bytes, Requirement)>,
    pub(crate) durability: Durability,
}

impl Batch {
    /// An empty batch. Committing it empty checks the requirements only.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a put. Of several changes to one key the last one counts.
    pub fn put(&mut self, table: &TableName, key: impl Into<Bytes>, value: impl Into<Bytes>) -> &mut Self {
        self.ops.push(Op::Put { table: table.clone(), key: key.into(), value: value.into() });
        self
    }

    /// Adds a delete.
    pub fn delete(&mut self, table: &TableName, key: impl Into<Bytes>) -> &mut Self {
        self.ops.push(Op::Delete { table: table.clone(), key: key.into() });
        self
    }

    /// Commit only if this record does not exist.
    pub fn require_absent(&mut self, table: &TableName, key: impl Into<Bytes>) -> &mut Self {
        self.require(table, key, Requirement::Absent)
    }

    /// Commit only if this record exists.
    pub fn require_exists(&mut self, table: &TableName, key: impl Into<Bytes>) -> &mut Self {
        self.require(table, key, Requirement::Exists)
    }

    /// Commit only if this record still has the version that was read.
    pub fn require_version(&mut self, table: &TableName, key: impl Into<Bytes>, version: Seq) -> &mut Self {
        self.require(table, key, Requirement::Version(version))
    }

    /// Commit only if the requirement holds for this record.
    pub fn require(&mut self, table: &TableName, key: impl Into<Bytes>, requirement: Requirement) -> &mut Self {
        self.requirements.push((table.clone(), key.into(), requirement));
        self
    }

    /// Acknowledge before it is durable; see [`Durability::Relaxed`].
    pub fn relaxed(&mut self) -> &mut Self {
        self.durability = Durability::Relaxed;
        self
    }

    /// Adds everything of another batch; how durable the commit is stays this one's say.
    pub fn append(&mut self, other: Self) -> &mut Self {
        self.ops.extend(other.ops);
        self.requirements.extend(other.requirements);
        self
    }

    /// The changes, in the order they were added.
    #[must_use]
    pub fn ops(&self) -> &[Op] {
        &self.ops
    }

    /// Whether there is nothing to change.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// The bytes of keys and values, which is what group commit budgets by.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.ops.iter().map(Op::bytes).sum()
    }

    /// Refuses what breaks a limit. Every implementation calls this first.
    pub(crate) fn validate(&self) -> Result<(), StoreError> {
        let count = self.ops.len() + self.requirements.len();
        if count > MAX_BATCH_OPS {
            return Err(StoreError::BatchTooLarge {
                what: "changes and requirements",
                found: count,
                limit: MAX_BATCH_OPS,
            });
        }
        let keys = self.ops.iter().map(Op::target).chain(self.requirements.iter().map(|(t, k, _)| (t, k)));
        for (table, key) in keys {
            if key.is_empty() || key.len() > MAX_KEY_BYTES {
                return Err(StoreError::BadKey { table: table.clone(), found: key.len(), limit: MAX_KEY_BYTES });
            }
        }
        for op in &self.ops {
            if let Op::Put { table, key, value } = op
                && value.len() > MAX_VALUE_BYTES
            {
                return Err(StoreError::ValueTooLarge {
                    table: table.clone(),
                    key: describe_key(key),
                    found: value.len(),
                    limit: MAX_VALUE_BYTES,
                });
            }
        }
        let bytes = self.bytes();
        if bytes > MAX_BATCH_BYTES {
            return Err(StoreError::BatchTooLarge { what: "bytes", found: bytes, limit: MAX_BATCH_BYTES });
        }
        Ok(())
    }
}
