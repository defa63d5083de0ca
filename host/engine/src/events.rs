//! What happens, as it happens: the stream that live views follow and can resume.
//!
//! Events tell of facts that are stored already. The hub keeps the latest ones in memory; who asks for older ones
//! is told to read the state again, which is always possible because every event only repeats what the state says.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::broadcast;
use windlass_model::{
    TaskId,
    task::{TaskChange, TaskEvent},
};

/// Events kept for those who resume.
const KEPT: usize = 8192;
/// Events a slow follower may lag behind.
const LAG: usize = 2048;

/// Sends events to followers.
pub struct Hub {
    state: Mutex<State>,
    sender: broadcast::Sender<Arc<TaskEvent>>,
}

struct State {
    seq: u64,
    kept: VecDeque<Arc<TaskEvent>>,
}

/// A place in the stream.
pub struct Follower {
    /// Whether events between the wanted and the first one are gone: read the state again.
    pub reset: bool,
    backlog: VecDeque<Arc<TaskEvent>>,
    receiver: broadcast::Receiver<Arc<TaskEvent>>,
    last: u64,
}

/// What a follower gets next.
#[derive(Debug, Clone, PartialEq)]
pub enum Followed {
    /// An event.
    Event(Arc<TaskEvent>),
    /// Some events are lost to this follower: read the state again.
    Reset,
    /// The server stops.
    End,
}

impl Hub {
    /// A hub whose numbers start after `start`. Give it the time in microseconds: numbers of an earlier process
    /// are then always smaller, and who resumes with one is told to read again.
    #[must_use]
    pub fn new(start: u64) -> Self {
        Self { state: Mutex::new(State { seq: start, kept: VecDeque::new() }), sender: broadcast::channel(LAG).0 }
    }

    /// Publishes one event.
    pub fn publish(&self, task: TaskId, at_ms: u64, change: TaskChange) {
        let mut state = self.lock();
        state.seq += 1;
        let event = Arc::new(TaskEvent { seq: state.seq, task, at_ms, change });
        if state.kept.len() == KEPT {
            state.kept.pop_front();
        }
        state.kept.push_back(Arc::clone(&event));
        // Sent under the lock so that everyone sees one order. Nobody listening is no error.
        let _ = self.sender.send(event);
    }

    /// Number of the latest event.
    #[must_use]
    pub fn seq(&self) -> u64 {
        self.lock().seq
    }

    /// Follows events after number `after`, or from now on.
    #[must_use]
    pub fn follow(&self, after: Option<u64>) -> Follower {
        let state = self.lock();
        let receiver = self.sender.subscribe();
        let last = after.unwrap_or(state.seq);
        let first_kept = state.kept.front().map_or(state.seq + 1, |event| event.seq);
        let reset = last + 1 < first_kept || last > state.seq;
        let backlog = state.kept.iter().filter(|event| event.seq > last).cloned().collect();
        Follower { reset, backlog, receiver, last }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Follower {
    /// The next event, waiting for it. Safe to drop while waiting.
    pub async fn next(&mut self) -> Followed {
        if std::mem::take(&mut self.reset) {
            return Followed::Reset;
        }
        if let Some(event) = self.backlog.pop_front() {
            self.last = event.seq;
            return Followed::Event(event);
        }
        loop {
            match self.receiver.recv().await {
                Ok(event) if event.seq <= self.last => {}
                Ok(event) => {
                    self.last = event.seq;
                    return Followed::Event(event);
                }
                Err(broadcast::error::RecvError::Lagged(_)) => return Followed::Reset,
                Err(broadcast::error::RecvError::Closed) => return Followed::End,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use windlass_model::TaskState;

    use super::*;

    fn change() -> TaskChange {
        TaskChange::Task { state: TaskState::Queued, reason: None, error: None }
    }

    async fn numbers(mut follower: Follower, count: usize) -> Vec<Option<u64>> {
        let mut seen = Vec::new();
        for _ in 0..count {
            seen.push(match follower.next().await {
                Followed::Event(event) => Some(event.seq),
                _ => None,
            });
        }
        seen
    }

    #[tokio::test]
    async fn who_resumes_misses_nothing_or_is_told() {
        let hub = Hub::new(100);
        for _ in 0..3 {
            hub.publish(TaskId(1), 0, change());
        }
        assert_eq!(numbers(hub.follow(Some(101)), 2).await, [Some(102), Some(103)]);
        assert_eq!(numbers(hub.follow(Some(7)), 2).await, [None, Some(101)], "of an earlier process");
        let live = hub.follow(None);
        hub.publish(TaskId(1), 0, change());
        assert_eq!(numbers(live, 1).await, [Some(104)]);
    }

    #[tokio::test]
    async fn who_is_too_slow_is_told_to_read_again() {
        let hub = Hub::new(0);
        let mut slow = hub.follow(None);
        for _ in 0..=LAG {
            hub.publish(TaskId(1), 0, change());
        }
        assert_eq!(slow.next().await, Followed::Reset);
    }
}
