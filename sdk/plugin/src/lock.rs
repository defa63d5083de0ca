//! Locks on named resources, shared by all tasks. Needs the capability `lock`.

use std::time::Duration;

use crate::Result;
use crate::bindings::windlass::lock::locks as raw;
use crate::clock::millis;

/// A lock that is held until it is dropped.
pub struct Lock {
    raw: raw::Lock,
}

impl Lock {
    /// Fencing token: grows with every grant of this lock.
    pub fn token(&self) -> u64 {
        self.raw.token()
    }

    /// Releases the lock now and says if that went wrong.
    pub fn release(self) -> Result<()> {
        Ok(self.raw.release()?)
    }
}

/// Takes a lock that nobody else may hold at the same time.
pub fn exclusive(name: &str, wait: Duration) -> Result<Lock> {
    acquire(name, true, wait)
}

/// Takes a lock that others may share.
pub fn shared(name: &str, wait: Duration) -> Result<Lock> {
    acquire(name, false, wait)
}

fn acquire(name: &str, exclusive: bool, wait: Duration) -> Result<Lock> {
    let wait = millis(wait);
    Ok(Lock { raw: raw::acquire(name, exclusive, wait)? })
}
