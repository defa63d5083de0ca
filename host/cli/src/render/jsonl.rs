//! One JSON object a line: what happens, with changes in the form of the REST API.

use std::io::{self, Write};

use super::Renderer;
use crate::view::{Event, News, View};

/// Writes JSON lines.
pub struct Jsonl<W>(pub W);

impl<W: Write + Send> Renderer for Jsonl<W> {
    fn event(&mut self, event: &Event, _: &[News], _: &View) -> io::Result<()> {
        writeln!(self.0, "{}", serde_json::to_string(event)?)?;
        self.0.flush()
    }

    fn remark(&mut self, _: &str) -> io::Result<()> {
        Ok(())
    }

    fn end(&mut self, _: &View) -> io::Result<()> {
        self.0.flush()
    }
}
