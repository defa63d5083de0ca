//! How a watched task is shown: a live tree on a terminal, plain lines elsewhere, JSON for programs, or nothing.
//!
//! All of them get the same events and news from [`crate::view`]. A renderer decides only how things look.

mod jsonl;
mod live;
pub mod paint;
mod plain;
pub mod plan;
mod table;
#[cfg(test)]
mod tests;
mod tree;

use std::io;

pub use jsonl::Jsonl;
pub use plain::Plain;
pub use table::{Table, outcomes};
pub use tree::Tree;

use crate::view::{Event, News, View};

/// Shows a task while it goes on. Errors are those of writing, such as a closed pipe.
pub trait Renderer: Send {
    /// Something happened.
    ///
    /// # Errors
    /// When it cannot be written.
    fn event(&mut self, event: &Event, news: &[News], view: &View) -> io::Result<()>;

    /// Some time passed.
    ///
    /// # Errors
    /// When it cannot be written.
    fn tick(&mut self, _view: &View, _now_ms: u64) -> io::Result<()> {
        Ok(())
    }

    /// A word to the person that is not about the task, such as that the link was lost.
    ///
    /// # Errors
    /// When it cannot be written.
    fn remark(&mut self, text: &str) -> io::Result<()>;

    /// Nothing more will come: the task is over, or nobody watches any longer.
    ///
    /// # Errors
    /// When it cannot be written.
    fn end(&mut self, view: &View) -> io::Result<()>;
}

/// Shows nothing.
pub struct Silent;

impl Renderer for Silent {
    fn event(&mut self, _: &Event, _: &[News], _: &View) -> io::Result<()> {
        Ok(())
    }

    fn remark(&mut self, _: &str) -> io::Result<()> {
        Ok(())
    }

    fn end(&mut self, _: &View) -> io::Result<()> {
        Ok(())
    }
}
