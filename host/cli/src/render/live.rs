//! A few lines at the end of a terminal that are drawn anew in place, and lines above them that stay.
//!
//! By hand, because what draws by filling each row up to the edge falls apart when the window is made narrower: such rows
//! wrap. Here each line ends where its text ends, and rows that a terminal wrapped since are counted before they are
//! gone over. Each frame is one write, bracketed so that a terminal that knows the mark shows it at once.

use std::io::{self, Write};

use console::measure_text_width;

/// Begin and end of a synchronized update; terminals that do not know them ignore them.
const BEGIN: &str = "\x1b[?2026h";
const END: &str = "\x1b[?2026l";

/// Lines drawn in place. The cursor rests at the start of the row below them.
pub struct Live<W> {
    out: W,
    /// Widths of the lines that stand there.
    drawn: Vec<usize>,
}

impl<W: Write> Live<W> {
    /// Draws to `out`, a terminal with the cursor at the start of a row.
    pub fn new(out: W) -> Self {
        Self { out, drawn: Vec::new() }
    }

    /// Puts `lines` in the place of those before, with `kept` above them for good. The terminal has `width` columns.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn show(&mut self, kept: &[String], lines: &[String], width: usize) -> io::Result<()> {
        let rows: usize = self.drawn.iter().map(|drawn| drawn.div_ceil(width.max(1)).max(1)).sum();
        let mut frame = String::from(BEGIN);
        if rows > 0 {
            frame.push_str(&format!("\x1b[{rows}A"));
        }
        frame.push('\r');
        if !kept.is_empty() {
            // They may take more rows than what stood there.
            frame.push_str("\x1b[J");
        }
        for line in kept {
            frame.push_str(&format!("{line}\r\n"));
        }
        for line in lines {
            frame.push_str(&format!("\x1b[2K{line}\r\n"));
        }
        frame.push_str("\x1b[J");
        frame.push_str(END);
        self.drawn = lines.iter().map(|line| measure_text_width(line)).collect();
        self.out.write_all(frame.as_bytes())?;
        self.out.flush()
    }
}
