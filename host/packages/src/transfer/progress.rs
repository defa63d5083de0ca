//! Counting the bytes of one transfer, from any thread, and telling about them now and then.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::mpsc;

use super::TransferEvent;

/// An event at least this many bytes after the one before.
const MIN_STEP: u64 = 256 << 10;

/// The byte count of one transfer. Cheap to clone; a receiver may hand it to a thread of its own.
#[derive(Clone)]
pub struct Progress(Arc<Inner>);

struct Inner {
    machine: Arc<str>,
    package: Arc<str>,
    total: u64,
    step: u64,
    done: AtomicU64,
    told: AtomicU64,
    events: mpsc::Sender<TransferEvent>,
}

impl Progress {
    pub(super) fn new(machine: Arc<str>, package: Arc<str>, total: u64, events: mpsc::Sender<TransferEvent>) -> Self {
        // About a hundred events a transfer, fewer for small ones.
        let step = (total / 100).max(MIN_STEP);
        let (done, told) = (AtomicU64::new(0), AtomicU64::new(0));
        Self(Arc::new(Inner { machine, package, total, step, done, told, events }))
    }

    /// Counts bytes that left for the machine. Never waits.
    pub fn advance(&self, bytes: u64) {
        let inner = &*self.0;
        let done = inner.done.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let told = inner.told.load(Ordering::Relaxed);
        if done < inner.total && done - told.min(done) < inner.step {
            return;
        }
        inner.told.store(done, Ordering::Relaxed);
        // A full channel means that a later count will do.
        drop(inner.events.try_send(TransferEvent::Progress {
            machine: inner.machine.clone(),
            package: inner.package.clone(),
            done,
            total: inner.total,
        }));
    }

    /// Bytes counted so far.
    pub fn done(&self) -> u64 {
        self.0.done.load(Ordering::Relaxed)
    }
}
