//! What the author of a process wrote under `with:`.

use std::str::FromStr;

use serde_json::Value;

use crate::bindings::windlass::step::inputs::Inputs as Raw;
use crate::{Failure, Package, Result, Secret};

/// The inputs of this run: checked against the manifest, defaults filled in, templates expanded.
pub struct Inputs<'a> {
    raw: &'a Raw,
}

impl<'a> Inputs<'a> {
    pub(crate) fn new(raw: &'a Raw) -> Self {
        Self { raw }
    }

    /// A text that must be there.
    pub fn text(&self, name: &str) -> Result<String> {
        self.optional_text(name)?.ok_or_else(|| missing(name))
    }

    /// A text, if it was given or has a default.
    pub fn optional_text(&self, name: &str) -> Result<Option<String>> {
        Ok(self.raw.text(name)?)
    }

    /// A text that is not empty, if there is one.
    pub fn non_empty(&self, name: &str) -> Result<Option<String>> {
        Ok(self.optional_text(name)?.filter(|text| !text.trim().is_empty()))
    }

    /// A number, a boolean or anything else that is read from text.
    pub fn parse<T: FromStr>(&self, name: &str) -> Result<T> {
        let text = self.text(name)?;
        text.trim().parse().map_err(|_| {
            let wanted = std::any::type_name::<T>();
            Failure::new("invalid-input", format!("input `{name}` is `{text}`, which is no {wanted}"))
                .with("input", name)
        })
    }

    /// An input as JSON; `Value::Null` if it was not given and has no default.
    pub fn json(&self, name: &str) -> Result<Value> {
        match self.raw.json(name)? {
            Some(text) => Ok(serde_json::from_str(&text)?),
            None => Ok(Value::Null),
        }
    }

    /// A list of texts. One text alone is a list of its non-empty lines; nothing is an empty list.
    pub fn list(&self, name: &str) -> Result<Vec<String>> {
        let wrong =
            || Failure::new("invalid-input", format!("input `{name}` must be a list of texts")).with("input", name);
        match self.json(name)? {
            Value::Null => Ok(Vec::new()),
            Value::String(text) => {
                Ok(text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect())
            }
            Value::Array(items) => {
                items.iter().map(|item| item.as_str().map(str::to_owned).ok_or_else(wrong)).collect()
            }
            _ => Err(wrong()),
        }
    }

    /// A secret that must be there.
    pub fn secret(&self, name: &str) -> Result<Secret> {
        self.optional_secret(name)?.ok_or_else(|| missing(name))
    }

    /// A secret, if it was given.
    pub fn optional_secret(&self, name: &str) -> Result<Option<Secret>> {
        Ok(self.raw.secret(name)?.map(Secret::new))
    }

    /// A package that must be there.
    pub fn package(&self, name: &str) -> Result<Package> {
        self.optional_package(name)?.ok_or_else(|| missing(name))
    }

    /// A package, if it was given.
    pub fn optional_package(&self, name: &str) -> Result<Option<Package>> {
        Ok(self.raw.package(name)?.map(Package::new))
    }
}

fn missing(name: &str) -> Failure {
    Failure::new("missing-input", format!("input `{name}` is missing: add `{name}:` under `with:` of the step"))
        .with("input", name)
}
