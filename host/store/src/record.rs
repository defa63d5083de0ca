//! The names of things: tables, sequence numbers, records.
//!
//! A [`Seq`] numbers commits and doubles as the version of every record the commit wrote. It grows, but it may
//! have gaps: only its order means something.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;

/// The number of a commit, and the version of each record that commit wrote. Larger is later; gaps are allowed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Seq(pub u64);

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One stored value with its key and version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The key inside its table.
    pub key: Bytes,
    /// The value as it was put.
    pub value: Bytes,
    /// The commit that wrote it last; name it in [`crate::Batch::require_version`] for compare-and-set.
    pub version: Seq,
}

/// The name of a table: 1 to 48 characters from `a-z 0-9 - _`, starting with a letter.
///
/// The narrow alphabet lets every implementation use the name as it is: as a key prefix, an SQL name, a file name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableName(Cow<'static, str>);

impl TableName {
    /// A name known at compile time.
    ///
    /// # Panics
    /// When the name breaks the rules above. In a `const` that is a compile error.
    #[must_use]
    pub const fn new(name: &'static str) -> Self {
        assert!(is_table_name(name.as_bytes()), "a table name has 1 to 48 of a-z 0-9 - _ and starts with a letter");
        Self(Cow::Borrowed(name))
    }

    /// A name that comes from outside, such as an export file. `None` if it breaks the rules.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        is_table_name(name.as_bytes()).then(|| Self(Cow::Owned(name.to_owned())))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[allow(clippy::indexing_slicing)] // A const fn has no iterators; `i` is bounded by the loop.
const fn is_table_name(name: &[u8]) -> bool {
    if name.is_empty() || name.len() > 48 || !name[0].is_ascii_lowercase() {
        return false;
    }
    let mut i = 0;
    while i < name.len() {
        if !matches!(name[i], b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_') {
            return false;
        }
        i += 1;
    }
    true
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::TableName;

    #[test]
    fn table_names_keep_to_the_narrow_alphabet() {
        for good in ["tasks", "a", "run-journal", "v2_x"] {
            assert!(TableName::parse(good).is_some(), "{good}");
        }
        let long = "a".repeat(49);
        for bad in ["", "Tasks", "2x", "a b", "a/b", "ä", "-a", long.as_str()] {
            assert!(TableName::parse(bad).is_none(), "{bad}");
        }
    }
}
