//! The protocol that lets a command survive its link, from the host's side.
//!
//! `runner.sh` is the far side and documents the files and verbs; `runner.ps1` is its twin for Windows (beta), and
//! `dialect` knows what differs. `shell` speaks to it, `frame` reads its answers,
//! `request` writes its questions, `state` says what each answer allows, `run` is the life of one run: start or attach,
//! follow, end, result.

mod dialect;
mod frame;
mod quote;
mod request;
mod run;
mod shell;
mod state;

pub(crate) use dialect::Dialect;
pub(crate) use quote::quote;
pub(crate) use request::{Upload, uploads};
pub(crate) use run::Run;
pub(crate) use shell::{Shell, Watch};
pub use state::RunState;
