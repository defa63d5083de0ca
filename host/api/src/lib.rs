//! The REST API: requests in, what the engine says out.
//!
//! [`operations`] is the one table of everything that can be asked; the router and the OpenAPI document are both made
//! from it. Around each operation [`operation`] puts what all share: authentication, time limits, idempotency keys,
//! problems instead of bare errors. [`server`] owns connections. What an operation means is the engine's business.

mod app;
mod events;
mod fault;
mod handlers;
mod idempotency;
mod input;
mod openapi;
mod operation;
mod operations;
mod router;
mod server;
mod stall;

pub use openapi::document;
pub use router::router;
pub use server::{ServeError, serve};
