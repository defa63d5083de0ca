//! The command line: every command with its flags, help and two examples. What they do is in [`crate::commands`].

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::commands;

/// Deploys software through sandboxed plugins and scripts.
#[derive(Debug, Parser)]
#[command(
    name = "windlass",
    version,
    max_term_width = 100,
    disable_help_subcommand = true,
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = "Start here:\n  windlass serve                          start a server on this machine\n  \
                  windlass apply shop                     tell it what to deploy, and where\n  \
                  windlass deploy shop -e production      do it, and watch\n\n\
                  windlass help exit-codes lists what the process answers."
)]
pub struct Cli {
    /// What holds for every command.
    #[command(flatten)]
    pub global: Global,
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Address of the server [env: WINDLASS_URL] [default: the server on this machine]
    #[arg(long, global = true, value_name = "URL")]
    pub server: Option<String>,

    /// File that holds the token; else WINDLASS_TOKEN, else that of the server on this machine
    #[arg(long, global = true, value_name = "FILE")]
    pub token_file: Option<PathBuf>,

    /// Configuration file [env: WINDLASS_CONFIG] [default: ./windlass.toml, /etc/windlass/windlass.toml]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// What to print on standard output
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Table)]
    pub output: Format,

    /// When to use colours; NO_COLOR is obeyed
    #[arg(long, global = true, value_enum, default_value_t = Colour::Auto, value_name = "WHEN")]
    pub color: Colour,

    /// Never ask; what is missing is an error
    #[arg(long, global = true)]
    pub no_input: bool,

    /// Show debug lines too
    #[arg(short, long, global = true)]
    pub verbose: bool,
}

/// What is printed on standard output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Table,
    /// The REST API's JSON, when all is done.
    Json,
    /// JSON, one object a line, as it comes.
    Jsonl,
    /// Names or numbers only, one a line.
    Id,
}

/// When to use colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Colour {
    /// On a terminal.
    Auto,
    /// Even into a pipe.
    Always,
    /// Not at all.
    Never,
}

/// The commands, those of every day first.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Deploy a release to an environment, and watch it
    Deploy(commands::deploy::Deploy),
    /// Tell what a deployment would do; nothing is changed
    Plan(commands::plan::Plan),
    /// Create and look at releases
    #[command(subcommand, visible_alias = "releases")]
    Release(commands::release::Release),
    /// Look at tasks, follow and cancel them
    #[command(subcommand, visible_alias = "tasks")]
    Task(commands::task::Task),
    /// Tell why a task waits
    Why(commands::why::Why),
    /// Look at what tasks ask people, and answer
    #[command(subcommand, visible_alias = "interruptions")]
    Interruption(commands::interruption::Interruption),
    /// Look at locks, and break one that nobody will give back
    #[command(subcommand, visible_alias = "locks")]
    Lock(commands::lock::Lock),
    /// Send the files of a folder to the server
    Apply(commands::apply::Apply),
    /// Check the files of a folder
    Validate(commands::validate::Validate),
    /// Pack, push and list packages
    #[command(subcommand, visible_alias = "packages")]
    Package(commands::package::Package),
    /// Look at projects
    #[command(subcommand, visible_alias = "projects")]
    Project(commands::project::Project),
    /// Look at environments
    #[command(subcommand, visible_alias = "environments")]
    Environment(commands::environment::Environment),
    /// Add, trust and check machines
    #[command(subcommand, visible_alias = "machines")]
    Machine(commands::machine::Machine),
    /// Build, install and look at plugins
    #[command(subcommand, visible_alias = "plugins")]
    Plugin(commands::plugin::Plugin),
    /// Run and check coordination scripts
    #[command(subcommand, visible_alias = "scripts")]
    Script(commands::script::Script),
    /// Make tokens for people and programs
    #[command(subcommand, visible_alias = "tokens")]
    Token(commands::token::Token),
    /// Run the server
    Serve(commands::serve::Serve),
    /// Save everything the server keeps to a file, while it goes on
    Backup(commands::backup::Backup),
    /// Make a server's data folder from a backup
    Restore(commands::restore::Restore),
    /// Look after the data folder of a stopped server
    #[command(subcommand)]
    Store(commands::store::Store),
    /// Print the JSON Schema of the files, for editors
    Schema(commands::schema::Schema),
    /// Explain a code such as E0102
    Explain(commands::explain::Explain),
    /// Print a completion script for a shell
    Completions(commands::completions::Completions),
    /// Print help on a topic
    Help(commands::help::Help),
}
