//! The engine's one error: what API, CLI and pages show, word for word.

use std::fmt;

use windlass_model::diagnostic::Diagnostic;
use windlass_store::StoreError;

/// What kind of refusal or failure it is; the API maps it to a status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// What was named does not exist.
    NotFound,
    /// What was sent cannot be taken.
    Invalid,
    /// It collides with what is there.
    Conflict,
    /// Whoever asks may not do that.
    Denied,
    /// It is too large.
    TooLarge,
    /// It did not arrive whole.
    Broken,
    /// It did not arrive in time.
    Stalled,
    /// There is not enough space on the server's disk.
    NoSpace,
    /// It cannot be done now, perhaps later.
    Unavailable,
    /// The server failed.
    Internal,
}

/// An error for people: what, why, and one thing to do.
#[derive(Debug, Clone)]
pub struct EngineError {
    /// Its kind.
    pub kind: ErrorKind,
    /// A short stable word for programs, kebab-case.
    pub code: &'static str,
    /// What went wrong, one sentence without its full stop.
    pub message: String,
    /// One thing to do about it.
    pub fix: Option<String>,
    /// Each thing that is wrong, when it is a whole workspace that cannot be taken.
    pub diagnostics: Vec<Diagnostic>,
}

impl EngineError {
    /// An error of that kind.
    pub fn new(kind: ErrorKind, code: &'static str, message: impl Into<String>) -> Self {
        Self { kind, code, message: message.into(), fix: None, diagnostics: Vec::new() }
    }

    /// Something that does not exist.
    pub fn not_found(what: &str, name: impl fmt::Display) -> Self {
        Self::new(ErrorKind::NotFound, "not-found", format!("there is no {what} {name}"))
    }

    /// Something that cannot be taken.
    pub fn invalid(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, code, message)
    }

    /// Something that collides.
    pub fn conflict(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Conflict, code, message)
    }

    /// A failure of the server itself.
    pub fn internal(message: impl fmt::Display) -> Self {
        Self::new(ErrorKind::Internal, "internal", message.to_string())
    }

    /// The same, with what to do about it.
    #[must_use]
    pub fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = Some(fix.into());
        self
    }
}

impl fmt::Display for EngineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for EngineError {}

impl From<StoreError> for EngineError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unmet(_) => {
                Self::conflict("changed-meanwhile", error.to_string()).fix("look at it again and repeat")
            }
            StoreError::Stopped { .. } => Self::new(ErrorKind::Unavailable, "store-stopped", error.to_string())
                .fix("restart the server; its log says what the store met"),
            _ => Self::internal(error),
        }
    }
}
