//! Reading values out of a tree: the small steps that `decode` is made of.
//!
//! Every step reports what is wrong and answers `None`, so that a file is read to its end and all its
//! errors are told at once. Unknown keys are reported but do not spoil the rest.

use std::str::FromStr;

use super::yaml::{Document, Key, Node, Span, Value};
use crate::{
    codes::Code,
    diagnostic::{Diagnostic, MAX_DIAGNOSTICS},
    name::InvalidName,
    suggest::nearest,
};

/// Reads one document, collecting what is wrong with it.
pub(crate) struct Shape<'d> {
    pub(crate) document: &'d Document,
    pub(crate) diagnostics: &'d mut Vec<Diagnostic>,
    /// Set once something had to be left out.
    pub(crate) incomplete: bool,
}

/// The entries of a map.
pub(crate) struct Fields<'n> {
    what: &'static str,
    at: Span,
    entries: &'n [(Key, Node)],
}

impl<'n> Fields<'n> {
    pub(crate) fn get(&self, key: &str) -> Option<&'n Node> {
        self.entries.iter().find(|(k, _)| k.text == key).map(|(_, node)| node)
    }

    pub(crate) fn entries(&self) -> &'n [(Key, Node)] {
        self.entries
    }

    pub(crate) fn at(&self) -> Span {
        self.at
    }
}

impl<'d> Shape<'d> {
    pub(crate) fn new(document: &'d Document, diagnostics: &'d mut Vec<Diagnostic>) -> Self {
        Self { document, diagnostics, incomplete: false }
    }

    /// Reports something that leaves a value out.
    pub(crate) fn fail<T>(&mut self, at: Span, diagnostic: Diagnostic) -> Option<T> {
        self.report(at, diagnostic);
        self.incomplete = true;
        None
    }

    pub(crate) fn report(&mut self, at: Span, mut diagnostic: Diagnostic) {
        if self.diagnostics.len() >= MAX_DIAGNOSTICS {
            self.incomplete = true;
            return;
        }
        self.document.place(&mut diagnostic, at);
        self.diagnostics.push(diagnostic);
    }

    fn wrong_kind<T>(&mut self, node: &Node, what: &str, expected: &str) -> Option<T> {
        if node.value == Value::Null {
            let diagnostic = Diagnostic::new(Code::E0103, format!("{what} has no value"))
                .hint(format!("expected {expected}"))
                .fix("write a value after the colon, or remove the key");
            return self.fail(node.at, diagnostic);
        }
        let message = format!("{what} must be {expected}, not {}", node.value.kind());
        let written = self.document.written(node).unwrap_or("…");
        let fix = match (&node.value, expected) {
            (Value::Number(_) | Value::Flag(_), "text") => {
                format!("put it in quotes: \"{written}\"")
            }
            (Value::Text(_) | Value::Number(_), "a list") => format!("write {what}: [{written}]"),
            _ => format!("write {expected}"),
        };
        self.fail(node.at, Diagnostic::new(Code::E0104, message).fix(fix))
    }

    /// A map with known keys only.
    pub(crate) fn fields<'n>(&mut self, node: &'n Node, what: &'static str, known: &[&str]) -> Option<Fields<'n>> {
        let Value::Map(entries) = &node.value else {
            let keys = known.join(", ");
            return self.wrong_kind(node, what, &format!("a map with the keys {keys}"));
        };
        for (key, _) in entries {
            if !known.contains(&key.text.as_str()) {
                let near = nearest(&key.text, known);
                let diagnostic = Diagnostic::new(Code::E0102, format!("unknown key {:?} in {what}", key.text))
                    .cause(format!("{what} takes {}", known.join(", ")))
                    .near_or(near, format!("remove {}", key.text));
                self.report(key.at, diagnostic);
            }
        }
        Some(Fields { what, at: node.at, entries })
    }

    /// The value of a key that must be there.
    pub(crate) fn required<'n>(&mut self, fields: &Fields<'n>, key: &str, example: &str) -> Option<&'n Node> {
        if let Some(node) = fields.get(key) {
            return Some(node);
        }
        let at = fields.entries.first().map_or(fields.at, |(key, _)| key.at);
        let diagnostic =
            Diagnostic::new(Code::E0103, format!("{} has no {key}", fields.what)).fix(format!("add {key}: {example}"));
        self.fail(at, diagnostic)
    }

    /// Elements of a list, each read by a function; those that fail are left out.
    pub(crate) fn list<T>(
        &mut self,
        node: &Node,
        what: &str,
        mut read: impl FnMut(&mut Self, &Node) -> Option<T>,
    ) -> Option<Vec<T>> {
        let Value::List(nodes) = &node.value else {
            return self.wrong_kind(node, what, "a list");
        };
        Some(nodes.iter().filter_map(|node| read(self, node)).collect())
    }

    pub(crate) fn text(&mut self, node: &Node, what: &str) -> Option<String> {
        match &node.value {
            Value::Text(text) => Some(text.clone()),
            _ => self.wrong_kind(node, what, "text"),
        }
    }

    /// Text, or a plain number or flag taken as the text it was written as.
    pub(crate) fn loose_text(&mut self, node: &Node, what: &str) -> Option<String> {
        match &node.value {
            Value::Text(text) => Some(text.clone()),
            Value::Number(_) | Value::Flag(_) => {
                self.document.written(node).map(str::to_owned).or_else(|| self.wrong_kind(node, what, "text"))
            }
            _ => self.wrong_kind(node, what, "text"),
        }
    }

    /// Text under an optional key; empty without it.
    pub(crate) fn optional_text(&mut self, fields: &Fields<'_>, key: &str) -> Option<String> {
        match fields.get(key) {
            Some(node) => self.text(node, key),
            None => Some(String::new()),
        }
    }

    pub(crate) fn flag(&mut self, fields: &Fields<'_>, key: &str) -> Option<bool> {
        match fields.get(key) {
            None => Some(false),
            Some(Node { value: Value::Flag(flag), .. }) => Some(*flag),
            Some(node) => self.wrong_kind(node, key, "true or false"),
        }
    }

    pub(crate) fn number(&mut self, node: &Node, what: &str, range: std::ops::RangeInclusive<u64>) -> Option<u64> {
        let Value::Number(number) = &node.value else {
            return self.wrong_kind(node, what, "a whole number");
        };
        match number.as_u64() {
            Some(number) if range.contains(&number) => Some(number),
            _ => {
                let (least, most) = range.into_inner();
                let diagnostic = Diagnostic::new(Code::E0109, format!("{what} cannot be {number}")).fix(
                    if most == u64::from(u32::MAX) {
                        format!("write a whole number, {least} or more")
                    } else {
                        format!("write a whole number from {least} to {most}")
                    },
                );
                self.fail(node.at, diagnostic)
            }
        }
    }

    /// A name, checked by its type.
    pub(crate) fn name<T: FromStr<Err = InvalidName>>(&mut self, node: &Node, what: &str) -> Option<T> {
        let text = self.loose_text(node, what)?;
        match text.parse() {
            Ok(name) => Some(name),
            Err(error) => {
                let diagnostic =
                    Diagnostic::new(Code::E0105, error.to_string()).fix("use letters, digits, '-', '_' and '.'");
                self.fail(node.at, diagnostic)
            }
        }
    }

    /// Names under an optional key; none without it.
    pub(crate) fn names<T: FromStr<Err = InvalidName>>(&mut self, fields: &Fields<'_>, key: &str) -> Option<Vec<T>> {
        match fields.get(key) {
            Some(node) => self.list(node, key, |shape, node| shape.name(node, key)),
            None => Some(Vec::new()),
        }
    }

    /// One of a few words under an optional key; the first of them without it.
    pub(crate) fn choice<T: Copy + Default>(
        &mut self,
        fields: &Fields<'_>,
        key: &str,
        words: &[(&str, T)],
    ) -> Option<T> {
        let Some(node) = fields.get(key) else {
            return Some(T::default());
        };
        let text = self.text(node, key)?;
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
            return Some(*value);
        }
        let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        let near = nearest(&text, &known);
        let diagnostic = Diagnostic::new(Code::E0106, format!("{key} cannot be {text:?}"))
            .cause(format!("{key} is one of {}", known.join(", ")))
            .near_or(near, format!("write {}", known.join(" or ")));
        self.fail(node.at, diagnostic)
    }

    /// A map with exactly one of the known keys, as a variant is written; answers its key and value.
    pub(crate) fn one_of<'n>(
        &mut self,
        node: &'n Node,
        what: &'static str,
        known: &[&str],
    ) -> Option<(&'n str, &'n Node)> {
        let fields = self.fields(node, what, known)?;
        let mut chosen = fields.entries.iter().filter(|(key, _)| known.contains(&key.text.as_str()));
        match (chosen.next(), chosen.next()) {
            (Some((key, node)), None) => Some((&key.text, node)),
            // An unknown key was told already, and was probably meant as one of these.
            (None, _) if !fields.entries.is_empty() => {
                self.incomplete = true;
                None
            }
            (None, _) => {
                let diagnostic = Diagnostic::new(Code::E0103, format!("{what} has none of {}", known.join(", ")))
                    .fix("write one of them");
                self.fail(node.at, diagnostic)
            }
            (Some((first, _)), Some((second, _))) => {
                let message = format!("{what} has both {} and {}", first.text, second.text);
                let diagnostic = Diagnostic::new(Code::E0104, message).fix("keep one of the two");
                self.fail(second.at, diagnostic)
            }
        }
    }
}
