//! From expressions to a tree: which `#{/if}` ends which `#{if}`.
//!
//! One pass with a stack, so that the time is linear whatever the text. A block that is never ended,
//! and an end without a block, become text with an error.

use super::{
    error::{Problem, TemplateError},
    expr::{self, Argument, Block, Chain, Condition, Expr, Operand, Path, Segment},
    lex::{Cursor, Piece, piece},
};

/// A part of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Node<'t> {
    Text(&'t str),
    Value { at: Place, chain: Chain<'t> },
    If { at: Place, condition: Condition<'t>, then: Vec<Node<'t>>, otherwise: Vec<Node<'t>> },
    Each { at: Place, name: &'t str, path: Path<'t>, body: Vec<Node<'t>> },
}

/// Bytes of an expression in the source, `#{` and `}` included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) start: usize,
    pub(super) end: usize,
}

impl Place {
    pub(super) fn of<'s>(&self, source: &'s str) -> &'s str {
        source.get(self.start..self.end).unwrap_or_default()
    }
}

/// Deepest nesting of blocks.
const MAX_BLOCKS: usize = 64;
/// Errors kept of one template.
const MAX_ERRORS: usize = 100;

/// A block that waits for its end.
struct Open<'t> {
    at: Place,
    block: Block,
    expr: Expr<'t>,
    /// What came before `#{else}`, once it was seen.
    before_else: Option<(Place, Vec<Node<'t>>)>,
    /// Where the surrounding nodes wait meanwhile.
    outer: Vec<Node<'t>>,
}

struct Builder<'t> {
    source: &'t str,
    nodes: Vec<Node<'t>>,
    open: Vec<Open<'t>>,
    errors: Vec<TemplateError>,
}

/// Parses a whole template; never fails.
pub(super) fn parse(source: &str) -> (Vec<Node<'_>>, Vec<TemplateError>) {
    let mut builder = Builder { source, nodes: Vec::new(), open: Vec::new(), errors: Vec::new() };
    let mut from = 0;
    // Beyond the last brace nothing can be an expression: spares the search for its end.
    let last_brace = source.rfind('}').unwrap_or(0);
    while let Some(piece) = piece(source, from) {
        from = match piece {
            Piece::Text(text, next) => {
                builder.nodes.push(Node::Text(text));
                next
            }
            Piece::Open if from > last_brace => {
                builder.syntax(from, source.len(), "the closing } is missing".to_owned());
                builder.literal(from, from + 2)
            }
            Piece::Open => builder.expression(from),
        };
    }
    builder.finish()
}

impl<'t> Builder<'t> {
    fn expression(&mut self, start: usize) -> usize {
        let mut cursor = Cursor::new(self.source, start + 2);
        match expr::expression(&mut cursor) {
            Ok(expr) => {
                let at = Place { start, end: cursor.at() };
                self.add(at, expr);
                at.end
            }
            Err(expected) => {
                let end = self
                    .source
                    .get(cursor.at()..)
                    .and_then(|rest| rest.find(['}', '\n']))
                    .map_or(self.source.len(), |found| cursor.at() + found);
                self.syntax(start, end, expected);
                self.literal(start, start + 2)
            }
        }
    }

    fn add(&mut self, at: Place, expr: Expr<'t>) {
        match expr {
            Expr::Value(chain) => self.nodes.push(Node::Value { at, chain }),
            Expr::If { negated, .. } => {
                let block = if negated { Block::Unless } else { Block::If };
                self.begin(at, block, expr);
            }
            Expr::Each { .. } => self.begin(at, Block::Each, expr),
            Expr::Else => self.otherwise(at),
            Expr::End(block) => self.end(at, block),
        }
    }

    fn begin(&mut self, at: Place, block: Block, expr: Expr<'t>) {
        if self.open.len() >= MAX_BLOCKS {
            self.syntax(at.start, at.end, "is nested too deep".to_owned());
            self.literal(at.start, at.end);
            return;
        }
        self.open.push(Open { at, block, expr, before_else: None, outer: std::mem::take(&mut self.nodes) });
    }

    fn otherwise(&mut self, at: Place) {
        match self.open.last_mut() {
            Some(open) if open.block != Block::Each && open.before_else.is_none() => {
                open.before_else = Some((at, std::mem::take(&mut self.nodes)));
            }
            _ => {
                self.syntax(at.start, at.end, "stands in no if".to_owned());
                self.literal(at.start, at.end);
            }
        }
    }

    fn end(&mut self, at: Place, block: Block) {
        if self.open.last().is_none_or(|open| open.block != block) {
            let what = match self.open.last() {
                Some(open) => format!("the block to end here is {}", open.block.word()),
                None => "ends no block".to_owned(),
            };
            self.syntax(at.start, at.end, what);
            self.literal(at.start, at.end);
            return;
        }
        let Some(open) = self.open.pop() else { return };
        let last = std::mem::replace(&mut self.nodes, open.outer);
        let (first, second) = match open.before_else {
            Some((_, first)) => (first, last),
            None => (last, Vec::new()),
        };
        self.nodes.push(match open.expr {
            Expr::If { condition, negated } => {
                let (then, otherwise) = if negated { (second, first) } else { (first, second) };
                Node::If { at: open.at, condition, then, otherwise }
            }
            Expr::Each { name, path } => Node::Each { at: open.at, name, path, body: first },
            Expr::Value(chain) => Node::Value { at: open.at, chain },
            Expr::Else | Expr::End(_) => Node::Text(""),
        });
    }

    /// What never ended becomes text, with its body expanded as if it stood outside.
    fn finish(mut self) -> (Vec<Node<'t>>, Vec<TemplateError>) {
        while let Some(open) = self.open.pop() {
            let word = open.block.word();
            self.syntax(open.at.start, open.at.end, format!("is never ended by #{{/{word}}}"));
            let body = std::mem::replace(&mut self.nodes, open.outer);
            self.literal(open.at.start, open.at.end);
            if let Some((at, before)) = open.before_else {
                self.nodes.extend(before);
                self.literal(at.start, at.end);
            }
            self.nodes.extend(body);
        }
        self.errors.sort_by_key(|error| error.offset);
        (self.nodes, self.errors)
    }

    fn literal(&mut self, start: usize, end: usize) -> usize {
        if let Some(text) = self.source.get(start..end) {
            self.nodes.push(Node::Text(text));
        }
        end
    }

    fn syntax(&mut self, start: usize, end: usize, what: String) {
        if self.errors.len() < MAX_ERRORS {
            let mut shown = self.source.get(start..end).unwrap_or_default().to_owned();
            if self.source.get(end..).is_some_and(|r| r.starts_with('}')) {
                shown.push('}');
            }
            let problem = Problem::Syntax(what);
            self.errors.push(TemplateError::new(self.source, start, &shown, problem));
        }
    }
}

/// Collects the constant paths that must resolve for the nodes to expand.
pub(super) fn paths<'t>(nodes: &[Node<'t>], locals: &mut Vec<&'t str>, out: &mut Vec<(usize, String)>) {
    for node in nodes {
        match node {
            Node::Text(_) => {}
            Node::Value { at, chain } => chain_paths(chain, at.start, locals, out),
            Node::If { at, condition, then, otherwise } => {
                for filter in &condition.left.filters {
                    argument_paths(&filter.arguments, at.start, locals, out);
                }
                if let Some((_, Operand::Path(path))) = &condition.right {
                    inner_paths(path, at.start, locals, out);
                }
                paths(then, locals, out);
                paths(otherwise, locals, out);
            }
            Node::Each { at, name, path, body } => {
                inner_paths(path, at.start, locals, out);
                locals.push(name);
                paths(body, locals, out);
                locals.pop();
            }
        }
    }
}

fn chain_paths<'t>(chain: &Chain<'t>, at: usize, locals: &mut Vec<&'t str>, out: &mut Vec<(usize, String)>) {
    path_paths(&chain.path, at, locals, out);
    for filter in &chain.filters {
        argument_paths(&filter.arguments, at, locals, out);
    }
}

fn argument_paths<'t>(
    arguments: &[Argument<'t>],
    at: usize,
    locals: &mut Vec<&'t str>,
    out: &mut Vec<(usize, String)>,
) {
    for argument in arguments {
        if let Argument::Computed(chain) = argument {
            chain_paths(chain, at, locals, out);
        }
    }
}

fn path_paths<'t>(path: &Path<'t>, at: usize, locals: &mut Vec<&'t str>, out: &mut Vec<(usize, String)>) {
    let local = locals.iter().any(|local| local.eq_ignore_ascii_case(path.first));
    if !local && let Some(text) = path.constant() {
        out.push((at, text));
    }
    inner_paths(path, at, locals, out);
}

/// The paths inside the brackets of a path.
fn inner_paths<'t>(path: &Path<'t>, at: usize, locals: &mut Vec<&'t str>, out: &mut Vec<(usize, String)>) {
    for segment in &path.rest {
        if let Segment::Computed(inner) = segment {
            path_paths(inner, at, locals, out);
        }
    }
}

impl Path<'_> {
    /// The path as one text, when nothing in it is computed.
    pub(super) fn constant(&self) -> Option<String> {
        let mut text = self.first.to_owned();
        for segment in &self.rest {
            match segment {
                Segment::Field(name) => {
                    text.push('.');
                    text.push_str(name);
                }
                Segment::Index(key) => {
                    text.push('[');
                    text.push_str(key);
                    text.push(']');
                }
                Segment::Computed(_) => return None,
            }
        }
        Some(text)
    }
}
