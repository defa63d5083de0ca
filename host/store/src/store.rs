//! The trait that everything above the store is written against.
//!
//! It is object safe: the engine holds an `Arc<dyn Store>`. What it promises is checked by one conformance suite
//! that runs on every implementation.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;

use crate::batch::Batch;
use crate::error::StoreError;
use crate::record::{Record, Seq, TableName};
use crate::scan::{Page, Scan};
use crate::space::Room;
use crate::transfer::{Exported, TransferError};
use crate::watch::Watch;

/// Ordered keys in named tables, atomic batches, bounded scans, watches.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Commits a batch as a whole, or nothing of it. Returns once the batch is durable (see
    /// [`crate::Durability`]) and visible to every reader.
    ///
    /// Dropping the future does not take the batch back: it may or may not be committed.
    ///
    /// # Errors
    /// [`StoreError::Unmet`] if a precondition fails, a limit error if the batch is too large, and
    /// [`StoreError::Stopped`] if the store met an error now or earlier. In the last case the outcome is unknown.
    async fn commit(&self, batch: Batch) -> Result<Seq, StoreError>;

    /// Reads one record.
    ///
    /// # Errors
    /// [`StoreError::Stopped`] only; a missing record is `None`.
    async fn get(&self, table: &TableName, key: &[u8]) -> Result<Option<Record>, StoreError>;

    /// Reads one page of a table.
    ///
    /// # Errors
    /// [`StoreError::Stopped`] only.
    async fn scan(&self, scan: Scan) -> Result<Page, StoreError>;

    /// The names of the tables that hold at least one record, in order.
    ///
    /// # Errors
    /// [`StoreError::Stopped`] only.
    async fn tables(&self) -> Result<Vec<TableName>, StoreError>;

    /// Follows the changes of keys in `table` that begin with `prefix`, from those after `from` on, or from now on.
    ///
    /// To miss nothing: note [`Store::last_seq`], read the table, then watch from the number noted.
    fn watch(&self, table: &TableName, prefix: &[u8], from: Option<Seq>) -> Watch;

    /// The latest commit that readers can see.
    fn last_seq(&self) -> Seq;

    /// Writes everything, as of one commit, into a new file at `to`; see [`crate::import`].
    ///
    /// # Errors
    /// If the file exists or cannot be written, or the store has stopped.
    async fn export(&self, to: &Path) -> Result<Exported, TransferError>;

    /// Whether the store works, is short of space, or has stopped.
    fn health(&self) -> Health;

    /// How much room is left on the disk, and what may be begun with it. Looked at now and then, not on each call.
    fn room(&self) -> Room;

    /// Resolves when the store has stopped, with the reason. The server then ends with exit code 70.
    async fn stopped(&self) -> Arc<str>;

    /// Makes everything durable and stops the store in good order.
    ///
    /// # Errors
    /// If the store stopped before on an error.
    async fn close(&self) -> Result<(), StoreError>;
}

/// How a store is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// All is well.
    Good,
    /// The disk was full and the reserve was given up: finish what runs, start nothing new. Lasts until the store is
    /// opened again with enough space.
    LowSpace,
    /// Nothing works any more; the reason says why.
    Stopped(Arc<str>),
}
