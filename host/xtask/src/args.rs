//! The command line of `cargo xtask`.

use clap::{Args, Parser, Subcommand};

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
    /// Run a benchmark of the tests folder, such as `deploy`.
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
    /// Its name: a file in tests/benches.
    pub name: String,
    /// Arguments for the benchmark itself.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub arguments: Vec<String>,
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
            matches!(cli.chore, Chore::Bench(Bench { name, arguments }) if name == "deploy" && arguments == ["--quick"])
        );
        let cli = Cli::parse_from(["xtask", "test", "--long", "store", "runner"]);
        assert!(matches!(cli.chore, Chore::Test(Test { long: true, filters }) if filters == ["store", "runner"]));
        assert!(Cli::try_parse_from(["xtask"]).is_err());
    }
}
