//! Characters of a template: finding `#{`, and the small words inside an expression.

/// Longest expression, in bytes: what is longer was not meant as one.
const MAX_EXPRESSION: usize = 4096;

/// A place in the text of one expression.
#[derive(Debug, Clone)]
pub(super) struct Cursor<'t> {
    source: &'t str,
    at: usize,
    end: usize,
}

impl<'t> Cursor<'t> {
    /// Stands at a byte offset; sees no further than one expression may reach.
    pub(super) fn new(source: &'t str, at: usize) -> Self {
        let mut end = source.len().min(at.saturating_add(MAX_EXPRESSION));
        while !source.is_char_boundary(end) {
            end -= 1;
        }
        Self { source, at, end }
    }

    pub(super) fn at(&self) -> usize {
        self.at
    }

    fn rest(&self) -> &'t str {
        self.source.get(self.at..self.end).unwrap_or_default()
    }

    pub(super) fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    pub(super) fn eat(&mut self, text: &str) -> bool {
        let found = self.rest().starts_with(text);
        if found {
            self.at += text.len();
        }
        found
    }

    /// Takes a keyword that is followed by a space (or, if `spaced` is not set, by `}`).
    pub(super) fn eat_keyword(&mut self, word: &str, spaced: bool) -> bool {
        let rest = self.rest();
        let Some(start) = rest.get(..word.len()) else {
            return false;
        };
        let after = rest.get(word.len()..).unwrap_or_default();
        let ends = if spaced { after.starts_with(char::is_whitespace) } else { after.trim_start().starts_with('}') };
        if !start.eq_ignore_ascii_case(word) || !ends {
            return false;
        }
        self.at += word.len();
        self.skip_spaces();
        true
    }

    pub(super) fn skip_spaces(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start().len();
    }

    /// A name, which may have spaces inside but not before `in`, `==` or `!=`.
    pub(super) fn identifier(&mut self) -> &'t str {
        let start = self.at;
        let mut end = start;
        loop {
            if !self.word().is_empty() {
                end = self.at;
            }
            let before = self.at;
            self.skip_spaces();
            let next = self.rest();
            let keyword = next.starts_with("==")
                || next.starts_with("!=")
                || next.strip_prefix("in").is_some_and(|after| after.starts_with(char::is_whitespace));
            if self.at == before || keyword || !next.starts_with(is_name_char) {
                break;
            }
        }
        self.at = end;
        self.source.get(start..end).unwrap_or_default().trim_start()
    }

    /// A name without spaces.
    pub(super) fn word(&mut self) -> &'t str {
        let rest = self.rest();
        let end = rest.find(|c| !is_name_char(c)).unwrap_or(rest.len());
        self.at += end;
        rest.get(..end).unwrap_or_default()
    }

    /// `"text"`, or `\"text\"` inside a text that is itself escaped; none when there is no quote.
    pub(super) fn quoted(&mut self) -> Result<Option<&'t str>, String> {
        for quote in ["\\\"", "\""] {
            if self.eat(quote) {
                let rest = self.rest();
                let end = rest.find(quote).ok_or_else(|| "the closing quote is missing".to_owned())?;
                self.at += end + quote.len();
                return Ok(rest.get(..end));
            }
        }
        Ok(None)
    }

    /// The text up to the `]` that closes this bracket, which is not taken.
    pub(super) fn bracketed(&mut self) -> &'t str {
        let rest = self.rest();
        let end = crate::variables::key_after(rest, 0).map_or(0, str::len);
        self.at += end;
        rest.get(..end).unwrap_or_default().trim()
    }
}

fn is_name_char(c: char) -> bool {
    c.is_alphanumeric() || "_-:/~()".contains(c)
}

/// A piece of a template before its expressions are parsed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece<'t> {
    /// Text to take as it is, and where to go on.
    Text(&'t str, usize),
    /// `#{` stands here.
    Open,
}

/// The piece that starts at `from`, none at the end.
///
/// Of a run of `#` before `{` the last one opens and one before that escapes: `##{X}` is the text
/// `#{X}`, and `###{X}` is `#` before the value of X.
pub(super) fn piece(source: &str, from: usize) -> Option<Piece<'_>> {
    let rest = source.get(from..).filter(|rest| !rest.is_empty())?;
    let text = |start: usize, end: usize| {
        let text = rest.get(start..end).unwrap_or_default();
        Some(Piece::Text(text, from + end))
    };
    let hash = rest.find('#').unwrap_or(rest.len());
    if hash > 0 {
        return text(0, hash);
    }
    let run = rest.len() - rest.trim_start_matches('#').len();
    let opens = rest.get(run..).is_some_and(|after| after.starts_with('{'));
    match (opens, run) {
        (false, _) => text(0, run),
        (true, 1) => Some(Piece::Open),
        (true, 2) => text(1, 3),
        (true, 3) => text(1, 2),
        // Only the last two or three of a long run decide; the others are text.
        (true, _) => text(0, run - 2 - run % 2),
    }
}
