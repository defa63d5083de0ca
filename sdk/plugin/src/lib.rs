//! Write a Windlass step plugin in Rust.
//!
//! A plugin is a type that implements [`Step`]: [`Step::manifest`] says what the step is called, what inputs it takes
//! and what it wants to use; [`Step::run`] does the work. [`export_step!`] turns the type into a component. A plugin
//! runs in a sandbox: it has no files, sockets or clock of its own, only what this crate offers and what the manifest
//! asks for. Between two calls of this crate it must be deterministic, because a run that was interrupted is replayed.
//!
//! ```
//! use windlass_plugin::prelude::*;
//!
//! struct Touch;
//!
//! impl Step for Touch {
//!     fn manifest() -> Manifest {
//!         Manifest::new("touch", "1.0.0", "Touch a file")
//!             .input("path", Input::text().title("Path").required())
//!             .output("touched", "The path that was touched.")
//!             .capability(Capability::Machine)
//!     }
//!
//!     fn run(target: &Target, inputs: &Inputs) -> Result<()> {
//!         let path = inputs.text("path")?;
//!         info!("touching {path}");
//!         target.machine()?.run(Command::new("touch").arg(&path))?.success()?;
//!         control::output("touched", &path)
//!     }
//! }
//!
//! export_step!(Touch);
//! # fn main() {}
//! ```
#![deny(missing_docs)]

#[doc(hidden)]
pub mod bindings;
pub mod clock;
pub mod control;
mod export;
mod failure;
pub mod http;
mod inputs;
pub mod lock;
pub mod log;
mod machine;
mod manifest;
mod package;
pub mod random;
mod secret;
mod step;
pub mod tasks;
pub mod variables;

pub use export::Adapter;
pub use failure::{Failure, OrFail, Result};
pub use inputs::Inputs;
pub use machine::{Command, Exit, Process, Session, Substitution};
pub use manifest::{Capability, Input, Manifest};
pub use package::Package;
pub use secret::Secret;
/// The JSON library the SDK uses; plugins need none of their own.
pub use serde_json;
pub use step::{Step, Target};

/// Everything a usual plugin needs: `use windlass_plugin::prelude::*;`.
pub mod prelude {
    pub use crate::serde_json::{Value, json};
    pub use crate::{
        Capability, Command, Exit, Failure, Input, Inputs, Manifest, OrFail, Package, Process, Result, Secret, Session,
        Step, Substitution, Target, clock, control, debug, error, export_step, http, info, lock, random, tasks,
        variables, warn,
    };
}
