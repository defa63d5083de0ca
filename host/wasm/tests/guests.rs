//! Guests compiled from Rust with the SDK: what works, and what their authors see when it does not.
//!
//! The guests are `plugins/fixtures/*`. They are built here, with whatever toolchain the guest builder finds or
//! installs; without one these tests fail and say what to do.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use std::{collections::BTreeSet, path::Path, sync::Arc, time::Duration};

use common::{World, host, world};
use tokio::sync::OnceCell;
use windlass_effects::{
    CancelToken, Effect, Grants, Layers, Line, LineSink, Masker, MemoryJournal, PackageHandle, PackageInfo, Performer,
    SecretHandle, SessionHandle, Waist,
};
use windlass_model::Capability;
use windlass_wasm::{LentPackage, LentSession, Limits, Plugin, PluginHost, RunError, RunRequest};

/// Builds all guests once a test process.
async fn built() -> &'static Path {
    static BUILT: OnceCell<()> = OnceCell::const_new();
    let plugins = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../plugins"));
    BUILT
        .get_or_init(|| async {
            let guests = windlass_build::Guests::in_workspace(plugins).install(windlass_build::Install::IfMissing);
            if let Err(error) = guests.build(&|event| println!("{event}")).await {
                panic!("the guests could not be built: {error}");
            }
        })
        .await;
    plugins
}

async fn fixture(host: &PluginHost, name: &str) -> Plugin {
    let file = format!("target/wasm32-unknown-unknown/release/fixture_{name}.wasm");
    host.load(std::fs::read(built().await.join(file)).unwrap()).await.unwrap()
}

fn all() -> BTreeSet<Capability> {
    Capability::ALL.into()
}

fn on_web1(with: serde_json::Value) -> RunRequest {
    RunRequest {
        with: serde_json::from_value(with).unwrap(),
        secrets: [("password".to_owned(), SecretHandle("Db.Password".to_owned()))].into(),
        packages: [(
            "package".to_owned(),
            LentPackage {
                handle: PackageHandle(1),
                info: PackageInfo {
                    id: "shop".to_owned(),
                    version: "1.0.0".to_owned(),
                    sha256: "0".repeat(64),
                    size: 1,
                },
            },
        )]
        .into(),
        session: Some(LentSession { handle: SessionHandle(1), name: "web1".to_owned() }),
        grants: all(),
        limits: Limits {
            compute: Duration::from_millis(500),
            wall: Duration::from_secs(60),
            grace: Duration::from_millis(50),
            log_lines: 100,
            ..Limits::default()
        },
    }
}

fn how(how: &str) -> RunRequest {
    on_web1(serde_json::json!({ "how": how }))
}

#[tokio::test]
async fn a_step_talks_to_its_machine_and_sets_an_output() {
    let host = host();
    let plugin = fixture(&host, "hello").await;
    assert_eq!(plugin.sdk(), Some("rust 0.1.0"));
    assert!(plugin.validates());
    let world = world();
    let request = on_web1(serde_json::json!({ "greeting": "Hello #{Name}" }));
    let report = host.run(&plugin, request, world.clone()).await.unwrap();
    assert_eq!(world.lines(), ["Info saying Hello web, web1"]);
    insta::assert_debug_snapshot!(world.effects());
    assert_eq!((report.effects, report.dropped_lines), (3, 0));
    assert!(report.peak_memory <= 2 << 20, "{report:?}");
}

#[tokio::test]
async fn a_default_is_used_and_a_machine_is_asked_for() {
    let host = host();
    let plugin = fixture(&host, "hello").await;
    let request = RunRequest { session: None, ..on_web1(serde_json::json!({})) };
    let error = host.run(&plugin, request, world()).await.unwrap_err();
    insta::assert_snapshot!(format!("[{}] {error}", error.code()), @"[no-machine] this step needs a machine: give it a role or a pool with `on:` in the process");
}

#[tokio::test]
async fn every_misbehaviour_ends_with_an_error_that_helps_its_author() {
    let host = host();
    let plugin = fixture(&host, "hostile").await;
    let mut shown = String::new();
    for name in [
        "spin",
        "recurse",
        "allocate",
        "huge text",
        "huge output",
        "many outputs",
        "leak",
        "panic",
        "index",
        "escape",
        "smuggle",
        "arguments",
        "environment",
        "unknown input",
    ] {
        let error = host.run(&plugin, how(name), world()).await.unwrap_err();
        let (text, code) = (error.to_string(), error.code());
        shown.push_str(&format!("{name} [{code}]: {}\n", text.lines().next().unwrap_or_default()));
        // Compilers differ in what they inline; these functions are never inlined.
        for (way, function) in [("panic", "panics"), ("leak", "leak"), ("allocate", "allocate"), ("recurse", "dive")] {
            let found =
                text.lines().any(|line| line.starts_with("  at hostile/src/lib.rs:") && line.ends_with(function));
            assert!(way != name || found, "{text}");
        }
        // Whatever happened: the next run of the same plugin is clean.
        let after = host.run(&plugin, how("package"), world()).await;
        assert!(after.is_ok(), "after {name}: {after:?}");
    }
    insta::assert_snapshot!(shown);
}

#[tokio::test]
async fn a_flood_of_lines_is_cut() {
    let host = host();
    let plugin = fixture(&host, "hostile").await;
    let world = world();
    let report = host.run(&plugin, how("flood"), world.clone()).await.unwrap();
    assert_eq!((report.dropped_lines, world.lines().len()), (99_900, 101));
}

#[tokio::test]
async fn a_sleeping_guest_is_cancelled_and_a_stubborn_one_is_stopped() {
    let host = host();
    let plugin = fixture(&host, "hostile").await;
    for (name, forced) in [("sleep", false), ("ignore cancel", true)] {
        let world = world();
        let cancel = async {
            while world.effects().is_empty() {
                tokio::task::yield_now().await;
            }
            world.cancel.cancel();
        };
        let (ended, ()) = tokio::join!(host.run(&plugin, how(name), world.clone()), cancel);
        assert_eq!(ended.unwrap_err(), RunError::Cancelled { forced }, "{name}");
    }
}

#[tokio::test]
async fn one_wedged_guest_does_not_hold_up_another() {
    let host = host();
    let plugin = fixture(&host, "hostile").await;
    let wedged = World { deaf: true, ..World::default() };
    let (wedged, good) = tokio::join!(host.run(&plugin, how("spin"), Arc::new(wedged)), async {
        let mut runs = 0;
        while runs < 20 {
            host.run(&plugin, how("package"), world()).await.unwrap();
            runs += 1;
        }
        runs
    });
    assert_eq!(good, 20);
    assert_eq!(wedged.unwrap_err().code(), "plugin-limit");
}

#[tokio::test]
async fn checks_of_inputs_are_run_without_any_grant_and_bounded() {
    let host = host();
    let plugin = fixture(&host, "hostile").await;
    let good = host.validate(&plugin, &serde_json::json!({ "how": "sleep" })).await.unwrap();
    assert_eq!(good, []);
    let wrong = host.validate(&plugin, &serde_json::json!({ "how": 3 })).await.unwrap();
    assert_eq!(wrong[0].attribute("input"), Some("how"));
    let never = host.validate(&plugin, &serde_json::json!({ "how": "spin" })).await.unwrap_err();
    assert_eq!(never.code(), "plugin-limit");
}

/// Performs nothing: every effect that comes through the layers is done.
struct Nobody;

#[async_trait::async_trait]
impl Performer for Nobody {
    async fn perform(&self, _: u64, effect: &Effect, _: &CancelToken) -> windlass_effects::Answer {
        panic!("{} got through", effect.name());
    }
}

impl LineSink for Nobody {
    fn line(&self, _: Line) {}
    fn progress(&self, _: u64, _: u64, _: String) {}
}

fn layered(grants: Grants) -> Arc<dyn Waist> {
    let journal = Arc::new(MemoryJournal::default());
    let layers = Layers::new(grants, journal, [], Masker::default(), Nobody, Arc::new(Nobody), CancelToken::new());
    Arc::new(layers)
}

#[tokio::test]
async fn what_was_not_granted_is_refused_at_both_layers() {
    let host = host();
    let plugin = fixture(&host, "hostile").await;
    let mut shown = String::new();
    for missing in Capability::ALL {
        let mut request = how("package");
        request.grants.remove(&missing);
        match host.run(&plugin, request, world()).await {
            Err(error) => shown.push_str(&format!("not linked: {error}\n")),
            Ok(_) => shown.push_str(&format!("{missing}: nothing of it is called\n")),
        }
    }
    // Linked, but the waist of the run grants nothing: the second layer answers.
    for name in ["http", "reveal", "deploy"] {
        let waist = layered(Grants::default());
        let error = host.run(&plugin, how(name), waist).await.unwrap_err();
        shown.push_str(&format!("not allowed [{}]: {error}\n", error.code()));
    }
    insta::assert_snapshot!(shown);
}
