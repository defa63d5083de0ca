//! `windlass-chores`: the chores that need the rest of Windlass. `cargo xtask` builds it and becomes it.
//!
//! Errors here are texts: they are told to a person, and nothing else ever looks at them.

mod demo;
mod http;
mod plugins;
mod process;
mod tests;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use xtask::args::{Chore, Cli};
use xtask::say;

/// What a chore answers: a text for people when it failed.
type Outcome<T = ()> = Result<T, String>;

// One thread: the SSH servers of the demo die with the thread that started them, so that must be the main one.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(&Cli::parse().chore).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say::error(&error);
            ExitCode::FAILURE
        }
    }
}

async fn run(chore: &Chore) -> Outcome {
    let root = root()?;
    match chore {
        Chore::Plugins(options) => plugins::build(&root, options.force).await.map(drop),
        Chore::Demo(options) => demo::run(&root, options).await,
        Chore::Test(options) => tests::run(&root, options).await,
        Chore::Bench(_) | Chore::Ci => Err("this chore is done by `cargo xtask` itself".to_owned()),
    }
}

/// The folder of the repository.
fn root() -> Outcome<PathBuf> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.ancestors().nth(2).map(Path::to_path_buf).ok_or_else(|| format!("{} lies in no repository", own.display()))
}
