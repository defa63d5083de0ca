//! Keeps two builds of one folder apart. The lock is the operating system's: it ends with the process that holds it.

use std::fs::{File, TryLockError};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::event::Say;
use crate::{BuildError, Event};

/// As long as the longest build may take.
const PATIENCE: Duration = Duration::from_secs(30 * 60);
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Held while a build writes; released when dropped.
pub(crate) struct FolderLock {
    _file: File,
}

/// Waits for the lock of a `dist` folder, which must exist.
pub(crate) async fn lock(dist: &Path, say: Say<'_>) -> Result<FolderLock, BuildError> {
    let path = dist.join(".lock");
    let file = File::create(&path).map_err(BuildError::file("create", &path))?;
    let start = Instant::now();
    let mut told = false;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(FolderLock { _file: file }),
            Err(TryLockError::Error(cause)) => return Err(BuildError::file("lock", &path)(cause)),
            Err(TryLockError::WouldBlock) if start.elapsed() > PATIENCE => {
                return Err(BuildError::Busy { dist: dist.to_owned(), waited: PATIENCE });
            }
            Err(TryLockError::WouldBlock) => {
                if !told {
                    say(Event::Waiting);
                    told = true;
                }
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        }
    }
}
