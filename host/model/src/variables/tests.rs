//! Ranking, resolution, outputs and the context that ties them.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::{secret::SecretText, template::Mode, variable::VariableValue};

fn names<T>(text: &str, make: impl Fn(&str) -> T) -> Vec<T> {
    text.split(' ').filter(|t| !t.is_empty()).map(make).collect()
}

/// `name=value @env:test role:web` written short.
fn variable(line: &str) -> Variable {
    let (head, scope) = line.split_once('@').unwrap_or((line, ""));
    let (name, value) = head.trim().split_once('=').unwrap();
    let of = |kind: &str| {
        scope.split(' ').filter_map(|part| part.strip_prefix(kind)?.strip_prefix(':')).collect::<Vec<_>>().join(" ")
    };
    Variable {
        name: name.into(),
        value: match value.strip_prefix('!') {
            Some(secret) => VariableValue::Secret(SecretText::new(secret)),
            None => VariableValue::Text(value.into()),
        },
        scope: Scope {
            environments: names(&of("env"), |t| t.parse().unwrap()),
            roles: names(&of("role"), |t| t.parse().unwrap()),
            machines: names(&of("machine"), |t| t.parse().unwrap()),
            steps: names(&of("step"), |t| t.parse().unwrap()),
        },
    }
}

fn set(lines: &[&str]) -> VariableSet {
    VariableSet::new(lines.iter().map(|line| variable(line)))
}

fn here() -> Place {
    Place {
        environment: Some("prod".parse().unwrap()),
        machine: Some("web1".parse().unwrap()),
        roles: vec!["web".parse().unwrap(), "cache".parse().unwrap()],
        step: Some("install".parse().unwrap()),
        step_role: Some("web".parse().unwrap()),
    }
}

#[test]
fn the_most_specific_scope_wins() {
    let order = [
        "x=0",
        "x=1 @env:prod",
        "x=2 @role:cache",
        "x=3 @role:cache env:prod",
        "x=4 @role:web",
        "x=5 @role:web env:prod",
        "x=6 @machine:web1",
        "x=7 @machine:web1 env:prod",
        "x=8 @machine:web1 role:cache",
        "x=9 @step:install",
        "x=10 @step:install env:prod",
        "x=11 @step:install machine:web1 role:web env:prod",
    ];
    for count in 1..=order.len() {
        let set = set(&order[..count]);
        let winner = set.resolve("X", &here()).unwrap().unwrap();
        assert_eq!(winner.value, variable(order[count - 1]).value);
    }
}

#[test]
fn kinds_are_anded_and_values_within_a_kind_are_ored() {
    let cases = [
        ("x=1 @env:prod env:test", true),
        ("x=1 @env:test", false),
        ("x=1 @env:PROD role:Web", true),
        ("x=1 @env:prod role:db", false),
        ("x=1 @role:db role:web", true),
        ("x=1 @machine:web2", false),
        ("x=1 @step:install step:other", true),
    ];
    for (line, holds) in cases {
        let found = set(&[line]).resolve("x", &here()).unwrap().is_some();
        assert_eq!(found, holds, "{line}");
    }
    let nowhere = Place::default();
    assert!(set(&["x=1 @env:prod"]).resolve("x", &nowhere).unwrap().is_none());
    assert!(set(&["x=1"]).resolve("x", &nowhere).unwrap().is_some());
}

#[test]
fn a_tie_is_an_error_that_names_both() {
    let set = set(&["Port=1 @role:web", "port=2 @role:cache role:web", "port=3"]);
    let error = set.resolve("Port", &here()).unwrap_err();
    insta::assert_snapshot!(error, @"variable Port is ambiguous here: (role web) and (role cache|web) hold equally (role of the step); give one of them a narrower scope");
    let elsewhere = Place { roles: vec!["cache".parse().unwrap()], ..Place::default() };
    assert_eq!(set.resolve("port", &elsewhere).unwrap().unwrap().value, VariableValue::Text("2".into()));
}

#[test]
fn explaining_judges_every_value() {
    let set = set(&["x=1", "x=2 @env:prod", "x=3 @env:test"]);
    let judged: Vec<_> = set.explain("x", &here()).iter().map(|c| (c.rank.map(|r| r.to_string()), c.chosen)).collect();
    assert_eq!(judged, [(Some("unscoped".into()), false), (Some("environment".into()), true), (None, false)]);
}

fn step(name: &str) -> StepName {
    name.parse().unwrap()
}

#[test]
fn outputs_of_several_machines_are_one_value_only_when_equal() {
    let (web1, web2) = ("web1".parse().unwrap(), "web2".parse().unwrap());
    let mut outputs = Outputs::default();
    outputs.set(&step("db"), None, "Version", "7", false);
    outputs.set(&step("web"), Some(&web1), "Path", "/srv/1", false);
    outputs.set(&step("web"), Some(&web2), "Path", "/srv/2", false);
    outputs.set(&step("web"), Some(&web1), "Same", "y", false);
    outputs.set(&step("web"), Some(&web2), "Same", "y", true);
    let context = Context::default().outputs(Arc::new(outputs));
    let expand = |text| context.expand(text, Mode::Strict).map(|e| (e.text, e.secrets_used));
    for (text, value, secret) in [
        ("#{Step[db].Output.Version}", "7", false),
        ("#{Octopus.Action[DB].Output.version}", "7", false),
        ("#{Step[web].Output[web2].Path}", "/srv/2", false),
        ("#{Step[web].Output.Same}", "y", true),
    ] {
        assert_eq!(expand(text).unwrap(), (value.to_owned(), secret), "{text}");
    }
    insta::assert_snapshot!(expand("#{Step[web].Output.Path}").unwrap_err(), @"#{Step[web].Output.Path} at column 1: output Path of step web differs between web1, web2; name the machine: #{Step[web].Output[web1].Path}");
    assert!(expand("#{Step[web].Output[web3].Path}").is_err());
}

#[test]
fn an_output_is_text_and_never_a_template() {
    let mut outputs = Outputs::default();
    outputs.set(&step("a"), None, "X", "#{Secret}", false);
    let context = Context::new(Arc::new(set(&["Secret=!hush"])), Place::default()).outputs(Arc::new(outputs));
    let expanded = context.expand("#{Step[a].Output.X}", Mode::Strict).unwrap();
    assert_eq!(expanded.text, "#{Secret}");
}

#[test]
fn the_servers_variables_come_first_and_under_both_names() {
    let context = Context::new(Arc::new(set(&["Project.Name=mine"])), Place::default())
        .system(System::new().project(&"shop".parse().unwrap()).task(crate::TaskId(7)));
    let expanded = context.expand("#{Project.Name} #{octopus.project.name} #{Deployment.Id}", Mode::Strict).unwrap();
    assert_eq!(expanded.text, "shop shop 7");
    assert!(is_system_name("Octopus.Machine.Host") && !is_system_name("Database.Url"));
}

#[test]
fn secrets_are_literal_and_taint_what_they_touch() {
    let lines = ["Password=!a#{b}", "Url=x://#{Password}", "Plain=1"];
    let context = Context::new(Arc::new(set(&lines)), Place::default());
    let url = context.value("url").unwrap().unwrap();
    assert_eq!((url.text.as_str(), url.secrets_used), ("x://a#{b}", true));
    assert!(!context.value("Plain").unwrap().unwrap().secrets_used);
    assert!(context.value("missing").unwrap().is_none());
}

fn any_scope() -> impl Strategy<Value = Scope> {
    let pick = |of: &'static [&'static str]| prop::sample::subsequence(of, 0..=of.len());
    (pick(&["prod", "test"]), pick(&["web", "cache", "db"]), pick(&["web1", "web2"]), pick(&["install", "check"]))
        .prop_map(|(environments, roles, machines, steps)| Scope {
            environments: environments.iter().map(|t| t.parse().unwrap()).collect(),
            roles: roles.iter().map(|t| t.parse().unwrap()).collect(),
            machines: machines.iter().map(|t| t.parse().unwrap()).collect(),
            steps: steps.iter().map(|t| t.parse().unwrap()).collect(),
        })
}

proptest! {
    /// Whatever the order in which values were written: one winner, the same one, or a reported tie.
    #[test]
    fn resolution_is_a_total_order_or_a_reported_tie(
        scopes in prop::collection::vec(any_scope(), 1..8),
        rotate in 0usize..8,
    ) {
        let make = |order: Vec<(usize, Scope)>| VariableSet::new(order.into_iter().map(|(i, scope)| Variable {
            name: "x".into(),
            value: VariableValue::Text(i.to_string()),
            scope,
        }));
        let numbered: Vec<_> = scopes.iter().cloned().enumerate().collect();
        let mut rotated = numbered.clone();
        rotated.rotate_left(rotate % numbered.len());
        let best = scopes.iter().filter_map(|s| Rank::of(s, &here())).max();
        let equal = scopes.iter().filter(|s| Rank::of(s, &here()) == best).count();
        let (first, second) = (make(numbered), make(rotated));
        match (first.resolve("x", &here()), second.resolve("x", &here())) {
            (Ok(None), Ok(None)) => prop_assert!(best.is_none()),
            (Ok(Some(a)), Ok(Some(b))) => {
                prop_assert_eq!(a, b);
                prop_assert_eq!(equal, 1);
                prop_assert_eq!(Rank::of(&a.scope, &here()), best);
            }
            (Err(a), Err(b)) => {
                prop_assert_eq!(a.scopes.len(), equal);
                prop_assert_eq!(b.scopes.len(), equal);
            }
            (a, b) => prop_assert!(false, "{a:?} but {b:?}"),
        }
    }
}

#[test]
fn a_condition_holds_unless_something_in_it_is_missing_or_says_no() {
    let mut outputs = Outputs::default();
    outputs.set(&"a".parse().unwrap(), None, "Changed", "yes", false);
    let set = Arc::new(set(&["Yes=true", "No=No", "Zero=0", "False=FALSE", "Empty=", "Two=#{Yes}"]));
    let context =
        Context::new(set, here()).outputs(Arc::new(outputs)).system(System::new().set("Deployment.Error", "x"));
    let table = [
        ("#{Yes}", true),
        ("#{Two}", true),
        ("#{No}", false),
        ("#{Zero}", false),
        ("#{False}", false),
        ("#{Empty}", false),
        ("#{Not.There}", false),
        ("#{Not.There} and more", false),
        ("#{Step[a].Output.Changed}", true),
        ("#{Step[b].Output.Changed}", false),
        ("#{if Yes}1#{/if}", true),
        ("#{unless Yes}1#{/unless}", false),
        ("#{unless Not.There}1#{/unless}", true),
        ("#{unless Deployment.Error}1#{/unless}", false),
        ("#{unless Octopus.Deployment.Error}1#{/unless}", false),
        ("always", true),
        ("no", false),
    ];
    for (condition, holds) in table {
        assert_eq!(context.holds(condition), Ok(holds), "{condition}");
    }
    assert!(context.holds("#{if Yes}").is_err());
}
