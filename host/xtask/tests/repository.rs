//! Promises about the repository itself: its folders explain themselves, and what its pages link to is there.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test ends at its first surprise"
)]

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The pages whose links are checked: that of the repository and one for each top-level folder.
fn pages() -> Vec<PathBuf> {
    let folders = ["host", "sdk", "plugins", "scripts", "wit", "tests"];
    let pages = folders.iter().map(|folder| root().join(folder).join("README.md"));
    pages.chain([root().join("README.md")]).collect()
}

/// What a page links to with `](…)`, without web addresses.
fn links(text: &str) -> impl Iterator<Item = &str> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
    targets.map(|(target, _)| target).filter(|target| !target.contains("://"))
}

#[test]
fn every_top_level_folder_explains_itself() {
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap_or_default();
        assert!(text.starts_with("# "), "{} is missing or has no title", page.display());
    }
}

#[test]
fn what_the_pages_link_to_is_there() {
    let mut checked = 0;
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        let folder = page.parent().unwrap();
        for link in links(&text) {
            let path = link.split('#').next().unwrap_or_default();
            assert!(folder.join(path).exists(), "{} links to {link}, which is not there", page.display());
            checked += 1;
        }
    }
    assert!(checked > 5, "links are not found any more");
}
