//! Effects of which nobody can know how they ended, and what a person makes of them.

use serde::{Deserialize, Serialize};

use crate::{
    effect::Effect,
    outcome::{Exit, Failure, HttpResponse, Outcome},
};

/// Code of the failure that says that nobody can know.
pub const UNKNOWN_OUTCOME: &str = "unknown-outcome";

/// Header of a response that nobody received: a person's word stands for it, and nothing is known of its body.
pub const TAKEN_AS_DONE: &str = "windlass-taken-as-done";

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
    /// The decision in words, for the log of the run.
    #[must_use]
    pub fn in_words(&self, effect: &Effect) -> String {
        let notes = if self.notes.is_empty() { String::new() } else { format!(" ({})", self.notes) };
        let (by, what) = (&self.by, effect.in_words());
        match (self.choice, effect) {
            (DecidedAs::Retry, _) => format!("{by} has it done once more{notes}: {what}"),
            (DecidedAs::Fail, _) => format!("{by} took it as failed{notes}: {what}"),
            (DecidedAs::Done, Effect::Http { .. }) => {
                format!("{by} took it as done{notes}, with status 200 and an unknown body: {what}")
            }
            (DecidedAs::Done, Effect::Run { .. } | Effect::Wait { .. }) => {
                format!("{by} took it as done{notes}, with exit code 0 and unknown output: {what}")
            }
            (DecidedAs::Done, _) => format!("{by} took it as done{notes}: {what}"),
        }
    }

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
            // What it printed is not known, and the guest that asked for it is told that there was more.
            Self::Run { command, .. } => {
                Some(Outcome::Exit(Exit { truncated: command.capture > 0, ..Exit::default() }))
            }
            Self::Wait { .. } => Some(Outcome::Exit(Exit::default())),
            Self::Start { .. } => Some(Outcome::Number(index)),
            Self::Kill { .. } | Self::WriteFile { .. } => Some(Outcome::Done),
            Self::Http { .. } => Some(Outcome::Http(HttpResponse {
                status: 200,
                headers: vec![(TAKEN_AS_DONE.to_owned(), "true".to_owned())],
                body: Vec::new(),
                truncated: true,
            })),
            // What these answer is all there is to them, and nobody can make it up: a substitution may be done again.
            _ => None,
        }
    }

    /// Whether doing it once more can tell anything new: to wait for a lost command again cannot.
    #[must_use]
    pub fn can_be_retried(&self) -> bool {
        !matches!(self, Self::Wait { .. } | Self::ReadOutput { .. } | Self::Start { .. })
    }
}
