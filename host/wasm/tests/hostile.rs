//! Guests that misbehave on purpose. Each ends with an error that its author can use, and harms nobody else.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod common;

use std::{sync::Arc, time::Duration};

use common::{Guest, World, bare, host, leaker, sleeper, world};
use windlass_effects::Stop;
use windlass_model::Capability;
use windlass_wasm::{Hit, Limits, PluginHost, RunError, RunRequest};

fn tight() -> RunRequest {
    let limits = Limits {
        compute: Duration::from_millis(150),
        grace: Duration::from_millis(50),
        handles: 50,
        log_lines: 100,
        ..Limits::default()
    };
    RunRequest { limits, ..bare() }
}

/// Runs a guest, then a good one: whatever happened, the next run is clean.
async fn run(host: &PluginHost, guest: Guest, request: RunRequest) -> Result<(), RunError> {
    let plugin = guest.load(host).await;
    let ended = host.run(&plugin, request, world()).await.map(|_| ());
    let good = Guest::run("(call $log (i32.const 2) (i32.const 512) (i32.const 5) (i32.const 0) (i32.const 0))");
    let after = world();
    host.run(&good.load(host).await, bare(), after.clone()).await.unwrap();
    assert_eq!(after.lines(), ["Info hello"]);
    ended
}

#[tokio::test]
async fn each_is_stopped_with_a_clear_error_and_the_next_run_is_clean() {
    let host = host();
    let table = [
        ("spin", Guest::run("(loop $again (br $again))")),
        ("recurse", Guest::run("(call $deep)")),
        ("allocate", Guest::run("(loop $again (drop (memory.grow (i32.const 16))) (br $again))")),
        (
            "hand over too much",
            Guest::run(
                "(drop (memory.grow (i32.const 200)))
                 (call $log (i32.const 2) (i32.const 0) (i32.const 8000000) (i32.const 0) (i32.const 0))",
            ),
        ),
        (
            "a text that is not there",
            Guest::run("(call $log (i32.const 2) (i32.const -8) (i32.const 80) (i32.const 0) (i32.const 0))"),
        ),
        ("trap", Guest::run("unreachable")),
        ("out of bounds", Guest::run("(drop (i32.load (i32.const -8)))")),
        ("divide by zero", Guest::run("(drop (i32.div_u (i32.const 1) (i32.const 0)))")),
        ("make up a handle", Guest::run("(call $drop_inputs (i32.const 77))")),
        ("drop a handle twice", Guest::run("(call $drop_inputs (local.get 2))")),
    ];
    let mut shown = String::new();
    for (name, guest) in table {
        let error = run(&host, guest, tight()).await.unwrap_err();
        shown.push_str(&format!("{name} [{}]: {error}\n", error.code()));
    }
    insta::assert_snapshot!(shown);
}

#[tokio::test]
async fn a_flooded_log_is_cut_and_says_so() {
    let host = host();
    let plugin = Guest {
        functions: "(global $n (mut i32) (i32.const 0))",
        ..Guest::run(
            "(loop $again
               (call $log (i32.const 2) (i32.const 512) (i32.const 20) (i32.const 0) (i32.const 0))
               (global.set $n (i32.add (global.get $n) (i32.const 1)))
               (br_if $again (i32.lt_u (global.get $n) (i32.const 50000))))",
        )
    }
    .load(&host)
    .await;
    let world = world();
    let report = host.run(&plugin, tight(), world.clone()).await.unwrap();
    assert_eq!(report.dropped_lines, 49_900);
    let lines = world.lines();
    assert_eq!(lines.len(), 101);
    insta::assert_snapshot!(lines.last().unwrap(), @"Warning the plugin logged 49900 more lines than a run may; they were left out");
}

#[tokio::test]
async fn leaked_handles_are_bounded() {
    let host = host();
    let granted = RunRequest { grants: [Capability::TasksRead].into(), ..tight() };
    let error = run(&host, leaker(), granted).await.unwrap_err();
    assert!(matches!(error, RunError::Limit { hit: Hit::Handles { limit: 50 }, .. }), "{error:?}");
    insta::assert_snapshot!(error.to_string().lines().next().unwrap(), @"the plugin was stopped: it has more than 50 handles open: it does not drop what it no longer uses");
}

#[tokio::test]
async fn what_was_not_granted_is_refused_by_name_before_it_runs() {
    let host = host();
    let plugin = leaker().load(&host).await;
    let world = world();
    let error = host.run(&plugin, bare(), world.clone()).await.unwrap_err();
    assert!(world.effects().is_empty() && world.lines().is_empty());
    insta::assert_snapshot!(error.to_string(), @"the plugin calls windlass:tasks/query, which needs the capability tasks-read that was not granted: it sees which tasks run and where; grant it, or use another plugin");
}

#[tokio::test]
async fn a_sleeping_guest_returns_by_itself_when_cancelled() {
    let host = host();
    let plugin = sleeper().load(&host).await;
    let world = world();
    let cancel = async {
        while world.effects().is_empty() {
            tokio::task::yield_now().await;
        }
        world.cancel.cancel();
    };
    let (ended, ()) = tokio::join!(host.run(&plugin, tight(), world.clone()), cancel);
    // The guest got the failure `cancelled` and went on to its end.
    assert!(ended.is_ok(), "{ended:?}");
}

#[tokio::test]
async fn a_guest_that_does_not_react_is_stopped_after_the_grace() {
    let host = host();
    for (name, guest, deaf) in [
        ("waits in a call that never ends", sleeper(), true),
        (
            "computes",
            Guest::run(
                "(call $log (i32.const 2) (i32.const 512) (i32.const 5) (i32.const 0) (i32.const 0)) (loop $again (br $again))",
            ),
            false,
        ),
    ] {
        let plugin = guest.load(&host).await;
        let world = Arc::new(World { deaf, ..World::default() });
        let request = RunRequest { limits: Limits { grace: Duration::from_millis(50), ..Limits::default() }, ..bare() };
        let cancel = async {
            while world.effects().is_empty() && world.lines().is_empty() {
                tokio::task::yield_now().await;
            }
            world.cancel.cancel();
        };
        let run = host.run(&plugin, request, world.clone());
        let (ended, ()) =
            tokio::time::timeout(Duration::from_secs(20), async { tokio::join!(run, cancel) }).await.unwrap();
        assert_eq!(ended.unwrap_err(), RunError::Cancelled { forced: true }, "{name}");
    }
}

#[tokio::test]
async fn a_run_that_takes_too_long_is_stopped() {
    let host = host();
    let plugin = sleeper().load(&host).await;
    let request = RunRequest { limits: Limits { wall: Duration::from_millis(100), ..Limits::default() }, ..bare() };
    let world = Arc::new(World { deaf: true, ..World::default() });
    let error = host.run(&plugin, request, world).await.unwrap_err();
    insta::assert_snapshot!(error.to_string(), @"the plugin was stopped: it took longer than 0.1 s");
}

#[tokio::test]
async fn a_wedged_guest_does_not_hinder_another() {
    // One thread: the wedged guest must let the other have it.
    let host = host();
    let wedged = Guest::run("(loop $again (br $again))").load(&host).await;
    let good = Guest::default().load(&host).await;
    let world = world();
    let request = RunRequest { limits: Limits { grace: Duration::ZERO, ..Limits::default() }, ..bare() };
    let wedged = tokio::spawn({
        let (host, world) = (host.clone(), world.clone());
        async move { host.run(&wedged, request, world).await }
    });
    for _ in 0..20 {
        host.run(&good, bare(), self::world()).await.unwrap();
    }
    world.cancel.cancel();
    let ended = tokio::time::timeout(Duration::from_secs(30), wedged).await.unwrap().unwrap();
    assert_eq!(ended.unwrap_err(), RunError::Cancelled { forced: true });
}

#[tokio::test]
async fn a_stop_of_the_waist_ends_the_guest_and_cannot_be_caught() {
    let host = host();
    let plugin = sleeper().load(&host).await;
    let stop = Stop::Suspended("the night is over".into());
    let world = Arc::new(World { stop: Some(stop.clone()), ..World::default() });
    let error = host.run(&plugin, bare(), world.clone()).await.unwrap_err();
    assert_eq!(error, RunError::Stopped(stop));
    assert_eq!(world.effects().len(), 1);
}
