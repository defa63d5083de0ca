//! The pure state machine that decides what happens when.
//!
//! One call does it all: [`State::next`] takes an [`Event`] and the time, and returns the [`Decision`]s that
//! follow. There is no I/O, no clock, no randomness: the same events give the same decisions, byte for byte.
//! Store the event (and a [`State::snapshot`] now and then), then act on the decisions in order. After a restart
//! [`State::restore`] and the events since give the same state back, and [`State::open_decisions`] says again
//! what was started and is not finished.
//!
//! ```text
//!  a task                                          a run (one step on one machine)
//!
//!  queued ──────────► executing ──► succeeded      pending ─► locks ─► seat ─► running ──► succeeded
//!    │   tag and seat     │     └─► failed           │ window   │ granted │ task   │ └───► failed, unknown
//!    │   are free         ▼                          │ is open  │         │ has    ▼         │ retry, or ask
//!    └─► cancelled ◄── cancelling                    └► skipped ◄─────────┘ turn  stopping ► killed ► abandoned
//!        timed out       bounded                        or cancelled                         (locks fenced)
//! ```
//!
//! [`plan`] and [`step`] are what a task is to do, [`progress`] how far it is. The files beside them: `queue` and
//! `tasks` (which task has its turn), `groups` (which step), `lanes` (which machine), `packages` (the barrier),
//! `runs`, `suspend` and `calls` (one run), `locks` (who holds what), `fences` (what did not stop), `people` (who is
//! asked), `deadlock` (waits that never end), `reasons` and `words` (why something waits), `turn` (one event from
//! start to end), [`sim`] (all of it in virtual time) and [`forecast`] (what will happen, from the state as it is).

mod calls;
mod cause;
mod deadlock;
mod decision;
mod event;
mod fences;
pub mod forecast;
mod groups;
mod hash;
mod lanes;
mod locks;
mod packages;
mod people;
pub mod plan;
pub mod progress;
mod question;
mod queue;
mod reasons;
mod resource;
mod runs;
pub mod sim;
mod snapshot;
mod state;
pub mod step;
mod suspend;
mod tasks;
mod timers;
mod turn;
mod words;

pub use calls::MAX_LOCKS_PER_RUN;
pub use cause::{Cause, Part};
pub use decision::Decision;
pub use event::{Ask, Event, LockRequest, LockWish, RunKey, RunOutcome, StopKind, Subject, WaitOn};
pub use locks::{LockHolder, LockView, Rank};
pub use plan::{OnDeadlock, Parent, PlanKind, Settings, TaskPlan, Unavailable};
pub use progress::Progress;
pub use question::{About, Answer, Choice, Question};
pub use resource::Resource;
pub use snapshot::{FORMAT, OddRank, Snapshot, TaskRecord, UnknownFormat};
pub use state::{Counters, Fence, Pool, State};
pub use step::{Approval, Isolation, StepPlan, Want, Where};
