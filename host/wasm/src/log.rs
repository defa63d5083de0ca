//! What a guest logs itself: cleaned, bounded, and remembered where it explains a trap.

use std::sync::Arc;

use windlass_effects::{Line, Waist};
use windlass_model::task::LogLevel;

use crate::{limits::Limits, text};

/// Longest line, in bytes.
const MAX_LINE: usize = 16 << 10;
/// Most lines of one call.
const MAX_LINES: usize = 1000;
/// Most attributes that are shown behind a line.
const MAX_ATTRIBUTES: usize = 32;

/// The way from a guest to the log of its run.
pub struct Log {
    waist: Arc<dyn Waist>,
    lines_left: u64,
    bytes_left: u64,
    dropped: u64,
    panic: Option<String>,
}

impl Log {
    pub fn new(waist: Arc<dyn Waist>, limits: &Limits) -> Self {
        Self { waist, lines_left: limits.log_lines, bytes_left: limits.log_bytes, dropped: 0, panic: None }
    }

    /// Takes one call of `log.write`.
    pub fn write(&mut self, level: u8, message: &str, attributes: &[(String, String)]) {
        let level = match level {
            0 | 1 => LogLevel::Debug,
            2 => LogLevel::Info,
            3 => LogLevel::Warning,
            _ => LogLevel::Error,
        };
        if level == LogLevel::Error && message.starts_with("panicked at ") {
            // The panic hook of the SDK. The trap that follows has lost this text; the error of the run shows it.
            self.panic = Some(message.chars().take(MAX_LINE / 4).collect());
            return;
        }
        let mut lines = message.lines();
        let first = lines.next().unwrap_or_default();
        let mut first = text::one_line(first, MAX_LINE);
        for (name, value) in attributes.iter().take(MAX_ATTRIBUTES) {
            first.push_str(&format!(" {}={}", text::one_line(name, 100), text::one_line(value, 1000)));
        }
        self.line(level, first);
        for line in lines.by_ref().take(MAX_LINES - 1) {
            self.line(level, text::one_line(line, MAX_LINE));
        }
        self.dropped += lines.count() as u64;
    }

    /// What the guest said when it panicked, over several lines, not cleaned.
    pub fn panic(&self) -> Option<&str> {
        self.panic.as_deref()
    }

    /// Says how much is missing, once, at the end of the run: the number of lines that were left out.
    pub fn close(&mut self) -> u64 {
        if self.dropped > 0 {
            let text = format!("the plugin logged {} more lines than a run may; they were left out", self.dropped);
            self.waist.log(Line { level: LogLevel::Warning, text });
        }
        std::mem::take(&mut self.dropped)
    }

    fn line(&mut self, level: LogLevel, text: String) {
        let bytes = text.len() as u64;
        if self.lines_left == 0 || self.bytes_left < bytes {
            // Once a line is left out all are: a log with holes misleads.
            self.lines_left = 0;
            self.dropped += 1;
            return;
        }
        self.lines_left -= 1;
        self.bytes_left -= bytes;
        self.waist.log(Line { level, text });
    }
}
