//! `windlass interruption`: what people are asked, and answering.

use clap::Subcommand;
use windlass_model::scheduling::{AnswerRequest, QuestionView};

use super::Context;
use crate::{
    errors::Failure,
    exit::Exit,
    text::{date, visible},
};

/// Look at what tasks ask people, and answer
#[derive(Debug, Subcommand)]
pub enum Interruption {
    /// List what waits for a person
    #[command(after_help = "Examples:\n  windlass interruption list\n  windlass interruption list -o json")]
    List,
    /// Answer a question
    #[command(
        after_help = "Examples:\n  windlass interruption answer 3 retry\n  windlass interruption answer 3 done --notes 'the receiver has it'\n  windlass interruption answer 4 proceed --notes 'checked the graphs'"
    )]
    Answer {
        /// Its number
        number: u64,
        /// One of its choices: fail, retry, done, ignore, exclude, proceed, abort or wait
        choice: String,
        /// Notes, kept with the answer
        #[arg(long, default_value = "")]
        notes: String,
    },
}

/// What is asked, with what is known of it.
fn told(asked: &QuestionView) -> String {
    match asked.last_lines.last() {
        Some(last) => format!("{}; its last line is: {last}", asked.text),
        None => asked.text.clone(),
    }
}

/// Runs it.
///
/// # Errors
/// When the server refuses or cannot be reached.
pub async fn run(context: &Context<'_>, command: Interruption) -> Result<Exit, Failure> {
    let client = context.client()?;
    match command {
        Interruption::List => {
            let found = client.interruptions().await?;
            let cells = |asked: &QuestionView| {
                vec![
                    asked.number.to_string(),
                    asked.task.to_string(),
                    visible(&told(asked)).to_string(),
                    asked.choices.join(", "),
                    if asked.responsible.is_empty() { "anyone".to_owned() } else { asked.responsible.join(", ") },
                    asked.expires_ms.map(date).unwrap_or_default(),
                ]
            };
            context.ui.list(
                &found,
                |asked| asked.number.to_string(),
                &["number", "task", "question", "answers", "who", "until (UTC)"],
                cells,
            )?;
        }
        Interruption::Answer { number, choice, notes } => {
            let asked = client.answer(number, &AnswerRequest { choice, notes }).await?;
            let told = |asked: &QuestionView| format!("question {} of task {} is answered", asked.number, asked.task);
            context.ui.one(&asked, |asked| asked.number.to_string(), told)?;
        }
    }
    Ok(Exit::Done)
}
