//! What the two binaries of this crate share: the command line, and how a chore speaks to the person watching.
//!
//! `xtask` is the front door. It compiles in seconds, shows help, and builds what a chore needs where one can watch.
//! `windlass-chores` does the chores that need the rest of Windlass: it starts servers and builds plugins.

pub mod args;
pub mod say;
