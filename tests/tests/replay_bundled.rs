//! Every bundled plugin, interrupted at every point of its journal, does what it does without: the same effects, answers,
//! lines and ending. The bundled scripts are held to the same by `sdk/testkit`, scenario by scenario.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test ends at its first surprise"
)]

use std::path::PathBuf;

use serde_json::{Value, json};
use windlass_testkit::{FakeMachine, FakeWorld, PluginInputs, Reply};
use windlass_tests::guests::plugins;

/// A plugin, what it is given, the world it runs in, and what its transcript must show.
struct Case {
    name: &'static str,
    plugin: &'static str,
    with: Value,
    world: FakeWorld,
    shows: &'static [&'static str],
    ends: &'static str,
}

fn cases() -> Vec<Case> {
    let machine = |said: &str| FakeWorld::new().machine(FakeMachine::new("web1").reply("", Reply::ok(said)));
    let survey = "base /srv/shop\nfree 1000000\n";
    let package = |world: FakeWorld| world.package("shop-web", "1.0.0", b"payload");
    let health = "http://shop/health";
    vec![
        Case {
            name: "a script that sets variables and fails",
            plugin: "run_script",
            with: json!({ "script": "echo #{Name}" }),
            world: FakeWorld::new()
                .variable("Name", "shop")
                .machine(FakeMachine::new("web1").reply("echo shop", Reply::fails(3, "broken\n"))),
            shows: &["run session=1", "output name=\"ExitCode\" value=\"3\""],
            ends: "exit code 3: broken",
        },
        Case {
            name: "a script with a secret",
            plugin: "run_script",
            with: json!({ "script": "deploy", "secret_environment": { "TOKEN": "Api.Token" } }),
            world: machine("done\n").secret("Api.Token", "hush-hush"),
            shows: &["has_secret name=\"Api.Token\"", "run session=1"],
            ends: "finished",
        },
        Case {
            name: "a package is installed",
            plugin: "deploy_package",
            with: json!({ "package": "shop-web", "install_dir": "/srv/shop" }),
            world: package(machine(survey)),
            shows: &["stage_package", "run session=1", "output name=\"Version\""],
            ends: "finished",
        },
        Case {
            name: "a package is installed with variables in its files",
            plugin: "deploy_package",
            with: json!({ "package": "shop-web", "install_dir": "/srv/shop", "substitute": ["*.conf"] }),
            world: package(machine(survey)),
            shows: &["stage_package", "substitute", "no file of the package matches", "output name=\"Version\""],
            ends: "finished",
        },
        Case {
            name: "a machine without a folder",
            plugin: "deploy_package",
            with: json!({ "package": "shop-web", "install_dir": "/srv/shop" }),
            world: package(FakeWorld::new().machine(FakeMachine::new("web1").reply("", Reply::fails(1, "denied")))),
            shows: &["run session=1"],
            ends: "cannot be looked at",
        },
        Case {
            name: "a healthy URL",
            plugin: "http_check",
            with: json!({ "url": health, "bearer_token": "Api.Token" }),
            world: FakeWorld::new().secret("Api.Token", "hush-hush").http("GET", health, 200, "ok"),
            shows: &["http request", "output name=\"Status\""],
            ends: "finished",
        },
        Case {
            name: "a URL that never becomes healthy, asked with pauses",
            plugin: "http_check",
            with: json!({ "url": health, "attempts": 3, "interval_seconds": 5 }),
            world: FakeWorld::new().http("GET", health, 503, "starting"),
            shows: &["attempt 1 of 3", "sleep ms=5000", "attempt 2 of 3", "sleep ms=5000"],
            ends: "was asked 3 times",
        },
        Case {
            name: "a request that must not be sent twice",
            plugin: "http_check",
            with: json!({ "url": health, "method": "POST" }),
            world: FakeWorld::new().http("POST", health, 200, "created"),
            shows: &["http request", "output name=\"Status\""],
            ends: "finished",
        },
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn every_bundled_plugin_survives_an_interruption_at_every_index() {
    let components = plugins().await.unwrap();
    let mut used = Vec::new();
    for case in cases() {
        let named = |path: &&PathBuf| {
            path.file_stem().is_some_and(|stem| stem.to_string_lossy().replace('-', "_").contains(case.plugin))
        };
        let component = components.iter().find(named).unwrap_or_else(|| panic!("{} is not built", case.plugin));
        used.push(component.clone());
        let with: PluginInputs = serde_json::from_value(case.with).unwrap();
        let run = case.world.replay_plugin_at_every_index(&std::fs::read(component).unwrap(), with).await;
        let run = run.unwrap_or_else(|fault| panic!("{}: {fault}", case.name));
        assert!(!run.journal.is_empty(), "{}: {run}", case.name);
        let shows: Vec<_> = case.shows.iter().map(|&text| text.to_owned()).collect();
        assert_eq!(run.transcript.first_missing(&shows), None, "{}: {run}", case.name);
        assert!(run.ending.contains(case.ends), "{}: {run}", case.name);
    }
    for component in components {
        assert!(used.contains(component), "no case for {}", component.display());
    }
}
