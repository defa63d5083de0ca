//! Why a step did not succeed: one type for what the host answers and for what a plugin reports.

use std::any::Any;
use std::fmt;

use crate::bindings::windlass::base::types;

/// The result of almost every call.
pub type Result<T, E = Failure> = std::result::Result<T, E>;

/// Why a step, or a call of the host, did not succeed.
///
/// Any standard error becomes a failure with the code `plugin` through `?`.
#[derive(Clone, PartialEq, Eq)]
pub struct Failure {
    /// Kebab-case word such as `timeout`; an open set.
    pub code: String,
    /// One sentence for a person: what, where, why and one thing to do.
    pub message: String,
    /// True if trying again may succeed.
    pub retryable: bool,
    /// Further facts as pairs.
    pub attributes: Vec<(String, String)>,
}

impl Failure {
    /// A failure that trying again will not cure.
    pub fn new(code: impl Into<String>, message: impl fmt::Display) -> Self {
        Self { code: code.into(), message: message.to_string(), retryable: false, attributes: Vec::new() }
    }

    /// Says that trying again may succeed.
    pub fn retryable(mut self) -> Self {
        self.retryable = true;
        self
    }

    /// Adds a fact.
    pub fn with(mut self, name: impl Into<String>, value: impl fmt::Display) -> Self {
        self.attributes.push((name.into(), value.to_string()));
        self
    }

    /// True if the run is being cancelled: clean up and return.
    pub fn is_cancelled(&self) -> bool {
        self.code == "cancelled"
    }

    /// Puts what was being done in front of the message.
    pub fn context(mut self, doing: impl fmt::Display) -> Self {
        self.message = format!("{doing}: {}", self.message);
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.code)
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

// `Failure` is deliberately no `std::error::Error` itself: that would forbid this conversion.
impl<E: std::error::Error + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        // What the host answered is an error type too; it keeps its code.
        match (&error as &dyn Any).downcast_ref::<types::Failure>() {
            Some(raw) => Self {
                code: raw.code.clone(),
                message: raw.message.clone(),
                retryable: raw.retryable,
                attributes: raw.attributes.clone(),
            },
            None => Self::new("plugin", error),
        }
    }
}

impl From<Failure> for types::Failure {
    fn from(failure: Failure) -> Self {
        Self {
            code: failure.code,
            message: failure.message,
            retryable: failure.retryable,
            attributes: failure.attributes,
        }
    }
}

/// Turns nothing into a failure with the code `plugin` and a message of its own.
pub trait OrFail<T> {
    /// The value, or a failure with this message.
    fn or_fail(self, message: impl fmt::Display) -> Result<T>;
}

impl<T> OrFail<T> for Option<T> {
    fn or_fail(self, message: impl fmt::Display) -> Result<T> {
        self.ok_or_else(|| Failure::new("plugin", message))
    }
}
