//! What happens by itself when its time comes.
//!
//! A timer is set and never taken back: whoever set it knows when it no longer means anything, and it is
//! dropped when it comes up or when too many such ones have gathered.

use std::{cmp::Reverse, collections::BinaryHeap};

use windlass_model::TaskId;

use crate::event::{LockRequest, RunKey};

/// Something that happens by itself when its time comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    /// A task may start.
    Start(TaskId),
    /// A queued task is too late.
    Expiry(TaskId),
    /// A question answers itself.
    Question(TaskId, u64),
    /// A transfer did not stop.
    Packages(TaskId),
    /// A run has taken or waited too long, is due for its next attempt, is to go on or did not stop.
    Run(RunKey),
    /// A run has waited too long for a named lock.
    Lock(LockRequest),
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Timers {
    heap: BinaryHeap<Reverse<(u64, Timer)>>,
    /// Length after the last sweep.
    kept: usize,
}

impl Timers {
    pub fn set(&mut self, at_ms: u64, timer: Timer) {
        self.heap.push(Reverse((at_ms, timer)));
    }

    pub fn first(&self) -> Option<(u64, Timer)> {
        self.heap.peek().map(|Reverse(first)| *first)
    }

    pub fn pop(&mut self) -> Option<(u64, Timer)> {
        self.heap.pop().map(|Reverse(first)| first)
    }

    /// Whether so many were added since the last sweep that another pays.
    pub fn is_crowded(&self) -> bool {
        self.heap.len() > 2 * self.kept + 1024
    }

    /// Drops those that mean nothing any more.
    pub fn sweep(&mut self, means: impl Fn(u64, Timer) -> bool) {
        self.heap.retain(|Reverse((at, timer))| means(*at, *timer));
        self.kept = self.heap.len();
    }
}
