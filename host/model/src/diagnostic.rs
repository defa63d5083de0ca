//! What is wrong in a file, as data and as the text that CLI, API and pages show alike.
//!
//! What, where with the line and a caret, cause, and one thing to do. The text of a file is shown
//! without control characters, and lines that may hold a secret are not shown at all.

use std::fmt::{self, Write as _};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::codes::Code;

/// Most diagnostics collected of one workspace: a person reads no more, and each costs a look at its
/// file.
pub const MAX_DIAGNOSTICS: usize = 200;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Nothing is applied.
    Error,
    /// Worth a look; an error under `--strict`.
    Warning,
}

/// Something wrong in what a team wrote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Diagnostic {
    /// Stable code, for `windlass explain`.
    pub code: Code,
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong, one line.
    pub message: String,
    /// File, relative to the workspace; empty when the data came without files.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub file: String,
    /// Line from 1; 0 when there is none.
    #[serde(default)]
    pub line: u32,
    /// Column from 1, in characters; 0 when there is none.
    #[serde(default)]
    pub column: u32,
    /// Characters to underline, at least 1 where there is a line.
    #[serde(default)]
    pub length: u32,
    /// Place in the data, such as `steps[2].with.package`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub path: String,
    /// The line of the file, when it may be shown.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub snippet: String,
    /// A few words under the line, such as "did you mean".
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub hint: String,
    /// Why that is wrong.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub cause: String,
    /// One thing to do.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub fix: String,
}

impl Diagnostic {
    /// Something wrong, at no place yet.
    #[must_use]
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            severity: code.severity(),
            message: message.into(),
            file: String::new(),
            line: 0,
            column: 0,
            length: 0,
            path: String::new(),
            snippet: String::new(),
            hint: String::new(),
            cause: String::new(),
            fix: String::new(),
        }
    }

    /// Adds words under the line.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }

    /// Suggests the nearest name there is, or else another thing to do.
    #[must_use]
    pub(crate) fn near_or(self, near: Option<String>, fix: impl Into<String>) -> Self {
        match near {
            Some(near) => self.hint(format!("did you mean {near:?}?")).fix(format!("write {near}")),
            None => self.fix(fix),
        }
    }

    /// Adds why it is wrong.
    #[must_use]
    pub fn cause(mut self, cause: impl Into<String>) -> Self {
        self.cause = cause.into();
        self
    }

    /// Adds one thing to do.
    #[must_use]
    pub fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = fix.into();
        self
    }

    /// Whether it stops.
    #[must_use]
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }

    /// Where it is, as `file:line:column`, or as a place in the data.
    #[must_use]
    pub fn place(&self) -> String {
        match (self.file.as_str(), self.line) {
            ("", _) => self.path.clone(),
            (file, 0) => file.to_owned(),
            (file, line) => format!("{file}:{line}:{}", self.column),
        }
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        writeln!(f, "{word}[{}]: {}", self.code, visible(&self.message))?;
        let place = self.place();
        if !place.is_empty() {
            writeln!(f, "  ┌ {}", visible(&place))?;
        }
        if !self.snippet.is_empty() && self.line > 0 {
            self.snippet(f)?;
        } else if !self.hint.is_empty() {
            writeln!(f, "  hint:  {}", visible(&self.hint))?;
        }
        for (label, text) in [("cause:", &self.cause), ("fix:  ", &self.fix)] {
            if !text.is_empty() {
                writeln!(f, "  {label} {}", visible(text))?;
            }
        }
        write!(f, "  more:  windlass explain {}", self.code)
    }
}

/// Longest piece of a line that is shown.
const MAX_SHOWN: usize = 100;
/// How far in front of the caret a long line is cut.
const BEFORE: usize = 40;

impl Diagnostic {
    fn snippet(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let column = (self.column.max(1) - 1) as usize;
        let cut = if self.snippet.chars().nth(MAX_SHOWN).is_some() { column.saturating_sub(BEFORE) } else { 0 };
        let mut shown: String = visible(&self.snippet).chars().skip(cut).take(MAX_SHOWN).collect();
        let mut caret = column - cut;
        if cut > 0 {
            shown.insert(0, '…');
            caret += 1;
        }
        let room = shown.chars().count().saturating_sub(caret).max(1);
        let width = (self.length.max(1) as usize).min(room);
        let number = self.line.to_string();
        writeln!(f, "{number:>3} │ {}", shown.trim_end())?;
        let mut under = String::new();
        write!(under, "    │ {}{}", " ".repeat(caret), "^".repeat(width))?;
        if !self.hint.is_empty() {
            write!(under, " {}", visible(&self.hint))?;
        }
        writeln!(f, "{under}")
    }
}

/// Text that cannot move the cursor of a terminal or forge a line.
fn visible(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\t' => ' ',
            c if c.is_control() => '\u{fffd}',
            c => c,
        })
        .collect()
}

/// Renders a list: each on its own, then one line that counts them.
#[must_use]
pub fn render(diagnostics: &[Diagnostic]) -> String {
    let mut out = String::new();
    for diagnostic in diagnostics {
        out.push_str(&diagnostic.to_string());
        out.push_str("\n\n");
    }
    let errors = diagnostics.iter().filter(|d| d.is_error()).count();
    let warnings = diagnostics.len() - errors;
    let count = |count: usize, what: &str| match count {
        0 => None,
        1 => Some(format!("1 {what}")),
        n => Some(format!("{n} {what}s")),
    };
    let counted: Vec<String> = [count(errors, "error"), count(warnings, "warning")].into_iter().flatten().collect();
    if !counted.is_empty() {
        out.push_str(&counted.join(", "));
        out.push('\n');
    }
    out
}
