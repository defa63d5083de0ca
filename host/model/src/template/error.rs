//! What can go wrong in a template, said with the expression and where it stands.

use std::fmt;

/// A template that cannot be expanded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemplateError {
    /// The expression as written, cut when it is long. Never a value.
    pub expression: String,
    /// Byte offset of the expression in its text.
    pub offset: usize,
    /// Line of the expression in its text, from 1.
    pub line: usize,
    /// Column of the expression in its line, from 1, in characters.
    pub column: usize,
    /// What is wrong.
    pub problem: Problem,
    /// Variables through which the expression was reached, outermost first.
    pub through: Vec<String>,
}

/// What is wrong with an expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// It does not parse; what was expected.
    Syntax(String),
    /// It names nothing; the nearest name there is.
    Unresolved(Option<String>),
    /// There is a value, but not one that can be told.
    Lookup(String),
    /// There is no such filter; the nearest there is.
    UnknownFilter(String, Option<&'static str>),
    /// The filter cannot be applied; why.
    Filter(&'static str, String),
    /// A value refers to itself, through these variables.
    SelfReference(Vec<String>),
    /// A bound was reached; which.
    Limit(&'static str),
}

/// Longest expression repeated in an error.
const MAX_SHOWN: usize = 120;

impl TemplateError {
    pub(super) fn new(source: &str, offset: usize, expression: &str, problem: Problem) -> Self {
        let before = source.get(..offset).unwrap_or_default();
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        Self {
            expression: shown(expression),
            offset,
            line: before.matches('\n').count() + 1,
            column: before.get(line_start..).unwrap_or_default().chars().count() + 1,
            problem,
            through: Vec::new(),
        }
    }
}

/// The expression, cut and without line breaks.
pub(super) fn shown(expression: &str) -> String {
    let mut text: String = expression.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_SHOWN).collect();
    if expression.chars().nth(MAX_SHOWN).is_some() {
        text.push('…');
    }
    text
}

impl std::error::Error for TemplateError {}

impl fmt::Display for TemplateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.expression.as_str() {
            "" => "the text",
            expression => expression,
        };
        write!(f, "{what} at ")?;
        if self.line > 1 {
            write!(f, "line {} ", self.line)?;
        }
        write!(f, "column {}", self.column)?;
        if let Some(last) = self.through.last() {
            write!(f, " of variable {last}")?;
            if self.through.len() > 1 {
                write!(f, " (through {})", self.through.join(" → "))?;
            }
        }
        write!(f, ": {}", self.problem)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax(what) => f.write_str(what),
            Self::Unresolved(None) => f.write_str("names no variable"),
            Self::Unresolved(Some(near)) => {
                write!(f, "names no variable; did you mean {near}?")
            }
            Self::Lookup(what) => f.write_str(what),
            Self::UnknownFilter(name, None) => write!(f, "there is no filter {name}"),
            Self::UnknownFilter(name, Some(near)) => {
                write!(f, "there is no filter {name}; did you mean {near}?")
            }
            Self::Filter(name, why) => write!(f, "filter {name} {why}"),
            Self::SelfReference(chain) => {
                write!(f, "refers to itself: {}", chain.join(" → "))
            }
            Self::Limit(what) => f.write_str(what),
        }
    }
}
