//! The protocol that lets a command survive its link, from the host's side.
//!
//! `runner.sh` is the far side and documents the files and verbs. `shell` speaks to it, `frame` reads its answers,
//! `request` writes its questions, `state` says what each answer allows, `run` is the life of one run: start or attach,
//! follow, end, result.

mod frame;
mod quote;
mod request;
mod run;
mod shell;
mod state;

pub(crate) use quote::quote;
pub(crate) use request::{Upload, start_request, uploads};
pub(crate) use run::Run;
pub(crate) use shell::{Shell, Watch};
pub use state::RunState;
