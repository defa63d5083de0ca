//! Spans of time as people write them: a number of seconds, or a text such as `"90s"`, `"2h"`, `"1h30m"`.

use std::time::Duration;

/// Longest span a script can name. A longer wait is a schedule, not a script.
pub(crate) const MAX_SPAN: Duration = Duration::from_secs(30 * 24 * 3600);

const UNITS: [(&str, u64); 5] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// Reads a text such as `"1h30m"`.
///
/// # Errors
/// A fragment that says what is wrong with the text.
pub fn parse(text: &str) -> Result<Duration, String> {
    let fault = || format!("{:?} is no span of time", shorten(text));
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(fault());
    }
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (number, tail) = rest.split_at(digits);
        let number: u64 = number.parse().map_err(|_| fault())?;
        let letters = tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        let (_, ms) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(fault)?;
        total = number.checked_mul(*ms).and_then(|ms| ms.checked_add(total)).ok_or_else(fault)?;
        rest = tail;
    }
    bounded(Duration::from_millis(total))
}

/// Reads a number of seconds.
///
/// # Errors
/// A fragment that says what is wrong with the number.
pub(crate) fn seconds(number: f64) -> Result<Duration, String> {
    Duration::try_from_secs_f64(number).map_err(|_| format!("{number} is no number of seconds")).and_then(bounded)
}

fn bounded(span: Duration) -> Result<Duration, String> {
    if span > MAX_SPAN {
        return Err("more than 30 days is too long to wait".to_owned());
    }
    Ok(span)
}

fn shorten(text: &str) -> String {
    text.chars().take(40).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_or_say_what_is_wrong() {
        for (text, ms) in [("10s", 10_000), ("500ms", 500), ("1h30m", 5_400_000), (" 2d ", 172_800_000), ("0s", 0)] {
            assert_eq!(parse(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for (text, why) in [
            ("", "\"\" is no span of time"),
            ("10", "\"10\" is no span of time"),
            ("-1s", "\"-1s\" is no span of time"),
            ("10 s", "\"10 s\" is no span of time"),
            ("10fortnights", "\"10fortnights\" is no span of time"),
            ("99999999999999999999s", "\"99999999999999999999s\" is no span of time"),
            ("999999999999999999d", "\"999999999999999999d\" is no span of time"),
            ("31d", "more than 30 days is too long to wait"),
        ] {
            assert_eq!(parse(text), Err(why.to_owned()), "{text}");
        }
        assert_eq!(seconds(0.25), Ok(Duration::from_millis(250)));
        for bad in [-1.0, f64::NAN, f64::INFINITY, 1e12] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }
}
