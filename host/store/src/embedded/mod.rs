//! The embedded store: one server, one folder, nothing to install.
//!
//! The journal of record is the truth. The index (sled, named nowhere else) answers reads and can be rebuilt at any
//! time from the last verified export and the journal. `committer` writes, `exporter` keeps the journal short,
//! `recovery` opens, `folder` guards the files, `index` guards sled. Any error stops the store for good: the server
//! exits and opens it again, which is the only repair there is.

mod committer;
mod exporter;
mod folder;
mod index;
mod recovery;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;

use async_trait::async_trait;
use tokio::sync::{Semaphore, oneshot};

use self::committer::{Commit, Committer, Pace, Request};
use self::exporter::{Exporter, Job};
use self::folder::Folder;
use self::index::{Index, IndexError};
use crate::batch::Batch;
use crate::error::StoreError;
use crate::journal::{Disk, JournalError, RealDisk};
use crate::record::{Record, Seq, TableName};
use crate::scan::{Page, Scan};
use crate::stop::StopSwitch;
use crate::store::{Health, Store};
use crate::transfer::{Exported, TransferError};
use crate::watch::{Hub, Watch};

/// Commits wait for the committer within this many bytes; beyond it callers wait outside.
const QUEUED_BYTES: usize = 64 * 1024 * 1024;
/// The unit of that budget, so that small commits are bounded in number too.
const QUEUED_UNIT: usize = 4096;

/// How to open an [`EmbeddedStore`]. The default is right for a server.
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
    /// Another process has the folder open.
    #[error("open the store in {}: another process is using it; find and stop it: fuser {}/lock", dir.display(), dir.display())]
    Locked { dir: PathBuf },
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

/// A [`Store`] in a folder of the local disk.
///
/// The folder is free for the next opening once the last handle is dropped. The drop closes the store if
/// [`Store::close`] did not, and blocks while it does.
#[derive(Debug)]
pub struct EmbeddedStore {
    index: Arc<Index>,
    hub: Arc<Hub>,
    stop: StopSwitch,
    low_space: Arc<AtomicBool>,
    budget: Arc<Semaphore>,
    requests: Option<mpsc::Sender<Request>>,
    exporter: Option<mpsc::Sender<Job>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    folder: Arc<Folder>,
}

impl EmbeddedStore {
    /// Opens the store in `dir`, creating it if need be, and repairs whatever a crash left behind. Blocks: after a
    /// power cut the index is built anew, which takes seconds for a large store.
    ///
    /// # Errors
    /// If the folder is in use, unreadable, or holds damage that cannot be repaired without losing commits.
    pub fn open(dir: &Path, options: &EmbeddedOptions) -> Result<Self, OpenError> {
        let folder = Arc::new(Folder::open(dir)?);
        let boot = options.boot.clone().unwrap_or_else(this_boot);
        let recovered = recovery::recover(&folder, options, &boot)?;
        let low_space = Arc::new(AtomicBool::new(false));
        if let Err(e) = folder.keep_reserve(options.reserve_bytes) {
            tracing::error!(error = %e, "the store cannot keep its reserve: free some space");
            low_space.store(true, Ordering::Relaxed);
        }
        let stop = StopSwitch::new();
        let hub = Hub::new(recovered.last, stop.clone());
        let index = Arc::new(recovered.index);
        let (requests, received) = mpsc::channel();
        let (jobs, taken) = mpsc::channel();
        let exporter = Exporter { folder: folder.clone(), segment_bytes: options.segment_bytes };
        let committer = Committer {
            requests: received,
            writer: recovered.writer,
            index: index.clone(),
            folder: folder.clone(),
            boot,
            segment_bytes: options.segment_bytes,
            hub: hub.clone(),
            stop: stop.clone(),
            low_space: low_space.clone(),
            exporter: jobs.clone(),
            pace: Pace::default(),
        };
        let threads =
            vec![spawn("store-commit", move || committer.run())?, spawn("store-export", move || exporter.run(&taken))?];
        // Segments that were closed before a crash may be due.
        let _ = jobs.send(Job::Check);
        Ok(Self {
            index,
            hub,
            stop,
            low_space,
            budget: Arc::new(Semaphore::new(QUEUED_BYTES / QUEUED_UNIT)),
            requests: Some(requests),
            exporter: Some(jobs),
            threads: Mutex::new(threads),
            folder,
        })
    }

    /// Sends a request to the committer and waits for its answer.
    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        let sent = self.requests.as_ref().is_some_and(|requests| requests.send(request(reply)).is_ok());
        if sent && let Ok(answer) = answer.await {
            return Ok(answer);
        }
        // The answer was lost because the committer ends; it turns the switch and says why.
        Err(StoreError::Stopped { reason: self.stop.wait().await })
    }

    /// Turns an index error into the store's stop.
    fn read<T>(&self, result: Result<T, IndexError>) -> Result<T, StoreError> {
        result.map_err(|e| {
            if let Err(e) = self.folder.distrust() {
                tracing::error!(error = %e, "cannot take the trust mark away from the index");
            }
            StoreError::Stopped { reason: self.stop.stop(e.to_string()) }
        })
    }
}

#[async_trait]
impl Store for EmbeddedStore {
    async fn commit(&self, batch: Batch) -> Result<Seq, StoreError> {
        self.stop.check()?;
        batch.validate()?;
        let units = u32::try_from(1 + batch.bytes() / QUEUED_UNIT).unwrap_or(u32::MAX);
        let permit = self.budget.clone().acquire_many_owned(units).await;
        let permit = permit.map_err(|_| StoreError::Stopped { reason: self.stop.stop("its queue was closed") })?;
        self.ask(|reply| Request::Commit(Commit { batch, reply, permit })).await?
    }

    async fn get(&self, table: &TableName, key: &[u8]) -> Result<Option<Record>, StoreError> {
        self.stop.check()?;
        self.read(self.index.get(table, key))
    }

    async fn scan(&self, scan: Scan) -> Result<Page, StoreError> {
        self.stop.check()?;
        self.read(self.index.scan(&scan))
    }

    async fn tables(&self) -> Result<Vec<TableName>, StoreError> {
        self.stop.check()?;
        self.read(self.index.tables())
    }

    fn watch(&self, table: &TableName, prefix: &[u8], from: Option<Seq>) -> Watch {
        self.hub.watch(table, prefix, from)
    }

    fn last_seq(&self) -> Seq {
        self.hub.latest()
    }

    async fn export(&self, to: &Path) -> Result<Exported, TransferError> {
        self.stop.check()?;
        self.ask(Request::Seal).await?;
        let (reply, answer) = oneshot::channel();
        if let Some(exporter) = &self.exporter {
            // If the exporter is gone the answer's channel closes, which is handled below.
            let _ = exporter.send(Job::Export(to.to_owned(), reply));
        }
        let gone = |_| StoreError::Stopped { reason: self.stop.stop("its exporter ended unexpectedly") };
        answer.await.map_err(gone)?
    }

    fn health(&self) -> Health {
        match self.stop.reason() {
            Some(reason) => Health::Stopped(reason),
            None if self.low_space.load(Ordering::Relaxed) => Health::LowSpace,
            None => Health::Good,
        }
    }

    async fn stopped(&self) -> Arc<str> {
        self.stop.wait().await
    }

    async fn close(&self) -> Result<(), StoreError> {
        self.stop.check()?;
        self.ask(Request::Close).await
    }
}

impl Drop for EmbeddedStore {
    fn drop(&mut self) {
        // Without senders both threads end in good order; the folder's lock goes when they have.
        self.requests = None;
        self.exporter = None;
        let threads = std::mem::take(self.threads.get_mut().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a thread of the store panicked");
            }
        }
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, OpenError> {
    std::thread::Builder::new().name(name.into()).spawn(work).map_err(OpenError::Thread)
}

/// The kernel's name for the time since it started. Where there is none every opening counts as a restart.
fn this_boot() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|id| id.trim().to_owned())
        .unwrap_or_else(|_| format!("unknown-{:016x}", rand::random::<u64>()))
}
