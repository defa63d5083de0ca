//! The plugin tutorial of the README is code that must work: it is taken from the page as a reader would copy it, built
//! as a guest, installed into a real engine, and its step must do what the page says.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test ends at its first surprise"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;
use windlass_build::{Guests, Install};
use windlass_engine::{Engine, EngineConfig, Followed};
use windlass_model::views::{DeployRequest, ReleaseRequest};
use windlass_model::{TaskState, Workspace, task::TaskDetail};

/// What the tutorial promises.
const MOST_LINES: usize = 40;

/// The page's block of a language, inside the tutorial.
fn block<'p>(page: &'p str, language: &str) -> &'p str {
    let (_, tutorial) = page.split_once("<!-- tutorial begins -->").unwrap();
    let (tutorial, _) = tutorial.split_once("<!-- tutorial ends -->").unwrap();
    let (_, rest) = tutorial.split_once(&format!("```{language}\n")).unwrap();
    rest.split_once("```\n").unwrap().0
}

/// Builds the tutorial's plugin in a folder of its own and answers the component.
async fn build(page: &str, folder: &Path) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let sdk = root.join("sdk/plugin");
    let manifest = block(page, "toml").replace("../../sdk/plugin", sdk.to_str().unwrap());
    assert!(manifest.contains(sdk.to_str().unwrap()));
    fs::create_dir(folder.join("src")).unwrap();
    fs::write(folder.join("Cargo.toml"), format!("{manifest}\n[workspace]\n")).unwrap();
    fs::write(folder.join("src/lib.rs"), block(page, "rust")).unwrap();
    // The versions that the plugins of this repository are built with.
    fs::copy(root.join("plugins/Cargo.lock"), folder.join("Cargo.lock")).unwrap();
    let guests = Guests::in_workspace(folder).install(Install::IfMissing);
    let built = guests.build(&|event| eprintln!("{event}")).await.unwrap();
    let [plugin] = built.plugins.as_slice() else { panic!("{built:?}") };
    plugin.component.clone()
}

/// Deploys a project of one step, the one on the page, and waits for the end.
async fn deploy(engine: &Engine, home: &Path, version: &str, at_least_mib: u64) -> TaskDetail {
    let workspace: Workspace = serde_json::from_value(json!({
        "environments": [{ "name": "test" }],
        "machines": [{
            "name": "here", "environments": ["test"], "roles": ["web"],
            "connection": { "local": { "home": home } },
        }],
        "projects": [{
            "project": { "name": "shop" },
            "process": { "steps": [{
                "name": "room", "uses": "disk-space@1", "on": { "role": "web" }, "with": { "at_least_mib": at_least_mib },
            }] },
        }],
    }))
    .unwrap();
    engine.apply(workspace, false).await.unwrap();
    let project: windlass_model::ProjectName = "shop".parse().unwrap();
    let release = ReleaseRequest { version: Some(version.into()), ..ReleaseRequest::default() };
    engine.create_release(&project, release).await.unwrap();
    let mut events = engine.events(None);
    let request =
        DeployRequest { version: Some(version.into()), ..DeployRequest::new(project, "test".parse().unwrap()) };
    let task = engine.deploy(request).await.unwrap().id;
    let ended = async {
        loop {
            let detail = engine.task(task).await.unwrap();
            if detail.summary.state.is_final() {
                return detail;
            }
            assert_ne!(events.next().await, Followed::End);
        }
    };
    tokio::time::timeout(Duration::from_secs(60), ended).await.unwrap()
}

#[tokio::test]
async fn the_tutorial_of_the_readme_works() {
    let page = include_str!("../../README.md");
    assert!(block(page, "rust").lines().count() < MOST_LINES, "the tutorial promises a short plugin");
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("plugin");
    fs::create_dir(&source).unwrap();
    let component = build(page, &source).await;

    let engine = Engine::open(EngineConfig::new(folder.path().join("data"))).await.unwrap();
    let installed = engine.install_plugin(fs::read(component).unwrap().into()).await.unwrap();
    assert_eq!(installed.manifest.id, "disk-space");

    let home = folder.path().join("home");
    let enough = deploy(&engine, &home, "1.0.0", 1).await;
    assert_eq!(enough.summary.state, TaskState::Succeeded, "{:?}", enough.summary.error);
    let scarce = deploy(&engine, &home, "2.0.0", 1 << 40).await;
    assert_eq!(scarce.summary.state, TaskState::Failed);
    let error = serde_json::to_string(&scarce).unwrap();
    assert!(error.contains("but 1099511627776 are needed: remove something there"), "{error}");
    engine.close().await;
}
