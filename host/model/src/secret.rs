//! Text that must not leak.
//!
//! [`SecretText`] owns the rule that a secret has no `Display`, no clear `Debug`, no clear
//! serialization, and zeroes its memory. Keeping secrets encrypted at rest is the engine's work,
//! masking them in output belongs to `windlass-effects`.

use std::fmt;

use zeroize::Zeroizing;

/// A secret value: opaque to every formatter and serializer, zeroed when dropped.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct SecretText(Zeroizing<String>);

impl SecretText {
    /// Takes ownership of a secret value.
    pub fn new(value: impl Into<String>) -> Self {
        Self(Zeroizing::new(value.into()))
    }

    /// The value in clear. Every call is a place where a secret may leak: keep them few.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether there is nothing to hide.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretText(…)")
    }
}

impl From<String> for SecretText {
    fn from(value: String) -> Self {
        Self::new(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_nothing_of_the_value() {
        assert_eq!(format!("{:?}", SecretText::new("hunter2")), "SecretText(…)");
    }
}
