//! Reading a table in order, one bounded page at a time.
//!
//! A page never holds more than [`MAX_PAGE_RECORDS`] records or about [`MAX_PAGE_BYTES`] bytes; [`Page::more`] says
//! whether to go on. Pages are not a snapshot: a commit between two pages shows in the second.

use std::ops::Bound;

use bytes::Bytes;

use crate::record::{Record, TableName};

/// The most records in a page.
pub const MAX_PAGE_RECORDS: usize = 1000;
/// A page ends once its keys and values have this many bytes.
pub const MAX_PAGE_BYTES: usize = 4 * 1024 * 1024;

/// The order in which records come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Direction {
    /// Smallest key first.
    #[default]
    Ascending,
    /// Largest key first.
    Descending,
}

/// Which records to read, in which order, and how many at once.
#[derive(Clone, Debug)]
pub struct Scan {
    pub(crate) table: TableName,
    pub(crate) start: Bound<Bytes>,
    pub(crate) end: Bound<Bytes>,
    pub(crate) limit: usize,
    pub(crate) direction: Direction,
}

impl Scan {
    /// The whole table, ascending, in pages of [`MAX_PAGE_RECORDS`].
    #[must_use]
    pub fn table(table: &TableName) -> Self {
        Self {
            table: table.clone(),
            start: Bound::Unbounded,
            end: Bound::Unbounded,
            limit: MAX_PAGE_RECORDS,
            direction: Direction::Ascending,
        }
    }

    /// Only keys that begin with `prefix`.
    #[must_use]
    pub fn prefix(mut self, prefix: impl Into<Bytes>) -> Self {
        let prefix = prefix.into();
        self.end = after_prefix(&prefix).map_or(Bound::Unbounded, Bound::Excluded);
        self.start = Bound::Included(prefix);
        self
    }

    /// Only keys from `start` (included) to `end` (excluded).
    #[must_use]
    pub fn range(mut self, start: impl Into<Bytes>, end: impl Into<Bytes>) -> Self {
        self.start = Bound::Included(start.into());
        self.end = Bound::Excluded(end.into());
        self
    }

    /// Goes on behind `key`, the last one of the page before, in the scan's direction.
    #[must_use]
    pub fn after(mut self, key: impl Into<Bytes>) -> Self {
        match self.direction {
            Direction::Ascending => self.start = Bound::Excluded(key.into()),
            Direction::Descending => self.end = Bound::Excluded(key.into()),
        }
        self
    }

    /// At most this many records in the page; capped at [`MAX_PAGE_RECORDS`].
    #[must_use]
    pub fn limit(mut self, limit: usize) -> Self {
        self.limit = limit.min(MAX_PAGE_RECORDS);
        self
    }

    /// Largest key first. Call it before [`Scan::after`].
    #[must_use]
    pub fn descending(mut self) -> Self {
        self.direction = Direction::Descending;
        self
    }

    /// Whether no key can match, which ordered maps treat as a caller's mistake.
    pub(crate) fn is_empty_range(&self) -> bool {
        match (&self.start, &self.end) {
            (Bound::Included(s), Bound::Included(e)) => s > e,
            (Bound::Included(s) | Bound::Excluded(s), Bound::Excluded(e) | Bound::Included(e)) => s >= e,
            _ => false,
        }
    }
}

/// The records of one page.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// The records, in the scan's direction.
    pub records: Vec<Record>,
    /// Whether there are more behind the last record.
    pub more: bool,
}

/// Fills pages for every implementation, so that all stop at the same limits.
pub(crate) struct PageBuilder {
    page: Page,
    limit: usize,
    bytes: usize,
}

impl PageBuilder {
    pub(crate) fn new(limit: usize) -> Self {
        Self { page: Page::default(), limit: limit.min(MAX_PAGE_RECORDS), bytes: 0 }
    }

    /// Takes a record; `false` means the page is full and this record belongs to the next one.
    pub(crate) fn push(&mut self, record: impl FnOnce() -> Record) -> bool {
        if self.page.records.len() >= self.limit || self.bytes >= MAX_PAGE_BYTES {
            self.page.more = true;
            return false;
        }
        let record = record();
        self.bytes += record.key.len() + record.value.len();
        self.page.records.push(record);
        true
    }

    pub(crate) fn finish(self) -> Page {
        self.page
    }
}

/// The first key behind all keys that begin with `prefix`; `None` if there is none.
pub(crate) fn after_prefix(prefix: &[u8]) -> Option<Bytes> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if let Some(next) = last.checked_add(1) {
            end.push(next);
            return Some(end.into());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::after_prefix;

    #[test]
    fn a_prefix_ends_where_its_successor_begins() {
        for (prefix, end) in [
            (&b"ab"[..], Some(&b"ac"[..])),
            (b"a\xff", Some(b"b")),
            (b"\xff\xff", None),
            (b"", None),
            (b"\x00", Some(b"\x01")),
        ] {
            assert_eq!(after_prefix(prefix).as_deref(), end);
        }
    }
}
