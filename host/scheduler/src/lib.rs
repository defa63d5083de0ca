//! The pure state machine that decides what happens when.
//!
//! One call does it all: [`State::next`] takes an [`Event`] and the time, and returns the [`Decision`]s that
//! follow. There is no I/O, no clock, no randomness: the same events give the same decisions, byte for byte.
//! Store what [`State::take_changed`] names and the [`State::counters`], then act on the decisions in order.
//! After a restart [`State::restore`] reads the records back and [`State::open_decisions`] says again what
//! was started and is not finished.
//!
//! ```text
//!  a task                                          a run (one step on one machine)
//!
//!  queued ──────────► executing ──► succeeded      pending ────► waiting ────► running ──► succeeded
//!    │   tag and cap      │     └─► failed           │   window     │   locks     │  └────► failed, unknown
//!    │   are free         ▼                          │   is open    │   granted   ▼
//!    └─► cancelled ◄── cancelling                    └─► skipped ◄──┘           stopping ► cancelled, failed
//!            nothing of it runs any more                 or cancelled             told to, and not over yet
//! ```
//!
//! [`plan`] is what a task is to do, [`progress`] how far it is. The files beside it: `queue` (which task
//! starts), `groups` (which step), `windows` (which machine), `locks` and `calls` (who holds what), `reasons`
//! (why something waits), `turn` (one event from start to end), `sim` (all of it in virtual time).

mod calls;
mod event;
mod groups;
mod locks;
pub mod plan;
pub mod progress;
mod queue;
mod reasons;
pub mod sim;
mod state;
mod turn;
mod windows;

pub use calls::MAX_LOCKS_PER_RUN;
pub use event::{Decision, Event, LockRequest, RunKey, RunOutcome, StopKind, Subject};
pub use locks::{LockOwner, LockView};
pub use plan::{Isolation, PlanKind, Resource, Settings, StepPlan, TaskPlan, Where};
pub use progress::Progress;
pub use state::{Counters, Snapshot, State, TaskRecord};
