//! The committer: the thread that has commits written, and synced.
//!
//! It takes whatever commits are waiting and has the scribe write them as one group. The sync is the time in which
//! the next group gathers. Only after a group of several does the committer wait a little longer, because the callers
//! just answered tend to come back at once: two half groups cost two syncs. A lone caller never waits for company.

use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::scribe::{Fatal, Scribe};
use crate::batch::Batch;
use crate::error::StoreError;
use crate::record::Seq;
use crate::stop::StopSwitch;

const GROUP_COMMITS: usize = 256;
const GROUP_BYTES: usize = 4 * 1024 * 1024;
/// The longest wait for a group to fill up; half a sync if that is shorter.
const GATHER: Duration = Duration::from_millis(2);

/// What the committer is asked for.
pub(crate) enum Request {
    Commit(Commit),
    /// Look at the scribe: somebody else wrote something.
    Look,
    /// Close the current segment; answers the last commit in closed segments.
    Seal(oneshot::Sender<Seq>),
    /// Make everything durable and end.
    Close(oneshot::Sender<()>),
}

pub(crate) struct Commit {
    pub(crate) batch: Batch,
    pub(crate) reply: oneshot::Sender<Result<Seq, StoreError>>,
    /// Held until answered, which bounds what can be queued.
    pub(crate) permit: OwnedSemaphorePermit,
}

pub(crate) struct Committer {
    pub(crate) requests: Receiver<Request>,
    pub(crate) scribe: Arc<Mutex<Scribe>>,
    pub(crate) stop: StopSwitch,
}

/// Turns the stop switch when the committer ends, however it ends: callers wait for it once their answer is lost.
struct Ended(StopSwitch);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.stop("its committer ended unexpectedly");
    }
}

impl Committer {
    /// Runs until closed, dropped by the store, or stopped by an error.
    pub(crate) fn run(self) {
        let _ended = Ended(self.stop.clone());
        let ended = self.serve().and_then(|closed| {
            let mut scribe = self.scribe()?;
            let _working = scribe.working();
            scribe.finish().map(|()| closed)
        });
        match ended {
            Ok(closed) => {
                self.stop.stop("it was closed");
                if let Some(closed) = closed {
                    // The closer may have gone away.
                    let _ = closed.send(());
                }
            }
            Err(fatal) => {
                let reason = self.stop.stop(fatal.to_string());
                tracing::error!(%reason, "the store stops");
                if let (Fatal::Index(_), Ok(scribe)) = (fatal, self.scribe.lock()) {
                    scribe.distrust();
                }
            }
        }
    }

    /// The scribe, unless somebody else who wrote left it broken.
    fn scribe(&self) -> Result<MutexGuard<'_, Scribe>, Fatal> {
        let mut scribe = self.scribe.lock().map_err(|_| Fatal::Panicked)?;
        scribe.check_failed()?;
        Ok(scribe)
    }

    fn serve(&self) -> Result<Option<oneshot::Sender<()>>, Fatal> {
        loop {
            let Some(request) = self.next_request()? else { return Ok(None) };
            let mut pending = Some(request);
            while let Some(request) = pending.take() {
                match request {
                    Request::Commit(first) => pending = self.commit_group(first)?,
                    Request::Look => drop(self.scribe()?),
                    Request::Seal(reply) => {
                        let mut scribe = self.scribe()?;
                        let _working = scribe.working();
                        scribe.rotate()?;
                        let _ = reply.send(scribe.last());
                    }
                    Request::Close(reply) => return Ok(Some(reply)),
                }
            }
        }
    }

    /// Waits for the next request; meanwhile relaxed commits get their sync.
    fn next_request(&self) -> Result<Option<Request>, Fatal> {
        let due_in = self.scribe()?.sync_due_in();
        if let Some(due_in) = due_in {
            match self.requests.recv_timeout(due_in) {
                Ok(request) => return Ok(Some(request)),
                Err(RecvTimeoutError::Disconnected) => return Ok(None),
                Err(RecvTimeoutError::Timeout) => {
                    let mut scribe = self.scribe()?;
                    let _working = scribe.working();
                    scribe.sync()?;
                }
            }
        }
        Ok(self.requests.recv().ok())
    }

    /// Gathers what is waiting behind `first` and commits it. Gives back a request of another kind it met.
    fn commit_group(&self, first: Commit) -> Result<Option<Request>, Fatal> {
        let (expected, patience) = self.scribe()?.pace();
        let (group, other) = self.gather(first, expected, patience.min(GATHER));
        self.scribe()?.write_group(group)?;
        Ok(other)
    }

    /// Takes what is queued, and waits briefly for a group as large as the last one.
    fn gather(&self, first: Commit, expected: usize, patience: Duration) -> (Vec<Commit>, Option<Request>) {
        let deadline = Instant::now() + patience;
        let mut bytes = first.batch.bytes();
        let mut group = vec![first];
        while group.len() < GROUP_COMMITS && bytes < GROUP_BYTES {
            let next = match self.requests.try_recv() {
                Err(TryRecvError::Empty) if group.len() < expected => {
                    self.requests.recv_timeout(deadline.saturating_duration_since(Instant::now())).ok()
                }
                next => next.ok(),
            };
            match next {
                Some(Request::Commit(commit)) => {
                    bytes += commit.batch.bytes();
                    group.push(commit);
                }
                other => return (group, other),
            }
        }
        (group, None)
    }
}
