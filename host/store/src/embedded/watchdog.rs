//! The watchdog: notices when the committer no longer comes back.
//!
//! A disk can hang instead of failing, and sled could wait for itself. Nobody may wait for either without end, so a
//! thread looks at the committer's pulse. Work that is the same at [`LOOKS`] looks in a row is given up: the store
//! stops, and whoever waits for the committer is told. Looks are counted and not time, so that a process that was
//! stopped for an hour is not taken for a hanging one when it goes on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use super::index;
use crate::stop::StopSwitch;

/// How often the same work may be seen before it is given up.
const LOOKS: u32 = 12;

/// What the committer does, as a number that is odd while it works and grows with each work.
#[derive(Debug, Default)]
pub(crate) struct Pulse {
    beat: AtomicU64,
    /// Set while one work was seen twice: readers better not wait for it on a thread that others need.
    slow: AtomicBool,
}

impl Pulse {
    /// Marks the begin of work; the end is when the guard is dropped.
    pub(crate) fn begin(self: &Arc<Self>) -> Working {
        self.beat.fetch_add(1, Ordering::Relaxed);
        Working(Arc::clone(self))
    }

    /// Whether the committer seems to be held up.
    pub(crate) fn is_slow(&self) -> bool {
        self.slow.load(Ordering::Relaxed)
    }
}

/// The committer is at work while this lives.
pub(crate) struct Working(Arc<Pulse>);

impl Drop for Working {
    fn drop(&mut self) {
        self.0.beat.fetch_add(1, Ordering::Relaxed);
        self.0.slow.store(false, Ordering::Relaxed);
    }
}

pub(crate) struct Watchdog {
    pub(crate) pulse: Arc<Pulse>,
    pub(crate) every: Duration,
    pub(crate) stop: StopSwitch,
    /// Turned, after `stop`, when the committer is not to be waited for any more.
    pub(crate) hung: StopSwitch,
}

impl Watchdog {
    /// Looks until the store is dropped, which closes the channel.
    pub(crate) fn run(self, end: &Receiver<()>) {
        let (mut last, mut seen) = (0, 0u32);
        while let Err(RecvTimeoutError::Timeout) = end.recv_timeout(self.every) {
            let beat = self.pulse.beat.load(Ordering::Relaxed);
            let same = beat == last && beat % 2 == 1;
            seen = if same { seen.saturating_add(1) } else { 1 };
            last = beat;
            if same {
                self.pulse.slow.store(true, Ordering::Relaxed);
            }
            if seen == LOOKS {
                self.give_up();
            }
        }
    }

    fn give_up(&self) {
        // It may hold a lock of sled's that every opening in this process shares.
        index::give_sled_up();
        let waited = self.every * LOOKS;
        let reason = self.stop.stop(format!("a commit did not end within {waited:?}: the disk or the index hangs"));
        tracing::error!(%reason, "the store stops");
        self.hung.stop(reason);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn watched(pulse: &Arc<Pulse>) -> (StopSwitch, mpsc::Sender<()>, std::thread::JoinHandle<()>) {
        let (hung, (end, ended)) = (StopSwitch::new(), mpsc::channel());
        let (pulse, every, stop) = (Arc::clone(pulse), Duration::from_millis(2), StopSwitch::new());
        let dog = Watchdog { pulse, every, stop, hung: hung.clone() };
        (hung, end, std::thread::spawn(move || dog.run(&ended)))
    }

    #[test]
    fn work_that_goes_on_is_left_alone_however_long_it_takes_in_all() {
        let pulse = Arc::default();
        let (hung, end, thread) = watched(&pulse);
        let start = std::time::Instant::now();
        // Far longer than the limit for one work, which is 24 ms here.
        while start.elapsed() < Duration::from_millis(200) {
            drop(pulse.begin());
        }
        drop(end);
        thread.join().unwrap();
        assert_eq!(hung.reason(), None);
        assert!(!pulse.is_slow());
    }
}
