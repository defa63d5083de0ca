//! Reaching targets and workers, and the runner on the far side.
//!
//! [`Machines`] is the pool, [`Machine`] one target or worker: run a command, put and get files, facts. A machine is
//! reached by SSH or is the local one; both are a [`Link`] that carries byte streams. Commands run under the runner
//! (`runner/runner.sh`), a POSIX `sh` protocol in which a [`Ticket`], chosen and stored by the caller before any
//! contact, starts at most once and survives any loss of the link. What each state of a run allows stands in
//! `runner/state.rs`. A machine with Windows (OpenSSH and PowerShell) is served by a twin of the runner, in **beta**:
//! commands only, no files, and not tried on a real one yet.
//!
//! What is deployed, and when, is nobody's business here.

mod backoff;
mod command;
mod connection;
mod endpoint;
mod error;
mod facts;
mod files;
mod link;
mod local;
mod machine;
mod pool;
mod runner;
mod self_test;
mod sink;
mod ssh;
mod ticket;

pub use command::{CommandSpec, Exit, Fence, Interpreter, OUTPUT_CAP, Program};
pub use endpoint::{Auth, Endpoint, LocalEndpoint, SshEndpoint};
pub use error::{Lost, MachineError};
pub use facts::Facts;
pub use files::FileSpec;
pub use link::{Channel, Event, Input, Link, Output};
pub use machine::Machine;
pub use pool::{Config, Machines};
pub use runner::RunState;
pub use self_test::SelfTest;
pub use sink::{MemorySink, OutputSink, Stream};
pub use ssh::{HostKey, scan_host_key};
pub use ticket::Ticket;
/// Ends a run when it is cancelled.
pub use tokio_util::sync::CancellationToken as CancelToken;
