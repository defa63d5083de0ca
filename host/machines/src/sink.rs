//! Where the output of a command goes.
//!
//! Output arrives in order for each stream, with its offset, and the next piece is fetched only when the last one was
//! taken: memory is bounded whatever the log's length. After a crash the sink says how far it got.

use async_trait::async_trait;
use bytes::Bytes;

/// One of the two streams a command prints to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

/// Takes the output of a command.
#[async_trait]
pub trait OutputSink: Send {
    /// How many bytes of `stream` are already safe here: output continues at that offset.
    fn offset(&self, stream: Stream) -> u64;

    /// Takes the bytes that begin at `offset`. An error ends the following, not the command.
    async fn write(&mut self, stream: Stream, offset: u64, bytes: Bytes) -> Result<(), String>;
}

/// Keeps everything in memory: for small outputs and for tests.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct MemorySink {
    /// Standard output so far.
    pub out: Vec<u8>,
    /// Standard error so far.
    pub err: Vec<u8>,
}

impl MemorySink {
    /// Standard output as text, damaged characters replaced.
    #[must_use]
    pub fn out_text(&self) -> String {
        String::from_utf8_lossy(&self.out).into_owned()
    }

    /// Standard error as text, damaged characters replaced.
    #[must_use]
    pub fn err_text(&self) -> String {
        String::from_utf8_lossy(&self.err).into_owned()
    }
}

#[async_trait]
impl OutputSink for MemorySink {
    fn offset(&self, stream: Stream) -> u64 {
        let kept = match stream {
            Stream::Out => &self.out,
            Stream::Err => &self.err,
        };
        kept.len() as u64
    }

    async fn write(&mut self, stream: Stream, _offset: u64, bytes: Bytes) -> Result<(), String> {
        match stream {
            Stream::Out => self.out.extend_from_slice(&bytes),
            Stream::Err => self.err.extend_from_slice(&bytes),
        }
        Ok(())
    }
}
