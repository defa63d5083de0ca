//! Components that were compiled for released versions of the contract still load and run, whatever was added since.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test ends at its first surprise"
)]

mod common;

use common::{host, world};
use windlass_effects::SessionHandle;
use windlass_model::Capability;
use windlass_wasm::{LentSession, RunRequest};

#[tokio::test]
async fn a_plugin_built_for_0_1_0_runs() {
    let host = host();
    let component: &[u8] = include_bytes!("released/hello-0.1.0.wasm");
    let plugin = host.load(component).await.unwrap();
    assert_eq!(plugin.sdk(), Some("rust 0.1.0"));
    assert!(plugin.validates());
    assert!(plugin.imports().iter().all(|import| import.version == "0.1.0"));
    let world = world();
    let request = RunRequest {
        session: Some(LentSession { handle: SessionHandle(1), name: "web1".to_owned() }),
        grants: [Capability::Machine].into(),
        ..RunRequest::default()
    };
    host.run(&plugin, request, world.clone()).await.unwrap();
    assert_eq!(world.lines(), ["Info saying Hello, web1"]);
    let effects = world.effects();
    assert_eq!(effects.iter().map(|effect| effect.name()).collect::<Vec<_>>(), ["run", "output"]);
}
