//! What a person is told of a fault in a script: where, what, why, and one thing to do.

use std::fmt;

use rhai::Position;
use serde::{Deserialize, Serialize};

/// Widest part of a source line that is shown, in characters.
const WIDTH: usize = 100;

/// A fault in a script, for people and for programs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnostic {
    /// Name of the script.
    pub script: String,
    /// Line, from 1; none when the fault has no place.
    pub line: Option<usize>,
    /// Column, from 1.
    pub column: Option<usize>,
    /// The line as written, cut to what is worth showing, with the caret's place in it.
    pub excerpt: Option<Excerpt>,
    /// Kind of fault, kebab-case: `syntax`, `undefined`, `limit`, `argument`, or the code of the failure that was not caught.
    pub code: String,
    /// What happened.
    pub message: String,
    /// Functions of the script that were being called, innermost first.
    pub inside: Vec<String>,
    /// Why, where that is not plain.
    pub cause: Option<String>,
    /// What to do.
    pub fix: String,
}

/// Part of a source line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Excerpt {
    /// The text.
    pub text: String,
    /// Characters before the caret.
    pub caret: usize,
}

impl Diagnostic {
    /// A fault without a place.
    pub(crate) fn new(script: &str, code: &str, message: impl Into<String>, fix: impl Into<String>) -> Box<Self> {
        Box::new(Self {
            script: script.to_owned(),
            line: None,
            column: None,
            excerpt: None,
            code: code.to_owned(),
            message: message.into(),
            inside: Vec::new(),
            cause: None,
            fix: fix.into(),
        })
    }

    /// The same, with its place in the source.
    pub(crate) fn at(mut self: Box<Self>, source: &str, position: Position) -> Box<Self> {
        let Some(line) = position.line() else {
            return self;
        };
        let column = position.position().unwrap_or(1).max(1);
        self.line = Some(line);
        self.column = Some(column);
        self.excerpt = source.lines().nth(line.saturating_sub(1)).map(|text| excerpt(text, column - 1));
        self
    }

    pub(crate) fn cause(mut self: Box<Self>, cause: impl Into<String>) -> Box<Self> {
        self.cause = Some(cause.into());
        self
    }
}

/// Cuts a line around a character, and makes what a terminal would obey visible.
fn excerpt(line: &str, at: usize) -> Excerpt {
    let start = if at < WIDTH { 0 } else { at - WIDTH / 2 };
    let text = line
        .chars()
        .skip(start)
        .take(WIDTH)
        .map(|c| match c {
            '\t' => ' ',
            c if c.is_control() => '·',
            c => c,
        })
        .collect();
    Excerpt { text, caret: at - start }
}

impl Diagnostic {
    /// All but what to do about it, for those who say that in a place of its own.
    #[must_use]
    pub fn without_fix(&self) -> String {
        WithoutFix(self).to_string()
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n  fix: {}", WithoutFix(self), self.fix)
    }
}

struct WithoutFix<'d>(&'d Diagnostic);

impl fmt::Display for WithoutFix<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(fault) = self;
        f.write_str(&fault.script)?;
        if let (Some(line), Some(column)) = (fault.line, fault.column) {
            write!(f, ":{line}:{column}")?;
        }
        write!(f, ": {}", fault.message)?;
        if let (Some(line), Some(excerpt)) = (fault.line, &fault.excerpt) {
            let number = line.to_string();
            let margin = " ".repeat(number.len());
            let text = excerpt.text.trim_end();
            let caret = " ".repeat(excerpt.caret);
            write!(f, "\n {margin} |\n {number} | {text}\n {margin} | {caret}^")?;
        }
        for call in &fault.inside {
            write!(f, "\n  in {call}")?;
        }
        if let Some(cause) = &fault.cause {
            write!(f, "\n  cause: {cause}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostic {}
