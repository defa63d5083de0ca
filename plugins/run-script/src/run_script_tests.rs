//! What a script's end means, and the helper functions in the shells they are for.

use std::process::Command as Process;

use super::*;

/// Runs a script as the step does and gives what it printed and the exit code.
fn run(shell: &[&str], script: &str) -> (String, i32) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("script");
    std::fs::write(&file, format!("{}{script}", prelude("sh"))).unwrap();
    let output = Process::new(shell[0]).args(&shell[1..]).arg(&file).output().unwrap();
    let both = [output.stdout, output.stderr].concat();
    (String::from_utf8(both).unwrap(), output.status.code().unwrap())
}

fn on_every_shell(test: impl Fn(&[&str])) {
    let shells: [&[&str]; 4] = [&["sh"], &["bash"], &["mksh"], &["busybox", "sh"]];
    let there = |shell: &&&[&str]| Process::new(shell[0]).args(&shell[1..]).args(["-c", "exit 0"]).status().is_ok();
    let found: Vec<_> = shells.iter().filter(there).collect();
    assert!(!found.is_empty(), "no shell at all");
    found.into_iter().for_each(|shell| test(shell));
}

#[test]
fn the_helper_functions_speak_the_language_of_messages() {
    on_every_shell(|shell| {
        let long = "x".repeat(300);
        let script = format!(
            "#!/bin/sh\nset -eu\nset_output Url \"http://a b/ümläut'\\\"\"\nset_output Long {long}\nset_output Url last\n\
             set_output Empty ''\nfail_step it is \"broken: 100%\"\necho never\n"
        );
        let (printed, code) = run(shell, &script);
        assert_eq!(code, 1, "{printed}");
        let value = |name: &str, value: &str| (name.to_owned(), value.to_owned(), false);
        let expected = Outcome {
            outputs: vec![value("Long", &long), value("Url", "last"), value("Empty", "")],
            reason: Some("it is broken: 100%".into()),
        };
        assert_eq!(Outcome::of(&printed), expected);
        assert!(!printed.contains("never"));
        let first = printed.lines().find_map(parse_line).unwrap();
        assert!(matches!(first, Message::SetVariable { value, .. } if value == "http://a b/ümläut'\""));
    });
}

#[test]
fn line_numbers_are_those_of_the_script_as_written() {
    let (printed, code) = run(&["sh"], "echo one\nthis_command_does_not_exist\n");
    assert_ne!(code, 0);
    assert!(printed.contains(": 2: ") || printed.contains("line 2:") || printed.contains("[2]"), "{printed}");
}

#[test]
fn exit_code_reason_and_error_output_decide() {
    let quiet = Settings { interpreter: "bash".into(), ..Settings::default() };
    let strict = Settings { fail_on_stderr: true, ..quiet.clone() };
    let reason = || Outcome { reason: Some("no rows".into()), ..Outcome::default() };
    for (settings, code, outcome, stderr, expected) in [
        (&quiet, 0, Outcome::default(), "", None),
        (&quiet, 0, Outcome::default(), "a warning", None),
        (&strict, 0, Outcome::default(), " \n", None),
        (
            &strict,
            0,
            Outcome::default(),
            "a warning\n",
            Some("the script wrote to standard error, which `fail_on_stderr` forbids: a warning"),
        ),
        (&quiet, 2, Outcome::default(), "first\nlast\n\n", Some("the script ended with exit code 2: last")),
        (&quiet, 3, Outcome::default(), "", Some("the script ended with exit code 3; see the log above")),
        (&quiet, 1, reason(), "noise", Some("no rows")),
        (&quiet, 0, reason(), "", Some("no rows")),
        (
            &quiet,
            127,
            Outcome::default(),
            "",
            Some("the script ended with exit code 127 (a command was not found); is bash installed there?"),
        ),
        (
            &quiet,
            127,
            Outcome::default(),
            "x: not found",
            Some("the script ended with exit code 127 (a command was not found: x: not found); is it installed there?"),
        ),
    ] {
        let found = judge(settings, code, &outcome, stderr).err();
        assert_eq!(found.map(|failure| failure.message).as_deref(), expected);
    }
}

#[test]
fn names_and_limits_are_checked_before_anything_runs() {
    let problems = settings::validate(&json!({
        "environment": {"GOOD_1": "x", "2BAD": "y"},
        "secret_environment": "text",
        "timeout_seconds": 0,
    }));
    let texts: Vec<_> = problems.into_iter().map(|problem| problem.message).collect();
    assert_eq!(
        texts,
        [
            "`2BAD` in `environment` cannot be the name of an environment variable; use letters, digits and underscores",
            "`secret_environment` must be texts by name",
            "a time limit of 0 seconds is not possible; write 1 to 604800",
        ]
    );
    assert!(settings::validate(&json!({"environment": {"_A": 1}, "timeout_seconds": 5})).is_empty());
    assert!(settings::validate(&json!({"timeout_seconds": "#{Limit}"})).is_empty());
}
