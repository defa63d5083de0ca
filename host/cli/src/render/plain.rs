//! One line an event, with the time in UTC: for pipes, files and CI logs. Never a carriage return.

use std::io::{self, Write};

use windlass_model::{
    RunState,
    task::{LogLevel, PACKAGES_NODE},
};

use super::{Renderer, outcomes, paint};
use crate::{
    text::{clock, duration, now_ms, visible},
    view::{Event, News, View, What, rows::progress_text, shown, worded},
};

/// Writes plain lines.
pub struct Plain<W> {
    out: W,
    verbose: bool,
}

impl<W: Write + Send> Plain<W> {
    /// Writes to `out`; with `verbose` debug lines too.
    pub fn new(out: W, verbose: bool) -> Self {
        Self { out, verbose }
    }
}

impl<W: Write + Send> Renderer for Plain<W> {
    fn event(&mut self, event: &Event, news: &[News], _: &View) -> io::Result<()> {
        for news in news {
            let Some(text) = text(news, self.verbose) else {
                continue;
            };
            let node = match news.node.as_str() {
                "" => format!("task {}", event.task),
                node => visible(shown(node)),
            };
            for line in text.lines() {
                writeln!(self.out, "{} {node} | {}", clock(news.at_ms), visible(line))?;
            }
        }
        self.out.flush()
    }

    fn remark(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.out, "{} windlass | {}", clock(now_ms()), visible(text))?;
        self.out.flush()
    }

    fn end(&mut self, view: &View) -> io::Result<()> {
        if view.task().summary.state.is_final() {
            writeln!(self.out, "\n{}", outcomes(view, None))?;
        }
        writeln!(self.out, "{}", paint::row(&view.verdict(), 0))?;
        self.out.flush()
    }
}

/// What a piece of news says, if it is worth a line.
fn text(news: &News, verbose: bool) -> Option<String> {
    Some(match &news.what {
        What::Task(state, error) => with_error(state.to_string(), error.as_ref()),
        What::Step(RunState::Pending | RunState::Waiting, _) => return None,
        What::Step(state, why) => with_error(state.to_string(), why.as_ref()),
        What::Run(RunState::Pending | RunState::Waiting, ..) => return None,
        What::Run(state, took, error) => {
            let mut text = state.to_string();
            if let Some(ms) = took {
                text = format!("{text} after {}", duration(*ms));
            }
            with_error(text, error.as_ref())
        }
        What::Reason(reason) => reason.text.clone(),
        What::Resumed(waited) => format!("goes on after waiting {}", duration(*waited)),
        What::Progress(progress) => {
            let text = progress_text(&news.node, progress);
            if text.is_empty() {
                return None;
            }
            if news.node.starts_with(PACKAGES_NODE) { format!("transfer {text}") } else { text }
        }
        What::Line(line) if line.level == LogLevel::Debug && !verbose => return None,
        What::Line(line) => worded(line),
    })
}

fn with_error(text: String, error: Option<&String>) -> String {
    match error {
        Some(error) => format!("{text}: {error}"),
        None => text,
    }
}
