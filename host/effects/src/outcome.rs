//! Answers to effects.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use windlass_model::{SecretText, task::TaskSummary};

/// What a guest gets back for an effect.
pub type Answer = Result<Outcome, Failure>;

/// A successful answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It was done; there is nothing to tell.
    Done,
    /// Yes or no.
    Flag(bool),
    /// A number: a time, a process, a task.
    Number(u64),
    /// A text.
    Text(String),
    /// A text, or that there is none.
    MaybeText(Option<String>),
    /// Bytes.
    Bytes(#[serde(with = "base64_bytes")] Vec<u8>),
    /// A secret in clear. Serializes to nothing: the journal keeps that it was given, never what it was.
    #[serde(serialize_with = "serialize_nothing", deserialize_with = "deserialize_nothing")]
    Secret(SecretText),
    /// Facts of a machine.
    Facts(BTreeMap<String, String>),
    /// How a command ended.
    Exit(Exit),
    /// What a substitution changed.
    Substituted(SubstituteReport),
    /// A package.
    Package(PackageInfo),
    /// An HTTP response.
    Http(HttpResponse),
    /// A lock.
    Lock(LockGrant),
    /// Tasks, newest first.
    Tasks(Vec<TaskSummary>),
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Exit {
    /// Exit code; 128 + signal when a signal ended it.
    pub code: i32,
    /// Last bytes of standard output, as many as were asked for.
    #[serde(with = "base64_bytes")]
    pub stdout: Vec<u8>,
    /// Last bytes of standard error.
    #[serde(with = "base64_bytes")]
    pub stderr: Vec<u8>,
    /// More was printed than was captured, or what was printed is not known.
    pub truncated: bool,
}

/// What a substitution in files changed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SubstituteReport {
    /// Files that were changed.
    pub changed: Vec<String>,
    /// Globs that matched no file.
    pub unmatched: Vec<String>,
    /// Expressions that no variable answers, left as written.
    pub unresolved: Vec<String>,
}

/// A package as a guest sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackageInfo {
    /// Its id.
    pub id: String,
    /// Its version.
    pub version: String,
    /// SHA-256 of its payload.
    pub sha256: String,
    /// Size of its payload in bytes.
    pub size: u64,
}

/// An HTTP response.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpResponse {
    /// Status code.
    pub status: u16,
    /// Headers in order, names in lower case.
    pub headers: Vec<(String, String)>,
    /// First bytes of the body.
    #[serde(with = "base64_bytes")]
    pub body: Vec<u8>,
    /// The body was longer, or is not known.
    pub truncated: bool,
}

/// A lock that the run holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockGrant {
    /// Fencing token: grows with every grant of the resource.
    pub token: u64,
}

/// A failure that the guest may handle.
///
/// Codes are an open set of kebab-case words; those the host uses: `denied`, `cancelled`, `timeout`,
/// `invalid`, `not-found`, `too-large`, `unreachable`, `link-lost`, `auth`, `host-key`, `missing-tool`,
/// `disk-full`, `unknown-outcome`, `unavailable`, `secret`, `conflict`, `io`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// What kind of failure, for programs.
    pub code: String,
    /// What happened, for people.
    pub message: String,
    /// Whether the same call may succeed later.
    pub retryable: bool,
    /// More, by name: `fix` holds what to do about it.
    pub attributes: Vec<(String, String)>,
}

impl Failure {
    /// A failure that will not go away by itself.
    #[must_use]
    pub fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into(), retryable: false, attributes: Vec::new() }
    }

    /// The same, worth another try.
    #[must_use]
    pub fn retryable(mut self) -> Self {
        self.retryable = true;
        self
    }

    /// The same, with what to do about it.
    #[must_use]
    pub fn fix(self, fix: impl Into<String>) -> Self {
        self.with("fix", fix)
    }

    /// The same, with one more attribute.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.attributes.push((name.into(), value.into()));
        self
    }

    /// The failure of every call once a run is being cancelled.
    #[must_use]
    pub fn cancelled() -> Self {
        Self::new("cancelled", "the run is being cancelled")
    }

    /// The failure of a call that was not granted.
    #[must_use]
    pub fn denied(message: impl Into<String>) -> Self {
        Self::new("denied", message)
    }

    /// The value of an attribute.
    #[must_use]
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

fn serialize_nothing<S: serde::Serializer>(_: &SecretText, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_unit()
}

fn deserialize_nothing<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<SecretText, D::Error> {
    <()>::deserialize(deserializer).map(|()| SecretText::default())
}

/// Bytes as base64 text.
pub(crate) mod base64_bytes {
    use base64::{Engine, prelude::BASE64_STANDARD};
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64_STANDARD.encode(bytes))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        BASE64_STANDARD.decode(String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}
