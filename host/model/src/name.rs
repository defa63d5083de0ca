//! Names of things that people write: projects, environments, machines, steps, roles, pools, packages.
//!
//! One rule for all: 1 to 64 characters, letters, digits, `-`, `_` and `.`, starting with a letter or a
//! digit. Names compare without regard to case, and keep the case they were written in.

use std::{borrow::Cow, cmp::Ordering, fmt, hash, str::FromStr};

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

/// Longest name, in characters.
pub const MAX_NAME: usize = 64;

/// Pattern of every name, as published in the JSON Schema.
pub const NAME_PATTERN: &str = "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$";

/// A text that is no name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no {what} name: {reason}")]
pub struct InvalidName {
    /// Kind of name that was expected.
    pub what: &'static str,
    /// The text as given, cut to 80 characters.
    pub text: String,
    /// What is wrong with it.
    pub reason: Cow<'static, str>,
}

fn check(what: &'static str, text: &str) -> Result<(), InvalidName> {
    let fail = |reason: Cow<'static, str>| Err(InvalidName { what, text: text.chars().take(80).collect(), reason });
    let Some(first) = text.chars().next() else {
        return fail("it is empty".into());
    };
    if text.len() > MAX_NAME {
        return fail(format!("it is longer than {MAX_NAME} characters").into());
    }
    if let Some(bad) = text.chars().find(|c| !(c.is_ascii_alphanumeric() || "-_.".contains(*c))) {
        return fail(format!("{bad:?} is not allowed, use letters, digits, '-', '_' and '.'").into());
    }
    if !first.is_ascii_alphanumeric() {
        return fail("it must start with a letter or a digit".into());
    }
    Ok(())
}

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident = $what:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Serialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// Checks and takes a name.
            ///
            /// # Errors
            /// When the text breaks the naming rule of this module.
            pub fn new(text: impl Into<String>) -> Result<Self, InvalidName> {
                let text = text.into();
                check($what, &text)?;
                Ok(Self(text))
            }

            /// The name as written.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The form in which two equal names are the same bytes, for keys.
            #[must_use]
            pub fn key(&self) -> String {
                self.0.to_ascii_lowercase()
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;
            fn from_str(text: &str) -> Result<Self, InvalidName> {
                Self::new(text)
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
        impl PartialEq for $name {
            fn eq(&self, other: &Self) -> bool {
                self.0.eq_ignore_ascii_case(&other.0)
            }
        }
        impl Eq for $name {}
        impl PartialOrd for $name {
            fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
                Some(self.cmp(other))
            }
        }
        impl Ord for $name {
            fn cmp(&self, other: &Self) -> Ordering {
                let lower = |b: u8| b.to_ascii_lowercase();
                self.0.bytes().map(lower).cmp(other.0.bytes().map(lower))
            }
        }
        impl hash::Hash for $name {
            fn hash<H: hash::Hasher>(&self, state: &mut H) {
                for byte in self.0.bytes() {
                    state.write_u8(byte.to_ascii_lowercase());
                }
                state.write_u8(0xff);
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Self::new(String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
            }
        }
        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({ "type": "string", "pattern": NAME_PATTERN, "description": concat!("Name of a ", $what, ".") })
            }
        }
    )*};
}

names! {
    /// Name of a project.
    ProjectName = "project";
    /// Name of an environment.
    EnvironmentName = "environment";
    /// Name of a machine (a target or a worker).
    MachineName = "machine";
    /// Name of a step of a process.
    StepName = "step";
    /// A role that a machine plays and a step asks for.
    Role = "role";
    /// Name of a token, by which its owner is known.
    TokenName = "token";
    /// Name of a pool of workers.
    PoolName = "pool";
    /// Id of a package.
    PackageId = "package";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_obey_the_rule_or_say_what_is_wrong() {
        for good in ["a", "Web", "shop-web", "a.b_c-1", "9lives"] {
            assert_eq!(ProjectName::new(good).unwrap().as_str(), good);
        }
        let long = "a".repeat(65);
        for (bad, why) in [
            ("", "\"\" is no project name: it is empty"),
            ("a b", "\"a b\" is no project name: ' ' is not allowed, use letters, digits, '-', '_' and '.'"),
            ("-a", "\"-a\" is no project name: it must start with a letter or a digit"),
            (&long, &format!("{long:?} is no project name: it is longer than 64 characters")),
        ] {
            assert_eq!(ProjectName::new(bad).unwrap_err().to_string(), why);
        }
    }

    #[test]
    fn names_compare_without_case_and_keep_it() {
        let (a, b) = (Role::new("Web").unwrap(), Role::new("web").unwrap());
        assert_eq!(a, b);
        assert_eq!(a.key(), b.key());
        assert_eq!(a.to_string(), "Web");
        assert_eq!(std::collections::HashSet::from([a, b]).len(), 1);
    }
}
