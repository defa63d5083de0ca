//! One run: a guest, its way to the world, and how it ends.
//!
//! `context` gathers what a task's runs share, `begin` what one run needs, `guest` drives the guest, `execute` takes
//! one run from start to its last word or to a wait, `performer` does what effects ask for, `journal` keeps the
//! record; the rest are kinds of effects with a file of their own.

mod begin;
mod commands;
mod context;
mod execute;
mod guest;
mod http;
mod journal;
mod lend;
mod offline;
mod performer;
mod pinned;
mod replay;
mod substitute;
mod unknown;
mod waits;

pub use context::{Subject, TaskContext, gather, load, machine};
pub use execute::{Ended, Execution, Over, Settled, execute};
pub use journal::recorded;
pub use offline::{Away, Offline};
pub use performer::failure;
pub use replay::replay;
pub use substitute::Done;
