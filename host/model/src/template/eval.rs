//! Expanding a parsed template: one [`Run`] holds what an expansion has done so far and may still do.
//!
//! Recursion happens in two places only, blocks (bounded by the parser) and values that are templates
//! themselves (bounded in `resolve`), and every node costs steps, so that no text makes an expansion endless.

use std::borrow::Cow;

use super::{
    Expanded, Lookup, MAX_OUTPUT, Mode,
    error::{Problem, TemplateError},
    expr::{Argument, Chain, Condition, Operand, Path},
    filters,
    resolve::Local,
    tree::{Node, Place},
};

/// Most steps one expansion may take: a node or a KiB of a value each.
const MAX_STEPS: u32 = 2_000_000;
/// Most unresolved expressions listed.
const MAX_LISTED: usize = 1000;

/// One expansion.
pub(super) struct Run<'l, L: Lookup + ?Sized> {
    pub(super) lookup: &'l L,
    pub(super) mode: Mode,
    /// Names of the variables being expanded, outermost first.
    pub(super) stack: Vec<String>,
    pub(super) locals: Vec<Local>,
    steps: u32,
    pub(super) tainted: bool,
    unresolved: Vec<String>,
}

/// Where an expression stands, for errors.
#[derive(Clone, Copy)]
pub(super) struct At<'s> {
    pub(super) source: &'s str,
    pub(super) place: Place,
}

type Done<T> = Result<T, TemplateError>;

impl<'l, L: Lookup + ?Sized> Run<'l, L> {
    pub(super) fn new(lookup: &'l L, mode: Mode) -> Self {
        Self { lookup, mode, stack: Vec::new(), locals: Vec::new(), steps: 0, tainted: false, unresolved: Vec::new() }
    }

    /// Lists an expression that stays as written.
    pub(super) fn note(&mut self, expression: String) {
        if self.unresolved.len() < MAX_LISTED && !self.unresolved.contains(&expression) {
            self.unresolved.push(expression);
        }
    }

    pub(super) fn finish(self, text: String) -> Expanded {
        Expanded { text, secrets_used: self.tainted, unresolved: self.unresolved }
    }

    pub(super) fn template(&mut self, source: &str, nodes: &[Node<'_>]) -> Done<String> {
        let mut out = String::with_capacity(source.len().min(MAX_OUTPUT));
        self.nodes(source, nodes, &mut out)?;
        Ok(out)
    }

    fn nodes(&mut self, source: &str, nodes: &[Node<'_>], out: &mut String) -> Done<()> {
        for node in nodes {
            self.node(source, node, out)?;
        }
        Ok(())
    }

    fn node(&mut self, source: &str, node: &Node<'_>, out: &mut String) -> Done<()> {
        match node {
            Node::Text(text) => {
                let place = Place { start: 0, end: 0 };
                self.push(out, text, At { source, place })
            }
            Node::Value { at, chain } => {
                let at = At { source, place: *at };
                self.step(at)?;
                match self.chain(chain, at) {
                    Ok(text) => self.push(out, &text, at),
                    Err(error) if self.mode == Mode::Leave && error.leaves() => {
                        let written = at.text();
                        self.note(super::error::shown(written));
                        self.push(out, written, at)
                    }
                    Err(error) => Err(error),
                }
            }
            Node::If { at, condition, then, otherwise } => {
                let at = At { source, place: *at };
                self.step(at)?;
                let holds = self.holds(condition, at).or_else(|e| self.forgive(e))?;
                self.nodes(source, if holds { then } else { otherwise }, out)
            }
            Node::Each { at, name, path, body } => {
                let at = At { source, place: *at };
                self.step(at)?;
                self.each(name, path, body, at, out)
            }
        }
    }

    /// What a block whose own expression fails comes to where expressions may stay as written: a
    /// condition does not hold, a loop has nothing to go over.
    fn forgive<T: Default>(&mut self, error: TemplateError) -> Done<T> {
        if self.mode == Mode::Strict || !error.leaves() {
            return Err(error);
        }
        self.note(error.expression);
        Ok(T::default())
    }

    fn each(&mut self, name: &str, path: &Path<'_>, body: &[Node<'_>], at: At<'_>, out: &mut String) -> Done<()> {
        let items = self.items(path, at).or_else(|e| self.forgive(e))?;
        let count = items.len();
        for (index, item) in items.into_iter().enumerate() {
            self.step(at)?;
            self.locals.push(Local { name: name.to_owned(), item, index, last: index + 1 == count });
            let done = self.nodes(at.source, body, out);
            self.locals.pop();
            done?;
        }
        Ok(())
    }

    fn holds(&mut self, condition: &Condition<'_>, at: At<'_>) -> Done<bool> {
        let left = match self.chain(&condition.left, at) {
            Ok(text) => text,
            Err(error) if matches!(error.problem, Problem::Unresolved(_)) => String::new(),
            Err(error) => return Err(error),
        };
        let Some((equal, right)) = &condition.right else {
            return Ok(is_truthy(&left));
        };
        let right = match right {
            Operand::Text(text) => Cow::Borrowed(*text),
            Operand::Path(path) => Cow::Owned(self.path(path, at)?.unwrap_or_default()),
        };
        Ok((left == right) == *equal)
    }

    fn chain(&mut self, chain: &Chain<'_>, at: At<'_>) -> Done<String> {
        let Some(mut text) = self.path(&chain.path, at)? else {
            let path = self.path_text(&chain.path, at)?;
            let near = crate::suggest::nearest(&path, self.lookup.names());
            return Err(self.error(at, Problem::Unresolved(near)));
        };
        for filter in &chain.filters {
            let mut arguments = Vec::with_capacity(filter.arguments.len());
            for argument in &filter.arguments {
                arguments.push(match argument {
                    Argument::Text(text) => Cow::Borrowed(*text),
                    Argument::Computed(chain) => Cow::Owned(self.chain(chain, at)?),
                });
            }
            text = filters::apply(filter.name, &text, &arguments).map_err(|problem| self.error(at, problem))?;
            self.spend(text.len(), at)?;
        }
        Ok(text)
    }

    fn push(&self, out: &mut String, text: &str, at: At<'_>) -> Done<()> {
        if out.len() + text.len() > MAX_OUTPUT {
            return Err(self.error(at, Problem::Limit("makes the text larger than 16 MiB")));
        }
        out.push_str(text);
        Ok(())
    }

    pub(super) fn step(&mut self, at: At<'_>) -> Done<()> {
        self.spend(0, at)
    }

    /// Charges a step, and one more for each KiB of text worked on.
    pub(super) fn spend(&mut self, bytes: usize, at: At<'_>) -> Done<()> {
        let kib = u32::try_from(bytes / 1024).unwrap_or(u32::MAX);
        self.steps = self.steps.saturating_add(kib.saturating_add(1));
        if self.steps > MAX_STEPS {
            return Err(self.error(at, Problem::Limit("takes too many steps to expand")));
        }
        Ok(())
    }

    pub(super) fn error(&self, at: At<'_>, problem: Problem) -> TemplateError {
        let mut error = TemplateError::new(at.source, at.place.start, at.text(), problem);
        error.through.clone_from(&self.stack);
        error
    }
}

impl<'s> At<'s> {
    fn text(&self) -> &'s str {
        self.place.of(self.source)
    }
}

impl TemplateError {
    /// Whether the expression may stay as written where that is asked for.
    fn leaves(&self) -> bool {
        matches!(self.problem, Problem::Unresolved(_) | Problem::UnknownFilter(..) | Problem::Filter(..))
    }
}

/// Whether a text counts as true: not empty, `0`, `no` or `false`.
#[must_use]
pub fn is_truthy(text: &str) -> bool {
    let text = text.trim();
    !(text.is_empty() || text == "0" || text.eq_ignore_ascii_case("no") || text.eq_ignore_ascii_case("false"))
}
