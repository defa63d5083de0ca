//! That the binary starts at all. With it, `cargo test --workspace` builds the binary that the end-to-end tests drive.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test ends at its first surprise"
)]

use assert_cmd::Command;

#[test]
fn the_binary_tells_its_version() {
    let told = Command::cargo_bin("windlass").unwrap().arg("--version").output().unwrap();
    assert_eq!(String::from_utf8_lossy(&told.stdout), format!("windlass {}\n", env!("CARGO_PKG_VERSION")));
}
