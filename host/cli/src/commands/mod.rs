//! The commands, one noun a file. Each reads its arguments, asks the server, prints.

pub mod apply;
pub mod backup;
pub mod completions;
pub mod deploy;
pub mod environment;
pub mod explain;
pub mod help;
pub mod interruption;
pub mod lock;
pub mod machine;
pub mod package;
pub mod plan;
pub mod plugin;
pub mod project;
pub mod release;
mod replay;
pub mod restore;
pub mod schema;
pub mod script;
pub mod serve;
pub mod store;
pub mod task;
#[cfg(test)]
mod tests;
pub mod token;
pub mod validate;
pub mod why;
mod workspace;

use std::{future::Future, time::Duration};

use windlass_client::Client;

use crate::{
    cli::{Cli, Command, Global},
    config::{File, ProcessEnv},
    connect,
    errors::Failure,
    exit::Exit,
    output::Ui,
};

/// What a command needs: the global options and where to print.
pub struct Context<'a> {
    /// Options of every command.
    pub global: &'a Global,
    /// Where to print.
    pub ui: &'a Ui,
}

impl Context<'_> {
    /// A client of the server that is meant.
    ///
    /// # Errors
    /// When it cannot be told which, or there is no token for it.
    pub fn client(&self) -> Result<Client, Failure> {
        connect::client(self.global, &ProcessEnv)
    }

    /// The configuration file.
    ///
    /// # Errors
    /// When it is not what it should be.
    pub fn config_file(&self) -> Result<File, Failure> {
        File::find(self.global.config.as_deref(), &ProcessEnv)
    }
}

/// Runs a command to its end.
///
/// # Errors
/// As the command's.
pub fn run(cli: Cli, ui: &Ui) -> Result<Exit, Failure> {
    let context = Context { global: &cli.global, ui };
    match cli.command {
        Command::Serve(command) => wait_for(true, serve::run(&context, command)),
        Command::Deploy(command) => wait_for(false, deploy::run(&context, command)),
        Command::Release(command) => wait_for(false, release::run(&context, command)),
        Command::Task(command) => wait_for(false, task::run(&context, command)),
        Command::Plan(command) => wait_for(false, plan::run(&context, command)),
        Command::Why(command) => wait_for(false, why::run(&context, command)),
        Command::Lock(command) => wait_for(false, lock::run(&context, command)),
        Command::Interruption(command) => wait_for(false, interruption::run(&context, command)),
        Command::Token(command) => wait_for(false, token::run(&context, command)),
        Command::Apply(command) => wait_for(false, apply::run(&context, command)),
        Command::Validate(command) => wait_for(false, validate::run(&context, command)),
        Command::Package(command) => wait_for(false, package::run(&context, command)),
        Command::Project(command) => wait_for(false, project::run(&context, command)),
        Command::Environment(command) => wait_for(false, environment::run(&context, command)),
        Command::Machine(command) => wait_for(false, machine::run(&context, command)),
        Command::Plugin(command) => wait_for(false, plugin::run(&context, command)),
        Command::Script(command) => wait_for(false, script::run(&context, command)),
        Command::Backup(command) => wait_for(false, backup::run(&context, command)),
        Command::Restore(command) => wait_for(false, restore::run(&context, command)),
        Command::Store(command) => wait_for(false, store::run(&context, command)),
        Command::Schema(command) => wait_for(false, schema::run(&context, command)),
        Command::Explain(command) => explain::run(&context, &command),
        Command::Completions(command) => completions::run(&context, &command),
        Command::Help(command) => help::run(&context, &command),
    }
}

/// How long work on other threads may hold up the end of the process.
const END_WITHIN: Duration = Duration::from_secs(10);

/// A client waits for one thing at a time and needs one thread; a server takes all cores.
fn wait_for(all_cores: bool, command: impl Future<Output = Result<Exit, Failure>>) -> Result<Exit, Failure> {
    let mut builder = if all_cores {
        tokio::runtime::Builder::new_multi_thread()
    } else {
        tokio::runtime::Builder::new_current_thread()
    };
    // One of a server's threads may hang in a write to its disk, and another one must be there to end the process.
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let runtime = builder
        .worker_threads(cores.max(2))
        .enable_all()
        .build()
        .map_err(|error| Failure::new("system", "failed to start").cause(error.to_string()))?;
    let result = runtime.block_on(command);
    if matches!(&result, Err(failure) if failure.exit == Exit::StoreStopped) {
        // Its threads may hang on the disk that failed: the process ends without them.
        std::mem::forget(runtime);
    } else {
        // What still runs on a blocking thread has lost whoever asked for it.
        runtime.shutdown_timeout(END_WITHIN);
    }
    result
}
