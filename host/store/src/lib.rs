//! Records, transactions, watches: the durable heart of Windlass.
//!
//! A [`Store`] holds ordered byte keys in named tables. A [`Batch`] of puts and deletes commits as a whole or not
//! at all, under preconditions, and is acknowledged only when it is durable. Readers page through tables with
//! [`Scan`] and follow changes with [`Watch`]. [`Table`] puts types on top, [`Blobs`] keeps what is too large for
//! a record.
//!
//! There are three implementations: [`MemoryStore`] (the model the others are tested against), [`EmbeddedStore`]
//! (one server, on the local disk) and [`FaultyStore`] (a test double that fails on purpose). Nothing in the trait
//! assumes a single server: versions and sequence numbers may have gaps, and a watcher may be told to read again.

mod backup;
mod batch;
mod blobs;
mod embedded;
mod error;
pub mod failpoint;
mod faulty;
mod journal;
mod key;
mod memory;
mod record;
mod scan;
mod space;
mod stop;
mod store;
mod table;
mod transfer;
mod watch;

pub use backup::{BackupError, BackupHead, BackupRead, BackupWriter, add_folder, read_backup};
pub use batch::{Batch, Durability, MAX_BATCH_BYTES, MAX_BATCH_OPS, MAX_VALUE_BYTES, Op, Requirement};
pub use blobs::{BlobError, Blobs, Digest};
pub use embedded::{Checked, EmbeddedOptions, EmbeddedStore, Finding, OpenError, Salvaged, check, salvage};
pub use error::{StoreError, Unmet};
pub use faulty::{Fault, FaultPlan, FaultyStore};
pub use journal::{Disk, JournalError, RealDisk, SegmentFile};
pub use key::{Key, KeyParts, MAX_KEY_BYTES};
pub use memory::MemoryStore;
pub use record::{Record, Seq, TableName};
pub use scan::{Direction, MAX_PAGE_BYTES, MAX_PAGE_RECORDS, Page, Scan};
pub use space::{Level, Room, Space};
pub use store::{Health, Store};
pub use table::{Stored, Table, TypedPage};
pub use transfer::{Exported, TransferError, import};
pub use watch::{Change, Lagged, Watch, WatchEnd};
