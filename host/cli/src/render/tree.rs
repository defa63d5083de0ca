//! The live tree of a terminal: what is finished scrolls up and stays, what goes on is redrawn in place below.

use std::io::{self, Write};

use windlass_model::RunState;

use super::{Renderer, live::Live, outcomes, paint};
use crate::{
    text::visible,
    view::{Event, News, View, What},
};

/// Size of the terminal.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
}

/// Draws the live tree.
pub struct Tree<W> {
    live: Live<W>,
    /// What was drawn last, to stand below what is kept.
    tree: Vec<String>,
    size: Box<dyn Fn() -> Size + Send>,
    frame: usize,
    colour: bool,
}

impl Tree<io::Stdout> {
    /// The tree on standard output.
    #[must_use]
    pub fn stdout(colour: bool) -> Self {
        let size = || {
            let (height, width) = console::Term::stdout().size();
            Size { height: height.into(), width: width.into() }
        };
        Self::new(io::stdout(), colour, size)
    }
}

impl<W: Write> Tree<W> {
    /// The tree on any terminal.
    pub fn new(out: W, colour: bool, size: impl Fn() -> Size + Send + 'static) -> Self {
        Self { live: Live::new(out), tree: Vec::new(), size: Box::new(size), frame: 0, colour }
    }

    fn coloured(&self, line: String) -> String {
        if self.colour { line } else { paint::bare(&line) }
    }

    /// Prints lines that stay, above the tree.
    fn keep(&mut self, lines: impl IntoIterator<Item = String>) -> io::Result<()> {
        let kept: Vec<String> = lines.into_iter().map(|line| self.coloured(line)).collect();
        self.live.show(&kept, &self.tree, (self.size)().width)
    }

    fn draw(&mut self, view: &View, now_ms: u64) {
        let size = (self.size)();
        self.tree = lines(view, now_ms, size, self.frame).into_iter().map(|line| self.coloured(line)).collect();
    }
}

/// What is drawn in place: lines that fit the terminal, so that none of them wraps.
pub fn lines(view: &View, now_ms: u64, size: Size, frame: usize) -> Vec<String> {
    // One row stays free for the cursor below the tree, and one for the prompt above it.
    let rows = view.rows(now_ms, size.height.saturating_sub(2));
    let width = size.width.saturating_sub(1).max(12);
    rows.iter().map(|row| paint::row_within(row, frame, width)).collect()
}

impl<W: Write + Send> Renderer for Tree<W> {
    fn event(&mut self, event: &Event, news: &[News], view: &View) -> io::Result<()> {
        let mut kept = Vec::new();
        for news in news {
            let rows = match &news.what {
                What::Run(RunState::Failed | RunState::Unknown, ..) => view.failure(&news.node),
                What::Step(state, _) if state.is_final() => view.finished(&news.node),
                _ => continue,
            };
            kept.extend(rows.iter().map(|row| paint::row(row, 0)));
        }
        // Anything else is drawn at the next tick: a log of thousands of lines a second is no reason for as many frames.
        if kept.is_empty() {
            return Ok(());
        }
        self.draw(view, event.at_ms);
        self.keep(kept)
    }

    fn tick(&mut self, view: &View, now_ms: u64) -> io::Result<()> {
        self.frame = self.frame.wrapping_add(1);
        self.draw(view, now_ms);
        self.keep([])
    }

    fn remark(&mut self, text: &str) -> io::Result<()> {
        self.keep([paint::styled(paint::YELLOW, &visible(text))])
    }

    fn end(&mut self, view: &View) -> io::Result<()> {
        self.tree.clear();
        let mut kept = Vec::new();
        if view.task().summary.state.is_final() {
            kept.push(String::new());
            kept.extend(outcomes(view, Some((self.size)().width)).lines().map(str::to_owned));
        }
        kept.push(paint::row(&view.verdict(), 0));
        self.keep(kept)
    }
}
