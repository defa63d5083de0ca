//! Effects of which nobody can know how they ended, and what a person makes of them.

use serde::{Deserialize, Serialize};

use crate::{
    effect::Effect,
    outcome::{Exit, Failure, HttpResponse, Outcome, SubstituteReport},
};

/// Code of the failure that says that nobody can know.
pub const UNKNOWN_OUTCOME: &str = "unknown-outcome";

/// What becomes of an effect with an unknown outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// There is nobody to ask: the guest is told that it is unknown.
    Nobody,
    /// A person is asked; the run is suspended until they answer.
    Suspended(String),
    /// A person has decided.
    Decided(Decided),
}

/// A person's decision, kept in the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decided {
    /// What.
    pub choice: DecidedAs,
    /// Who.
    pub by: String,
    /// What they noted.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub notes: String,
}

/// What a person can decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DecidedAs {
    /// Do it once more.
    Retry,
    /// Take it as done.
    Done,
    /// Take it as failed.
    Fail,
}

impl Decided {
    /// The failure that the guest is given when it was taken as failed.
    #[must_use]
    pub fn as_failure(&self, unknown: &Failure) -> Failure {
        let notes = if self.notes.is_empty() { String::new() } else { format!(" ({})", self.notes) };
        Failure::new("taken-as-failed", format!("{}; {} took it as failed{notes}", unknown.message, self.by))
    }
}

impl Effect {
    /// The outcome that stands for success when a person says that it was done. None: there is none to make up.
    #[must_use]
    pub fn taken_as_done(&self, index: u64) -> Option<Outcome> {
        match self {
            Self::Run { .. } | Self::Wait { .. } => Some(Outcome::Exit(Exit::default())),
            Self::Start { .. } => Some(Outcome::Number(index)),
            Self::Kill { .. } | Self::WriteFile { .. } => Some(Outcome::Done),
            Self::Substitute { .. } => Some(Outcome::Substituted(SubstituteReport::default())),
            Self::Http { .. } => Some(Outcome::Http(HttpResponse {
                status: 200,
                headers: Vec::new(),
                body: Vec::new(),
                truncated: false,
            })),
            _ => None,
        }
    }

    /// Whether doing it once more can tell anything new: to wait for a lost command again cannot.
    #[must_use]
    pub fn can_be_retried(&self) -> bool {
        !matches!(self, Self::Wait { .. } | Self::ReadOutput { .. } | Self::Start { .. })
    }
}
