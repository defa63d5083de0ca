//! What a path comes to: variables, parts of JSON values, loop variables.
//!
//! A path is looked up as a whole name first; if there is none, the longest name in front that has a
//! value is taken as JSON and the rest leads into it. Values that are templates are expanded on the
//! way, each inside the record of those that led to it, so that a circle is noticed.

use std::rc::Rc;

use serde_json::Value as Json;

use super::{
    Lookup, Mode,
    error::{Problem, TemplateError},
    eval::{At, Run},
    expr::{Path, Segment},
    tree::{self, Place},
};
use crate::variables::strip_octopus;

/// Deepest chain of values that name values.
const MAX_DEPTH: usize = 32;

type Done<T> = Result<T, TemplateError>;

/// What a loop variable stands for.
#[derive(Clone)]
pub(super) struct Local {
    pub(super) name: String,
    pub(super) item: Item,
    pub(super) index: usize,
    pub(super) last: bool,
}

#[derive(Clone)]
pub(super) enum Item {
    /// The names that start with this path; the key is the index in it.
    Path { path: String, key: String },
    /// A part of a JSON value.
    Json { key: Option<String>, value: Rc<Json> },
}

impl<L: Lookup + ?Sized> Run<'_, L> {
    /// The value of a path given as text.
    pub(super) fn named(&mut self, path: &str) -> Done<Option<String>> {
        let at = At { source: path, place: Place { start: 0, end: path.len() } };
        self.whole(path, at)
    }

    /// What a loop goes over: a JSON list or object, a text with commas, or the keys of a name.
    pub(super) fn items(&mut self, path: &Path<'_>, at: At<'_>) -> Done<Vec<Item>> {
        if let Some(text) = self.path(path, at)? {
            return Ok(match serde_json::from_str::<Json>(&text) {
                Ok(Json::Array(values)) => {
                    values.into_iter().map(|value| Item::Json { key: None, value: Rc::new(value) }).collect()
                }
                Ok(Json::Object(entries)) => entries
                    .into_iter()
                    .map(|(key, value)| Item::Json { key: Some(key), value: Rc::new(value) })
                    .collect(),
                _ if text.is_empty() => Vec::new(),
                _ => text
                    .split(',')
                    .map(|part| Item::Json { key: None, value: Rc::new(Json::String(part.trim().to_owned())) })
                    .collect(),
            });
        }
        let prefix = self.path_text(path, at)?;
        let keys = self.lookup.keys(&prefix);
        Ok(keys.into_iter().map(|key| Item::Path { path: format!("{prefix}[{key}]"), key }).collect())
    }

    /// The value of a path; none when it names nothing.
    pub(super) fn path(&mut self, path: &Path<'_>, at: At<'_>) -> Done<Option<String>> {
        let mut keys = Vec::with_capacity(path.rest.len());
        for segment in &path.rest {
            keys.push(self.segment(segment, at)?);
        }
        let local = self
            .locals
            .iter()
            .rev()
            .find(|local| local.name.eq_ignore_ascii_case(path.first))
            .map(|local| local.item.clone());
        match local {
            Some(Item::Json { key, value }) => {
                let text = item_text(key, &value, &keys);
                self.spend(text.as_ref().map_or(0, String::len), at)?;
                Ok(text)
            }
            Some(Item::Path { path: start, key }) => {
                if let Some(text) = self.joined(&start, &keys, at)? {
                    return Ok(Some(text));
                }
                Ok(match keys.as_slice() {
                    [] => Some(key),
                    [Key::Field(name)] if name.eq_ignore_ascii_case("key") => Some(key),
                    _ => None,
                })
            }
            None => self.joined(path.first, &keys, at),
        }
    }

    /// The value of a name made of parts: the whole name, or the part of a JSON value that the
    /// longest name in front holds.
    fn joined(&mut self, first: &str, keys: &[Key], at: At<'_>) -> Done<Option<String>> {
        for count in (0..=keys.len()).rev() {
            let (name, rest) = keys.split_at(count);
            let mut full = first.to_owned();
            for key in name {
                key.write(&mut full);
            }
            if let Some(text) = self.whole(&full, at)? {
                if rest.is_empty() {
                    return Ok(Some(text));
                }
                let parsed: Option<Json> = serde_json::from_str(&text).ok();
                return Ok(parsed.and_then(|json| inside(&json, rest)));
            }
        }
        Ok(None)
    }

    /// The expanded value of exactly this name.
    pub(super) fn whole(&mut self, name: &str, at: At<'_>) -> Done<Option<String>> {
        self.step(at)?;
        if let Some(text) = self.special(name) {
            return Ok(Some(text));
        }
        let lookup = self.lookup;
        let found = lookup.get(name).map_err(|error| self.error(at, Problem::Lookup(error.to_string())))?;
        let Some(found) = found else { return Ok(None) };
        self.tainted |= found.secret;
        self.spend(found.text.len(), at)?;
        if found.literal || !found.text.contains('#') {
            return Ok(Some(found.text.into_owned()));
        }
        if self.stack.iter().any(|n| n.eq_ignore_ascii_case(name)) {
            let mut chain = self.stack.clone();
            chain.push(name.to_owned());
            return Err(self.error(at, Problem::SelfReference(chain)));
        }
        if self.stack.len() >= MAX_DEPTH {
            return Err(self.error(at, Problem::Limit("is too many variables deep")));
        }
        self.stack.push(name.to_owned());
        // Loop variables are not seen by the values of other variables.
        let locals = std::mem::take(&mut self.locals);
        let text = self.inner(&found.text);
        self.locals = locals;
        self.stack.pop();
        text.map(Some)
    }

    /// Expands the value of a variable, which is a template itself.
    fn inner(&mut self, source: &str) -> Done<String> {
        let (nodes, errors) = tree::parse(source);
        if let Some(error) = errors.first() {
            if self.mode == Mode::Strict {
                let mut error = error.clone();
                error.through = self.stack.clone();
                return Err(error);
            }
            for error in errors {
                self.note(error.expression);
            }
        }
        self.template(source, &nodes)
    }

    /// `Template.Each.Index`, `.First` and `.Last` of the innermost loop.
    fn special(&self, name: &str) -> Option<String> {
        let local = self.locals.last()?;
        let flag = |set: bool| if set { "True" } else { "False" }.to_owned();
        match strip_octopus(name).to_ascii_lowercase().as_str() {
            "template.each.index" => Some(local.index.to_string()),
            "template.each.first" => Some(flag(local.index == 0)),
            "template.each.last" => Some(flag(local.last)),
            _ => None,
        }
    }

    fn segment(&mut self, segment: &Segment<'_>, at: At<'_>) -> Done<Key> {
        Ok(match segment {
            Segment::Field(name) => Key::Field((*name).to_owned()),
            Segment::Index(key) => Key::Index((*key).to_owned()),
            Segment::Computed(path) => match self.path(path, at)? {
                Some(text) => Key::Index(text),
                None => return Err(self.error(at, Problem::Unresolved(None))),
            },
        })
    }

    pub(super) fn path_text(&mut self, path: &Path<'_>, at: At<'_>) -> Done<String> {
        let local = self.locals.iter().rev().find(|local| local.name.eq_ignore_ascii_case(path.first));
        let mut text = match local.map(|local| &local.item) {
            Some(Item::Path { path, .. }) => path.clone(),
            _ => path.first.to_owned(),
        };
        for segment in &path.rest {
            self.segment(segment, at)?.write(&mut text);
        }
        Ok(text)
    }
}

/// What a loop variable over a JSON value, followed by some keys, comes to.
fn item_text(key: Option<String>, value: &Json, keys: &[Key]) -> Option<String> {
    match (keys, key) {
        ([Key::Field(name)], Some(key)) if name.eq_ignore_ascii_case("key") => Some(key),
        ([Key::Field(name), rest @ ..], Some(_)) if name.eq_ignore_ascii_case("value") => inside(value, rest),
        ([], Some(key)) if value.is_object() || value.is_array() => Some(key),
        (keys, _) => inside(value, keys),
    }
}

/// A part of a path with its index computed.
enum Key {
    Field(String),
    Index(String),
}

impl Key {
    fn text(&self) -> &str {
        match self {
            Self::Field(text) | Self::Index(text) => text,
        }
    }

    fn write(&self, out: &mut String) {
        match self {
            Self::Field(name) => {
                out.push('.');
                out.push_str(name);
            }
            Self::Index(key) => {
                out.push('[');
                out.push_str(key);
                out.push(']');
            }
        }
    }
}

/// The part of a JSON value that a path leads to, as text.
fn inside(json: &Json, keys: &[Key]) -> Option<String> {
    let mut at = json;
    for key in keys {
        at = match at {
            Json::Array(values) => values.get(key.text().parse::<usize>().ok()?)?,
            Json::Object(entries) => entries.get(key.text()).or_else(|| {
                entries.iter().find(|(name, _)| name.eq_ignore_ascii_case(key.text())).map(|(_, value)| value)
            })?,
            _ => return None,
        };
    }
    Some(match at {
        Json::String(text) => text.clone(),
        Json::Null => String::new(),
        other => other.to_string(),
    })
}
