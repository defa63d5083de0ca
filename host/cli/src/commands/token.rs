//! `windlass token`: who may use the server, and under which name.

use clap::Subcommand;
use windlass_model::{
    TokenName,
    views::{NewToken, TokenView},
};

use super::Context;
use crate::{errors::Failure, exit::Exit, text::visible};

/// Make tokens for people and programs, list them, make them void
#[derive(Debug, Subcommand)]
pub enum Token {
    /// List the names of all tokens
    #[command(after_help = "Examples:\n  windlass token list\n  windlass token list -o json")]
    List,
    /// Make a token; it is printed this once
    #[command(after_help = "Examples:\n  windlass token create anna\n  windlass token create ci -o id > ci.token\n\n\
                      Whoever uses it answers questions and breaks locks under that name.")]
    Create {
        /// Name of its owner
        name: TokenName,
    },
    /// Make a token void
    #[command(after_help = "Examples:\n  windlass token revoke anna\n  windlass token revoke anna -o json")]
    Revoke {
        /// Name of its owner
        name: TokenName,
    },
}

/// Runs it.
///
/// # Errors
/// When the server refuses or cannot be reached.
pub async fn run(context: &Context<'_>, command: Token) -> Result<Exit, Failure> {
    let client = context.client()?;
    match command {
        Token::List => {
            let found = client.tokens().await?;
            let cells = |token: &TokenView| vec![visible(&token.name)];
            context.ui.list(&found, |token| token.name.clone(), &["name"], cells)?;
        }
        Token::Create { name } => {
            let made = client.create_token(&name).await?;
            let told = |made: &NewToken| {
                format!("token of {}, shown this once: {}\nuse it: export WINDLASS_TOKEN=…", made.name, made.token)
            };
            context.ui.one(&made, |made| made.token.clone(), told)?;
        }
        Token::Revoke { name } => {
            let gone = client.revoke_token(&name).await?;
            let told = |gone: &TokenView| format!("the token of {} is void", visible(&gone.name));
            context.ui.one(&gone, |gone| gone.name.clone(), told)?;
        }
    }
    Ok(Exit::Done)
}
