//! What a run tells the host about itself, and what the host tells a run.

use crate::Result;
use crate::bindings::windlass::control::control as raw;

/// True once the run is being cancelled. Long loops should look now and then, clean up and return.
pub fn is_cancelled() -> bool {
    raw::is_cancelled()
}

/// How far the run is, for people. A `total` of 0 means that the end is not known.
pub fn progress(done: u32, total: u32, note: &str) {
    raw::progress(done, total, note);
}

/// Sets an output variable that later steps read.
pub fn output(name: &str, value: &str) -> Result<()> {
    Ok(raw::output(name, value, false)?)
}

/// Sets an output variable that is kept as a secret.
pub fn sensitive_output(name: &str, value: &str) -> Result<()> {
    Ok(raw::output(name, value, true)?)
}
