//! Tables without lines: a heading, columns, rows. For lists, and for the end of a task.

use anstyle::Style;
use comfy_table::{ContentArrangement, presets};
use console::measure_text_width;

use super::paint;
use crate::{
    text::{visible, wrapped},
    view::{View, summary::Outcome},
};

/// A table being filled.
pub struct Table {
    inner: comfy_table::Table,
}

impl Table {
    /// A table with these columns.
    #[must_use]
    pub fn new(columns: &[&str]) -> Self {
        let mut inner = comfy_table::Table::new();
        inner.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        inner.set_header(columns.iter().map(|column| column.to_uppercase()));
        Self { inner }
    }

    /// Adds a row.
    pub fn row<T: AsRef<str>>(&mut self, cells: impl IntoIterator<Item = T>) {
        self.inner.add_row(cells.into_iter().map(|cell| visible(cell.as_ref())));
    }

    /// The text, without spaces at the ends of lines.
    #[must_use]
    pub fn render(&self) -> String {
        let text = self.inner.to_string();
        let lines: Vec<&str> = text.lines().map(|line| line.trim_end().strip_prefix(' ').unwrap_or(line)).collect();
        lines.join("\n")
    }
}

/// The table at the end of a task, in so many columns where they are counted. What went wrong stands in the last
/// column, or below its row where that is too narrow; where even the table is too wide, each row becomes a line.
#[must_use]
pub fn outcomes(view: &View, width: Option<usize>) -> String {
    let outcomes = view.outcomes();
    let room = width.unwrap_or(usize::MAX);
    let fits = |lines: &[String]| lines.iter().all(|line| measure_text_width(line) < room);
    let beside = lines(&outcomes, true);
    let lines = if fits(&beside) {
        beside
    } else {
        let bare = lines(&outcomes, false);
        if fits(&bare) {
            with_notes_below(bare, &outcomes, room)
        } else {
            with_notes_below(sentences(&outcomes, room), &outcomes, room).split_off(1)
        }
    };
    lines.join("\n")
}

/// A heading, and a line for each outcome.
fn lines(outcomes: &[Outcome], notes: bool) -> Vec<String> {
    let mut table = Table::new(&["", "step", "on", "result", "took", ""]);
    for outcome in outcomes {
        let (sign, _) = paint::sign(outcome.state.into(), 0);
        let state = outcome.state.to_string();
        let note = if notes { first_line(&outcome.note) } else { "" };
        table.row([sign, &outcome.name, &outcome.machines, &state, &outcome.took, note]);
    }
    let text = table.render();
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    for (line, style) in lines.iter_mut().zip(styles(outcomes)) {
        *line = paint::styled_start(style, line);
    }
    lines
}

/// Styles of a heading and of the sign in front of each outcome.
fn styles(outcomes: &[Outcome]) -> impl Iterator<Item = Style> + '_ {
    let signs = outcomes.iter().map(|outcome| paint::sign(outcome.state.into(), 0).1);
    std::iter::once(Style::new()).chain(signs)
}

/// An empty heading, and a line without columns for each outcome.
fn sentences(outcomes: &[Outcome], room: usize) -> Vec<String> {
    let sentence = |outcome: &Outcome| {
        let (sign, style) = paint::sign(outcome.state.into(), 0);
        let mut parts = vec![format!("{}  {}", outcome.name, outcome.state)];
        parts.extend([&outcome.machines, &outcome.took].into_iter().filter(|part| !part.is_empty()).cloned());
        let text = wrapped(&visible(&parts.join(" · ")), room.saturating_sub(4));
        format!("{} {}", paint::styled(style, sign), text.join("\n  "))
    };
    std::iter::once(String::new()).chain(outcomes.iter().map(sentence)).collect()
}

/// Puts what went wrong below the line it belongs to. The first line is the heading.
fn with_notes_below(lines: Vec<String>, outcomes: &[Outcome], room: usize) -> Vec<String> {
    let mut out = Vec::new();
    let notes = std::iter::once("").chain(outcomes.iter().map(|outcome| first_line(&outcome.note)));
    for (line, note) in lines.into_iter().zip(notes) {
        out.push(line);
        let below = wrapped(&visible(note), room.saturating_sub(5));
        out.extend(below.into_iter().filter(|line| !line.is_empty()).map(|line| format!("    {line}")));
    }
    out
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}
