//! Running Rhai: coordination scripts.
//!
//! A script is compiled once ([`Script`]), says in its head what it needs ([`ScriptManifest`]) and is run by a
//! [`ScriptHost`] on a thread of its own. Everything it wants from the world is an effect that goes through the
//! run's waist, so a script replays from its journal exactly as a plugin does. What performs effects, what grants
//! them and where journals are kept is the business of others; this crate alone names Rhai.

mod argument;
mod diagnostic;
mod engine;
mod explain;
mod functions;
mod host;
mod manifest;
mod memory;
mod options;
mod script;
mod span;
mod state;
mod value;

pub use diagnostic::Diagnostic;
pub use functions::FUNCTIONS;
pub use host::{Ending, Request, ScriptHost};
pub use manifest::ScriptManifest;
pub use script::{MAX_SOURCE, Script, check};
pub use span::parse as parse_span;
pub use state::Limits;
