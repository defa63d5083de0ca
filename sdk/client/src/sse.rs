//! Reads server-sent events out of bytes as they arrive.

/// Largest event, in bytes.
const MAX_EVENT: usize = 8 << 20;

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its name.
    pub event: String,
    /// What it says.
    pub data: String,
}

/// An event larger than anything a server sends.
#[derive(Debug, PartialEq, Eq)]
pub struct TooLong;

/// Takes bytes in, gives events out.
#[derive(Debug, Default)]
pub struct Parser {
    bytes: Vec<u8>,
    event: String,
    data: String,
    last_id: Option<u64>,
}

impl Parser {
    /// Takes bytes in.
    ///
    /// # Errors
    /// When an event grows without end.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), TooLong> {
        if self.bytes.len() + self.data.len() + bytes.len() > MAX_EVENT {
            return Err(TooLong);
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    /// The next whole event.
    pub fn next(&mut self) -> Option<Message> {
        let mut used = 0;
        let mut found = None;
        while let Some(rest) = self.bytes.get(used..)
            && let Some(end) = rest.iter().position(|&byte| byte == b'\n')
        {
            let line = String::from_utf8_lossy(rest.get(..end).unwrap_or_default()).into_owned();
            used += end + 1;
            found = self.line(line.trim_end_matches('\r'));
            if found.is_some() {
                break;
            }
        }
        self.bytes.drain(..used);
        found
    }

    /// Number of the last event, heartbeats included: resume after it.
    pub fn last_id(&self) -> Option<u64> {
        self.last_id
    }

    fn line(&mut self, line: &str) -> Option<Message> {
        if line.is_empty() {
            let (event, data) = (std::mem::take(&mut self.event), std::mem::take(&mut self.data));
            return (!data.is_empty()).then_some(Message { event, data });
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.event),
            "data" => {
                if !self.data.is_empty() {
                    self.data.push('\n');
                }
                self.data.push_str(value);
            }
            "id" => self.last_id = value.parse().ok().or(self.last_id),
            // Comments, the wait before a new connection, and what later versions may add.
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str = ": hello\nretry: 1000\n\nevent: log\ndata: {\"a\":1}\nid: 7\n\n: heartbeat\nid: 9\n\nevent: task\r\ndata: one\r\ndata: two\r\n\r\nevent: end\ndata: {";

    fn read(pieces: &[&[u8]]) -> (Vec<(String, String)>, Option<u64>) {
        let mut parser = Parser::default();
        let mut seen = Vec::new();
        for piece in pieces {
            parser.push(piece).unwrap();
            while let Some(message) = parser.next() {
                seen.push((message.event, message.data));
            }
        }
        (seen, parser.last_id())
    }

    #[test]
    fn events_are_the_same_however_the_bytes_are_cut() {
        let expected = (vec![("log".into(), "{\"a\":1}".into()), ("task".into(), "one\ntwo".into())], Some(9));
        assert_eq!(read(&[STREAM.as_bytes()]), expected);
        for size in 1..STREAM.len() {
            let pieces: Vec<&[u8]> = STREAM.as_bytes().chunks(size).collect();
            assert_eq!(read(&pieces), expected, "in pieces of {size}");
        }
    }

    #[test]
    fn an_endless_event_is_given_up() {
        let mut parser = Parser::default();
        assert_eq!(parser.push(&vec![b'x'; MAX_EVENT]), Ok(()));
        assert_eq!(parser.push(b"x"), Err(TooLong));
    }
}
