//! The client of the REST API: one typed method an operation, and following a task line by line.
//!
//! Everything that travels is a type of `windlass-model`. What goes wrong is a [`ClientError`] that says what, why and
//! one thing to do, in the server's own words where the server answered. Requests that change something carry an
//! idempotency key, so a lost answer is asked for again without doing the work twice.

#![deny(missing_docs)]

mod client;
mod error;
mod follow;
mod operations;
mod sse;

pub use client::Client;
pub use error::{ClientError, Result};
pub use follow::{TaskFollower, TaskUpdate};
pub use operations::LogRange;
