//! Bytes that are given as a plugin and are none, or none that this server can run: refused, naming both sides.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod common;

use common::{Guest, MANIFEST, host, leaker};
use windlass_model::Manifest;
use windlass_wasm::{Config, PluginHost, Refused};

async fn refused(host: &PluginHost, bytes: Vec<u8>) -> Refused {
    host.load(bytes).await.unwrap_err()
}

#[tokio::test]
async fn what_is_no_plugin_is_refused_with_what_it_is_and_what_to_do() {
    let host = host();
    let wat = |text: &str| wat::parse_str(text).unwrap();
    let native = wasmtime::Engine::default().precompile_component(&Guest::default().bytes()).unwrap();
    let mut cut = Guest::default().bytes();
    cut.truncate(cut.len() / 2);
    let manifest = |manifest: &str| Guest { manifest: manifest.to_owned(), ..Guest::default() }.bytes();
    let with_import = |import| Guest { imports: import, ..Guest::default() }.bytes();
    let table = [
        ("nothing", Vec::new()),
        ("garbage", b"#!/bin/sh\necho hello".to_vec()),
        ("a zip", b"PK\x03\x04".to_vec()),
        ("text", Guest::default().text().into_bytes()),
        ("a core module", wat("(module (func (export \"run\")))")),
        ("native code", native),
        ("half a component", cut),
        ("a component without a step", wat("(component)")),
        ("an older contract", Guest { version: "0.0.9", ..Guest::default() }.bytes()),
        ("a newer contract", Guest { version: "0.2.0", ..Guest::default() }.bytes()),
        ("a wasi guest", with_import(r#"(import "wasi:cli/environment@0.2.0" (instance (export "f" (func))))"#)),
        ("an interface we never had", with_import(r#"(import "windlass:machine/teleport@0.1.0" (instance))"#)),
        (
            "a function we do not have",
            with_import(r#"(import "windlass:base/random@0.1.0" (instance (export "dice" (func (result u32)))))"#),
        ),
        (
            "a function of another type",
            with_import(r#"(import "windlass:base/random@0.1.0" (instance (export "bytes" (func (result u32)))))"#),
        ),
        ("a bare function", with_import(r#"(import "now" (func (result u64)))"#)),
        ("no manifest", manifest("hello")),
        ("a manifest with an unknown key", manifest(r#"{"id":"x","version":"1.0.0","title":"X","colour":"red"}"#)),
        ("a manifest with a bad id", manifest(r#"{"id":"Not good","version":"1.0.0","title":"X"}"#)),
        ("a manifest with a bad version", manifest(r#"{"id":"x","version":"1.0","title":"X"}"#)),
        (
            "an input twice",
            manifest(r#"{"id":"x","version":"1.0.0","title":"X","inputs":[{"name":"a"},{"name":"a"}]}"#),
        ),
        (
            "a default of the wrong type",
            manifest(
                r#"{"id":"x","version":"1.0.0","title":"X","inputs":[{"name":"a","type":"integer","default":"b"}]}"#,
            ),
        ),
        (
            "a secret with a default",
            manifest(
                r#"{"id":"x","version":"1.0.0","title":"X","inputs":[{"name":"a","type":"secret","default":"b"}]}"#,
            ),
        ),
        (
            "a lock on an unknown input",
            manifest(r#"{"id":"x","version":"1.0.0","title":"X","locks":[{"resource":"dir:{folder}"}]}"#),
        ),
        ("a call its manifest does not ask for", Guest { manifest: MANIFEST.to_owned(), ..leaker() }.bytes()),
        ("a describe that traps", Guest { describe: "unreachable", ..Guest::default() }.bytes()),
    ];
    let mut shown = String::new();
    for (name, bytes) in table {
        let refused = refused(&host, bytes).await;
        shown.push_str(&format!("{name}: {refused}\n  fix: {}\n", refused.fix()));
    }
    insta::assert_snapshot!(shown);
}

#[tokio::test]
async fn a_describe_that_never_ends_is_stopped() {
    let never = Guest { describe: "(loop $again (br $again))", ..Guest::default() }.bytes();
    let Refused::Describe { cause } = refused(&host(), never).await else { panic!("it was not described") };
    assert_eq!(cause.code(), "plugin-limit");
}

#[tokio::test]
async fn a_component_that_is_too_large_is_refused_before_it_is_compiled() {
    let host = PluginHost::new(Config { max_component: 100, ..Config::default() }).unwrap();
    insta::assert_snapshot!(refused(&host, vec![0; 101]).await, @"the plugin has 101 bytes, more than the 100 that this server takes");
}

#[tokio::test]
async fn a_plugin_tells_what_it_is() {
    let host = host();
    let plugin = leaker().load(&host).await;
    assert_eq!(plugin.manifest().id, "leaker");
    assert_eq!(plugin.digest().len(), 64);
    let imports: Vec<_> = plugin.imports().iter().map(|i| (i.interface.as_str(), i.calls)).collect();
    assert_eq!(
        imports,
        [
            ("windlass:base/types", false),
            ("windlass:base/log", true),
            ("windlass:machine/session", false),
            ("windlass:step/inputs", false),
            ("windlass:tasks/query", true),
        ]
    );
    assert!(!plugin.validates());
}

#[tokio::test]
async fn the_manifest_beside_a_component_must_be_its_own() {
    let host = host();
    let bytes = Guest::default().bytes();
    let own: Manifest = serde_json::from_str(MANIFEST).unwrap();
    host.load_with(bytes.clone(), &own).await.unwrap();
    let other = Manifest { version: "1.0.1".into(), title: "Other".into(), ..own };
    insta::assert_snapshot!(host.load_with(bytes, &other).await.unwrap_err(), @"the manifest file does not belong to this component: they differ in version, title");
}

#[tokio::test]
async fn a_newer_patch_of_the_contract_is_served_as_long_as_nothing_new_is_used() {
    let host = host();
    let plugin = Guest { version: "0.1.7", ..Guest::default() }.load(&host).await;
    host.run(&plugin, common::bare(), common::world()).await.unwrap();
}

/// Damaged components: refused or not, but never a panic and never a hang.
#[tokio::test]
async fn no_bytes_make_the_host_panic() {
    let host = host();
    let good = Guest::default().bytes();
    // Every position in turn, with a value that depends on it: the same damage in every run of this test.
    for at in (0..good.len()).step_by(3) {
        let mut bad = good.clone();
        bad[at] = bad[at].wrapping_add(1 + (at % 251) as u8);
        if let Err(Refused::Host { detail }) = host.load(bad).await {
            panic!("damage at {at}: {detail}");
        }
    }
}
