//! Refusing what is new while the disk of the data folder fills up.
//!
//! The store says how full it is; here is who may still ask for what. Running work is never refused: it has to end.

use windlass_model::views::{DiskLevel, DiskView};
use windlass_store::{Level, Room, Store};

use crate::error::{EngineError, ErrorKind};

/// Lets new work in while there is room for it and for `bytes` that come with it.
///
/// # Errors
/// When there is not.
pub fn for_work(store: &dyn Store, what: &str, bytes: u64) -> Result<(), EngineError> {
    let room = store.room();
    if room.takes(bytes) { Ok(()) } else { Err(refusal(&room, what)) }
}

/// Lets a small change in unless what is left is kept for running work.
///
/// # Errors
/// When it is.
pub fn for_change(store: &dyn Store, what: &str) -> Result<(), EngineError> {
    let room = store.room();
    if room.level < Level::Critical { Ok(()) } else { Err(refusal(&room, what)) }
}

fn refusal(room: &Room, what: &str) -> EngineError {
    EngineError::new(ErrorKind::NoSpace, "disk-nearly-full", format!("there is no room to {what}: {room}"))
        .fix(room.fix())
}

/// The same as lists and pages show it.
pub fn view(room: &Room) -> DiskView {
    let level = match room.level {
        Level::Good => DiskLevel::Good,
        Level::Low => DiskLevel::Low,
        Level::Refusing => DiskLevel::Refusing,
        Level::Critical => DiskLevel::Critical,
    };
    DiskView {
        level,
        free_bytes: room.free,
        total_bytes: room.total,
        needed_bytes: room.needed,
        message: room.to_string(),
        fix: (level != DiskLevel::Good).then(|| room.fix().to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use windlass_store::{Disk, EmbeddedOptions, EmbeddedStore, RealDisk, SegmentFile, Space};

    use super::*;

    /// A disk of 100 GiB with so many of them free.
    struct Free(u64);

    impl Disk for Free {
        fn open(&self, path: &std::path::Path) -> std::io::Result<Box<dyn SegmentFile>> {
            RealDisk.open(path)
        }
        fn space(&self, _: &std::path::Path) -> std::io::Result<Space> {
            Ok(Space { free: self.0 << 30, total: 100 << 30 })
        }
    }

    fn asked(free: u64) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        let options = EmbeddedOptions {
            cache_bytes: 1 << 20,
            reserve_bytes: 4096,
            disk: Arc::new(Free(free)),
            ..EmbeddedOptions::default()
        };
        let store = EmbeddedStore::open(folder.path(), &options).unwrap();
        let answers = [
            for_work(&store, "queue a deployment", 0),
            for_work(&store, "take in a package", 3 << 30),
            for_change(&store, "apply files"),
        ];
        answers.map(|answer| answer.map_or_else(|error| error.to_string(), |()| "yes".to_owned())).into()
    }

    #[test]
    fn the_fuller_the_disk_the_less_may_begin() {
        let full = "the disk of the data folder is nearly full";
        let refused = |answers: &[String]| answers.iter().map(|answer| answer != "yes").collect::<Vec<_>>();
        assert_eq!(refused(&asked(50)), [false, false, false]);
        assert_eq!(refused(&asked(7)), [false, true, false]);
        let answers = asked(4);
        assert_eq!(refused(&answers), [true, true, false]);
        assert_eq!(
            answers[0],
            format!(
                "there is no room to queue a deployment: {full}: 4.0 GiB of 100.0 GiB are free, and new work needs 5.0 GiB"
            )
        );
        assert_eq!(refused(&asked(1)), [true, true, true]);
    }
}
