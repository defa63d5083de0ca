//! `windlass explain`: what a code means. Works without a server.

use clap::Args;
use windlass_model::codes::Code;

use super::Context;
use crate::{errors::Failure, exit::Exit, text::wrapped};

/// Explain a code such as E0102
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  windlass explain E0102\n  windlass explain            lists all codes")]
pub struct Explain {
    /// The code; all of them when none is given
    code: Option<String>,
}

#[derive(serde::Serialize)]
struct Explained {
    code: Code,
    title: &'static str,
    explanation: &'static str,
}

impl From<Code> for Explained {
    fn from(code: Code) -> Self {
        Self { code, title: code.title(), explanation: code.explanation() }
    }
}

/// Runs it.
///
/// # Errors
/// When there is no such code.
pub fn run(context: &Context<'_>, command: &Explain) -> Result<Exit, Failure> {
    match &command.code {
        Some(text) => {
            let code: Code = text.parse().map_err(|error: windlass_model::codes::UnknownCode| {
                Failure::usage(error.to_string()).fix("windlass explain")
            })?;
            context.ui.one(
                &Explained::from(code),
                |explained| explained.code.to_string(),
                |explained| {
                    format!(
                        "{}: {}\n\n{}",
                        explained.code,
                        explained.title,
                        wrapped(explained.explanation, 80).join("\n")
                    )
                },
            )?;
        }
        None => {
            let all: Vec<Explained> = Code::ALL.iter().copied().map(Explained::from).collect();
            let cells = |explained: &Explained| vec![explained.code.to_string(), explained.title.to_owned()];
            context.ui.list(&all, |explained| explained.code.to_string(), &["code", "title"], cells)?;
        }
    }
    Ok(Exit::Done)
}
