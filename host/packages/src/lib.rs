//! Packages: names and versions, the repository, archives, transfer.
//!
//! A package is uploaded once, inspected, kept under its digest, and sent to every machine that
//! needs it before any step installs. This crate owns all of that up to the machine's edge: how
//! bytes reach a machine is behind `transfer::Receiver`, where records live behind
//! `repository::Index`.

pub mod archive;
pub mod digest;
pub mod name;
pub mod pack;
pub mod payload;
pub mod range;
pub mod repository;
pub mod transfer;
pub mod version;
