//! A data folder on a disk that the system has made read-only: the server does not start and says why, nothing is lost,
//! and all goes on once it can be written again.
//!
//! The kernel refuses to make a disk read-only while a file on it is open for writing, so the server is dead when it
//! happens. What a server does whose writes begin to fail is in `e2e_store_stops`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test ends at its first surprise"
)]

use windlass_model::{Machine, TaskState, views::ScriptRequest};
use windlass_tests::{server::Server, shop::Anything};

#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_disk_is_named_and_loses_nothing() -> Anything<()> {
    let Some(mut server) = Server::on_small_disk(300)? else {
        eprintln!("no file system may be mounted here");
        return Ok(());
    };
    let client = server.client()?;
    for number in 0..20 {
        let machine = serde_json::json!({ "name": format!("machine-{number}"), "connection": { "local": {} } });
        client.put_machine(&serde_json::from_value::<Machine>(machine)?).await?;
    }
    let request = ScriptRequest { name: "s".into(), text: "sleep(3600);".into(), arguments: Default::default() };
    let running = client.run_script(&request).await?.id;
    server.kill9()?;
    server.disk().unwrap().remount("ro")?;
    for _ in 0..2 {
        let refused = server.restart().unwrap_err().to_string();
        assert!(refused.contains("failed to open the data in"), "{refused}");
        assert!(refused.contains("Read-only file system"), "{refused}");
        assert!(refused.contains("fix:") && refused.contains("can be written"), "{refused}");
        assert!(!refused.contains("panicked"), "{refused}");
    }
    server.disk().unwrap().remount("rw")?;
    server.restart()?;
    let client = server.client()?;
    assert_eq!(client.machines().await?.len(), 20);
    assert_eq!(client.task(running).await?.summary.state, TaskState::Executing);
    client.cancel(running).await?;
    Ok(())
}
