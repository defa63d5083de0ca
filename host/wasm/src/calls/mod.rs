//! The calls a guest makes: each is checked, translated to one effect and given to the run's waist.
//!
//! One file a package of the contract. This file owns what they share: the state of a run, asking the waist, and the
//! bounds of texts and lists. Whether the run may do what it asks is the waist's business; nothing here trusts a
//! value that came from a guest.

pub mod base;
pub mod command;
pub mod control;
pub mod http;
pub mod inputs;
pub mod lock;
pub mod machine;
pub mod packages;
pub mod tasks;

use std::sync::Arc;

use wasmtime::component::{Resource, ResourceTable};
use windlass_effects::{Effect, Failure, Outcome, Stop, Waist};

use crate::{
    bindings::windlass::base::types::Failure as WitFailure,
    limits::{Hit, Limiter, Limits},
    log::Log,
};

/// What an interface call comes to: a trap, or what the guest sees.
pub type Reply<T> = wasmtime::Result<Result<T, WitFailure>>;

/// Longest name, path, URL or other short text that a guest may hand over, in bytes.
pub const MAX_NAME: usize = 4096;

/// Largest content (of a file, an input, a body) that one call may carry, in bytes.
pub const MAX_CONTENT: usize = windlass_effects::MAX_INLINE;

/// Most bytes that all commands, requests and the like of a run hold together.
const MAX_KEPT: usize = 16 << 20;

/// The state of one run, kept beside the guest and dropped with it.
pub struct Calls {
    pub waist: Arc<dyn Waist>,
    pub table: ResourceTable,
    pub limiter: Limiter,
    pub log: Log,
    pub outputs: u32,
    kept: usize,
    /// How often the guest called: tells a busy guest from one that only computes.
    pub made: u64,
}

impl Calls {
    pub fn new(waist: Arc<dyn Waist>, limits: &Limits) -> Self {
        let mut table = ResourceTable::new();
        table.set_max_capacity(limits.handles);
        Self {
            log: Log::new(waist.clone(), limits),
            waist,
            table,
            limiter: Limiter::new(limits),
            outputs: 0,
            kept: 0,
            made: 0,
        }
    }

    /// Asks the world. A stop becomes a trap, which no guest can catch.
    pub async fn ask(&mut self, effect: Effect) -> wasmtime::Result<Result<Outcome, Failure>> {
        self.made = self.made.wrapping_add(1);
        self.waist.call(effect).await.map_err(|stop| wasmtime::Error::new(Stopped(stop)))
    }

    /// Asks for something that has no answer but that it was done.
    pub async fn ask_done(&mut self, effect: Effect) -> Reply<()> {
        let name = effect.name();
        match self.ask(effect).await? {
            Ok(Outcome::Done) => Ok(Ok(())),
            Ok(other) => Err(unexpected(name, &other)),
            Err(failure) => refuse(failure),
        }
    }

    /// Hands the guest a new handle.
    pub fn hand_out<T: Send + 'static>(&mut self, value: T) -> wasmtime::Result<Resource<T>> {
        let limit = self.limiter.limits().handles;
        self.table.push(value).map_err(|_| wasmtime::Error::new(Hit::Handles { limit }))
    }
}

/// Something that a guest describes piece by piece before it uses it.
///
/// Each call is bounded, and so is the number of handles; but together they could still fill the server's memory, so
/// the bytes behind all builders of a run are counted.
pub trait Builder: Send + 'static {
    /// The bytes that are counted for it.
    fn kept(&mut self) -> &mut usize;
}

impl Calls {
    /// Hands out a builder that begins with so many bytes.
    pub fn begin<T: Builder>(&mut self, mut builder: T, bytes: usize) -> wasmtime::Result<Resource<T>> {
        self.keep(bytes)?;
        *builder.kept() = bytes;
        self.hand_out(builder)
    }

    /// The builder, which is about to grow by so many bytes.
    pub fn grow<T: Builder>(&mut self, handle: &Resource<T>, bytes: usize) -> wasmtime::Result<&mut T> {
        self.keep(bytes)?;
        let builder = self.table.get_mut(handle)?;
        *builder.kept() += bytes;
        Ok(builder)
    }

    /// Forgets a builder that the guest dropped.
    pub fn end<T: Builder>(&mut self, handle: Resource<T>) -> wasmtime::Result<()> {
        let mut builder = self.table.delete(handle)?;
        self.kept = self.kept.saturating_sub(*builder.kept());
        Ok(())
    }

    fn keep(&mut self, bytes: usize) -> wasmtime::Result<()> {
        self.kept = self.kept.saturating_add(bytes);
        if self.kept > MAX_KEPT {
            return Err(wasmtime::Error::new(Hit::Kept { limit: MAX_KEPT }));
        }
        Ok(())
    }
}

/// Asks, and turns the one fitting outcome into a value.
macro_rules! ask {
    ($calls:expr, $effect:expr, $outcome:pat => $value:expr) => {{
        let effect = $effect;
        let name = effect.name();
        match $calls.ask(effect).await? {
            Ok($outcome) => Ok(Ok($value)),
            Ok(other) => Err($crate::calls::unexpected(name, &other)),
            Err(failure) => $crate::calls::refuse(failure),
        }
    }};
}
pub(crate) use ask;

/// A [`Stop`] on its way out through the guest.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Stopped(pub Stop);

/// An answer that does not fit its effect: a bug of the host, never of the guest.
pub fn unexpected(effect: &str, outcome: &Outcome) -> wasmtime::Error {
    // The outcome itself stays out of the text: it may hold what must not be shown.
    let kind = match outcome {
        Outcome::Done => "done",
        Outcome::Flag(_) => "a flag",
        Outcome::Number(_) => "a number",
        Outcome::Text(_) | Outcome::MaybeText(_) => "a text",
        Outcome::Bytes(_) => "bytes",
        Outcome::Secret(_) => "a secret",
        Outcome::Facts(_) => "facts",
        _ => "something else",
    };
    wasmtime::Error::msg(format!("the host answered the effect {effect} with {kind}"))
}

/// The failure as the guest sees it.
pub fn refuse<T>(failure: Failure) -> Reply<T> {
    Ok(Err(to_wit(failure)))
}

pub fn to_wit(failure: Failure) -> WitFailure {
    let Failure { code, message, retryable, attributes } = failure;
    WitFailure { code, message, retryable, attributes }
}

pub fn from_wit(failure: WitFailure) -> Failure {
    let WitFailure { code, message, retryable, attributes } = failure;
    Failure { code, message, retryable, attributes }
}

/// Checks a short text: not empty, not too long, no NUL.
pub fn check_name(what: &str, text: &str) -> Result<(), Failure> {
    if text.is_empty() {
        return Err(Failure::new("invalid", format!("{what} is empty")).fix("give it a value"));
    }
    check_text(what, text, MAX_NAME)
}

/// Checks a text: not too long, no NUL, which would cut it short on the other side.
pub fn check_text(what: &str, text: &str, max: usize) -> Result<(), Failure> {
    check_size(what, text.len(), max)?;
    if text.contains('\0') {
        return Err(Failure::new("invalid", format!("{what} contains a NUL character")).fix("remove it"));
    }
    Ok(())
}

pub fn check_size(what: &str, len: usize, max: usize) -> Result<(), Failure> {
    if len <= max {
        return Ok(());
    }
    let message = format!("{what} has {len} bytes, more than the {max} that one call may carry");
    Err(Failure::new("too-large", message).fix("put bulk data into a package"))
}

/// Runs checks that refuse with a failure the guest sees.
macro_rules! check {
    ($check:expr) => {
        if let Err(failure) = $check {
            return $crate::calls::refuse(failure);
        }
    };
}
pub(crate) use check;
