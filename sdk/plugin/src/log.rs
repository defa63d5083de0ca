//! Lines in the log of the run, usually written with [`crate::info!`] and its sisters.

use crate::bindings::windlass::base::log as raw;

/// How much a line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Every detail.
    Trace,
    /// Of use when something is wrong.
    Debug,
    /// What a person wants to read.
    Info,
    /// Wrong, but the step goes on.
    Warn,
    /// Why the step fails.
    Error,
}

/// Writes one line with facts as pairs.
pub fn write(level: Level, message: &str, attributes: &[(String, String)]) {
    raw::write(level as u8, message, attributes);
}

/// Writes a line of level debug; arguments as `format!`.
#[macro_export]
macro_rules! debug {
    ($($arg:tt)*) => { $crate::log::write($crate::log::Level::Debug, &::std::format!($($arg)*), &[]) };
}

/// Writes a line of level info; arguments as `format!`.
#[macro_export]
macro_rules! info {
    ($($arg:tt)*) => { $crate::log::write($crate::log::Level::Info, &::std::format!($($arg)*), &[]) };
}

/// Writes a line of level warning; arguments as `format!`.
#[macro_export]
macro_rules! warn {
    ($($arg:tt)*) => { $crate::log::write($crate::log::Level::Warn, &::std::format!($($arg)*), &[]) };
}

/// Writes a line of level error; arguments as `format!`.
#[macro_export]
macro_rules! error {
    ($($arg:tt)*) => { $crate::log::write($crate::log::Level::Error, &::std::format!($($arg)*), &[]) };
}
