//! The binary `windlass`: the server and the client commands.
//!
//! This file only reads the command line, runs the command and turns its end into an exit code. Commands are in
//! [`commands`], what they show is folded in [`view`] and drawn in [`render`], settings come from [`config`], and
//! everything that can go wrong has its one form in [`errors`].

mod cli;
mod commands;
mod config;
mod connect;
mod errors;
mod exit;
mod follow;
mod moment;
mod output;
mod render;
#[cfg(test)]
mod scene;
mod text;
mod view;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    let ui = output::Ui::new(&cli.global);
    match commands::run(cli, &ui) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            ui.failure(&failure);
            failure.exit.into()
        }
    }
}
