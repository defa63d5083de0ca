//! The layers put together: grant, journal, mask, perform.

use std::sync::Arc;

use async_trait::async_trait;

use crate::{
    cancel::CancelToken,
    effect::Effect,
    grant::Grants,
    journal::{Entry, JournalStore, Journaled},
    mask::Masker,
    outcome::{Answer, Failure, Outcome},
    undecided::Verdict,
    waist::{Attempt, Call, Line, LineSink, Performer, Stop, Waist},
};

/// One run's way to the world.
pub struct Layers<S, P> {
    grants: Grants,
    journaled: Journaled<S, Masked<P>>,
    masker: Masker,
    sink: Arc<dyn LineSink>,
    cancel: CancelToken,
}

/// Masks every answer of a performer, so that neither journal nor guest sees a secret it was not given.
pub struct Masked<P> {
    performer: P,
    masker: Masker,
}

#[async_trait]
impl<P: Performer> Performer for Masked<P> {
    async fn perform(&self, index: u64, effect: &Effect, cancel: &CancelToken) -> Answer {
        match self.performer.perform(index, effect, cancel).await {
            Ok(Outcome::Secret(secret)) => Ok(Outcome::Secret(secret)),
            answer => self.masker.mask_answer(answer),
        }
    }

    async fn attempt(&self, call: Call<'_>, cancel: &CancelToken) -> Attempt {
        match self.performer.attempt(call, cancel).await {
            Attempt::Answered(Ok(Outcome::Secret(secret))) => Attempt::Answered(Ok(Outcome::Secret(secret))),
            Attempt::Answered(answer) => Attempt::Answered(self.masker.mask_answer(answer)),
            suspended => suspended,
        }
    }

    async fn undecided(&self, call: Call<'_>, failure: &Failure, cancel: &CancelToken) -> Verdict {
        self.performer.undecided(call, failure, cancel).await
    }

    fn replayed(&self, index: u64, effect: &Effect, answer: &Answer) {
        self.performer.replayed(index, effect, answer);
    }
}

impl<S: JournalStore, P: Performer> Layers<S, P> {
    /// Puts the layers together for one run; `recorded` is its journal so far.
    pub fn new(
        grants: Grants,
        store: S,
        recorded: impl IntoIterator<Item = Entry>,
        masker: Masker,
        performer: P,
        sink: Arc<dyn LineSink>,
        cancel: CancelToken,
    ) -> Self {
        let masked = Masked { performer, masker: masker.clone() };
        Self { grants, journaled: Journaled::new(store, masked, masker.clone(), recorded), masker, sink, cancel }
    }
}

#[async_trait]
impl<S: JournalStore, P: Performer> Waist for Layers<S, P> {
    async fn call(&self, effect: Effect) -> Result<Answer, Stop> {
        // A recorded answer is given even while cancelling: the guest must reach the point where it was.
        if self.cancel.is_cancelled() && !self.journaled.replaying() {
            return Ok(Err(Failure::cancelled()));
        }
        if let Err(denied) = self.grants.check(&effect) {
            return Ok(Err(denied));
        }
        self.journaled.call(&effect, &self.cancel).await
    }

    fn log(&self, line: Line) {
        let text = self.masker.mask(&line.text).into_owned();
        self.sink.line(Line { level: line.level, text });
    }

    fn progress(&self, done: u64, total: u64, note: String) {
        self.sink.progress(done, total, self.masker.mask(&note).into_owned());
    }

    fn cancel(&self) -> &CancelToken {
        &self.cancel
    }
}
