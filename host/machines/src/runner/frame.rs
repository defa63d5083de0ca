//! The lines the far side answers with, found among whatever else a login shell prints.
//!
//! Every line begins with the connection's nonce. Bytes between lines are a payload (output being fetched) or noise;
//! the shell client decides which. Nothing here does I/O.

use bytes::{Bytes, BytesMut};

/// Most bytes that may come without any line of ours: two slices and some noise.
const MAX_PAYLOAD: usize = 4 * 1024 * 1024;
/// Longest line of ours.
const MAX_LINE: usize = 4096;

/// One line of the far side, with the bytes that came before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    pub payload: Bytes,
    pub line: Line,
}

/// What a line says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Line {
    /// The answer to request `0`.
    Answer(u64, String),
    /// A stretch of bytes of request `0` ends here.
    Mark(u64),
    /// The run of that ticket ended, unasked.
    Ended(String, String),
}

/// Cuts a stream of bytes into frames.
pub(crate) struct Frames {
    nonce: Vec<u8>,
    buffer: BytesMut,
    scanned: usize,
}

impl Frames {
    pub(crate) fn new(nonce: &str) -> Self {
        Self { nonce: format!("{nonce} ").into_bytes(), buffer: BytesMut::new(), scanned: 0 }
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next frame, `None` while it is not complete.
    pub(crate) fn next(&mut self) -> Result<Option<Frame>, String> {
        let Some(at) = self.find_nonce() else {
            self.scanned = self.buffer.len().saturating_sub(self.nonce.len() - 1);
            return if self.buffer.len() > MAX_PAYLOAD {
                Err("endless output without an answer".into())
            } else {
                Ok(None)
            };
        };
        self.scanned = at;
        let tail = self.buffer.get(at..).unwrap_or_default();
        let Some(length) = tail.iter().position(|b| *b == b'\n') else {
            return if tail.len() > MAX_LINE { Err("an endless line".into()) } else { Ok(None) };
        };
        let payload = self.buffer.split_to(at).freeze();
        let line = self.buffer.split_to(length + 1);
        self.scanned = 0;
        let text = String::from_utf8_lossy(line.get(self.nonce.len()..length).unwrap_or_default());
        let line = parse_line(&text).ok_or_else(|| format!("the line {text:?}"))?;
        Ok(Some(Frame { payload, line }))
    }

    fn find_nonce(&self) -> Option<usize> {
        let rest = self.buffer.get(self.scanned..)?;
        rest.windows(self.nonce.len()).position(|window| window == self.nonce).map(|at| at + self.scanned)
    }
}

fn parse_line(text: &str) -> Option<Line> {
    let (kind, rest) = text.split_once(' ')?;
    let (head, tail) = rest.split_once(' ').unwrap_or((rest, ""));
    match kind {
        "=" => Some(Line::Answer(head.parse().ok()?, tail.to_owned())),
        "|" => Some(Line::Mark(head.parse().ok()?)),
        "!" => Some(Line::Ended(head.to_owned(), tail.to_owned())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_endless_stranger_is_given_up() {
        let mut frames = Frames::new("NN");
        frames.push(&vec![b'x'; MAX_PAYLOAD + 1]);
        assert!(frames.next().is_err());
        let mut frames = Frames::new("NN");
        frames.push(b"NN = ");
        frames.push(&vec![b'x'; MAX_LINE]);
        assert!(frames.next().is_err());
    }

    proptest! {
        /// However the bytes are cut, the same frames come out, and payloads are untouched.
        #[test]
        fn frames_do_not_depend_on_how_bytes_arrive(
            payload in proptest::collection::vec(any::<u8>(), 0..300),
            cuts in proptest::collection::vec(1usize..40, 1..50),
        ) {
            let nonce = "0f3a5c7e9b1d2f40";
            let mut stream = payload.clone();
            stream.extend_from_slice(b"0f3a5c7e9b1d2f40 | 7\nerr0f3a5c7e9b1d2f40 = 7 DONE 0 -\n");
            let mut frames = Frames::new(nonce);
            let mut got = Vec::new();
            let mut rest = stream.as_slice();
            let mut cuts = cuts.into_iter().cycle();
            while !rest.is_empty() {
                let n = cuts.next().unwrap_or(1).min(rest.len());
                let (now, later) = rest.split_at(n);
                frames.push(now);
                rest = later;
                while let Some(frame) = frames.next().unwrap() {
                    got.push(frame);
                }
            }
            prop_assert_eq!(got, vec![
                Frame { payload: payload.into(), line: Line::Mark(7) },
                Frame { payload: Bytes::from_static(b"err"), line: Line::Answer(7, "DONE 0 -".into()) },
            ]);
        }
    }
}
