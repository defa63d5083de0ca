//! Real builds with the real toolchain of this machine (installed if it is missing): the plugins of this repository, and
//! small workspaces that must be refused with a text that helps.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test ends at its first surprise"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use sha2::{Digest, Sha256};
use windlass_build::{BuildError, Built, Event, Guests, Install};

async fn build(workspace: &Path) -> (Result<Built, BuildError>, Vec<Event>) {
    let events = Mutex::new(Vec::new());
    let say = |event| {
        // Shown by the test harness when a build fails.
        eprintln!("{event}");
        events.lock().unwrap().push(event);
    };
    let guests = Guests::in_workspace(workspace).install(Install::IfMissing);
    let built = guests.build(&say).await;
    (built, events.into_inner().unwrap())
}

#[tokio::test]
async fn the_plugins_of_this_repository_build_and_describe_themselves() {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../plugins");
    let built = build(&workspace).await.0.unwrap();
    let ids: Vec<&str> = built.plugins.iter().map(|p| p.id.as_str()).collect();
    for id in ["deploy-package", "http-check", "run-script"] {
        assert!(ids.contains(&id), "{id} is missing in {ids:?}");
    }
    assert!(!ids.contains(&"hello"), "fixtures are not for installation");
    for plugin in &built.plugins {
        let bytes = fs::read(&plugin.component).unwrap();
        assert_eq!(hex::encode(Sha256::digest(&bytes)), plugin.sha256);
        let line = fs::read_to_string(plugin.component.with_extension("sha256")).unwrap();
        assert_eq!(line, format!("{}  {}.wasm\n", plugin.sha256, plugin.id));
        let text = fs::read_to_string(&plugin.manifest).unwrap();
        let manifest: windlass_model::Manifest = serde_json::from_str(&text).unwrap();
        assert_eq!((&manifest.id, &manifest.version), (&plugin.id, &plugin.version));
        assert!(manifest.inputs.iter().all(|input| !input.title.is_empty()));
    }
    let (again, events) = build(&workspace).await;
    assert_eq!(again.unwrap(), Built { fresh: true, ..built });
    assert!(matches!(events.last(), Some(Event::Fresh { .. })), "a build with nothing to do says so: {events:?}");
}

/// A workspace of one package with this library.
fn workspace(kind: &str, library: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().canonicalize().unwrap();
    let manifest = format!(
        "[package]\nname = \"odd\"\nversion = \"1.0.0\"\nedition = \"2024\"\n[lib]\ncrate-type = [\"{kind}\"]\n[workspace]\n"
    );
    fs::create_dir(root.join("src")).unwrap();
    fs::write(root.join("Cargo.toml"), manifest).unwrap();
    fs::write(root.join("src/lib.rs"), library).unwrap();
    (folder, root)
}

#[tokio::test]
async fn a_compiler_error_is_shown_with_file_and_line() {
    let (_folder, root) = workspace("cdylib", "pub fn broken() -> u32 {\n    \"text\"\n}\n");
    let error = build(&root).await.0.unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, BuildError::Compile { .. }), "{text}");
    assert!(text.contains("src/lib.rs:2:5") && text.contains("mismatched types"), "{text}");
    assert!(!root.join("dist/.stamp.json").exists(), "a failed build is not remembered");
}

#[tokio::test]
async fn a_library_that_makes_no_component_is_told_what_is_missing() {
    let (_folder, root) = workspace("rlib", "");
    let error = build(&root).await.0.unwrap_err();
    assert!(error.to_string().contains("crate-type = [\"cdylib\""), "{error}");
}

#[tokio::test]
async fn a_component_that_is_no_step_is_refused_and_not_written() {
    let (_folder, root) = workspace("cdylib", "");
    let error = build(&root).await.0.unwrap_err();
    let text = error.to_string();
    assert!(text.starts_with("the package odd is no usable plugin: "), "{text}");
    assert!(text.contains("export_step!"), "{text}");
    let left: Vec<_> = fs::read_dir(root.join("dist")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, [".lock"]);
}

#[tokio::test]
async fn a_folder_without_a_package_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let error = build(folder.path()).await.0.unwrap_err();
    assert!(matches!(error, BuildError::NoWorkspace(_)), "{error}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "nothing was made there");
}
