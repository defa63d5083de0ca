//! `windlass:control`: cancellation, progress, output variables.

use windlass_effects::{Effect, Failure};

use super::{Calls, MAX_CONTENT, Reply, check, check_name, check_text, refuse};
use crate::{bindings::windlass::control::control, text};

/// Longest note that is shown beside a progress bar, in bytes.
const MAX_NOTE: usize = 200;

impl control::Host for Calls {
    async fn is_cancelled(&mut self) -> wasmtime::Result<bool> {
        Ok(self.waist.cancel().is_cancelled())
    }

    async fn progress(&mut self, done: u32, total: u32, note: String) -> wasmtime::Result<()> {
        let note = text::one_line(&note, MAX_NOTE);
        self.waist.progress(u64::from(done), u64::from(total), note);
        Ok(())
    }

    async fn output(&mut self, name: String, value: String, sensitive: bool) -> Reply<()> {
        check!(check_name("the name of the output", &name));
        check!(check_text("the value of the output", &value, MAX_CONTENT));
        let limit = self.limiter.limits().outputs;
        if self.outputs >= limit {
            let message = format!("the output {name} is one too many: a run may set {limit}");
            return refuse(Failure::new("too-large", message).fix("put several values into one output as JSON"));
        }
        self.outputs += 1;
        self.ask_done(Effect::Output { name, value, sensitive }).await
    }
}
