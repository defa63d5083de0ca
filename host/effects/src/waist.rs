//! The waist itself: what guest hosts call, what performs, and how the layers stack.

use async_trait::async_trait;
use windlass_model::task::LogLevel;

use crate::{
    cancel::CancelToken,
    effect::Effect,
    outcome::{Answer, Failure},
    undecided::Verdict,
};

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

    /// The same for one that can say that the run shall be suspended: nothing is recorded then, and the effect is
    /// asked for again once what the run waits for has come.
    async fn attempt(&self, call: Call<'_>, cancel: &CancelToken) -> Attempt {
        Attempt::Answered(self.perform(call.index, call.effect, cancel).await)
    }

    /// What a person decides about an effect of which nobody can know how it ended.
    async fn undecided(&self, _call: Call<'_>, _failure: &Failure, _cancel: &CancelToken) -> Verdict {
        Verdict::Nobody
    }

    /// A recorded answer was given again. Must not wait.
    fn replayed(&self, _index: u64, _effect: &Effect, _answer: &Answer) {}
}

/// One effect that is to be performed.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    /// Its place in the run's journal.
    pub index: u64,
    /// When it was first asked for, milliseconds since 1970 UTC.
    pub since_ms: u64,
    /// How often a person had it done once more.
    pub tries: u32,
    /// What it is.
    pub effect: &'a Effect,
}

/// What an attempt came to.
#[derive(Debug, Clone, PartialEq)]
pub enum Attempt {
    /// There is an answer.
    Answered(Answer),
    /// The run waits; until what, in words.
    Suspended(String),
}

#[async_trait]
impl<P: Performer + ?Sized> Performer for std::sync::Arc<P> {
    async fn perform(&self, index: u64, effect: &Effect, cancel: &CancelToken) -> Answer {
        (**self).perform(index, effect, cancel).await
    }
    async fn attempt(&self, call: Call<'_>, cancel: &CancelToken) -> Attempt {
        (**self).attempt(call, cancel).await
    }
    async fn undecided(&self, call: Call<'_>, failure: &Failure, cancel: &CancelToken) -> Verdict {
        (**self).undecided(call, failure, cancel).await
    }
    fn replayed(&self, index: u64, effect: &Effect, answer: &Answer) {
        (**self).replayed(index, effect, answer);
    }
}

/// Where a run's lines and progress go.
pub trait LineSink: Send + Sync {
    /// Takes a line, already masked.
    fn line(&self, line: Line);
    /// Takes how far the run is.
    fn progress(&self, done: u64, total: u64, note: String);
}
