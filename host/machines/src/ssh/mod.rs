//! SSH through libssh2.
//!
//! One thread per connection owns the session and all its channels; everybody else speaks to it through bounded
//! queues. `connect` opens and authenticates, `wire` is the tuned socket, `driver` moves the bytes.

mod auth;
mod connect;
mod driver;
mod wire;

pub use connect::{HostKey, scan_host_key};
pub(crate) use connect::{SshLink, Timeouts};
