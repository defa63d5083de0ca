//! Builds guests: finds a toolchain, builds every plugin of a workspace in one cargo call, verifies what came out and
//! writes `<id>.wasm`, `<id>.json` (the manifest) and `<id>.sha256` into the `dist` folder of that workspace.
//!
//! It owns the way from plugin sources to files a server can install. What a manifest may say and how a component is
//! read is `windlass-wasm`'s business; what plugins are made of is `sdk/plugin`'s.
//!
//! ```no_run
//! # async fn doc() -> Result<(), windlass_build::BuildError> {
//! use windlass_build::{Guests, Install};
//! let built = Guests::in_workspace("plugins")
//!     .install(Install::IfMissing)
//!     .build(&|event| eprintln!("{event}"))
//!     .await?;
//! for plugin in &built.plugins {
//!     println!("{}@{} {}", plugin.id, plugin.version, plugin.component.display());
//! }
//! # Ok(()) }
//! ```

mod compile;
mod dist;
mod error;
mod event;
mod hygiene;
mod install;
mod lock;
mod process;
mod request;
mod stamp;
mod toolchain;
mod verify;

pub use error::BuildError;
pub use event::Event;
pub use install::Install;
pub use request::{Built, Guests, Plugin};
pub use toolchain::{StdSource, Surroundings, Toolchain};
