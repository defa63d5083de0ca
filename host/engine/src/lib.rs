//! A task's life: the scheduler, guests, machines, packages and the store tied together.
//!
//! [`Engine`] is what the API serves and tests drive. Inside, the [`driver`] feeds events to the pure scheduler and
//! stores what it decides, the [`actor`] starts runs and transfers, [`runs`] lets guests touch the world, [`logs`]
//! and [`events`] show what happens. Everything that leaves the process goes through a crate of its own.

mod actor;
mod backup;
mod barrier;
mod board;
mod catalog;
mod clock;
mod driver;
mod error;
mod events;
mod facts;
mod feed;
mod fences;
mod gate;
mod history;
mod holdings;
mod identity;
mod logs;
mod machines;
mod maps;
mod once;
mod packages;
mod planning;
mod plugins;
mod points;
mod pools;
mod queueing;
mod records;
mod releases;
mod restored;
mod room;
mod runs;
mod scheduling;
mod services;
mod tasks;
mod tokens;
mod vault;
mod watches;

mod open;
mod operations;

pub mod offline;

pub use backup::BackupStream;
pub use clock::{Clock, SystemClock};
pub use error::{EngineError, ErrorKind};
pub use events::{Followed, Follower};
pub use once::{Made, Once};
pub use open::{Engine, EngineConfig};
pub use operations::package_view;
pub use windlass_scheduler::Settings;
pub use windlass_store::failpoint;
