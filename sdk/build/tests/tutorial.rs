//! The tutorial in `sdk/README.md` is code that must work: its files are taken from the page, built, and loaded.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test ends at its first surprise"
)]

use std::fs;
use std::path::Path;

use windlass_build::{Guests, Install};

/// The first block of a language on the page.
fn block<'a>(page: &'a str, language: &str) -> &'a str {
    let (_, rest) = page.split_once(&format!("```{language}\n")).unwrap();
    rest.split_once("```\n").unwrap().0
}

#[tokio::test]
async fn the_plugin_of_the_tutorial_builds_and_is_short() {
    let sdk = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let page = fs::read_to_string(sdk.join("README.md")).unwrap();
    let (manifest, library) = (block(&page, "toml"), block(&page, "rust"));
    assert!(library.lines().count() < 40, "the tutorial promises a short plugin");

    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().canonicalize().unwrap();
    let plugin = sdk.join("plugin").canonicalize().unwrap();
    let manifest = manifest.replace("../../sdk/plugin", plugin.to_str().unwrap());
    assert!(manifest.contains(plugin.to_str().unwrap()));
    fs::create_dir(root.join("src")).unwrap();
    fs::write(root.join("Cargo.toml"), format!("{manifest}\n[workspace]\n")).unwrap();
    fs::write(root.join("src/lib.rs"), library).unwrap();
    // The versions that the plugins of this repository are built with.
    fs::copy(sdk.join("../plugins/Cargo.lock"), root.join("Cargo.lock")).unwrap();

    let guests = Guests::in_workspace(&root).install(Install::IfMissing);
    let built = guests.build(&|event| eprintln!("{event}")).await.unwrap();
    let [plugin] = built.plugins.as_slice() else { panic!("{built:?}") };
    assert_eq!(plugin.id, "restart-service");
}
