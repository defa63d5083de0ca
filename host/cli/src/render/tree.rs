//! The live tree of a terminal: what is finished scrolls up and stays, what goes on is redrawn in place below.
//!
//! The whole tree is one message of one indicatif bar, so each redraw is one write and nothing flickers.

use std::io;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use windlass_model::RunState;

use super::{Renderer, outcomes, paint};
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
pub struct Tree {
    bar: ProgressBar,
    size: Box<dyn Fn() -> Size + Send>,
    frame: usize,
    colour: bool,
}

impl Tree {
    /// The tree on standard output.
    #[must_use]
    pub fn stdout(colour: bool) -> Self {
        let size = || {
            let (height, width) = console::Term::stdout().size();
            Size { height: height.into(), width: width.into() }
        };
        Self::new(ProgressDrawTarget::stdout(), colour, size)
    }

    /// The tree on any terminal.
    pub fn new(target: ProgressDrawTarget, colour: bool, size: impl Fn() -> Size + Send + 'static) -> Self {
        let bar = ProgressBar::with_draw_target(None, target);
        // The template is a constant; were it wrong, indicatif's own style shows the message as well.
        if let Ok(style) = ProgressStyle::with_template("{msg}") {
            bar.set_style(style);
        }
        Self { bar, size: Box::new(size), frame: 0, colour }
    }

    fn keep(&self, line: &str) {
        self.bar.println(if self.colour { line.to_owned() } else { paint::bare(line) });
    }

    fn draw(&self, view: &View, now_ms: u64) {
        let lines = lines(view, now_ms, (self.size)(), self.frame, self.colour);
        self.bar.set_message(lines.join("\n"));
    }
}

/// What is drawn in place: lines that fit the terminal, so that none of them wraps.
pub fn lines(view: &View, now_ms: u64, size: Size, frame: usize, colour: bool) -> Vec<String> {
    // One row stays free, so that the cursor below the tree does not scroll it.
    let rows = view.rows(now_ms, size.height.saturating_sub(2));
    let width = size.width.saturating_sub(1).max(12);
    rows.iter()
        .map(|row| paint::row_within(row, frame, width))
        .map(|line| if colour { line } else { paint::bare(&line) })
        .collect()
}

impl Renderer for Tree {
    fn event(&mut self, event: &Event, news: &[News], view: &View) -> io::Result<()> {
        for news in news {
            match &news.what {
                What::Run(RunState::Failed | RunState::Unknown, ..) => {
                    for row in view.failure(&news.node) {
                        self.keep(&paint::row(&row, 0));
                    }
                }
                What::Step(state, _) if state.is_final() => {
                    for row in view.finished(&news.node) {
                        self.keep(&paint::row(&row, 0));
                    }
                }
                _ => {}
            }
        }
        if !news.is_empty() {
            self.draw(view, event.at_ms);
        }
        Ok(())
    }

    fn tick(&mut self, view: &View, now_ms: u64) {
        self.frame = self.frame.wrapping_add(1);
        self.draw(view, now_ms);
    }

    fn remark(&mut self, text: &str) -> io::Result<()> {
        self.keep(&paint::styled(paint::YELLOW, &visible(text)));
        Ok(())
    }

    fn end(&mut self, view: &View) -> io::Result<()> {
        if view.task().summary.state.is_final() {
            self.keep("");
            for line in outcomes(view, Some((self.size)().width)).lines() {
                self.keep(line);
            }
        }
        self.keep(&paint::row(&view.verdict(), 0));
        self.bar.finish_and_clear();
        Ok(())
    }
}
