//! How much room the disk has left, and what that means for new work.
//!
//! A full disk is the one failure that is seen coming. Before it is there the store says so in three steps: soon
//! short, no new work, only what running work needs. Who starts work asks first; the store itself goes on writing
//! until there is nothing left, because what runs must be able to end.

use std::fmt;
use std::io;
use std::path::Path;

/// Free and whole size of a disk, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// What this process may still write.
    pub free: u64,
    /// What it could write if nothing was there.
    pub total: u64,
}

impl Space {
    /// The disk that holds `path`.
    ///
    /// # Errors
    /// As the operating system says.
    pub fn of(path: &Path) -> io::Result<Self> {
        let stat = rustix::fs::statvfs(path)?;
        // What is kept back for the superuser counts as gone, as in df.
        let kept = stat.f_bfree.saturating_sub(stat.f_bavail);
        Ok(Self {
            free: stat.f_bavail.saturating_mul(stat.f_frsize),
            total: stat.f_blocks.saturating_sub(kept).saturating_mul(stat.f_frsize),
        })
    }
}

/// What may be done with the room there is. A later one allows less.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Everything.
    #[default]
    Good,
    /// Everything, but somebody should look.
    Low,
    /// No new work: no tasks, no packages, no plugins.
    Refusing,
    /// Nothing but what running work needs to end.
    Critical,
}

impl Level {
    /// One word for programs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Low => "low",
            Self::Refusing => "refusing",
            Self::Critical => "critical",
        }
    }
}

/// The room a store has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Room {
    /// What may be done.
    pub level: Level,
    /// Free bytes when last looked.
    pub free: u64,
    /// Bytes of the whole disk.
    pub total: u64,
    /// Bytes that have to be free before everything may be done again; 0 where space plays no part.
    pub needed: u64,
    /// Bytes that new work must leave free.
    pub keep: u64,
    /// The disk was full once and the store lives on what it had kept back. Lasts until it is opened again.
    pub reserve_gone: bool,
}

impl Room {
    /// Whether something new of that many bytes may be taken in.
    #[must_use]
    pub fn takes(&self, bytes: u64) -> bool {
        self.level < Level::Refusing && (self.total == 0 || self.free.saturating_sub(bytes) >= self.keep)
    }

    /// One thing to do about it.
    #[must_use]
    pub const fn fix(&self) -> &'static str {
        if self.reserve_gone {
            "free some space on the disk of the data folder, then restart the server"
        } else {
            "free some space on the disk of the data folder, or make it larger; df -h shows it"
        }
    }
}

impl fmt::Display for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (free, total, needed) = (Bytes(self.free), Bytes(self.total), Bytes(self.needed));
        match self.level {
            _ if self.reserve_gone => write!(
                f,
                "the disk of the data folder was full and the server lives on its reserve: {free} of {total} are free, \
                 and anything new needs {needed} and a restart"
            ),
            Level::Good => write!(f, "the disk of the data folder has {free} of {total} free"),
            Level::Low => {
                write!(f, "the disk of the data folder is getting full: {free} of {total} are free, {needed} should be")
            }
            Level::Refusing => write!(
                f,
                "the disk of the data folder is nearly full: {free} of {total} are free, and new work needs {needed}"
            ),
            Level::Critical => write!(
                f,
                "the disk of the data folder is full: {free} of {total} are free, which is kept for work that runs; \
                 anything new needs {needed}"
            ),
        }
    }
}

/// The free bytes below which each level begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Marks {
    low: u64,
    refusing: u64,
    critical: u64,
}

const GIB: u64 = 1 << 30;

impl Marks {
    /// 10, 5 and 2 percent of the disk. Never less than the journal needs to go on for a while, which counts on small
    /// disks, and never more than is of use, which counts on large ones. A disk so small that even that is too much
    /// gives up half, a quarter, an eighth of itself at most.
    pub(crate) fn new(total: u64, segment: u64) -> Self {
        let mark = |percent: u64, least: u64, most: u64, share: u64| {
            (total / 100).saturating_mul(percent).clamp(least, most.max(least)).min(total / share)
        };
        Self {
            low: mark(10, segment.saturating_mul(4), 40 * GIB, 2),
            refusing: mark(5, segment.saturating_mul(2), 20 * GIB, 4),
            critical: mark(2, segment, 8 * GIB, 8),
        }
    }

    pub(crate) fn judge(self, space: Space) -> Room {
        let Space { free, total } = space;
        let (level, needed) = match free {
            _ if free < self.critical => (Level::Critical, self.refusing),
            _ if free < self.refusing => (Level::Refusing, self.refusing),
            _ if free < self.low => (Level::Low, self.low),
            _ => (Level::Good, self.low),
        };
        Room { level, free, total, needed, keep: self.refusing, reserve_gone: false }
    }
}

/// A size as people read it.
struct Bytes(u64);

impl fmt::Display for Bytes {
    #[allow(clippy::cast_precision_loss)] // One digit behind the point is shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
        let (mut size, mut unit) = (self.0 as f64, 0);
        while size >= 1024.0 && unit + 1 < UNITS.len() {
            (size, unit) = (size / 1024.0, unit + 1);
        }
        let name = UNITS.get(unit).copied().unwrap_or_default();
        if unit == 0 { write!(f, "{} {name}", self.0) } else { write!(f, "{size:.1} {name}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn marks_follow_the_disk_and_stay_sensible_on_tiny_and_huge_ones() {
        let marks = |total, segment| {
            let Marks { low, refusing, critical } = Marks::new(total, segment);
            (low / MIB, refusing / MIB, critical / MIB)
        };
        assert_eq!(marks(100 * GIB, 64 * MIB), (10_240, 5_120, 2_048));
        assert_eq!(marks(2 * GIB, 64 * MIB), (256, 128, 64), "what the journal needs");
        assert_eq!(marks(160 * MIB, 64 * MIB), (80, 40, 20), "a share of a tiny disk");
        assert_eq!(marks(100 << 40, 64 * MIB), (40_960, 20_480, 8_192), "enough is enough");
        assert_eq!(marks(0, 64 * MIB), (0, 0, 0));
    }

    #[test]
    fn every_level_says_what_is_missing() {
        let marks = Marks::new(100 * GIB, 64 * MIB);
        let text = |free| {
            let room = marks.judge(Space { free, total: 100 * GIB });
            format!("{}: {room}", room.level.as_str())
        };
        let said = [text(50 * GIB), text(9 * GIB), text(3 * GIB), text(100 * MIB + 900)];
        assert_eq!(
            said,
            [
                "good: the disk of the data folder has 50.0 GiB of 100.0 GiB free",
                "low: the disk of the data folder is getting full: 9.0 GiB of 100.0 GiB are free, 10.0 GiB should be",
                "refusing: the disk of the data folder is nearly full: 3.0 GiB of 100.0 GiB are free, and new work needs 5.0 GiB",
                "critical: the disk of the data folder is full: 100.0 MiB of 100.0 GiB are free, which is kept for work that \
                 runs; anything new needs 5.0 GiB",
            ]
        );
    }

    #[test]
    fn what_is_large_is_refused_before_it_fills_the_disk() {
        let room = Marks::new(100 * GIB, 64 * MIB).judge(Space { free: 20 * GIB, total: 100 * GIB });
        assert!(room.takes(0) && room.takes(15 * GIB) && !room.takes(16 * GIB), "{room:?}");
        assert!(Room::default().takes(u64::MAX), "where space plays no part");
    }

    #[test]
    fn this_disk_has_a_size() {
        let space = Space::of(&std::env::temp_dir()).unwrap();
        assert!(space.total >= space.free && space.total > 0, "{space:?}");
        assert!(Space::of(Path::new("/there/is/no/such/folder")).is_err());
    }
}
