//! Rows and marks as text with colours. Whoever writes it strips the colours where they are not wanted.

use anstyle::{AnsiColor, Style};
use console::{measure_text_width, truncate_str};

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

/// Text whose first character is in a style.
#[must_use]
pub fn styled_start(style: Style, text: &str) -> String {
    let first = text.chars().next().map_or(0, char::len_utf8);
    let (start, rest) = text.split_at(first);
    format!("{}{rest}", if start.trim().is_empty() { start.to_owned() } else { styled(style, start) })
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
        Mark::Loud => ("│", YELLOW),
        Mark::More => ("…", DIM),
    }
}

/// A row as one line of text, however long. Nothing in it can move the cursor.
#[must_use]
pub fn row(row: &Row, frame: usize) -> String {
    put_together(row, frame, &visible(&row.text), &visible(&row.note))
}

/// The same in so many columns at most. Of name and note each keeps its part: a name that fills the line would hide how
/// it goes, and a note that fills it would hide what it is about.
#[must_use]
pub fn row_within(row: &Row, frame: usize, width: usize) -> String {
    let (text, note) = (visible(&row.text), visible(&row.note));
    // Indent, sign and the space after it.
    let room = width.saturating_sub(2 * row.depth + 2);
    let note_width = measure_text_width(&note);
    if note.is_empty() {
        return put_together(row, frame, &truncate_str(&text, room, "…"), "");
    }
    let for_both = room.saturating_sub(2);
    let for_text = for_both.saturating_sub(note_width).max(for_both * 2 / 5);
    let text = truncate_str(&text, for_text, "…");
    let note = truncate_str(&note, for_both.saturating_sub(measure_text_width(&text)), "…");
    put_together(row, frame, &text, &note)
}

fn put_together(row: &Row, frame: usize, text: &str, note: &str) -> String {
    let (sign, style) = sign(row.mark, frame);
    let indent = "  ".repeat(row.depth);
    let text = match row.mark {
        Mark::Line | Mark::Pending | Mark::More => styled(DIM, text),
        Mark::Loud => styled(YELLOW, text),
        _ if row.depth == 0 => styled(BOLD, text),
        _ => text.to_owned(),
    };
    let note = if note.is_empty() { String::new() } else { styled(DIM, &format!("  {note}")) };
    format!("{indent}{} {text}{note}", styled(style, sign))
}

/// The text without its colours.
#[must_use]
pub fn bare(text: &str) -> String {
    anstream::adapter::strip_str(text).to_string()
}
