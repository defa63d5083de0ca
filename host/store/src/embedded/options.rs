//! How a store is opened, and why it could not be.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::journal::{Disk, JournalError, RealDisk};
use crate::record::Seq;
use crate::transfer::TransferError;

/// How to open an [`EmbeddedStore`](super::EmbeddedStore). The default is right for a server.
#[derive(Clone)]
pub struct EmbeddedOptions {
    /// How much of the index stays in memory.
    pub cache_bytes: u64,
    /// When a journal segment is closed and the next one begun.
    pub segment_bytes: u64,
    /// How much space is kept back for a full disk.
    pub reserve_bytes: u64,
    /// Names this boot of the machine; `None` asks the operating system. An index left open under another boot is
    /// built anew, so simulated power cuts set it.
    pub boot: Option<String>,
    /// How often the store looks after itself. A commit that is under way at twelve looks in a row is taken for
    /// hanging, and the store stops.
    pub look_every: Duration,
    /// Where the journal is written; tests put faults here.
    pub disk: Arc<dyn Disk>,
}

impl Default for EmbeddedOptions {
    fn default() -> Self {
        Self {
            cache_bytes: 64 << 20,
            segment_bytes: 64 << 20,
            reserve_bytes: 64 << 20,
            boot: None,
            look_every: Duration::from_secs(5),
            disk: Arc::new(RealDisk),
        }
    }
}

/// Why a store could not be opened. Nothing was changed that a second opening could not repeat.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// A file operation failed.
    #[error("{what} {}: {source}; check the folder's permissions and free space", path.display())]
    Io { what: &'static str, path: PathBuf, source: io::Error },
    /// The folder is open already.
    #[error("open the store in {}: it is in use already; find by whom, and stop that: fuser {}/lock", dir.display(), dir.display())]
    Locked { dir: PathBuf },
    /// An earlier opening in this process never ended.
    #[error("open the store in {}: an earlier opening of a store hangs in this process; start the server anew", dir.display())]
    Hangs { dir: PathBuf },
    /// The journal is damaged.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The last verified export is damaged, and the index has to be built from it.
    #[error(transparent)]
    Export(#[from] TransferError),
    /// The journal ends before what the index has seen: acknowledged commits are missing from it.
    #[error(
        "open the store: the journal in {} ends at commit {last}, but the index has seen commit {applied}; \
         put the journal's files back, or, after copying the folder, give up the commits between: rm -rf {} {}.trust",
        journal.display(), index.display(), index.display()
    )]
    JournalCut { journal: PathBuf, last: Seq, applied: Seq, index: PathBuf },
    /// The index could not even be built anew.
    #[error("open the store: {0}; check the disk")]
    Index(String),
    /// A thread could not be started.
    #[error("start a thread of the store: {0}")]
    Thread(io::Error),
}
