//! The watchdog: notices when the committer no longer comes back, and when the disk fills up.
//!
//! A disk can hang instead of failing, and sled could wait for itself. Nobody may wait for either without end, so a
//! thread looks at the committer's pulse. Work that is the same at [`LOOKS`] looks in a row is given up: the store
//! stops, and whoever waits for the committer is told. Looks are counted and not time, so that a process that was
//! stopped for an hour is not taken for a hanging one when it goes on.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::index;
use crate::journal::Disk;
use crate::space::{Level, Marks, Room};
use crate::stop::StopSwitch;

/// How often the same work may be seen before it is given up.
const LOOKS: u32 = 12;

/// What the scribe does, as a number that is odd while it works and grows with each work.
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

/// The scribe is at work while this lives.
pub(crate) struct Working(Arc<Pulse>);

impl Drop for Working {
    fn drop(&mut self) {
        self.0.beat.fetch_add(1, Ordering::Relaxed);
        self.0.slow.store(false, Ordering::Relaxed);
    }
}

/// How full the disk was when last looked at.
pub(crate) struct Gauge {
    disk: Arc<dyn Disk>,
    folder: PathBuf,
    segment: u64,
    room: Mutex<Room>,
}

impl std::fmt::Debug for Gauge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gauge").field("room", &self.room()).finish_non_exhaustive()
    }
}

impl Gauge {
    pub(crate) fn new(disk: &Arc<dyn Disk>, folder: &Path, segment: u64) -> Self {
        let gauge =
            Self { disk: Arc::clone(disk), folder: folder.to_owned(), segment, room: Mutex::new(Room::default()) };
        gauge.look();
        gauge
    }

    pub(crate) fn room(&self) -> Room {
        *self.room.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at the disk, and says when it got better or worse.
    fn look(&self) {
        let space = match self.disk.space(&self.folder) {
            Ok(space) => space,
            // What is not known is left as it was; writing will tell.
            Err(error) => return tracing::debug!(%error, "the disk does not say how full it is"),
        };
        let room = Marks::new(space.total, self.segment).judge(space);
        let before = std::mem::replace(&mut *self.room.lock().unwrap_or_else(PoisonError::into_inner), room);
        match (before.level, room.level) {
            (before, now) if before == now => {}
            (_, Level::Good) => tracing::info!(%room, "there is enough space again"),
            (_, Level::Low) => tracing::warn!(%room, "free some space"),
            (_, level) => tracing::error!(%room, level = level.as_str(), "free some space: new work is refused"),
        }
    }
}

pub(crate) struct Watchdog {
    pub(crate) pulse: Arc<Pulse>,
    pub(crate) gauge: Arc<Gauge>,
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
            self.gauge.look();
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
        let disk: Arc<dyn Disk> = Arc::new(crate::journal::RealDisk);
        let gauge = Arc::new(Gauge::new(&disk, Path::new("."), 1));
        let dog = Watchdog { pulse, gauge, every, stop, hung: hung.clone() };
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
