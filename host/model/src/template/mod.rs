//! The template language: `#{Database.Url}`, `#{if …}`, `#{each …}`, filters.
//!
//! A template is parsed once ([`Template::parse`], which never fails) and expanded against anything
//! that implements [`Lookup`]. What cannot be parsed or resolved is an error in [`Mode::Strict`], for
//! values and inputs, and stays as it was written in [`Mode::Leave`], for files that may hold `#{`
//! for reasons of their own. The result says whether a secret went into it. Depth, steps and size of
//! an expansion are bounded. The language follows Octostache where it has no clock in it.

mod error;
mod eval;
mod expr;
mod filters;
mod lex;
mod resolve;
#[cfg(test)]
mod tests;
mod tree;

use std::borrow::Cow;

pub use error::{Problem, TemplateError};
pub use eval::is_truthy;
pub use filters::FILTERS;

use tree::Node;

/// Largest text that an expansion may produce.
pub const MAX_OUTPUT: usize = 16 * 1024 * 1024;

/// Where values come from. Names arrive as written; implementors compare them without regard to case.
pub trait Lookup {
    /// The value of a path such as `Database.Url` or `Step[db].Output.Version`.
    ///
    /// # Errors
    /// When there is a value but not one that can be told.
    fn get(&self, path: &str) -> Result<Option<Found<'_>>, LookupError>;

    /// Keys `a` of the names `prefix[a]…`, for `#{each}`.
    fn keys(&self, prefix: &str) -> Vec<String> {
        let _ = prefix;
        Vec::new()
    }

    /// Every name, for "did you mean".
    fn names(&self) -> Vec<String> {
        Vec::new()
    }
}

/// A value that was found.
#[derive(Clone, PartialEq, Eq)]
pub struct Found<'a> {
    /// Its text.
    pub text: Cow<'a, str>,
    /// Whether it is secret: taints the expansion.
    pub secret: bool,
    /// Whether it is taken as it is, and not a template itself.
    pub literal: bool,
}

impl<'a> Found<'a> {
    /// A plain text, taken as it is.
    #[must_use]
    pub fn literal(text: impl Into<Cow<'a, str>>) -> Self {
        Self { text: text.into(), secret: false, literal: true }
    }
}

/// Why there is a value but not one that can be told, as a fragment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct LookupError(pub String);

/// What becomes of what cannot be parsed or resolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// It is an error.
    Strict,
    /// It stays as it was written, and is listed in [`Expanded::unresolved`].
    Leave,
}

/// An expanded text.
#[derive(Clone, PartialEq, Eq)]
pub struct Expanded {
    /// The text. Treat it as a secret when `secrets_used` is set.
    pub text: String,
    /// Whether the value of a secret went into the text or decided over a part of it.
    pub secrets_used: bool,
    /// Expressions that stayed as written, each once.
    pub unresolved: Vec<String>,
}

impl std::fmt::Debug for Expanded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Expanded")
            .field("text", if self.secrets_used { &"…" } else { &self.text })
            .field("secrets_used", &self.secrets_used)
            .field("unresolved", &self.unresolved)
            .finish()
    }
}

/// A parsed template.
#[derive(Debug, Clone)]
pub struct Template<'t> {
    source: &'t str,
    nodes: Vec<Node<'t>>,
    errors: Vec<TemplateError>,
}

impl<'t> Template<'t> {
    /// Parses a text. Whatever does not parse becomes text, and an entry in [`Template::errors`].
    #[must_use]
    pub fn parse(source: &'t str) -> Self {
        let (nodes, errors) = tree::parse(source);
        Self { source, nodes, errors }
    }

    /// What did not parse.
    #[must_use]
    pub fn errors(&self) -> &[TemplateError] {
        &self.errors
    }

    /// Paths that the template names with nothing but constants in them, with the byte offset of
    /// their expression: what can be checked before there are values. Loop variables are left out,
    /// and so is what only a condition asks for, since it may well be unset.
    #[must_use]
    pub fn paths(&self) -> Vec<(usize, String)> {
        let mut paths = Vec::new();
        tree::paths(&self.nodes, &mut Vec::new(), &mut paths);
        paths
    }

    /// Expands the template.
    ///
    /// # Errors
    /// In strict mode when anything does not parse or resolve; in both modes when a value refers to
    /// itself, a value is ambiguous, or a bound is reached.
    pub fn expand<L: Lookup + ?Sized>(&self, lookup: &L, mode: Mode) -> Result<Expanded, TemplateError> {
        if mode == Mode::Strict
            && let Some(error) = self.errors.first()
        {
            return Err(error.clone());
        }
        let mut run = eval::Run::new(lookup, mode);
        for error in &self.errors {
            run.note(error.expression.clone());
        }
        let text = run.template(self.source, &self.nodes)?;
        Ok(run.finish(text))
    }
}

/// Expands the value that a path names, strictly; none when there is no such value.
pub(crate) fn expand_name<L: Lookup + ?Sized>(lookup: &L, path: &str) -> Result<Option<Expanded>, TemplateError> {
    let mut run = eval::Run::new(lookup, Mode::Strict);
    let text = run.named(path)?;
    Ok(text.map(|text| run.finish(text)))
}

/// Whether a text is a path that an expression can name, such as `Database.Url` or `Servers[a].Name`.
#[must_use]
pub fn is_path(text: &str) -> bool {
    let mut cursor = lex::Cursor::new(text, 0);
    expr::path(&mut cursor, 0).is_ok_and(|path| cursor.at() == text.len() && path.constant().is_some())
        && text.trim() == text
}
