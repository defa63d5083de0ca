//! The waist itself: what guest hosts call, what performs, and how the layers stack.

use async_trait::async_trait;
use windlass_model::task::LogLevel;

use crate::{cancel::CancelToken, effect::Effect, outcome::Answer};

/// What a guest host (WASM or Rhai) is given for one run.
#[async_trait]
pub trait Waist: Send + Sync {
    /// Asks the world for something.
    ///
    /// # Errors
    /// [`Stop`] ends the guest at once, whatever it thinks of it: it cannot be caught inside.
    async fn call(&self, effect: Effect) -> Result<Answer, Stop>;

    /// Adds a line to the run's log. Bounded by the guest host; never waits.
    fn log(&self, line: Line);

    /// Reports how far the run is. Never waits.
    fn progress(&self, done: u64, total: u64, note: String);

    /// Set when the run shall stop.
    fn cancel(&self) -> &CancelToken;
}

/// A line that a guest logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// How it is meant.
    pub level: LogLevel,
    /// Its text.
    pub text: String,
}

/// Why a guest must end now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Stop {
    /// It waits for something: it is dropped, and replayed when that has come.
    #[error("the run is suspended until {0}")]
    Suspended(String),
    /// It asked for something else than its journal holds.
    #[error("{0}")]
    Diverged(Diverged),
    /// The host cannot go on, for example because the store stopped.
    #[error("{0}")]
    Host(String),
}

/// A guest that no longer matches its journal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no longer matches its journal at entry {index}: recorded {recorded}, asked {asked}")]
pub struct Diverged {
    /// Index of the entry.
    pub index: u64,
    /// What the journal holds there.
    pub recorded: String,
    /// What the guest asked.
    pub asked: String,
}

/// Does what an effect asks for. The real one belongs to the engine, tests and plans bring their own.
#[async_trait]
pub trait Performer: Send + Sync {
    /// Performs an effect. `index` is its place in the run's journal: with the run id it makes the ticket
    /// under which a machine or a receiver recognizes a repeat.
    ///
    /// Must return soon after `cancel` is set.
    async fn perform(&self, index: u64, effect: &Effect, cancel: &CancelToken) -> Answer;
}

#[async_trait]
impl<P: Performer + ?Sized> Performer for std::sync::Arc<P> {
    async fn perform(&self, index: u64, effect: &Effect, cancel: &CancelToken) -> Answer {
        (**self).perform(index, effect, cancel).await
    }
}

/// Where a run's lines and progress go.
pub trait LineSink: Send + Sync {
    /// Takes a line, already masked.
    fn line(&self, line: Line);
    /// Takes how far the run is.
    fn progress(&self, done: u64, total: u64, note: String);
}
