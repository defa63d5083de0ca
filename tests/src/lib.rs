//! End-to-end tests against real servers, and their harness.

pub mod disk;
pub mod engine;
pub mod events;
pub mod guests;
pub mod proxy;
pub mod runner;
pub mod server;
pub mod shop;
pub mod site;
pub mod sshd;
pub mod stage;
pub mod terminal;
pub mod writer;
