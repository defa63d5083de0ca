//! The command line of `cargo xtask`.

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Chores of the Windlass repository.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about, disable_help_subcommand = true, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub chore: Chore,
}

/// What can be done.
#[derive(Debug, Subcommand)]
pub enum Chore {
    /// Deploy a sample application to three SSH servers on this machine, and watch it.
    Demo(Demo),
    /// Install what the tests need, and run them all.
    Test(Test),
    /// Build the step plugins into plugins/dist.
    Plugins(Plugins),
    /// Run a benchmark, such as `deploy`.
    Bench(Bench),
    /// Everything that must pass before a change is taken: the same as .ci/run.
    Ci,
}

/// How the demo runs.
#[derive(Debug, Args)]
pub struct Demo {
    /// Stop once everything was checked, instead of leaving the server running until Ctrl-C.
    #[arg(long)]
    pub exit: bool,
    /// Keep the demo's folder (store, logs, targets) to look at afterwards.
    #[arg(long)]
    pub keep: bool,
}

/// Which tests run.
#[derive(Debug, Args)]
pub struct Test {
    /// The long forms too: thousands of kills and power cuts instead of hundreds.
    #[arg(long)]
    pub long: bool,
    /// Only tests with one of these in their name.
    pub filters: Vec<String>,
}

/// How plugins are built.
#[derive(Debug, Args)]
pub struct Plugins {
    /// Build even if nothing changed.
    #[arg(long)]
    pub force: bool,
}

/// Which benchmark runs.
#[derive(Debug, Args)]
pub struct Bench {
    /// What is measured.
    pub subject: Subject,
    /// Arguments for the benchmark itself.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub arguments: Vec<String>,
}

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Subject {
    /// Whole deployments to ten targets, beside plain ssh and a peer.
    Deploy,
    /// Events a second of the scheduler.
    Scheduler,
    /// Commits a second of the embedded store.
    Store,
    /// What durability costs: an effect's records, and a deployment beside one without a disk.
    Durable,
}

impl Subject {
    /// Its package, and the name of the benchmark there.
    #[must_use]
    pub fn place(self) -> [&'static str; 2] {
        match self {
            Self::Deploy => ["windlass-tests", "deploy"],
            Self::Scheduler => ["windlass-scheduler", "events"],
            Self::Store => ["windlass-store", "commit_rate"],
            Self::Durable => ["windlass-tests", "durable"],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
        let cli = Cli::parse_from(["xtask", "bench", "deploy", "--quick"]);
        assert!(
            matches!(cli.chore, Chore::Bench(Bench { subject: Subject::Deploy, arguments }) if arguments == ["--quick"])
        );
        let cli = Cli::parse_from(["xtask", "test", "--long", "store", "runner"]);
        assert!(matches!(cli.chore, Chore::Test(Test { long: true, filters }) if filters == ["store", "runner"]));
        assert!(Cli::try_parse_from(["xtask"]).is_err());
    }
}
