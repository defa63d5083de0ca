//! What a line may look like: no control sequences, no messages to the step.

/// Longest line kept whole, in bytes; longer ones are cut into several. Twice of it fits a record.
pub(super) const MAX_LINE: usize = 15 << 10;

/// Whether a line is a message to the step, such as `##windlass[setVariable …]`, and not meant for people: it may
/// carry a secret in a form that no mask knows yet.
pub(super) fn is_message(line: &[u8]) -> bool {
    line.starts_with(b"##windlass[") || line.starts_with(b"##octopus[")
}

pub(super) fn clean_lines(text: &str) -> impl Iterator<Item = String> {
    text.lines().map(clean)
}

/// A line without control sequences: a machine must not steer the reader's terminal.
pub(super) fn clean(line: &str) -> String {
    let line = line.trim_end_matches(['\n', '\r']);
    // What overwrote itself by carriage returns is shown as it looked in the end.
    let line = line.rsplit('\r').next().unwrap_or_default();
    let mut out = String::with_capacity(line.len().min(MAX_LINE));
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\u{1b}' => skip_escape(&mut chars),
            '\t' => out.push('\t'),
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
        if out.len() >= MAX_LINE {
            out.push('…');
            break;
        }
    }
    out
}

fn skip_escape(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) {
    match chars.next() {
        // Control sequence: up to its final letter.
        Some('[') => while chars.next().is_some_and(|c| !('@'..='~').contains(&c)) {},
        // Operating system command and its kin: up to the bell or the string terminator.
        Some(']' | 'P' | 'X' | '^' | '_') => {
            while let Some(c) = chars.next() {
                if c == '\u{7}' || (c == '\u{1b}' && chars.next_if_eq(&'\\').is_some()) {
                    break;
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::clean;

    #[test]
    fn lines_lose_what_could_steer_a_terminal() {
        for (line, expected) in [
            ("plain\r\n", "plain"),
            ("\u{1b}[31mred\u{1b}[0m text", "red text"),
            ("title \u{1b}]0;owned\u{7}done", "title done"),
            ("link \u{1b}]8;;http://x\u{1b}\\here", "link here"),
            ("10%\r50%\r100%", "100%"),
            ("bell\u{7}", "bell\u{fffd}"),
            ("a\tb", "a\tb"),
        ] {
            assert_eq!(clean(line), expected);
        }
    }
}
