//! End-to-end tests against real servers, and their harness.

pub mod events;
pub mod guests;
pub mod runner;
pub mod server;
pub mod shop;
pub mod site;
pub mod sshd;
pub mod terminal;
