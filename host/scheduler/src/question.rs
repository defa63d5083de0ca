//! Questions to people: guided failures, approvals, what a guest asks, deadlocks.

use serde::{Deserialize, Serialize};
use windlass_model::MachineName;

use crate::event::RunKey;

/// A question that waits for a person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// Its number, unique on the server.
    pub number: u64,
    /// What it is about.
    pub about: About,
    /// What the person reads.
    pub text: String,
    /// The answers there are.
    pub choices: Vec<Choice>,
    /// Who may answer. Empty: whoever may deploy.
    pub responsible: Vec<String>,
    /// When it answers itself, and how.
    pub expiry: Option<(u64, Choice)>,
    /// Whether the task keeps its concurrency tag meanwhile.
    pub keeps_tag: bool,
    /// Since when, milliseconds.
    pub asked_ms: u64,
}

/// What a question is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum About {
    /// A run failed.
    Failure(RunKey),
    /// Packages did not reach a place; none is the server.
    Packages(Option<MachineName>),
    /// A step wants a person's agreement before it starts.
    Approval(u32),
    /// A run asks something of its own.
    Run(RunKey),
    /// This wait has closed a deadlock.
    Deadlock(crate::event::Subject),
}

/// An answer to a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Choice {
    /// Take the failure as a failure.
    Fail,
    /// Try again.
    Retry,
    /// Take it as done: nobody could know, and a person does.
    Done,
    /// Go on as if it had succeeded.
    Ignore,
    /// Leave the machine out of the rest of the task.
    Exclude,
    /// Agree.
    Proceed,
    /// Refuse.
    Abort,
    /// Leave it as it is.
    Wait,
}

impl Choice {
    /// The word for people and programs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fail => "fail",
            Self::Retry => "retry",
            Self::Done => "done",
            Self::Ignore => "ignore",
            Self::Exclude => "exclude",
            Self::Proceed => "proceed",
            Self::Abort => "abort",
            Self::Wait => "wait",
        }
    }
}

/// What a person said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The choice.
    pub choice: Choice,
    /// Who.
    pub by: String,
    /// What they noted.
    pub notes: String,
}
