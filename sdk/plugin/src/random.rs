//! Randomness. What is answered here is recorded: a run that is replayed sees the same bytes again.

use crate::Result;
use crate::bindings::windlass::base::random as raw;

/// `count` unpredictable bytes, at most 1024.
pub fn bytes(count: u32) -> Result<Vec<u8>> {
    Ok(raw::bytes(count)?)
}
