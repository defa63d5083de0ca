//! What can go wrong while a store is in use, in words a person can act on.
//!
//! Opening a store and moving data in and out have error types of their own, beside the code that does it.

use std::fmt;
use std::sync::Arc;

use crate::batch::Requirement;
use crate::record::{Seq, TableName};

/// Why a store operation failed. Cheap to clone, because a stopped store tells every caller the same.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// A precondition did not hold; nothing was written. Read again and decide anew.
    #[error(transparent)]
    Unmet(#[from] Unmet),
    /// A value is larger than a record may be.
    #[error(
        "store {table}/{key}: the value has {found} bytes and a record holds at most {limit}; put it into the blob store and keep its digest"
    )]
    ValueTooLarge { table: TableName, key: String, found: usize, limit: usize },
    /// A key is empty or too long.
    #[error("store a record in {table}: a key has 1 to {limit} bytes, this one has {found}")]
    BadKey { table: TableName, found: usize, limit: usize },
    /// A batch is larger than one commit may be.
    #[error("commit a batch of {found} {what}: the limit is {limit}; split it")]
    BatchTooLarge { what: &'static str, found: usize, limit: usize },
    /// A record was written by a newer release.
    #[error(
        "read {table}/{key}: it has record format {found} and this release knows formats up to {known}; start the release that wrote it, or a later one"
    )]
    NewerFormat { table: TableName, key: String, found: u8, known: u8 },
    /// A record is not what its table holds.
    #[error("read {table}/{key}: the record does not decode: {cause}")]
    Undecodable { table: TableName, key: String, cause: String },
    /// A value could not be turned into a record.
    #[error("store {table}/{key}: the value does not encode: {cause}")]
    Unencodable { table: TableName, key: String, cause: String },
    /// The store met an error earlier (or was closed) and does nothing more. The outcome of a commit that was under
    /// way is unknown until the store is opened again.
    #[error("use the store: it has stopped: {reason}; restart the server")]
    Stopped { reason: Arc<str> },
}

impl StoreError {
    /// The failed precondition, if that is what this is.
    #[must_use]
    pub fn as_unmet(&self) -> Option<&Unmet> {
        match self {
            Self::Unmet(unmet) => Some(unmet),
            _ => None,
        }
    }
}

/// A precondition that did not hold, and what was found instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unmet {
    /// The table of the record.
    pub table: TableName,
    /// The key of the record.
    pub key: bytes::Bytes,
    /// What the batch required.
    pub wanted: Requirement,
    /// The version that was found; `None` if there is no such record.
    pub found: Option<Seq>,
}

impl std::error::Error for Unmet {}

impl fmt::Display for Unmet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "commit: {}/{} ", self.table, describe_key(&self.key))?;
        match (self.wanted, self.found) {
            (Requirement::Absent, Some(found)) => write!(f, "exists already (version {found})")?,
            (Requirement::Absent, None) => f.write_str("was required to be absent")?,
            (Requirement::Exists, _) => f.write_str("does not exist")?,
            (Requirement::Version(wanted), Some(found)) => {
                write!(f, "has changed (version {found}, expected {wanted})")?;
            }
            (Requirement::Version(wanted), None) => write!(f, "is gone (expected version {wanted})")?,
        }
        f.write_str("; read it again and retry")
    }
}

/// A key as a person can read it: text parts as they are, every other byte in hex.
pub(crate) fn describe_key(key: &[u8]) -> String {
    use fmt::Write as _;
    let mut out = String::with_capacity(key.len());
    for &byte in key.iter().take(120) {
        if byte.is_ascii_graphic() && byte != b'\\' {
            out.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(out, "\\{byte:02x}");
        }
    }
    if key.len() > 120 {
        out.push('…');
    }
    out
}
