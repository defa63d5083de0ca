//! Effects: the one call between a guest and the world.
//!
//! Guests are pure between calls. Whatever they want from the world is one [`Effect`]; the answer is one
//! [`Outcome`] or one [`Failure`]. Every cross-cutting concern is a layer on that call:
//! [`Grants`] asks whether the run may do that, [`Journaled`] records it or replays what was recorded,
//! [`Masked`] keeps secrets out of what leaves, and a [`Performer`] does it. The WASM and Rhai hosts only
//! translate to effects and call a [`Waist`]; who performs them is the engine's business.

mod cancel;
mod effect;
mod grant;
mod journal;
mod layers;
mod mask;
mod outcome;
mod undecided;
mod waist;
mod words;

pub use cancel::CancelToken;
pub use effect::{
    Command, Content, Effect, EffectClass, EnvValue, HeaderValue, HttpRequest, PackageHandle, Program, SecretHandle,
    SessionHandle, Stdin,
};
pub use grant::{Grants, MAX_INLINE, needed_capability};
pub use journal::{Entry, EntryState, JournalStore, Journaled, MAX_ENTRIES, MemoryJournal, Promise};
pub use layers::{Layers, Masked};
pub use mask::{MASK, MIN_SECRET, MaskStream, Masker};
pub use outcome::{Answer, Exit, Failure, HttpResponse, LockGrant, Outcome, PackageInfo, SubstituteReport};
pub use undecided::{Decided, DecidedAs, TAKEN_AS_DONE, UNKNOWN_OUTCOME, Verdict};
pub use waist::{Attempt, Call, Diverged, Line, LineSink, Performer, Stop, Waist};
pub use words::answer_in_words;
