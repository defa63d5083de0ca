//! Text that came from a guest, made fit for logs and messages: no control characters, no escape sequences, bounded.

/// The text as one line of at most `max` bytes.
pub(crate) fn one_line(text: &str, max: usize) -> String {
    let mut clean = String::with_capacity(text.len().min(max));
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        if c == '\u{1b}' {
            skip_escape(&mut rest);
            continue;
        }
        let shown = match c {
            '\n' | '\r' | '\t' => ' ',
            // Overrides of the writing direction can make a line read as something else.
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => char::REPLACEMENT_CHARACTER,
            c if c.is_control() => char::REPLACEMENT_CHARACTER,
            c => c,
        };
        if clean.len() + shown.len_utf8() > max {
            clean.push('…');
            break;
        }
        clean.push(shown);
    }
    clean
}

/// Leaves out an ANSI escape sequence; the escape character itself is already taken.
fn skip_escape(rest: &mut std::iter::Peekable<std::str::Chars<'_>>) {
    match rest.peek() {
        Some('[') => {
            rest.next();
            while let Some(c) = rest.next_if(|c| !c.is_control()) {
                if ('@'..='~').contains(&c) {
                    return;
                }
            }
        }
        // An operating-system command (titles, links) lasts until a bell or the string terminator.
        Some(']') => {
            rest.next();
            while let Some(c) = rest.next_if(|c| *c != '\n') {
                if c == '\u{7}' {
                    return;
                }
                if c == '\u{1b}' {
                    rest.next_if_eq(&'\\');
                    return;
                }
            }
        }
        Some(_) => {
            rest.next_if(|c| !c.is_control());
        }
        None => {}
    }
}

#[cfg(test)]
mod tests {
    use super::one_line;

    #[test]
    fn what_a_terminal_would_obey_is_taken_out() {
        let table = [
            ("plain", "plain"),
            ("two\nlines", "two lines"),
            ("\u{1b}[31mred\u{1b}[0m text", "red text"),
            ("\u{1b}]8;;http://evil\u{1b}\\link\u{1b}]8;;\u{7} after", "link after"),
            ("\u{1b}]0;title never ended", ""),
            ("bell\u{7}", "bell\u{fffd}"),
            ("\u{1b}", ""),
            ("\u{202e}drawkcab", "\u{fffd}drawkcab"),
            ("exactly 12 b", "exactly 12 b"),
            ("exactly 12 bytes", "exactly 12 b…"),
        ];
        for (from, to) in table {
            assert_eq!(one_line(from, 12), to.chars().take(13).collect::<String>(), "{from:?}");
        }
    }

    #[test]
    fn a_text_is_never_cut_within_a_character() {
        assert_eq!(one_line("ääää", 5), "ää…");
    }
}
