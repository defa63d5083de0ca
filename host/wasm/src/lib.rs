//! Running step plugins: sandboxed WebAssembly components.
//!
//! This crate is the only one that names wasmtime. It takes plugins ([`PluginHost::load`]), refusing what is none with a
//! text that says what to do, and runs them ([`PluginHost::run`]) in a fresh sandbox each, bounded in memory, time,
//! handles and output. What a guest wants from the world becomes an effect for the run's [`windlass_effects::Waist`];
//! what becomes of effects, where plugins are kept and who may run them belongs to others.

mod bindings;
mod bytes;
mod cache;
mod calls;
mod contract;
mod engine;
mod error;
mod host;
mod limits;
mod log;
mod manifest;
mod plugin;
mod request;
mod run;
mod sandbox;
mod text;
mod trap;

pub use contract::Import;
pub use error::{Frames, Refused, RunError};
pub use host::{Config, HostError, PluginHost};
pub use limits::{Hit, Limits};
pub use plugin::Plugin;
pub use request::{LentPackage, LentSession, RunReport, RunRequest};
pub use trap::Frame;
