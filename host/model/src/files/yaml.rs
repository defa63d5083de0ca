//! YAML as a tree in which every value knows where it stands.
//!
//! The only place that names the YAML library. The dialect is strict: `true` and `false` are the only
//! flags, duplicate keys, tags and merge keys are refused, and size, depth and aliases are bounded.
//! What the values mean is for `decode`.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, SeqAccess, Visitor},
};
use serde_saphyr::{Error, MergeKeyPolicy, Options, Spanned};

use crate::{codes::Code, diagnostic::Diagnostic};

/// Largest file, in bytes.
pub(crate) const MAX_FILE: usize = 1024 * 1024;
/// Deepest nesting.
const MAX_DEPTH: usize = 32;
/// Most values in a file.
const MAX_VALUES: usize = 100_000;
/// Most values that aliases may repeat.
const MAX_REPEATED: usize = 5_000;

/// A stretch of a file: line and column from 1, in characters, and bytes where they are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Span {
    pub(crate) line: u32,
    pub(crate) column: u32,
    pub(crate) length: u32,
    bytes: Option<(usize, usize)>,
}

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    pub(crate) value: Value,
    pub(crate) at: Span,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Null,
    Flag(bool),
    Number(serde_json::Number),
    Text(String),
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Key {
    pub(crate) text: String,
    pub(crate) at: Span,
}

/// A file that was read.
#[derive(Debug, Clone)]
pub(crate) struct Document {
    pub(crate) file: String,
    pub(crate) text: String,
    pub(crate) root: Node,
}

impl Document {
    /// Reads a text, or says why it is no YAML.
    pub(crate) fn parse(file: &str, text: &str) -> Result<Self, Box<Diagnostic>> {
        let place = |mut diagnostic: Diagnostic, at: Span| {
            set_place(&mut diagnostic, file, text, at);
            Box::new(diagnostic)
        };
        if text.len() > MAX_FILE {
            let message = format!("the file has {} bytes, more than 1 MiB", text.len());
            let diagnostic = Diagnostic::new(Code::E0108, message)
                .fix("split the project, or move large texts into files of the package");
            return Err(place(diagnostic, Span::default()));
        }
        let root: Node = serde_saphyr::from_str_with_options(text, options())
            .map_err(|error| place(describe(&error), Span::of(error.location())))?;
        Ok(Self { file: file.to_owned(), text: text.to_owned(), root })
    }

    /// The text of a plain value as written, `1.10` rather than the number 1.1.
    pub(crate) fn written(&self, node: &Node) -> Option<&str> {
        let (start, end) = node.at.bytes?;
        self.text.get(start..end).map(str::trim)
    }

    /// The first place of a text inside a span.
    pub(crate) fn part(&self, within: Span, part: &str) -> Option<Span> {
        let (start, end) = within.bytes?;
        let found = start + self.text.get(start..end)?.find(part)?;
        let before = self.text.get(..found)?;
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let count = |text: &str| u32::try_from(text.chars().count()).unwrap_or(u32::MAX);
        Some(Span {
            line: u32::try_from(before.matches('\n').count()).unwrap_or(u32::MAX) + 1,
            column: count(before.get(line_start..)?) + 1,
            length: count(part).max(1),
            bytes: Some((found, found + part.len())),
        })
    }

    /// Puts a place of this file into a diagnostic.
    pub(crate) fn place(&self, diagnostic: &mut Diagnostic, at: Span) {
        set_place(diagnostic, &self.file, &self.text, at);
    }
}

fn set_place(diagnostic: &mut Diagnostic, file: &str, text: &str, at: Span) {
    file.clone_into(&mut diagnostic.file);
    diagnostic.line = at.line;
    diagnostic.column = at.column;
    diagnostic.length = at.length;
    let line = (at.line as usize).checked_sub(1);
    let line = line.and_then(|line| text.lines().nth(line));
    line.unwrap_or_default().clone_into(&mut diagnostic.snippet);
}

fn options() -> Options {
    serde_saphyr::options! {
        strict_booleans: true,
        with_snippet: false,
        emit_comments: false,
        reject_unsupported_tags: true,
        merge_keys: MergeKeyPolicy::Error,
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: MAX_REPEATED,
            max_replay_stack_depth: 8,
        },
        budget: serde_saphyr::budget! {
            max_depth: MAX_DEPTH,
            flow_nesting_limit: MAX_DEPTH,
            max_nodes: MAX_VALUES,
            max_events: MAX_VALUES * 4,
            max_aliases: 1000,
            max_anchors: 1000,
        },
    }
}

/// Says in our words what the library found.
fn describe(error: &Error) -> Diagnostic {
    let said = error.without_snippet().to_string();
    let said = said.split(" at line ").next().unwrap_or_default();
    match error.without_snippet() {
        Error::DuplicateMappingKey { key, .. } => {
            let key = key.as_deref().unwrap_or("?");
            Diagnostic::new(Code::E0107, format!("the key {key:?} stands here twice")).fix("remove one of the two")
        }
        Error::Budget { .. }
        | Error::AliasReplayLimitExceeded { .. }
        | Error::AliasReplayCounterOverflow { .. }
        | Error::AliasExpansionLimitExceeded { .. }
        | Error::AliasReplayStackDepthExceeded { .. } => too_much(said),
        _ if said.contains("recursion limit") || said.contains("nesting") => too_much(said),
        Error::MergeKeyNotAllowed { .. } => Diagnostic::new(Code::E0112, "merge keys (<<) are not used here")
            .fix("write the keys out, or use a variable"),
        Error::MultipleDocuments { .. } => Diagnostic::new(Code::E0112, "the file holds more than one document")
            .fix("remove the line --- and what follows, or make it a file of its own"),
        Error::TaggedScalarCannotDeserializeIntoString { .. } | Error::TaggedEnumMismatch { .. } => unused_tag(),
        _ if said.contains(" tag") => unused_tag(),
        _ => Diagnostic::new(Code::E0101, "the file is not valid YAML")
            .cause(said)
            .fix("look at the indentation, quotes and brackets in and above this line"),
    }
}

fn unused_tag() -> Diagnostic {
    Diagnostic::new(Code::E0112, "tags (!…) are not used here")
        .fix("remove the tag, or put the text in quotes if it starts with !")
}

fn too_much(said: &str) -> Diagnostic {
    Diagnostic::new(Code::E0108, "the file holds too much, or is nested too deep")
        .cause(said)
        .fix("split the file, and use fewer levels and aliases")
}

impl Span {
    fn of(location: Option<serde_saphyr::Location>) -> Self {
        let Some(location) = location else {
            return Self::default();
        };
        let narrow = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        let span = location.span();
        let bytes = span.byte_offset().zip(span.byte_len());
        Self {
            line: narrow(location.line()),
            column: narrow(location.column()),
            length: narrow(span.len()).max(1),
            bytes: bytes.and_then(|(start, length)| {
                let start = usize::try_from(start).ok()?;
                Some((start, start.checked_add(usize::try_from(length).ok()?)?))
            }),
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Value>::deserialize(deserializer)?;
        Ok(Self { value: spanned.value, at: Span::of(Some(spanned.referenced)) })
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_bool<E>(self, flag: bool) -> Result<Value, E> {
        Ok(Value::Flag(flag))
    }
    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(Value::Number(number.into()))
    }
    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(Value::Number(number.into()))
    }
    fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
        // What is no JSON number (an infinity) is the text that was written.
        Ok(serde_json::Number::from_f64(number).map_or_else(|| Value::Text(number.to_string()), Value::Number))
    }
    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Text(text.to_owned()))
    }
    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(Value::Text(text))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut nodes = Vec::new();
        while let Some(node) = seq.next_element()? {
            nodes.push(node);
        }
        Ok(Value::List(nodes))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = map.next_key::<Spanned<String>>()? {
            let key = Key { at: Span::of(Some(key.referenced)), text: key.value };
            entries.push((key, map.next_value()?));
        }
        Ok(Value::Map(entries))
    }
}

impl Value {
    /// What it is, for "expected text, found a list".
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Flag(_) => "a flag",
            Self::Number(_) => "a number",
            Self::Text(_) => "text",
            Self::List(_) => "a list",
            Self::Map(_) => "a map",
        }
    }

    /// The value as JSON.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        use serde_json::Value as Json;
        match self {
            Self::Null => Json::Null,
            Self::Flag(flag) => Json::Bool(*flag),
            Self::Number(number) => Json::Number(number.clone()),
            Self::Text(text) => Json::String(text.clone()),
            Self::List(nodes) => nodes.iter().map(|node| node.value.to_json()).collect(),
            Self::Map(entries) => {
                Json::Object(entries.iter().map(|(key, node)| (key.text.clone(), node.value.to_json())).collect())
            }
        }
    }
}
