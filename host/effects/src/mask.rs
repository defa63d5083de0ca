//! The layer that keeps secrets out of what leaves: log lines, answers, messages.
//!
//! Masking is a seat belt, not a wall: a guest that may use a secret can always disguise it. It catches the
//! value itself and the forms that tools print by themselves: base64 at any byte offset, hex, URL and JSON
//! escapes, and single lines of a secret with several.

use std::{borrow::Cow, sync::Arc};

use aho_corasick::{AhoCorasick, MatchKind};
use base64::{Engine, prelude::*};
use windlass_model::SecretText;

use crate::outcome::{Answer, Failure, Outcome};

/// Shortest secret that can be masked without masking half of every log, in bytes.
pub const MIN_SECRET: usize = 4;

/// What stands in place of a secret.
pub const MASK: &str = "********";

/// Finds secrets in text.
#[derive(Clone, Default)]
pub struct Masker(Option<Arc<Patterns>>);

struct Patterns {
    automaton: AhoCorasick,
    texts: Vec<Vec<u8>>,
    longest: usize,
}

impl std::fmt::Debug for Masker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Masker({} patterns)", self.0.as_ref().map_or(0, |p| p.texts.len()))
    }
}

impl Masker {
    /// Learns secrets. Those shorter than [`MIN_SECRET`] are left out: they cannot be masked sensibly.
    #[must_use]
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a SecretText>) -> Self {
        let mut texts: Vec<Vec<u8>> = secrets.into_iter().flat_map(|secret| forms(secret.expose())).collect();
        texts.sort();
        texts.dedup();
        let Some(longest) = texts.iter().map(Vec::len).max() else {
            return Self(None);
        };
        let automaton = AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(&texts);
        match automaton {
            Ok(automaton) if longest > 0 => Self(Some(Arc::new(Patterns { automaton, texts, longest }))),
            _ => Self(None),
        }
    }

    /// Masks a whole text.
    #[must_use]
    pub fn mask<'t>(&self, text: &'t str) -> Cow<'t, str> {
        match &self.0 {
            Some(patterns) if patterns.automaton.is_match(text) => {
                Cow::Owned(patterns.automaton.replace_all_with_string(text))
            }
            _ => Cow::Borrowed(text),
        }
    }

    /// Masks whole bytes.
    #[must_use]
    pub fn mask_bytes(&self, bytes: Vec<u8>) -> Vec<u8> {
        let Some(patterns) = &self.0 else {
            return bytes;
        };
        let mut out = Vec::with_capacity(bytes.len());
        patterns.automaton.replace_all_with_bytes(&bytes, &mut out, |_, _, out| {
            out.extend_from_slice(MASK.as_bytes());
            true
        });
        out
    }

    /// Starts masking bytes that come piece by piece.
    #[must_use]
    pub fn stream(&self) -> MaskStream {
        MaskStream { masker: self.clone(), held: Vec::new() }
    }

    /// Masks an answer before the journal or a guest sees it. A revealed secret stays what it is.
    pub fn mask_answer(&self, answer: Answer) -> Answer {
        if self.0.is_none() {
            return answer;
        }
        match answer {
            Ok(Outcome::Exit(mut exit)) => {
                exit.stdout = self.mask_bytes(exit.stdout);
                exit.stderr = self.mask_bytes(exit.stderr);
                Ok(Outcome::Exit(exit))
            }
            Ok(Outcome::Bytes(bytes)) => Ok(Outcome::Bytes(self.mask_bytes(bytes))),
            Ok(Outcome::Text(text)) => Ok(Outcome::Text(self.mask(&text).into_owned())),
            Ok(Outcome::MaybeText(Some(text))) => Ok(Outcome::MaybeText(Some(self.mask(&text).into_owned()))),
            Ok(Outcome::Http(mut response)) => {
                response.body = self.mask_bytes(response.body);
                for (_, value) in &mut response.headers {
                    *value = self.mask(value).into_owned();
                }
                Ok(Outcome::Http(response))
            }
            Err(failure) => Err(self.mask_failure(failure)),
            other => other,
        }
    }

    fn mask_failure(&self, mut failure: Failure) -> Failure {
        failure.message = self.mask(&failure.message).into_owned();
        for (_, value) in &mut failure.attributes {
            *value = self.mask(value).into_owned();
        }
        failure
    }
}

trait ReplaceAll {
    fn replace_all_with_string(&self, text: &str) -> String;
}

impl ReplaceAll for AhoCorasick {
    fn replace_all_with_string(&self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        self.replace_all_with(text, &mut out, |_, _, out| {
            out.push_str(MASK);
            true
        });
        out
    }
}

/// Masks bytes that come piece by piece: a secret split over pieces is still found.
#[derive(Debug)]
pub struct MaskStream {
    masker: Masker,
    held: Vec<u8>,
}

impl MaskStream {
    /// Takes a piece, returns what can be shown now. Holds back only what may be the beginning of a secret.
    #[must_use]
    pub fn push(&mut self, piece: &[u8]) -> Vec<u8> {
        let Some(patterns) = self.masker.0.clone() else {
            return piece.to_vec();
        };
        self.held.extend_from_slice(piece);
        let open = self.open_from(&patterns);
        let mut shown = Vec::with_capacity(open);
        let mut at = 0;
        for found in patterns.automaton.find_iter(&self.held) {
            if found.start() >= open {
                break;
            }
            shown.extend_from_slice(self.held.get(at..found.start()).unwrap_or_default());
            shown.extend_from_slice(MASK.as_bytes());
            at = found.end();
        }
        if at < open {
            shown.extend_from_slice(self.held.get(at..open).unwrap_or_default());
            at = open;
        }
        self.held.drain(..at);
        shown
    }

    /// The rest, once nothing more comes.
    #[must_use]
    pub fn finish(&mut self) -> Vec<u8> {
        let held = std::mem::take(&mut self.held);
        self.masker.mask_bytes(held)
    }

    /// Index from which the held bytes could be the beginning of a secret that is not complete yet.
    fn open_from(&self, patterns: &Patterns) -> usize {
        let len = self.held.len();
        let first = len.saturating_sub(patterns.longest.saturating_sub(1));
        (first..len)
            .find(|&start| {
                let tail = self.held.get(start..).unwrap_or_default();
                patterns.texts.iter().any(|text| text.len() > tail.len() && text.starts_with(tail))
            })
            .unwrap_or(len)
    }
}

/// The forms in which a secret may show.
fn forms(secret: &str) -> Vec<Vec<u8>> {
    let mut forms: Vec<Vec<u8>> = Vec::new();
    let mut add = |text: String| {
        if text.len() >= MIN_SECRET {
            forms.push(text.into_bytes());
        }
    };
    let trimmed = secret.trim();
    let lines = trimmed.lines().map(str::trim).filter(|_| trimmed.contains('\n'));
    for plain in [secret, trimmed].into_iter().chain(lines).filter(|text| text.len() >= MIN_SECRET) {
        add(plain.to_owned());
        add(hex::encode(plain));
        add(hex::encode_upper(plain));
        add(percent_encode(plain));
        let json = serde_json::to_string(plain).unwrap_or_default();
        add(json.trim_matches('"').to_owned());
        for offset in 0..3 {
            add(base64_inside(plain.as_bytes(), offset, &BASE64_STANDARD_NO_PAD));
            add(base64_inside(plain.as_bytes(), offset, &BASE64_URL_SAFE_NO_PAD));
        }
    }
    forms
}

/// The part of a base64 text that depends on the secret alone when it begins `offset` bytes into a group.
fn base64_inside(secret: &[u8], offset: usize, engine: &impl Engine) -> String {
    let mut padded = vec![0; offset];
    padded.extend_from_slice(secret);
    let text = engine.encode(&padded);
    let first = (offset * 8).div_ceil(6);
    let last = padded.len() * 8 / 6;
    text.get(first..last.max(first)).unwrap_or_default().to_owned()
}

fn percent_encode(text: &str) -> String {
    text.bytes()
        .map(|b| match b {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(b).to_string(),
            _ => format!("%{b:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn masker(secrets: &[&str]) -> Masker {
        let secrets: Vec<_> = secrets.iter().map(|s| SecretText::new(*s)).collect();
        Masker::new(&secrets)
    }

    #[test]
    fn every_form_is_masked() {
        let masker = masker(&["pa$$w0rd/\"x", "short-one\nsecond line"]);
        for (text, expected) in [
            ("the password is pa$$w0rd/\"x.", "the password is ********."),
            ("{\"p\":\"pa$$w0rd/\\\"x\"}", "{\"p\":\"********\"}"),
            ("?p=pa%24%24w0rd%2F%22x&q", "?p=********&q"),
            ("70612424773072642f2278", "********"),
            ("only second line here", "only ******** here"),
            ("nothing here", "nothing here"),
        ] {
            assert_eq!(masker.mask(text), expected);
        }
    }

    #[test]
    fn secrets_too_short_to_mask_are_left_alone() {
        assert_eq!(masker(&["abc"]).mask("abcabc"), "abcabc");
    }

    proptest! {
        #[test]
        fn a_secret_in_base64_is_found_at_every_offset(before in "[a-z]{0,7}", after in "[a-z]{0,7}", secret in "[a-zA-Z0-9+!]{8,40}") {
            let text = BASE64_STANDARD.encode(format!("{before}{secret}{after}"));
            prop_assert!(masker(&[&secret]).mask(&text).contains(MASK));
        }

        #[test]
        fn a_stream_masks_like_the_whole_however_it_is_cut(
            text in "(abcab|abcabcd|abc|x|\n){0,20}",
            cuts in prop::collection::vec(0usize..8, 0..20),
        ) {
            let masker = masker(&["abcabcd", "abcab"]);
            let mut stream = masker.stream();
            let (mut out, mut rest) = (Vec::new(), text.as_bytes());
            for cut in cuts {
                let (head, tail) = rest.split_at(cut.min(rest.len()));
                out.extend(stream.push(head));
                rest = tail;
            }
            out.extend(stream.push(rest));
            out.extend(stream.finish());
            prop_assert_eq!(String::from_utf8(out).unwrap(), masker.mask(&text).into_owned());
        }
    }

    #[test]
    fn a_stream_shows_at_once_what_cannot_be_a_secret() {
        let mut stream = masker(&["s3cret-value"]).stream();
        assert_eq!(stream.push(b"a line\n"), b"a line\n");
        assert_eq!(stream.push(b"then s3cr"), b"then ");
        assert_eq!(stream.push(b"umble\n"), b"s3crumble\n");
    }
}
