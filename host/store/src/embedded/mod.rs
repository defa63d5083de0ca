//! The embedded store: one server, one folder, nothing to install.
//!
//! The journal of record is the truth. The index (sled, named nowhere else) answers reads and can be rebuilt at any
//! time from the last verified export and the journal. `committer` has commits written, by `scribe`; `exporter` keeps
//! the journal short, `recovery` opens, `folder` guards the files, `index` guards sled, `view` holds what it does not
//! show yet, `watchdog` sees to it that nobody waits without end. Any error stops the store for good: the server exits and opens it again, which is the only repair there is.

mod check;
mod committer;
mod exporter;
mod folder;
mod index;
mod options;
mod recovery;
mod salvage;
mod scribe;
mod view;
mod watchdog;

use std::future::Future;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError, Weak, mpsc};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::sync::{Semaphore, oneshot};

pub use self::check::{Checked, Finding, check};
use self::committer::{Commit, Committer, Request};
use self::exporter::{Exporter, Job};
use self::folder::Folder;
use self::index::IndexError;
pub use self::options::{EmbeddedOptions, OpenError};
pub use self::salvage::{Salvaged, salvage};
use self::scribe::{Alone, Pace, Scribe};
use self::view::View;
use self::watchdog::{Gauge, Pulse, Watchdog};
use crate::batch::Batch;
use crate::error::StoreError;
use crate::record::{Record, Seq, TableName};
use crate::scan::{Page, Scan};
use crate::space::{Level, Room};
use crate::stop::StopSwitch;
use crate::store::{Health, Store};
use crate::transfer::{Exported, TransferError};
use crate::watch::{Hub, Watch};

/// Commits wait for the committer within this many bytes; beyond it callers wait outside.
const QUEUED_BYTES: usize = 64 * 1024 * 1024;
/// The unit of that budget, so that small commits are bounded in number too.
const QUEUED_UNIT: usize = 4096;
const QUEUED_UNITS: usize = QUEUED_BYTES / QUEUED_UNIT;

/// How long a commit waits for another one that is just being written.
const MOMENT: Duration = Duration::from_micros(200);

/// The threads that have to end before the folder is free: committer and exporter.
const WORKERS: usize = 2;
/// How long a drop waits for the store's threads before it leaves them to themselves.
const END_LIMIT: Duration = Duration::from_secs(120);

/// A [`Store`] in a folder of the local disk.
///
/// The folder is free for the next opening once the last handle is dropped. The drop closes the store if
/// [`Store::close`] did not, and blocks while it does, but not for ever: what hangs is left behind and keeps the
/// folder locked. After an error the same process may open the folder again; it gets a new index.
#[derive(Debug)]
pub struct EmbeddedStore {
    view: Arc<View>,
    /// The committer's; it ends with it.
    scribe: Weak<Mutex<Scribe>>,
    hub: Arc<Hub>,
    stop: StopSwitch,
    low_space: Arc<AtomicBool>,
    budget: Arc<Semaphore>,
    requests: Option<mpsc::Sender<Request>>,
    exporter: Option<mpsc::Sender<Job>>,
    /// Sends the watchdog home when it is dropped.
    watchdog: Option<mpsc::Sender<()>>,
    /// Closed once the last of the threads has ended. Behind a lock only to be `Sync`.
    ended: Mutex<mpsc::Receiver<()>>,
    pulse: Arc<Pulse>,
    gauge: Arc<Gauge>,
    hung: StopSwitch,
    folder: Arc<Folder>,
}

impl EmbeddedStore {
    /// Opens the store in `dir`, creating it if need be, and repairs whatever a crash left behind. Blocks: after a
    /// power cut the index is built anew, which takes seconds for a large store.
    ///
    /// # Errors
    /// If the folder is in use, unreadable, or holds damage that cannot be repaired without losing commits.
    pub fn open(dir: &Path, options: &EmbeddedOptions) -> Result<Self, OpenError> {
        if index::sled_hangs() {
            return Err(OpenError::Hangs { dir: dir.to_owned() });
        }
        let folder = Arc::new(Folder::open(dir)?);
        let boot = options.boot.clone().unwrap_or_else(this_boot);
        let recovered = recovery::recover(&folder, options, &boot)?;
        let low_space = Arc::new(AtomicBool::new(false));
        if let Err(e) = folder.keep_reserve(options.reserve_bytes) {
            tracing::error!(error = %e, "the store cannot keep its reserve: free some space");
            low_space.store(true, Ordering::Relaxed);
        }
        let (stop, hung, pulse) = (StopSwitch::new(), StopSwitch::new(), Arc::<Pulse>::default());
        let hub = Hub::new(recovered.last, stop.clone());
        let view = Arc::new(View::new(recovered.index));
        let (requests, received) = mpsc::channel();
        let (jobs, taken) = mpsc::channel();
        let exporter = Exporter { folder: folder.clone(), segment_bytes: options.segment_bytes };
        let scribe = Arc::new(Mutex::new(Scribe {
            writer: recovered.writer,
            view: view.clone(),
            name: recovered.name,
            folder: folder.clone(),
            boot,
            pulse: Arc::clone(&pulse),
            segment_bytes: options.segment_bytes,
            hub: hub.clone(),
            stop: stop.clone(),
            low_space: low_space.clone(),
            exporter: jobs.clone(),
            pace: Pace::default(),
        }));
        let shared = Arc::downgrade(&scribe);
        let committer = Committer { requests: received, scribe, stop: stop.clone() };
        let gauge = Arc::new(Gauge::new(&options.disk, folder.root(), options.segment_bytes));
        let dog = Watchdog {
            pulse: Arc::clone(&pulse),
            gauge: Arc::clone(&gauge),
            every: options.look_every,
            stop: stop.clone(),
            hung: hung.clone(),
        };
        let (watchdog, dismissed) = mpsc::channel();
        let (alive, ended) = mpsc::channel();
        spawn("store-commit", &alive, move || committer.run())?;
        spawn("store-export", &alive, move || exporter.run(&taken))?;
        // Its end is not waited for: it holds nothing of the folder.
        let unheard = mpsc::channel().0;
        spawn("store-watch", &unheard, move || dog.run(&dismissed))?;
        // Segments that were closed before a crash may be due.
        let _ = jobs.send(Job::Check);
        Ok(Self {
            view,
            scribe: shared,
            hub,
            stop,
            low_space,
            budget: Arc::new(Semaphore::new(QUEUED_UNITS)),
            requests: Some(requests),
            exporter: Some(jobs),
            watchdog: Some(watchdog),
            ended: Mutex::new(ended),
            pulse,
            gauge,
            hung,
            folder,
        })
    }

    /// Writes a commit on this thread, if that is quick.
    fn write_alone(&self, batch: Batch) -> Alone {
        // What waits for the committer came before, even if its maker went away.
        if self.budget.available_permits() < QUEUED_UNITS {
            return Alone::Not(batch);
        }
        let Some(scribe) = self.scribe.upgrade() else { return Alone::Not(batch) };
        let Some(mut scribe) = soon(&scribe) else { return Alone::Not(batch) };
        let (written, look) = scribe.write_alone(batch);
        drop(scribe);
        // The committer sees to the sync, and ends if this failed.
        if look && let Some(requests) = &self.requests {
            // If it has ended, so has the store.
            let _ = requests.send(Request::Look);
        }
        written
    }

    /// Sends a request to the committer and waits for its answer.
    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        let sent = self.requests.as_ref().is_some_and(|requests| requests.send(request(reply)).is_ok());
        if sent && let Ok(answer) = self.unless_hung(answer).await? {
            return Ok(answer);
        }
        // The answer was lost because the committer ends; it turns the switch and says why.
        Err(StoreError::Stopped { reason: self.stop.wait().await })
    }

    /// Waits for work of the store's threads, but not for threads that hang.
    async fn unless_hung<T>(&self, work: impl Future<Output = T>) -> Result<T, StoreError> {
        tokio::select! {
            biased;
            done = work => Ok(done),
            reason = self.hung.wait() => Err(StoreError::Stopped { reason }),
        }
    }

    /// Reads from the index. While the committer is held up sled may hold up its readers too; they then wait on a
    /// thread of their own, and no longer than the watchdog does.
    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&View) -> Result<T, IndexError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.stop.check()?;
        let result = if self.pulse.is_slow() {
            let view = Arc::clone(&self.view);
            let reader = tokio::task::spawn_blocking(move || work(&view));
            let lost = |e| StoreError::Stopped { reason: self.stop.stop(format!("a reader ended early: {e}")) };
            self.unless_hung(reader).await?.map_err(lost)?
        } else {
            work(&self.view)
        };
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
        let batch = match self.write_alone(batch) {
            Alone::Written(seq) => return Ok(seq),
            Alone::Failed => return Err(StoreError::Stopped { reason: self.stop.wait().await }),
            Alone::Not(batch) => batch,
        };
        let units = u32::try_from(1 + batch.bytes() / QUEUED_UNIT).unwrap_or(u32::MAX);
        let permit = self.unless_hung(self.budget.clone().acquire_many_owned(units)).await?;
        let permit = permit.map_err(|_| StoreError::Stopped { reason: self.stop.stop("its queue was closed") })?;
        self.ask(|reply| Request::Commit(Commit { batch, reply, permit })).await?
    }

    async fn get(&self, table: &TableName, key: &[u8]) -> Result<Option<Record>, StoreError> {
        let (table, key) = (table.clone(), key.to_vec());
        self.read(move |view| view.get(&table, &key)).await
    }

    async fn scan(&self, scan: Scan) -> Result<Page, StoreError> {
        self.read(move |view| view.scan(&scan)).await
    }

    async fn tables(&self) -> Result<Vec<TableName>, StoreError> {
        self.read(View::tables).await
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
        self.unless_hung(answer).await?.map_err(gone)?
    }

    fn health(&self) -> Health {
        match self.stop.reason() {
            Some(reason) => Health::Stopped(reason),
            None if self.low_space.load(Ordering::Relaxed) => Health::LowSpace,
            None => Health::Good,
        }
    }

    fn room(&self) -> Room {
        let mut room = self.gauge.room();
        if self.low_space.load(Ordering::Relaxed) {
            // Whatever the disk says now, there is nothing left to fall back on.
            (room.level, room.reserve_gone) = (Level::Critical, true);
        }
        room
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
        // Without senders the threads end in good order, the watchdog last. The index is closed when its last holder
        // goes, and then the folder's lock.
        self.requests = None;
        self.exporter = None;
        let limit = if self.hung.reason().is_some() { Duration::ZERO } else { END_LIMIT };
        let ended = self.ended.get_mut().unwrap_or_else(PoisonError::into_inner);
        for _ in 0..WORKERS {
            if ended.recv_timeout(limit) == Err(mpsc::RecvTimeoutError::Timeout) {
                tracing::error!(
                    "a thread of the store hangs and is left behind; the folder stays locked until the process ends"
                );
                break;
            }
        }
        self.watchdog = None;
    }
}

/// The scribe, if whoever else is writing is done in a moment. On a disk that hangs only the first of them hangs.
fn soon(scribe: &Mutex<Scribe>) -> Option<MutexGuard<'_, Scribe>> {
    let mut until = None;
    loop {
        match scribe.try_lock() {
            Ok(scribe) => return Some(scribe),
            Err(TryLockError::Poisoned(_)) => return None,
            Err(TryLockError::WouldBlock) => {
                if Instant::now() >= *until.get_or_insert_with(|| Instant::now() + MOMENT) {
                    return None;
                }
                std::thread::yield_now();
            }
        }
    }
}

/// Tells that a thread has ended, after all it held is gone.
struct Alive(mpsc::Sender<()>);

impl Drop for Alive {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!("a thread of the store panicked");
        }
        // Nobody may be waiting.
        let _ = self.0.send(());
    }
}

fn spawn(name: &str, ended: &mpsc::Sender<()>, work: impl FnOnce() + Send + 'static) -> Result<(), OpenError> {
    let alive = Alive(ended.clone());
    let body = move || {
        let _alive = alive;
        work();
    };
    std::thread::Builder::new().name(name.into()).spawn(body).map(drop).map_err(OpenError::Thread)
}

/// The kernel's name for the time since it started. Where there is none every opening counts as a restart.
fn this_boot() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|id| id.trim().to_owned())
        .unwrap_or_else(|_| format!("unknown-{:016x}", rand::random::<u64>()))
}
