//! Small texts for people: times, durations, sizes, and the rule that nothing from outside moves the cursor.
//!
//! Every text that came from a server or a file goes through [`visible`] before it is printed. Colours are added
//! afterwards, by the renderers.

use jiff::{Timestamp, tz::TimeZone};

/// The text without anything that a terminal would obey: escape sequences, carriage returns, other control
/// characters and the invisible ones that reorder text. Tabs become spaces.
#[must_use]
pub fn visible(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\t' => ' ',
            '\u{7f}' => '␡',
            // Their pictures: what was there is seen, and does nothing.
            c @ '\0'..='\u{1f}' => char::from_u32(0x2400 + u32::from(c)).unwrap_or('\u{fffd}'),
            c if c.is_control() || reorders(c) => '\u{fffd}',
            c => c,
        })
        .collect()
}

/// As [`visible`], for text of several lines: line feeds stay.
#[must_use]
pub fn visible_lines(text: &str) -> String {
    text.split('\n').map(|line| visible(line.trim_end_matches('\r'))).collect::<Vec<_>>().join("\n")
}

/// Marks that change the direction of text, by which a line can seem to say something else.
fn reorders(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The text in lines of at most so many columns, cut between words. A word that is longer has a line of its own.
#[must_use]
pub fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    let mut column = 0;
    for word in text.split_whitespace() {
        let length = console::measure_text_width(word);
        if column > 0 && column + 1 + length > width {
            lines.push(String::new());
            column = 0;
        }
        let Some(line) = lines.last_mut() else { break };
        if column > 0 {
            line.push(' ');
            column += 1;
        }
        line.push_str(word);
        column += length;
    }
    lines
}

/// A span of time in at most two units: `0.4 s`, `12 s`, `3 min 5 s`, `2 h 10 min`, `3 d 4 h`.
#[must_use]
pub fn duration(ms: u64) -> String {
    let s = ms / 1000;
    match s {
        0..10 => format!("{}.{} s", s, ms % 1000 / 100),
        10..60 => format!("{s} s"),
        60..3600 => format!("{} min {} s", s / 60, s % 60),
        3600..86400 => format!("{} h {} min", s / 3600, s % 3600 / 60),
        _ => format!("{} d {} h", s / 86400, s % 86400 / 3600),
    }
}

/// A number of bytes: `512 B`, `1.5 KiB`, `50.0 MiB`.
#[must_use]
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut tenths = u128::from(count) * 10 / 1024;
    let mut unit = UNITS[0];
    for next in &UNITS[1..] {
        if tenths < 10240 {
            break;
        }
        tenths /= 1024;
        unit = next;
    }
    format!("{}.{} {unit}", tenths / 10, tenths % 10)
}

/// The time of day, UTC, `HH:MM:SS`.
#[must_use]
pub fn clock(ms: u64) -> String {
    at(ms, "%H:%M:%S")
}

/// A date and time, UTC, `2026-11-20 19:30`.
#[must_use]
pub fn date(ms: u64) -> String {
    at(ms, "%Y-%m-%d %H:%M")
}

fn at(ms: u64, format: &str) -> String {
    match i64::try_from(ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok()) {
        Some(time) => time.to_zoned(TimeZone::UTC).strftime(format).to_string(),
        None => "?".to_owned(),
    }
}

/// Milliseconds since 1970 UTC.
#[must_use]
pub fn now_ms() -> u64 {
    u64::try_from(Timestamp::now().as_millisecond()).unwrap_or(0)
}

/// `1 machine`, `3 machines`.
#[must_use]
pub fn count(number: usize, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_from_outside_reaches_the_terminal_raw() {
        for (raw, shown) in [
            ("plain äöü ✓", "plain äöü ✓"),
            ("\u{1b}[31mred\u{1b}[0m", "␛[31mred␛[0m"),
            ("over\rwritten", "over␍written"),
            ("a\tb\u{7}\u{7f}\0", "a b␇␡␀"),
            ("\u{9b}2J", "\u{fffd}2J"),
            ("user\u{202e}exe.txt", "user\u{fffd}exe.txt"),
        ] {
            assert_eq!(visible(raw), shown);
        }
        assert_eq!(visible_lines("a\r\nb\u{1b}"), "a\nb␛");
    }

    #[test]
    fn lines_are_cut_between_words() {
        for (text, width, lines) in [
            ("", 10, vec![""]),
            ("one two three", 7, vec!["one two", "three"]),
            ("one two", 2, vec!["one", "two"]),
            ("部署 部署 部署", 9, vec!["部署 部署", "部署"]),
        ] {
            assert_eq!(wrapped(text, width), lines, "{text} in {width}");
        }
    }

    #[test]
    fn spans_have_at_most_two_units() {
        for (ms, text) in [
            (0, "0.0 s"),
            (420, "0.4 s"),
            (9_999, "9.9 s"),
            (12_000, "12 s"),
            (185_000, "3 min 5 s"),
            (7_800_000, "2 h 10 min"),
            (273_600_000, "3 d 4 h"),
        ] {
            assert_eq!(duration(ms), text);
        }
    }

    #[test]
    fn sizes_use_the_largest_unit_that_fits() {
        for (count, text) in
            [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (52_428_800, "50.0 MiB"), (u64::MAX, "16777215.9 TiB")]
        {
            assert_eq!(bytes(count), text);
        }
    }

    #[test]
    fn times_are_utc() {
        assert_eq!(clock(1_795_203_129_000), "19:32:09");
        assert_eq!(date(0), "1970-01-01 00:00");
        assert_eq!(date(u64::MAX), "?");
    }
}
