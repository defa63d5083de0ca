//! Filters: what `#{X | ToUpper}` may do to a value.
//!
//! Each is a pure function of a text and its arguments. None reads a clock. A filter that cannot be
//! applied says why in a few words that hold neither the value nor an argument: both may be secret.

use std::borrow::Cow;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use regex::RegexBuilder;
use sha2::{Digest as _, Sha256};

use super::{MAX_OUTPUT, error::Problem};

type Filter = fn(&str, &[Cow<'_, str>]) -> Result<String, String>;

/// Name, least and most arguments, function.
const TABLE: &[(&str, usize, usize, Filter)] = &[
    ("Append", 1, 8, |text, with| Ok(format!("{text}{}", with.concat()))),
    ("Contains", 1, 1, |text, with| test(with, |part| text.contains(part))),
    ("EndsWith", 1, 1, |text, with| test(with, |part| text.ends_with(part))),
    ("FromBase64", 0, 0, from_base64),
    ("HtmlEscape", 0, 0, |text, _| Ok(escape(text, html))),
    ("JsonEscape", 0, 0, |text, _| Ok(json_escape(text))),
    ("Prepend", 1, 8, |text, with| Ok(format!("{}{text}", with.concat()))),
    ("Replace", 1, 2, replace),
    ("Sha256", 0, 0, |text, _| Ok(hex::encode(Sha256::digest(text)))),
    ("StartsWith", 1, 1, |text, with| test(with, |part| text.starts_with(part))),
    ("Substring", 1, 2, substring),
    ("ToBase64", 0, 0, |text, _| Ok(BASE64_STANDARD.encode(text))),
    ("ToLower", 0, 0, |text, _| Ok(text.to_lowercase())),
    ("ToUpper", 0, 0, |text, _| Ok(text.to_uppercase())),
    ("Trim", 0, 1, trim),
    ("Truncate", 1, 1, truncate),
    ("UriDataEscape", 0, 0, |text, _| Ok(uri(text, ""))),
    ("UriEscape", 0, 0, |text, _| Ok(uri(text, ":/?#[]@!$&'()*+,;="))),
    ("VersionMajor", 0, 0, |text, _| Ok(version(text, 0))),
    ("VersionMinor", 0, 0, |text, _| Ok(version(text, 1))),
    ("VersionPatch", 0, 0, |text, _| Ok(version(text, 2))),
    ("XmlEscape", 0, 0, |text, _| Ok(escape(text, xml))),
    ("YamlDoubleQuoteEscape", 0, 0, |text, _| Ok(escape(text, yaml_double))),
    ("YamlSingleQuoteEscape", 0, 0, |text, _| Ok(yaml_single(text))),
];

/// Names of the filters.
pub const FILTERS: [&str; TABLE.len()] = {
    let mut names = [""; TABLE.len()];
    let mut at = 0;
    while at < names.len() {
        #[allow(clippy::indexing_slicing)] // evaluated by the compiler
        {
            names[at] = TABLE[at].0;
        }
        at += 1;
    }
    names
};

/// Applies a filter by name, whatever its case.
pub(super) fn apply(name: &str, text: &str, arguments: &[Cow<'_, str>]) -> Result<String, Problem> {
    let Some((known, least, most, filter)) = TABLE.iter().find(|(known, ..)| known.eq_ignore_ascii_case(name)) else {
        let near = crate::suggest::nearest(name, FILTERS);
        let near = FILTERS.into_iter().find(|known| Some(*known) == near.as_deref());
        return Err(Problem::UnknownFilter(name.to_owned(), near));
    };
    let fail = |why: String| Problem::Filter(known, why);
    if !(*least..=*most).contains(&arguments.len()) {
        let wanted = match (*least, *most) {
            (0, 0) => "no argument".to_owned(),
            (1, 1) => "one argument".to_owned(),
            (least, most) => format!("{least} to {most} arguments"),
        };
        return Err(fail(format!("takes {wanted}, not {}", arguments.len())));
    }
    let out = filter(text, arguments).map_err(fail)?;
    if out.len() > MAX_OUTPUT {
        return Err(Problem::Limit("makes the text larger than 16 MiB"));
    }
    Ok(out)
}

fn argument<'a>(arguments: &'a [Cow<'_, str>], at: usize) -> &'a str {
    arguments.get(at).map_or("", |text| text.as_ref())
}

fn number(arguments: &[Cow<'_, str>], at: usize) -> Result<usize, String> {
    argument(arguments, at).parse().map_err(|_| "takes whole numbers".to_owned())
}

fn test(arguments: &[Cow<'_, str>], holds: impl Fn(&str) -> bool) -> Result<String, String> {
    Ok(holds(argument(arguments, 0)).to_string())
}

fn from_base64(text: &str, _: &[Cow<'_, str>]) -> Result<String, String> {
    let bytes = BASE64_STANDARD.decode(text.trim()).map_err(|_| "was given what is no base64".to_owned())?;
    String::from_utf8(bytes).map_err(|_| "was given the base64 of what is no text".to_owned())
}

/// Replaces what a regular expression matches. `$1` is the first group, as in other languages even
/// when a letter follows.
fn replace(text: &str, arguments: &[Cow<'_, str>]) -> Result<String, String> {
    let pattern = RegexBuilder::new(argument(arguments, 0))
        .size_limit(1 << 20)
        .build()
        .map_err(|_| "was given what is no regular expression".to_owned())?;
    let with = braced_groups(argument(arguments, 1));
    let mut out = String::with_capacity(text.len());
    let mut from = 0;
    for found in pattern.captures_iter(text) {
        let Some(whole) = found.get(0) else { continue };
        out.push_str(text.get(from..whole.start()).unwrap_or_default());
        found.expand(&with, &mut out);
        from = whole.end();
        if out.len() > MAX_OUTPUT {
            break;
        }
    }
    out.push_str(text.get(from..).unwrap_or_default());
    Ok(out)
}

/// Writes `$1` as `${1}`.
fn braced_groups(with: &str) -> String {
    let mut out = String::with_capacity(with.len());
    let mut rest = with;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        out.push('$');
        let digits = after.len() - after.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (group, tail) = after.split_at(digits);
        rest = tail;
        if !group.is_empty() {
            out.push_str(&format!("{{{group}}}"));
        } else if let Some(tail) = after.strip_prefix('$') {
            out.push('$');
            rest = tail;
        }
    }
    out.push_str(rest);
    out
}

fn substring(text: &str, arguments: &[Cow<'_, str>]) -> Result<String, String> {
    let (start, count) = match arguments.len() {
        1 => (0, number(arguments, 0)?),
        _ => (number(arguments, 0)?, number(arguments, 1)?),
    };
    let have = text.chars().count();
    if start.checked_add(count).is_none_or(|end| end > have) {
        return Err(format!("reaches beyond the {have} characters there are"));
    }
    Ok(text.chars().skip(start).take(count).collect())
}

fn truncate(text: &str, arguments: &[Cow<'_, str>]) -> Result<String, String> {
    let count = number(arguments, 0)?;
    if text.chars().nth(count).is_none() {
        return Ok(text.to_owned());
    }
    Ok(text.chars().take(count).chain("...".chars()).collect())
}

fn trim(text: &str, arguments: &[Cow<'_, str>]) -> Result<String, String> {
    let end = argument(arguments, 0);
    let trimmed = match end.to_ascii_lowercase().as_str() {
        "" => text.trim(),
        "start" => text.trim_start(),
        "end" => text.trim_end(),
        _ => return Err("takes start or end".to_owned()),
    };
    Ok(trimmed.to_owned())
}

/// One number of a version, empty when it has no such part.
fn version(text: &str, part: usize) -> String {
    let text = text.trim().trim_start_matches(['v', 'V']);
    let numbers = text.split(['-', '+']).next().unwrap_or_default();
    numbers.split('.').nth(part).unwrap_or_default().to_owned()
}

fn escape(text: &str, one: impl Fn(char, &mut String)) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        one(c, &mut out);
    }
    out
}

fn xml(c: char, out: &mut String) {
    match c {
        '&' => out.push_str("&amp;"),
        '<' => out.push_str("&lt;"),
        '>' => out.push_str("&gt;"),
        '"' => out.push_str("&quot;"),
        '\'' => out.push_str("&apos;"),
        other => out.push(other),
    }
}

fn html(c: char, out: &mut String) {
    match c {
        '/' => out.push_str("&#x2F;"),
        other => xml(other, out),
    }
}

/// The text as it stands between the quotes of a JSON string.
fn json_escape(text: &str) -> String {
    let quoted = serde_json::Value::from(text).to_string();
    quoted.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or_default().to_owned()
}

fn yaml_double(c: char, out: &mut String) {
    match c {
        '\r' => out.push_str("\\r"),
        '\n' => out.push_str("\\n"),
        '\t' => out.push_str("\\t"),
        '\\' => out.push_str("\\\\"),
        '"' => out.push_str("\\\""),
        ' '..='~' => out.push(c),
        other => {
            let mut units = [0; 2];
            // Beyond the basic plane YAML wants one escape of eight digits, not a surrogate pair.
            match other.encode_utf16(&mut units) {
                [unit] => out.push_str(&format!("\\u{unit:04x}")),
                _ => out.push_str(&format!("\\U{:08x}", u32::from(other))),
            }
        }
    }
}

/// Doubles quotes; a run of line breaks gets one more, since YAML reads the first as a space.
fn yaml_single(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut in_break = false;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let breaks = c == '\n' || (c == '\r' && chars.peek() == Some(&'\n'));
        if breaks && !in_break {
            out.push_str(if c == '\r' { "\r\n" } else { "\n" });
        }
        in_break = breaks || (in_break && c == '\n');
        out.push(c);
        if c == '\'' {
            out.push(c);
        }
        if breaks && c == '\r' {
            chars.next();
            out.push('\n');
        }
    }
    out
}

/// Percent-encodes what is neither unreserved nor listed.
fn uri(text: &str, keep: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        let c = char::from(byte);
        if c.is_ascii_alphanumeric() || "-_.~".contains(c) || (c.is_ascii() && keep.contains(c)) {
            out.push(c);
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}
