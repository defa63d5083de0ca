//! The help of every command, as it is printed.

use clap::{Command, CommandFactory};

use crate::cli::Cli;

/// The command and all below it, with what is typed to reach them.
fn tree(command: &Command, typed: &str) -> Vec<(String, Command)> {
    let mut all = vec![(typed.to_owned(), command.clone())];
    for below in command.get_subcommands() {
        all.extend(tree(below, &format!("{typed} {}", below.get_name())));
    }
    all
}

fn commands() -> Vec<(String, Command)> {
    let mut root = Cli::command();
    root.build();
    tree(&root, "windlass")
}

#[test]
fn every_command_helps() {
    for (typed, command) in commands() {
        let help = command.term_width(100).render_long_help().to_string();
        // Options of every command are told once, at the top.
        let help = if typed == "windlass" { help } else { without_global_options(&help) };
        insta::assert_snapshot!(format!("help__{}", typed.replace(' ', "_")), help);
    }
}

fn without_global_options(help: &str) -> String {
    let Some((before, rest)) = help.split_once("Global options:\n") else { return help.to_owned() };
    // They end where the next text begins at the left edge.
    let after = rest.lines().skip_while(|line| line.is_empty() || line.starts_with(' '));
    format!("{before}{}", after.collect::<Vec<_>>().join("\n"))
}

#[test]
fn every_command_that_does_something_shows_two_examples() {
    for (typed, command) in commands() {
        if command.has_subcommands() {
            continue;
        }
        let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        let (_, examples) = after.split_once("Examples:\n").unwrap_or_else(|| panic!("{typed} shows no example"));
        let shown = examples.lines().filter(|line| line.trim_start().contains("windlass")).count();
        assert!(shown >= 2, "{typed} shows {shown} examples");
        let about = command.get_about().map(ToString::to_string).unwrap_or_default();
        assert!(!about.is_empty() && !about.ends_with('.'), "{typed}: {about:?} is a line without its full stop");
    }
}

#[test]
fn every_option_says_what_it_is_for() {
    for (typed, command) in commands() {
        for argument in command.get_arguments() {
            assert!(argument.get_help().is_some(), "{typed} does not explain {}", argument.get_id());
        }
    }
}
