//! Standard output and standard error: data to the one, talk to the other, in the format that was asked for.

use std::io::{self, BufRead, IsTerminal, Write};

use serde::Serialize;

use crate::{
    cli::{Colour, Format, Global},
    errors::Failure,
    render::Table,
    text::visible,
};

/// What a command writes to.
#[derive(Debug, Clone)]
pub struct Ui {
    /// What goes to standard output.
    pub format: Format,
    /// Whether debug lines are shown.
    pub verbose: bool,
    /// Whether a person can be asked.
    pub may_ask: bool,
}

impl Ui {
    /// As the global options say. Sets the colours of the process.
    #[must_use]
    pub fn new(global: &Global) -> Self {
        match global.color {
            Colour::Auto => {}
            Colour::Always => anstream::ColorChoice::Always.write_global(),
            Colour::Never => anstream::ColorChoice::Never.write_global(),
        }
        let in_ci = std::env::var_os("CI").is_some_and(|value| !value.is_empty());
        let at_terminal = io::stdin().is_terminal() && io::stderr().is_terminal();
        Self { format: global.output, verbose: global.verbose, may_ask: at_terminal && !in_ci && !global.no_input }
    }

    /// Whether colours go to standard output.
    #[must_use]
    pub fn colour(&self) -> bool {
        anstream::AutoStream::choice(&io::stdout()) != anstream::ColorChoice::Never
    }

    /// Prints data as it is.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn data(&self, text: &str) -> io::Result<()> {
        let mut out = anstream::stdout().lock();
        writeln!(out, "{text}")?;
        out.flush()
    }

    /// Prints a list in the format that was asked for.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn list<T: Serialize>(
        &self,
        items: &[T],
        id: impl Fn(&T) -> String,
        columns: &[&str],
        cells: impl Fn(&T) -> Vec<String>,
    ) -> io::Result<()> {
        match self.format {
            Format::Json => self.json(&serde_json::json!({ "items": items })),
            Format::Jsonl => items.iter().try_for_each(|item| self.data(&serde_json::to_string(item)?)),
            Format::Id => items.iter().try_for_each(|item| self.data(&id(item))),
            Format::Table if items.is_empty() => self.say("nothing there yet"),
            Format::Table => {
                let mut table = Table::new(columns);
                for item in items {
                    table.row(cells(item));
                }
                self.data(&table.render())
            }
        }
    }

    /// Prints one thing in the format that was asked for.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn one<T: Serialize>(
        &self,
        item: &T,
        id: impl FnOnce(&T) -> String,
        text: impl FnOnce(&T) -> String,
    ) -> io::Result<()> {
        match self.format {
            Format::Json => self.json(item),
            Format::Jsonl => self.data(&serde_json::to_string(item)?),
            Format::Id => self.data(&id(item)),
            Format::Table => self.data(&text(item)),
        }
    }

    /// Prints a value as JSON.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn json<T: Serialize>(&self, value: &T) -> io::Result<()> {
        self.data(&serde_json::to_string_pretty(value)?)
    }

    /// Says something to the person, on standard error.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn say(&self, text: &str) -> io::Result<()> {
        writeln!(anstream::stderr().lock(), "{text}")
    }

    /// Prints why a command did not do what was asked. There is nobody left to tell if even that fails.
    pub fn failure(&self, failure: &Failure) {
        if failure.silent {
            return;
        }
        let text = match self.format {
            Format::Json | Format::Jsonl => failure.json() + "\n",
            Format::Table | Format::Id => failure.text(),
        };
        let _ = anstream::stderr().lock().write_all(text.as_bytes());
    }

    /// Asks a question that is answered with yes or no; no is the default.
    ///
    /// # Errors
    /// When the terminal cannot be used.
    pub fn confirm(&self, question: &str) -> io::Result<bool> {
        let mut err = anstream::stderr().lock();
        write!(err, "{} [y/N] ", visible(question))?;
        err.flush()?;
        let mut answer = String::new();
        io::stdin().lock().read_line(&mut answer)?;
        Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
    }
}
