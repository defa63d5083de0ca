//! One run: a guest, its way to the world, and how it ends.
//!
//! `context` gathers what a task's runs share, `execute` drives one run from start to its last word, `performer` does
//! what effects ask for, `journal` keeps the record, the rest are kinds of effects with a file of their own.

mod commands;
mod context;
mod execute;
mod http;
mod journal;
mod performer;
mod substitute;
mod waits;

pub use context::{Subject, TaskContext, load, machine};
pub use execute::{Ended, Execution, execute};
pub use journal::recorded;
pub use performer::failure;
