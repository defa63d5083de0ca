//! What happens by itself when its time comes.
//!
//! A timer is set and never taken back: whoever set it knows when it no longer means anything, and it is
//! dropped when it comes up or when too many such ones have gathered.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
};

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

/// Lanes of timers: as many as there are limits that most timers are set by, and one to spare.
const LANES: usize = 3;

#[derive(Debug, Clone, Default)]
pub(crate) struct Timers {
    /// Each in order. Most timers are set so long from now by one of few limits, so they come in order anyway.
    lanes: [VecDeque<(u64, Timer)>; LANES],
    /// Those that fit behind no lane.
    heap: BinaryHeap<Reverse<(u64, Timer)>>,
    /// Length after the last sweep.
    kept: usize,
}

impl Timers {
    pub fn set(&mut self, at_ms: u64, timer: Timer) {
        let new = (at_ms, timer);
        let fits = |lane: &&mut VecDeque<_>| lane.back().is_none_or(|last| *last <= new);
        // Behind the latest that it fits behind, so that each limit has a lane to itself.
        match self.lanes.iter_mut().filter(fits).max_by(|a, b| a.back().cmp(&b.back())) {
            Some(lane) => lane.push_back(new),
            None => self.heap.push(Reverse(new)),
        }
    }

    pub fn first(&self) -> Option<(u64, Timer)> {
        let lanes = self.lanes.iter().filter_map(VecDeque::front);
        lanes.chain(self.heap.peek().map(|Reverse(first)| first)).min().copied()
    }

    pub fn pop(&mut self) -> Option<(u64, Timer)> {
        let first = self.first()?;
        match self.lanes.iter_mut().find(|lane| lane.front() == Some(&first)) {
            Some(lane) => lane.pop_front(),
            None => self.heap.pop().map(|Reverse(first)| first),
        }
    }

    fn len(&self) -> usize {
        self.heap.len() + self.lanes.iter().map(VecDeque::len).sum::<usize>()
    }

    /// Whether so many were added since the last sweep that another pays.
    pub fn is_crowded(&self) -> bool {
        self.len() > 2 * self.kept + 1024
    }

    /// Drops those that mean nothing any more.
    pub fn sweep(&mut self, means: impl Fn(u64, Timer) -> bool) {
        self.heap.retain(|Reverse((at, timer))| means(*at, *timer));
        for lane in &mut self.lanes {
            lane.retain(|(at, timer)| means(*at, *timer));
        }
        self.kept = self.len();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn timers_come_up_in_order_whatever_order_they_are_set_in() {
        let mut timers = Timers::default();
        let mut all: Vec<_> = (0..4000_u64)
            .map(|n| {
                // Two limits from a moment that moves on, and some that fit behind neither.
                let at = [n + 3600, n + 7200, n * 7919 % 10_007, n / 2][n as usize % 4];
                (at, Timer::Start(TaskId(n % 50)))
            })
            .collect();
        for (at, timer) in &all {
            timers.set(*at, *timer);
        }
        assert!(!timers.heap.is_empty() && timers.lanes.iter().all(|lane| !lane.is_empty()));
        all.sort_unstable();
        let keeps = |at: u64, _: Timer| !at.is_multiple_of(3);
        timers.sweep(keeps);
        all.retain(|(at, timer)| keeps(*at, *timer));
        assert_eq!(timers.len(), all.len());
        for due in all {
            assert_eq!(timers.first(), Some(due));
            assert_eq!(timers.pop().unwrap(), due);
        }
        assert_eq!(timers.pop(), None);
    }
}
