//! Tables without lines: a heading, columns, rows. For lists, and for the end of a task.

use comfy_table::{ContentArrangement, presets};

use super::paint;
use crate::{
    text::visible,
    view::{View, rows::Mark},
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

/// The table at the end of a task.
#[must_use]
pub fn outcomes(view: &View) -> String {
    let mut table = Table::new(&["", "step", "on", "result", "took", ""]);
    for outcome in view.outcomes() {
        let (sign, _) = paint::sign(Mark::from(outcome.state), 0);
        let state = outcome.state.to_string();
        let first_line = outcome.note.lines().next().unwrap_or_default().to_owned();
        table.row([sign, &outcome.name, &outcome.machines, &state, &outcome.took, &first_line]);
    }
    table.render()
}
