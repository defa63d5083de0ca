//! Everything that can go wrong, in one form: code, what, where, cause, one fix; and the exit code that follows.
//!
//! Commands make a [`Failure`] or get one from an error of a crate below; here alone it becomes text or JSON.
//! The same texts come from the API and stand on the web pages.

use std::ops::{Deref, DerefMut};

use serde::Serialize;
use windlass_client::ClientError;
use windlass_engine::EngineError;
use windlass_model::{
    diagnostic::Diagnostic,
    views::{Mistake, Problem},
};

use crate::{
    exit::Exit,
    render::paint::{self, BOLD, DIM, RED},
    text::{visible, visible_lines},
};

/// Why a command did not do what was asked. Boxed, since it is carried by every result.
#[derive(Debug, Clone, Serialize)]
#[serde(transparent)]
pub struct Failure(Box<Details>);

/// What a [`Failure`] says.
#[derive(Debug, Clone, Serialize)]
pub struct Details {
    /// A short stable word for programs, kebab-case.
    pub code: String,
    /// What went wrong, one sentence without its full stop.
    pub message: String,
    /// Where: a file, an address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// One thing to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
    /// Every single mistake, for files.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub diagnostics: Vec<Diagnostic>,
    /// How the process ends.
    #[serde(rename = "exit", serialize_with = "exit_number")]
    pub exit: Exit,
    /// Nothing is printed: everything was said already.
    #[serde(skip)]
    pub silent: bool,
}

fn exit_number<S: serde::Serializer>(exit: &Exit, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u8(exit.code())
}

impl Failure {
    /// A failure with the general exit code.
    #[must_use]
    pub fn new(code: &str, message: impl Into<String>) -> Self {
        Self(Box::new(Details {
            code: code.to_owned(),
            message: message.into(),
            place: None,
            cause: None,
            fix: None,
            diagnostics: Vec::new(),
            exit: Exit::Failure,
            silent: false,
        }))
    }

    /// A wrong command line.
    #[must_use]
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new("usage", message).exit(Exit::Usage)
    }

    /// The end of a command that has said everything already.
    #[must_use]
    pub fn said(exit: Exit) -> Self {
        let mut failure = Self::new("said", "").exit(exit);
        failure.silent = true;
        failure
    }

    /// Files with mistakes.
    #[must_use]
    pub fn files(diagnostics: Vec<Diagnostic>) -> Self {
        let mut failure = Self::new("files", "the files have errors");
        failure.diagnostics = diagnostics;
        failure
    }

    /// A file that could not be read or written.
    #[must_use]
    pub fn file(what: &str, path: &std::path::Path, error: &std::io::Error) -> Self {
        let fix = match error.kind() {
            std::io::ErrorKind::NotFound => "check the path",
            std::io::ErrorKind::PermissionDenied => "use an account that may do so, or change the rights of the file",
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => "free space on its disk",
            _ => "check the file and its disk",
        };
        Self::new("file", format!("failed to {what} {}", path.display())).cause(error.to_string()).fix(fix)
    }

    /// Where it is.
    #[must_use]
    pub fn at(mut self, place: impl Into<String>) -> Self {
        self.place = Some(place.into());
        self
    }

    /// Why.
    #[must_use]
    pub fn cause(mut self, cause: impl Into<String>) -> Self {
        self.cause = Some(cause.into());
        self
    }

    /// One thing to do.
    #[must_use]
    pub fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = Some(fix.into());
        self
    }

    /// With another exit code.
    #[must_use]
    pub fn exit(mut self, exit: Exit) -> Self {
        self.exit = exit;
        self
    }

    /// The text for people, with colours.
    #[must_use]
    pub fn text(&self) -> String {
        if !self.diagnostics.is_empty() {
            return diagnostics_text(&self.diagnostics);
        }
        let head = paint::styled(RED, &format!("error[{}]:", self.code));
        // A message of several lines shows a source line with its caret below the first.
        let message = visible_lines(&self.message);
        let (first, rest) = message.split_once('\n').unwrap_or((&message, ""));
        let mut out = format!("{head} {}\n", paint::styled(BOLD, first));
        rest.lines().for_each(|line| out.push_str(&format!("{line}\n")));
        if let Some(place) = &self.place {
            out.push_str(&format!("  {} {}\n", paint::styled(DIM, "┌"), visible(place)));
        }
        for (label, text) in [("cause:", &self.cause), ("fix:  ", &self.fix)] {
            let Some(text) = text else { continue };
            for (number, line) in visible_lines(text).lines().enumerate() {
                let label = if number == 0 { label } else { "      " };
                out.push_str(&format!("  {} {line}\n", paint::styled(BOLD, label)));
            }
        }
        out
    }

    /// The same for programs.
    #[must_use]
    pub fn json(&self) -> String {
        // The struct holds plain texts and numbers only.
        serde_json::json!({ "error": self }).to_string()
    }
}

impl Deref for Failure {
    type Target = Details;

    fn deref(&self) -> &Details {
        &self.0
    }
}

impl DerefMut for Failure {
    fn deref_mut(&mut self) -> &mut Details {
        &mut self.0
    }
}

/// Diagnostics of files as text, with the word in front of each in colour.
#[must_use]
pub fn diagnostics_text(diagnostics: &[Diagnostic]) -> String {
    let text = windlass_model::diagnostic::render(diagnostics);
    text.lines()
        .map(|line| {
            let (style, length) = if line.starts_with("error[") {
                (RED, line.find(':'))
            } else if line.starts_with("warning[") {
                (paint::YELLOW, line.find(':'))
            } else {
                (BOLD, None)
            };
            match length.and_then(|length| line.split_at_checked(length + 1)) {
                Some((word, rest)) => format!("{}{rest}\n", paint::styled(style, word)),
                None => format!("{line}\n"),
            }
        })
        .collect()
}

impl From<std::io::Error> for Failure {
    /// For output that cannot be written. A closed pipe is how `| head` says that it has enough.
    fn from(error: std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            Self::said(Exit::Done)
        } else {
            Self::new("output", "failed to write the output").cause(error.to_string())
        }
    }
}

impl From<EngineError> for Failure {
    /// For what is done without a server.
    fn from(error: EngineError) -> Self {
        let failure = Self::new(error.code, error.message);
        match error.fix {
            Some(fix) => failure.fix(fix),
            None => failure,
        }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let exit = match (&error, error.status()) {
            (_, Some(401 | 403)) => Exit::NotAllowed,
            (_, Some(409 | 412)) => Exit::Conflict,
            (_, Some(503))
            | (ClientError::Unreachable { .. } | ClientError::Broken { .. } | ClientError::Foreign { .. }, _) => {
                Exit::NoServer
            }
            (ClientError::Misuse { .. }, _) => Exit::Usage,
            _ => Exit::Failure,
        };
        let mut failure = Self::new(error.code(), error.to_string()).exit(exit);
        failure.fix = match &error {
            ClientError::Unreachable { .. } => {
                Some("start a server with: windlass serve   or name another one: --server URL".to_owned())
            }
            ClientError::Misuse { .. } => Some("write the address like http://127.0.0.1:7227".to_owned()),
            ClientError::Foreign { .. } => {
                Some("check the address: --server URL, such as http://127.0.0.1:7227".to_owned())
            }
            _ => error.fix().map(str::to_owned),
        };
        if let Some(problem) = error.problem() {
            failure.cause = mistakes(problem);
        }
        failure
    }
}

/// Every single mistake that the detail of a problem does not tell itself, one a line.
fn mistakes(problem: &Problem) -> Option<String> {
    let told = |mistake: &&Mistake| !problem.detail.contains(&mistake.detail);
    let lines = problem.errors.iter().filter(told).map(|mistake| match mistake.at.as_str() {
        "" => mistake.detail.clone(),
        at => format!("{at}: {}", mistake.detail),
    });
    Some(lines.collect::<Vec<_>>().join("\n")).filter(|lines| !lines.is_empty())
}
