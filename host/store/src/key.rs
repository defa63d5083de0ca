//! Building keys whose byte order is the order people expect.
//!
//! A key is a row of parts: ids as eight big-endian bytes, so that 9 sorts before 10, and texts closed by a zero
//! byte, so that "web" and "web-2" never share a prefix by accident.

use bytes::Bytes;

/// The longest key.
pub const MAX_KEY_BYTES: usize = 1024;

/// A key, or the beginning of one, made of ids and texts.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Vec<u8>);

impl Key {
    /// A key whose bytes are known, such as those of a record.
    #[must_use]
    pub fn from_bytes(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into())
    }

    /// The empty beginning; as a prefix it matches every key.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A key that begins with an id.
    #[must_use]
    pub fn of_id(id: u64) -> Self {
        Self::new().id(id)
    }

    /// A key that begins with a text.
    #[must_use]
    pub fn of_text(text: &str) -> Self {
        Self::new().text(text)
    }

    /// Adds an id.
    #[must_use]
    pub fn id(mut self, id: u64) -> Self {
        self.0.extend_from_slice(&id.to_be_bytes());
        self
    }

    /// Adds a text. A zero byte in it is replaced by U+FFFD, because it would end the part early; names that
    /// people may choose never contain one.
    #[must_use]
    pub fn text(mut self, text: &str) -> Self {
        if text.contains('\0') {
            self.0.extend_from_slice(text.replace('\0', "\u{fffd}").as_bytes());
        } else {
            self.0.extend_from_slice(text.as_bytes());
        }
        self.0.push(0);
        self
    }

    /// The bytes so far.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Reads the parts of a stored key back, in order.
    #[must_use]
    pub fn parts(bytes: &[u8]) -> KeyParts<'_> {
        KeyParts(bytes)
    }
}

impl From<Key> for Bytes {
    fn from(key: Key) -> Self {
        key.0.into()
    }
}

impl From<u64> for Key {
    fn from(id: u64) -> Self {
        Self::of_id(id)
    }
}

impl From<&str> for Key {
    fn from(text: &str) -> Self {
        Self::of_text(text)
    }
}

/// Takes the parts of a key off its front. Each method gives `None` if the next part is not of that kind.
#[derive(Clone, Copy, Debug)]
pub struct KeyParts<'a>(&'a [u8]);

impl<'a> KeyParts<'a> {
    /// The next part as an id.
    pub fn id(&mut self) -> Option<u64> {
        let (head, rest) = self.0.split_first_chunk::<8>()?;
        self.0 = rest;
        Some(u64::from_be_bytes(*head))
    }

    /// The next part as a text.
    pub fn text(&mut self) -> Option<&'a str> {
        let end = self.0.iter().position(|&b| b == 0)?;
        let (head, rest) = self.0.split_at_checked(end)?;
        let text = std::str::from_utf8(head).ok()?;
        self.0 = rest.get(1..)?;
        Some(text)
    }

    /// Whether every part was taken.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Key;

    proptest! {
        #[test]
        fn keys_sort_as_their_parts_do(a: (u64, String, u64), b: (u64, String, u64)) {
            let clean = |s: &str| s.replace('\0', "");
            let (a, b) = ((a.0, clean(&a.1), a.2), (b.0, clean(&b.1), b.2));
            let key = |p: &(u64, String, u64)| Key::of_id(p.0).text(&p.1).id(p.2);
            prop_assert_eq!(key(&a).cmp(&key(&b)), a.cmp(&b));
        }

        #[test]
        fn parts_come_back(id: u64, text in "[^\0]*") {
            let key = Key::of_id(id).text(&text);
            let mut parts = Key::parts(key.as_bytes());
            prop_assert_eq!(parts.id(), Some(id));
            prop_assert_eq!(parts.text(), Some(text.as_str()));
            prop_assert!(parts.is_done());
            prop_assert_eq!(parts.id(), None);
        }
    }
}
