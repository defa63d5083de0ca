//! Version numbers as teams really write them, and their one total order.
//!
//! One to four numbers, an optional pre-release after `-` and optional build metadata after `+`.
//! `1.0` and `1.0.0.0` are the same version, `2016.01.02` is `2016.1.2`, and metadata never
//! matters for the order. The text a person wrote is kept for display. This file leans on nothing
//! but serde, so that other crates may share it; ranges live in `range`, file names in `name`.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The longest text accepted as a version.
const MAX_LENGTH: usize = 128;

/// A version: ordered by its meaning, shown as it was written.
///
/// Equality, order and hash look at the meaning only, so `1.0` equals `1.0.0+build7`.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Version {
    text: String,
    numbers: [u64; 4],
    pre_release: Vec<Part>,
}

/// Why a text is no version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is no version: {reason}")]
pub struct VersionError {
    text: String,
    reason: &'static str,
}

impl VersionError {
    /// One thing to do about it.
    #[must_use]
    pub fn fix(&self) -> String {
        "write one to four numbers such as 1.4.0 or 1.4.0-beta.2".to_owned()
    }
}

/// One dot-separated part of a pre-release. Numbers sort before words.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Part {
    Number(Digits),
    Word(String),
}

/// Decimal digits without leading zeros, of any length: a date or a hash may exceed 64 bits.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Digits(String);

impl Version {
    /// True for `1.0-beta`: something before the release proper.
    pub fn is_pre_release(&self) -> bool {
        !self.pre_release.is_empty()
    }

    /// The text as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The one text that all equal versions share, for keys: `1.0.0.0` or `1.2.0.0-beta.2`.
    pub fn key(&self) -> String {
        let [a, b, c, d] = self.numbers;
        let mut key = format!("{a}.{b}.{c}.{d}");
        for (index, part) in self.pre_release.iter().enumerate() {
            key.push(if index == 0 { '-' } else { '.' });
            key.push_str(match part {
                Part::Number(digits) => &digits.0,
                Part::Word(word) => word,
            });
        }
        key
    }
}

impl FromStr for Version {
    type Err = VersionError;

    fn from_str(text: &str) -> Result<Self, VersionError> {
        parse(text).map_err(|reason| VersionError { text: clip(text), reason })
    }
}

fn parse(text: &str) -> Result<Version, &'static str> {
    if text.len() > MAX_LENGTH {
        return Err("it is longer than 128 characters");
    }
    let (rest, metadata) = split_once_or_all(text, '+');
    let (numbers, pre_release) = split_once_or_all(rest, '-');
    if let Some(metadata) = metadata {
        for part in metadata.split('.') {
            check_word(part)?;
        }
    }
    Ok(Version {
        text: text.to_owned(),
        numbers: parse_numbers(numbers)?,
        pre_release: match pre_release {
            None => Vec::new(),
            Some(parts) => parts.split('.').map(parse_part).collect::<Result<_, _>>()?,
        },
    })
}

fn split_once_or_all(text: &str, separator: char) -> (&str, Option<&str>) {
    match text.split_once(separator) {
        Some((before, after)) => (before, Some(after)),
        None => (text, None),
    }
}

fn parse_numbers(text: &str) -> Result<[u64; 4], &'static str> {
    let mut numbers = [0; 4];
    let mut slots = numbers.iter_mut();
    for part in text.split('.') {
        let slot = slots.next().ok_or("it has more than four numbers")?;
        if part.is_empty() {
            return Err("a number is missing");
        }
        if !part.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err("it does not start with numbers");
        }
        *slot = part.parse().map_err(|_| "a number is too large")?;
    }
    Ok(numbers)
}

fn parse_part(part: &str) -> Result<Part, &'static str> {
    check_word(part)?;
    if part.bytes().all(|byte| byte.is_ascii_digit()) {
        let digits = part.trim_start_matches('0');
        let digits = if digits.is_empty() { "0" } else { digits };
        return Ok(Part::Number(Digits(digits.to_owned())));
    }
    // `1.0-RC1` and `1.0-rc1` are one version: file systems and people mix them up.
    Ok(Part::Word(part.to_ascii_lowercase()))
}

fn check_word(part: &str) -> Result<(), &'static str> {
    if part.is_empty() {
        return Err("a part after '-' or '+' is empty");
    }
    if !part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
        return Err("only letters, digits, '-' and '.' may follow the numbers");
    }
    Ok(())
}

fn clip(text: &str) -> String {
    text.chars().take(MAX_LENGTH).collect()
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        self.numbers.cmp(&other.numbers).then_with(|| match (self.is_pre_release(), other.is_pre_release()) {
            (false, true) => Ordering::Greater,
            (true, false) => Ordering::Less,
            _ => self.pre_release.cmp(&other.pre_release),
        })
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Version {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Version {}

impl Hash for Version {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.numbers.hash(state);
        self.pre_release.hash(state);
    }
}

impl Ord for Digits {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.len().cmp(&other.0.len()).then_with(|| self.0.cmp(&other.0))
    }
}

impl PartialOrd for Digits {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Version({})", self.text)
    }
}

impl TryFrom<String> for Version {
    type Error = VersionError;

    fn try_from(text: String) -> Result<Self, VersionError> {
        text.parse()
    }
}

impl From<Version> for String {
    fn from(version: Version) -> Self {
        version.text
    }
}
