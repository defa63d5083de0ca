//! The waist of a guest that may not touch the world: for `describe` and `validate`.

use async_trait::async_trait;
use windlass_effects::{Answer, CancelToken, Effect, Failure, Line, Stop, Waist};

/// Denies everything and keeps nothing.
#[derive(Default)]
pub(crate) struct Sandbox {
    cancel: CancelToken,
}

#[async_trait]
impl Waist for Sandbox {
    async fn call(&self, effect: Effect) -> Result<Answer, Stop> {
        Ok(Err(Failure::denied(format!(
            "{} is not possible here: a plugin that describes itself or checks inputs may not touch the world",
            effect.name()
        ))))
    }

    fn log(&self, _: Line) {}

    fn progress(&self, _: u64, _: u64, _: String) {}

    fn cancel(&self) -> &CancelToken {
        &self.cancel
    }
}
