//! Time. What is answered here is recorded: a run that is replayed sees the same time again.

use std::time::Duration;

use crate::Result;
use crate::bindings::windlass::base::clock as raw;

/// Time since 1970-01-01T00:00:00Z.
pub fn now() -> Duration {
    Duration::from_millis(raw::now_unix_ms())
}

/// Waits. A long wait suspends the run and costs nothing. Fails with `cancelled` when the run is being cancelled.
pub fn sleep(time: Duration) -> Result<()> {
    Ok(raw::sleep_ms(millis(time))?)
}

/// What the contract counts time in.
pub(crate) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
