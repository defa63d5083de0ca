//! The idempotency token of one run on one machine.
//!
//! Whoever wants something run chooses a ticket and stores it **before** contacting the machine. The machine starts a
//! ticket at most once, however often and by however many hosts it is asked.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::MachineError;

/// Names one run on one machine, for ever. Usually `<task>.<step>.<machine>.<attempt>`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Ticket(String);

impl Ticket {
    /// Longest ticket: it becomes part of file names.
    pub const MAX_LEN: usize = 160;

    /// Takes a ticket of letters, digits, `_`, `.` and `-` that starts with a letter or digit.
    ///
    /// # Errors
    /// [`MachineError::Invalid`] for anything else.
    pub fn new(text: impl Into<String>) -> Result<Self, MachineError> {
        let text = text.into();
        let start = text.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric);
        let rest = text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
        if start && rest && text.len() <= Self::MAX_LEN {
            Ok(Self(text))
        } else {
            Err(MachineError::Invalid {
                what: format!("ticket {text:?}"),
                reason: format!(
                    "must be 1 to {} letters, digits, `_`, `.` or `-`, the first a letter or digit",
                    Self::MAX_LEN
                ),
            })
        }
    }

    /// The ticket as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Ticket {
    type Error = MachineError;

    fn try_from(text: String) -> Result<Self, MachineError> {
        Self::new(text)
    }
}

impl From<Ticket> for String {
    fn from(ticket: Ticket) -> Self {
        ticket.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tickets_that_are_safe_file_names_are_taken() {
        for text in ["7", "12.web.t1.1", "a_b-c.D", &"x".repeat(Ticket::MAX_LEN)] {
            assert_eq!(Ticket::new(text).unwrap().as_str(), text);
        }
    }

    #[test]
    fn tickets_that_could_be_read_as_something_else_are_refused() {
        for text in ["", ".x", "-x", "a/b", "a+b", "a b", "a\nb", "ä", "..", &"x".repeat(Ticket::MAX_LEN + 1)] {
            assert!(Ticket::new(text).is_err(), "{text:?}");
        }
    }
}
