//! Messages in the output of a script: lines `##windlass[verb key='…']`, and the same with `##octopus[…]` so that
//! scripts written for Octopus Deploy keep working. Values are base64. A line that is no such message is just output.

/// Output variables and reasons are for people and later steps, not for bulk data.
const MAX_VALUE: usize = 64 * 1024;

/// Something a script says to the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Message {
    SetVariable {
        name: String,
        value: String,
        sensitive: bool,
    },
    /// The script gave up.
    Fail {
        reason: String,
    },
}

/// The message in a line of output, if it is one.
pub(crate) fn parse_line(line: &str) -> Option<Message> {
    let line = line.trim();
    let body = ["##windlass[", "##octopus["].iter().find_map(|start| line.strip_prefix(start))?.strip_suffix(']')?;
    let (verb, rest) = body.split_once(' ').unwrap_or((body, ""));
    let fields = fields(rest)?;
    let field = |name: &str| {
        let (_, value) = fields.iter().find(|(key, _)| *key == name)?;
        String::from_utf8(decode(value)?).ok()
    };
    match verb {
        "setVariable" => {
            let name = field("name").filter(|name| !name.trim().is_empty())?;
            let sensitive = fields.iter().find(|(key, _)| *key == "sensitive");
            // Octopus writes the word in base64 too.
            let sensitive = sensitive.is_some_and(|(_, word)| {
                word.eq_ignore_ascii_case("true")
                    || field("sensitive").is_some_and(|word| word.eq_ignore_ascii_case("true"))
            });
            Some(Message::SetVariable { name, value: field("value")?, sensitive })
        }
        "fail" => Some(Message::Fail { reason: field("reason")? }),
        "resultMessage" => Some(Message::Fail { reason: field("message")? }),
        _ => None,
    }
}

/// `key='value' key='value'`; base64 never holds a quote.
fn fields(mut text: &str) -> Option<Vec<(&str, &str)>> {
    let mut found = Vec::new();
    loop {
        text = text.trim_start();
        if text.is_empty() {
            return Some(found);
        }
        let (key, rest) = text.split_once("='")?;
        let (value, rest) = rest.split_once('\'')?;
        found.push((key, value));
        text = rest;
    }
}

/// Base64, with or without padding.
fn decode(text: &str) -> Option<Vec<u8>> {
    let text = text.trim_end_matches('=');
    if text.len() > MAX_VALUE / 3 * 4 || text.len() % 4 == 1 {
        return None;
    }
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3 + 2);
    let (mut bits, mut held) = (0u32, 0u32);
    for letter in text.bytes() {
        let six = match letter {
            b'A'..=b'Z' => letter - b'A',
            b'a'..=b'z' => letter - b'a' + 26,
            b'0'..=b'9' => letter - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = (bits << 6) | u32::from(six);
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push(u8::try_from((bits >> held) & 0xff).ok()?);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_read_as_it_is_written() {
        for (text, bytes) in
            [("", ""), ("Zg==", "f"), ("Zm8=", "fo"), ("Zm9v", "foo"), ("Zg", "f"), ("w7xtbMOkdXQ=", "ümläut")]
        {
            assert_eq!(decode(text).as_deref(), Some(bytes.as_bytes()), "{text}");
        }
        for bad in ["Z", "Zm9v!", "Zm 9v", &"A".repeat(100_000)] {
            assert_eq!(decode(bad), None, "{bad:.10}");
        }
    }

    #[test]
    fn only_whole_messages_count() {
        let set = |sensitive| Message::SetVariable { name: "Port".into(), value: "8080".into(), sensitive };
        for (line, message) in [
            ("##windlass[setVariable name='UG9ydA==' value='ODA4MA==']", Some(set(false))),
            ("  ##octopus[setVariable name='UG9ydA==' value='ODA4MA==']\r", Some(set(false))),
            ("##octopus[setVariable name='UG9ydA==' value='ODA4MA==' sensitive='VHJ1ZQ==']", Some(set(true))),
            ("##windlass[setVariable name='UG9ydA==' value='ODA4MA==' sensitive='true']", Some(set(true))),
            ("##windlass[setVariable name='UG9ydA==' value='ODA4MA==' sensitive='false']", Some(set(false))),
            ("##windlass[fail reason='Zm9v']", Some(Message::Fail { reason: "foo".into() })),
            ("##octopus[resultMessage message='Zm9v']", Some(Message::Fail { reason: "foo".into() })),
            ("##octopus[stdout-warning]", None),
            ("##windlass[setVariable name='UG9ydA==']", None),
            ("##windlass[setVariable name='' value='ODA4MA==']", None),
            ("##windlass[setVariable name='Port' value='not base64']", None),
            ("##windlass[setVariable name='UG9ydA== value='ODA4MA==']", None),
            ("##windlass[setVariable name='UG9ydA==' value='ODA4MA=='", None),
            ("echo ##windlass[fail reason='Zm9v']", None),
            ("", None),
        ] {
            assert_eq!(parse_line(line), message, "{line}");
        }
    }
}
