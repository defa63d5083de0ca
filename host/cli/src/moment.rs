//! Moments as people write them on a command line: `22:30`, `2026-12-01 22:30`, `2026-12-01T22:30Z`, `+90m`.

use jiff::{
    Timestamp, ToSpan, Zoned,
    civil::{DateTime, Time},
    tz::TimeZone,
};

use crate::follow::parse_span;

const HOW: &str = "write it like 22:30, \"2026-12-01 22:30\", 2026-12-01T22:30:00Z or +90m";

/// A moment as milliseconds since 1970 UTC. Without a zone it is local time; a time of day is the next one.
///
/// # Errors
/// When it is none.
pub fn parse_moment(text: &str) -> Result<u64, String> {
    parse(text, &Zoned::now())
}

fn parse(text: &str, now: &Zoned) -> Result<u64, String> {
    let text = text.trim();
    let moment = if let Some(span) = text.strip_prefix('+') {
        let span = parse_span(span).map_err(|_| HOW.to_owned())?;
        now.timestamp().checked_add(span).map_err(|_| HOW.to_owned())?
    } else if let Ok(moment) = text.parse::<Timestamp>() {
        moment
    } else if let Ok(time) = day(text) {
        let today = now.with().time(time).build().map_err(|_| HOW.to_owned())?;
        let next = if today <= *now { today.checked_add(1.day()).map_err(|_| HOW.to_owned())? } else { today };
        next.timestamp()
    } else {
        let at: DateTime = text.parse().map_err(|_| HOW.to_owned())?;
        zoned(at, now.time_zone())?.timestamp()
    };
    u64::try_from(moment.as_millisecond()).map_err(|_| HOW.to_owned())
}

/// A time of day alone.
fn day(text: &str) -> Result<Time, String> {
    let plain = !text.is_empty() && text.chars().all(|c| c.is_ascii_digit() || c == ':') && text.contains(':');
    if plain { text.parse().map_err(|_| HOW.to_owned()) } else { Err(HOW.to_owned()) }
}

fn zoned(at: DateTime, zone: &TimeZone) -> Result<Zoned, String> {
    at.to_zoned(zone.clone()).map_err(|_| HOW.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::date;

    #[test]
    fn moments_are_read_in_every_form() {
        let now: Zoned = "2026-11-29T20:00:00+02:00[+02:00]".parse().unwrap();
        // As written, and the moment in UTC; none where it is no moment.
        let table = [
            ("22:30", Some("2026-11-29 20:30")),
            ("07:15", Some("2026-11-30 05:15")),
            ("20:00", Some("2026-11-30 18:00")),
            ("2026-12-01 22:30", Some("2026-12-01 20:30")),
            ("2026-12-01T22:30", Some("2026-12-01 20:30")),
            ("2026-12-01T22:30:00Z", Some("2026-12-01 22:30")),
            ("2026-12-01T22:30:00-05:00", Some("2026-12-02 03:30")),
            ("+90m", Some("2026-11-29 19:30")),
            ("+2d", Some("2026-12-01 18:00")),
            ("tomorrow", None),
            ("25:00", None),
            ("+", None),
            ("", None),
            ("90", None),
        ];
        for (text, moment) in table {
            let read = parse(text, &now);
            assert_eq!(read.as_ref().ok().map(|ms| date(*ms)).as_deref(), moment, "{text:?}: {read:?}");
            assert!(read.is_ok() || read == Err(HOW.to_owned()));
        }
    }
}
