//! `id@major`: which step type a step was written for.

use std::{fmt, str::FromStr};

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// `id@major`: which step type a step uses.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PluginRef {
    /// Id of the plugin.
    pub id: String,
    /// Major version; the highest installed version of it is taken when a release is created.
    pub major: u64,
}

/// A text that is no `id@major`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} names no step type: write it as id@major, such as run-script@1")]
pub struct InvalidPluginRef(String);

impl FromStr for PluginRef {
    type Err = InvalidPluginRef;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fail = || InvalidPluginRef(text.chars().take(80).collect());
        let (id, major) = text.split_once('@').ok_or_else(fail)?;
        let good = !id.is_empty()
            && id.len() <= 64
            && id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        match major.parse() {
            Ok(major) if good => Ok(Self { id: id.to_owned(), major }),
            _ => Err(fail()),
        }
    }
}

impl fmt::Display for PluginRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.id, self.major)
    }
}

impl fmt::Debug for PluginRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

impl Serialize for PluginRef {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PluginRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for PluginRef {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "PluginRef".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "pattern": "^[a-z0-9-]{1,64}@[0-9]+$", "description": "Step type and major version, such as run-script@1." })
    }
}
