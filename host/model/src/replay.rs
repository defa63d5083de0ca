//! A run executed again against its journal.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::task::{LogLevel, RunId};

/// A run that was executed again against its journal. Nothing was touched, and secrets are masked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReplayView {
    /// The run.
    pub run: RunId,
    /// Its node in the task's tree.
    pub node: String,
    /// Its guest, with the digest that it is pinned by.
    pub guest: String,
    /// What it did, in order.
    pub steps: Vec<ReplayStep>,
    /// How it ended. None: it did not get there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ending: Option<String>,
    /// What is wrong with its journal. None: guest and journal agree.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<ReplayFault>,
}

/// Something a guest did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", tag = "step")]
pub enum ReplayStep {
    /// It asked the world for something.
    Effect {
        /// Place in the journal. None: it is not recorded, such as reading a variable.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        index: Option<u64>,
        /// What it asked for, in words.
        asked: String,
        /// What it was answered, in words. None: the journal holds no answer.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        answered: Option<String>,
    },
    /// It logged a line.
    Line {
        /// How it is meant.
        level: LogLevel,
        /// Its text.
        text: String,
    },
}

/// What is wrong with a journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", tag = "fault")]
pub enum ReplayFault {
    /// The guest asks for something else.
    Differs {
        /// The entry.
        index: u64,
        /// What is recorded there.
        recorded: String,
        /// What the guest asks for.
        asked: String,
    },
    /// The guest ends before its journal does.
    TooShort {
        /// The first entry that it did not ask for.
        index: u64,
        /// What is recorded there.
        recorded: String,
    },
    /// The journal itself is damaged.
    Damaged {
        /// What is wrong.
        what: String,
    },
}

impl std::fmt::Display for ReplayFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Differs { index, recorded, asked } => {
                write!(f, "no longer matches its journal at entry {index}: recorded {recorded}, asked {asked}")
            }
            Self::TooShort { index, recorded } => {
                write!(f, "ends before its journal does: entry {index} was recorded and not asked for: {recorded}")
            }
            Self::Damaged { what } => write!(f, "the journal is damaged: {what}"),
        }
    }
}
