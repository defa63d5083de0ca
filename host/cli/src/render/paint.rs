//! Rows and marks as text with colours. Whoever writes it strips the colours where they are not wanted.

use anstyle::{AnsiColor, Style};

use crate::{
    text::visible,
    view::rows::{Mark, Row},
};

/// Faint, for what is said beside.
pub const DIM: Style = Style::new().dimmed();
/// For headings.
pub const BOLD: Style = Style::new().bold();
/// For what went wrong.
pub const RED: Style = AnsiColor::Red.on_default().bold();
/// For what asks for a look.
pub const YELLOW: Style = AnsiColor::Yellow.on_default();
/// For what went well.
pub const GREEN: Style = AnsiColor::Green.on_default();
/// For what goes on.
pub const CYAN: Style = AnsiColor::Cyan.on_default();

/// Frames of the sign that something is at work.
const FRAMES: [&str; 10] = ["⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"];

/// Text in a style.
#[must_use]
pub fn styled(style: Style, text: &str) -> String {
    if text.is_empty() { String::new() } else { format!("{style}{text}{style:#}") }
}

/// The sign of a mark, and its style.
#[must_use]
pub fn sign(mark: Mark, frame: usize) -> (&'static str, Style) {
    match mark {
        Mark::Pending => ("·", DIM),
        Mark::Waiting => ("◌", YELLOW),
        Mark::Running => (FRAMES.get(frame % FRAMES.len()).copied().unwrap_or("▸"), CYAN),
        Mark::Good => ("✓", GREEN),
        Mark::Bad => ("✗", RED),
        Mark::Stopped => ("−", DIM),
        Mark::Unknown => ("?", YELLOW),
        Mark::Line => ("│", DIM),
    }
}

/// A row as one line of text. Nothing in it can move the cursor.
#[must_use]
pub fn row(row: &Row, frame: usize) -> String {
    let (sign, style) = sign(row.mark, frame);
    let indent = "  ".repeat(row.depth);
    let text = visible(&row.text);
    let text = match row.mark {
        Mark::Line | Mark::Pending => styled(DIM, &text),
        _ if row.depth == 0 => styled(BOLD, &text),
        _ => text,
    };
    let note = if row.note.is_empty() { String::new() } else { styled(DIM, &format!("  {}", visible(&row.note))) };
    format!("{indent}{} {text}{note}", styled(style, sign))
}

/// The text without its colours.
#[must_use]
pub fn bare(text: &str) -> String {
    anstream::adapter::strip_str(text).to_string()
}
