//! Expressions: what stands between `#{` and `}`. Paths, conditions, loops, filter chains.
//!
//! A recursive parser over one expression, never backtracking, bounded in length and depth.

use super::lex::Cursor;

/// `first` and what follows it: `.name` or `[index]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Path<'t> {
    pub(super) first: &'t str,
    pub(super) rest: Vec<Segment<'t>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Segment<'t> {
    /// `.name`
    Field(&'t str),
    /// `[text]`
    Index(&'t str),
    /// `[#{path}]`
    Computed(Path<'t>),
}

/// A path and the filters it goes through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Chain<'t> {
    pub(super) path: Path<'t>,
    pub(super) filters: Vec<Filter<'t>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Filter<'t> {
    pub(super) name: &'t str,
    pub(super) arguments: Vec<Argument<'t>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Argument<'t> {
    Text(&'t str),
    Computed(Chain<'t>),
}

/// What a condition compares with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Operand<'t> {
    Text(&'t str),
    Path(Path<'t>),
}

/// `X`, `X == "b"`, `X != Y`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Condition<'t> {
    pub(super) left: Chain<'t>,
    /// Whether equality is asked for, and with what.
    pub(super) right: Option<(bool, Operand<'t>)>,
}

/// One `#{…}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Expr<'t> {
    Value(Chain<'t>),
    If {
        condition: Condition<'t>,
        /// `unless` rather than `if`.
        negated: bool,
    },
    Each {
        name: &'t str,
        path: Path<'t>,
    },
    Else,
    End(Block),
}

/// Kinds of blocks, by the word that closes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Block {
    If,
    Unless,
    Each,
}

impl Block {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::If => "if",
            Self::Unless => "unless",
            Self::Each => "each",
        }
    }
}

/// Deepest nesting of `#{…}` inside an expression.
const MAX_DEPTH: usize = 16;

type Parsed<T> = Result<T, String>;

/// Parses one expression; the cursor stands behind `#{` and is left behind `}`.
pub(super) fn expression<'t>(cursor: &mut Cursor<'t>) -> Parsed<Expr<'t>> {
    cursor.skip_spaces();
    let expr = if cursor.eat("/") {
        let word = cursor.word();
        let block = [Block::If, Block::Unless, Block::Each]
            .into_iter()
            .find(|block| block.word().eq_ignore_ascii_case(word))
            .ok_or_else(|| format!("there is no block to end with /{word}"))?;
        Expr::End(block)
    } else if cursor.eat_keyword("else", false) {
        Expr::Else
    } else if cursor.eat_keyword("if", true) {
        Expr::If { condition: condition(cursor)?, negated: false }
    } else if cursor.eat_keyword("unless", true) {
        Expr::If { condition: condition(cursor)?, negated: true }
    } else if cursor.eat_keyword("each", true) {
        let name = cursor.identifier();
        if name.is_empty() {
            return Err("expected a name after each".to_owned());
        }
        cursor.skip_spaces();
        if !cursor.eat_keyword("in", true) {
            return Err(format!("expected \"in\" after each {name}"));
        }
        Expr::Each { name, path: path(cursor, 0)? }
    } else {
        Expr::Value(chain(cursor, 0)?)
    };
    close(cursor)?;
    Ok(expr)
}

fn close(cursor: &mut Cursor<'_>) -> Parsed<()> {
    cursor.skip_spaces();
    if cursor.eat("}") {
        return Ok(());
    }
    Err(match cursor.peek() {
        Some(c) => format!("did not expect {c:?}"),
        None => "the closing } is missing".to_owned(),
    })
}

fn condition<'t>(cursor: &mut Cursor<'t>) -> Parsed<Condition<'t>> {
    let left = chain(cursor, 0)?;
    cursor.skip_spaces();
    let equal = if cursor.eat("==") {
        true
    } else if cursor.eat("!=") {
        false
    } else {
        return Ok(Condition { left, right: None });
    };
    cursor.skip_spaces();
    let operand = match cursor.quoted()? {
        Some(text) => Operand::Text(text),
        None => Operand::Path(path(cursor, 0)?),
    };
    Ok(Condition { left, right: Some((equal, operand)) })
}

fn chain<'t>(cursor: &mut Cursor<'t>, depth: usize) -> Parsed<Chain<'t>> {
    let path = path(cursor, depth)?;
    let mut filters = Vec::new();
    loop {
        cursor.skip_spaces();
        if !cursor.eat("|") {
            return Ok(Chain { path, filters });
        }
        cursor.skip_spaces();
        let name = cursor.word();
        if name.is_empty() {
            return Err("expected the name of a filter after |".to_owned());
        }
        let mut arguments = Vec::new();
        loop {
            cursor.skip_spaces();
            if let Some(text) = cursor.quoted()? {
                arguments.push(Argument::Text(text));
            } else if cursor.eat("#{") {
                if depth >= MAX_DEPTH {
                    return Err("is nested too deep".to_owned());
                }
                cursor.skip_spaces();
                arguments.push(Argument::Computed(chain(cursor, depth + 1)?));
                close(cursor)?;
            } else {
                let word = cursor.word();
                if word.is_empty() {
                    break;
                }
                arguments.push(Argument::Text(word));
            }
        }
        filters.push(Filter { name, arguments });
    }
}

pub(super) fn path<'t>(cursor: &mut Cursor<'t>, depth: usize) -> Parsed<Path<'t>> {
    cursor.skip_spaces();
    let first = cursor.identifier();
    if first.is_empty() {
        return Err(match cursor.peek() {
            Some('}') | None => "expected the name of a variable".to_owned(),
            Some(c) => format!("expected the name of a variable, not {c:?}"),
        });
    }
    let mut rest = Vec::new();
    loop {
        if cursor.eat(".") {
            let name = cursor.identifier();
            if name.is_empty() {
                return Err("expected a name after the dot".to_owned());
            }
            rest.push(Segment::Field(name));
        } else if cursor.eat("[") {
            rest.push(index(cursor, depth)?);
        } else {
            return Ok(Path { first, rest });
        }
    }
}

fn index<'t>(cursor: &mut Cursor<'t>, depth: usize) -> Parsed<Segment<'t>> {
    cursor.skip_spaces();
    let segment = if cursor.eat("#{") {
        if depth >= MAX_DEPTH {
            return Err("is nested too deep".to_owned());
        }
        let inner = path(cursor, depth + 1)?;
        close(cursor)?;
        cursor.skip_spaces();
        Segment::Computed(inner)
    } else {
        Segment::Index(cursor.bracketed())
    };
    if cursor.eat("]") { Ok(segment) } else { Err("the closing ] is missing".to_owned()) }
}
