//! Ranges of versions, in the notation NuGet and Maven users know: `[1.0,2.0)`.
//!
//! A range answers "may this version be picked?". Picking the newest is the repository's work.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::version::{Version, VersionError};

/// An interval of versions. The default holds every version.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct VersionRange {
    low: Option<Bound>,
    high: Option<Bound>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Bound {
    version: Version,
    inclusive: bool,
}

/// Why a text is no range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    /// Brackets or commas are not where they belong.
    #[error(
        "'{0}' is no version range; write [1.0,2.0) for 1.0 up to but without 2.0, (,2.0] for anything up to 2.0, or [1.4] for exactly 1.4"
    )]
    Shape(String),
    /// A bound is no version.
    #[error("the range '{range}' names a bound that cannot be read: {cause}")]
    Bound {
        /// The range as written.
        range: String,
        /// What is wrong with the bound.
        cause: VersionError,
    },
    /// Nothing can lie inside.
    #[error("the range '{0}' can hold no version; put the lower version first")]
    Empty(String),
}

impl VersionRange {
    /// True when `version` lies inside.
    pub fn contains(&self, version: &Version) -> bool {
        let above =
            self.low.as_ref().is_none_or(|low| *version > low.version || (low.inclusive && *version == low.version));
        let below = self
            .high
            .as_ref()
            .is_none_or(|high| *version < high.version || (high.inclusive && *version == high.version));
        above && below
    }
}

impl FromStr for VersionRange {
    type Err = RangeError;

    fn from_str(text: &str) -> Result<Self, RangeError> {
        let shape = || RangeError::Shape(text.to_owned());
        let bound = |part: &str, inclusive| match part.trim() {
            "" => Ok(None),
            part => match part.parse() {
                Ok(version) => Ok(Some(Bound { version, inclusive })),
                Err(cause) => Err(RangeError::Bound { range: text.to_owned(), cause }),
            },
        };
        let trimmed = text.trim();
        if trimmed == "*" {
            return Ok(Self::default());
        }
        // A bare version means "this or newer", as in NuGet.
        if !trimmed.starts_with(['[', '(']) {
            return Ok(Self { low: Some(bound(trimmed, true)?.ok_or_else(shape)?), high: None });
        }
        let low_inclusive = trimmed.starts_with('[');
        let high_inclusive = trimmed.ends_with(']');
        let inner = trimmed
            .get(1..trimmed.len().saturating_sub(1))
            .filter(|_| high_inclusive || trimmed.ends_with(')'))
            .ok_or_else(shape)?;
        let range = match inner.split_once(',') {
            Some((low, high)) => Self { low: bound(low, low_inclusive)?, high: bound(high, high_inclusive)? },
            None if low_inclusive && high_inclusive => {
                let exact = Some(bound(inner, true)?.ok_or_else(shape)?);
                Self { low: exact.clone(), high: exact }
            }
            None => return Err(shape()),
        };
        if let (Some(low), Some(high)) = (&range.low, &range.high)
            && (low.version > high.version || (low.version == high.version && !(low.inclusive && high.inclusive)))
        {
            return Err(RangeError::Empty(text.to_owned()));
        }
        Ok(range)
    }
}

impl fmt::Display for VersionRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let (None, None) = (&self.low, &self.high) {
            return f.write_str("*");
        }
        let open = if self.low.as_ref().is_some_and(|low| low.inclusive) { '[' } else { '(' };
        let close = if self.high.as_ref().is_some_and(|high| high.inclusive) { ']' } else { ')' };
        let text = |bound: &Option<Bound>| bound.as_ref().map(|bound| bound.version.to_string()).unwrap_or_default();
        write!(f, "{open}{},{}{close}", text(&self.low), text(&self.high))
    }
}

impl TryFrom<String> for VersionRange {
    type Error = RangeError;

    fn try_from(text: String) -> Result<Self, RangeError> {
        text.parse()
    }
}

impl From<VersionRange> for String {
    fn from(range: VersionRange) -> Self {
        range.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_hold_what_they_say() {
        let table = [
            ("[1.0,2.0)", "1.0", true),
            ("[1.0,2.0)", "1.9.9", true),
            ("[1.0,2.0)", "2.0", false),
            ("[1.0,2.0)", "2.0-beta", true),
            ("(1.0,2.0]", "1.0.0", false),
            ("(1.0,2.0]", "2", true),
            ("(,2.0]", "0.1", true),
            ("[2.0,)", "99", true),
            ("[1.4]", "1.4.0", true),
            ("[1.4]", "1.4.1", false),
            ("1.4", "1.4", true),
            ("1.4", "7", true),
            ("1.4", "1.3", false),
            ("*", "0.0.1-alpha", true),
        ];
        for (range, version, inside) in table {
            let parsed: VersionRange = range.parse().unwrap();
            assert_eq!(parsed.contains(&version.parse().unwrap()), inside, "{version} in {range}");
            let again: VersionRange = parsed.to_string().parse().unwrap();
            assert_eq!(parsed, again, "{range}");
        }
    }

    #[test]
    fn nonsense_is_refused_with_an_example() {
        let texts: Vec<_> = ["[1.0", "(1.0)", "[x,2]", "[2.0,1.0]", "[1.0,1.0)", "", "[]"]
            .iter()
            .map(|text| text.parse::<VersionRange>().unwrap_err().to_string())
            .collect();
        insta::assert_snapshot!(texts.join("\n"));
    }
}
