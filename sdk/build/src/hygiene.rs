//! Which environment variables reach the tools that build guests. A build started by `cargo run` or by CI inherits
//! settings meant for another workspace (flags, wrappers, target folders, a toolchain); they are dropped here, by name.

/// Cargo's settings of the machine rather than of one workspace: they stay.
const KEPT_CARGO: &[&str] = &[
    "CARGO_HOME",
    "CARGO_HTTP_",
    "CARGO_NET_",
    "CARGO_REGISTRIES_",
    "CARGO_REGISTRY_",
    "CARGO_SOURCE_",
    "CARGO_TERM_",
];

/// Whether a variable of this process may reach rustc, cargo and rustup.
pub(crate) fn reaches_tools(name: &str) -> bool {
    if name == "CARGO" || name.starts_with("CARGO_") {
        return KEPT_CARGO.iter().any(|kept| if kept.ends_with('_') { name.starts_with(kept) } else { name == *kept });
    }
    // RUSTC, RUSTC_WRAPPER, RUSTC_BOOTSTRAP, RUSTFLAGS, RUSTDOC, RUSTDOCFLAGS; but not RUSTUP_HOME and friends.
    if name.starts_with("RUSTC") || name.starts_with("RUSTDOC") || name == "RUSTFLAGS" || name == "RUSTUP_TOOLCHAIN" {
        return false;
    }
    // The job server of an outer cargo or make is not ours to use.
    !matches!(name, "MAKEFLAGS" | "MFLAGS" | "__CARGO_DEFAULT_LIB_METADATA")
}

#[cfg(test)]
mod tests {
    use super::reaches_tools;

    #[test]
    fn settings_of_another_workspace_do_not_reach_the_guests() {
        for dropped in [
            "CARGO",
            "CARGO_TARGET_DIR",
            "CARGO_BUILD_TARGET",
            "CARGO_BUILD_RUSTFLAGS",
            "CARGO_ENCODED_RUSTFLAGS",
            "CARGO_MAKEFLAGS",
            "CARGO_MANIFEST_DIR",
            "CARGO_PKG_NAME",
            "CARGO_PROFILE_RELEASE_LTO",
            "CARGO_INCREMENTAL",
            "CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER",
            "RUSTC",
            "RUSTC_WRAPPER",
            "RUSTC_WORKSPACE_WRAPPER",
            "RUSTC_BOOTSTRAP",
            "RUSTFLAGS",
            "RUSTDOCFLAGS",
            "RUSTUP_TOOLCHAIN",
            "MAKEFLAGS",
        ] {
            assert!(!reaches_tools(dropped), "{dropped} must be dropped");
        }
        for kept in [
            "PATH",
            "HOME",
            "CARGO_HOME",
            "CARGO_NET_OFFLINE",
            "CARGO_HTTP_PROXY",
            "CARGO_REGISTRIES_MINE_TOKEN",
            "CARGO_SOURCE_CRATES_IO_REPLACE_WITH",
            "CARGO_TERM_COLOR",
            "RUSTUP_HOME",
            "RUSTUP_DIST_SERVER",
            "RUST_BACKTRACE",
            "https_proxy",
            "CARGONAUT",
        ] {
            assert!(reaches_tools(kept), "{kept} must be kept");
        }
    }
}
