//! A server whose disk fails in the midst of writing: it ends at once with a code of its own, says why, and comes back
//! with everything it acknowledged.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test ends at its first surprise"
)]

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use windlass_client::Client;
use windlass_model::{Machine, MachineName, views::DiskLevel};
use windlass_tests::{server::Server, shop::Anything};

const WRITERS: usize = 8;
/// Beyond this size no file grows; a few hundred machines fit.
const LIMIT: u64 = 200 << 10;
/// From the first failed request to the end of the process.
const PROMPT: Duration = Duration::from_secs(10);

/// Creates machines, each under a new name, until the server no longer can; gives those it said yes to.
async fn create_machines(client: Client, writer: usize) -> (Vec<MachineName>, Instant) {
    let mut created = Vec::new();
    for number in 0..10_000 {
        let name = format!("machine-{writer}-{number}");
        let machine: Machine =
            serde_json::from_value(serde_json::json!({ "name": name, "connection": { "local": {} } })).unwrap();
        match client.put_machine(&machine).await {
            Ok(machine) => created.push(machine.name),
            Err(_) => return (created, Instant::now()),
        }
    }
    panic!("the disk was expected to fail long before");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_disk_ends_the_server_with_70_and_nothing_acknowledged_is_lost() -> Anything<()> {
    let mut server = Server::bare()?;
    let client = server.client()?;
    server.limit_files(LIMIT)?;
    let writers: Vec<_> = (0..WRITERS).map(|writer| tokio::spawn(create_machines(client.clone(), writer))).collect();
    let (mut created, mut failed) = (BTreeSet::new(), Instant::now());
    for writer in writers {
        let (names, when) = writer.await?;
        created.extend(names.iter().map(ToString::to_string));
        failed = failed.min(when);
    }
    let ended = server.wait()?;
    assert!(failed.elapsed() < PROMPT, "it took {:?}", failed.elapsed());
    assert_eq!(ended.code, 70, "{}", ended.err);
    let said = ended.err.lines().rev().take(4).collect::<Vec<_>>().join("\n");
    assert!(said.contains("error[store-stopped]: the server ended"), "{}", ended.err);
    assert!(said.contains("the store stopped: ") && said.contains("File too large"), "{}", ended.err);
    assert!(said.contains("fix:   windlass serve"), "{}", ended.err);
    assert!(created.len() > 50, "too few to mean anything: {}", created.len());

    server.restart()?;
    let found: BTreeSet<String> =
        server.client()?.machines().await?.iter().map(|machine| machine.name.to_string()).collect();
    let lost: Vec<_> = created.difference(&found).collect();
    assert!(lost.is_empty(), "{} of {} are lost: {lost:?}", lost.len(), created.len());
    // One request of each writer may have been done without being answered.
    assert!(found.len() <= created.len() + WRITERS, "{} of {}", found.len(), created.len());
    let disk = server.client()?.info().await?.disk.expect("the server knows its disk");
    assert_ne!(disk.level, DiskLevel::Critical, "{}", disk.message);
    create_one_more(&server.client()?).await
}

async fn create_one_more(client: &Client) -> Anything<()> {
    let machine = serde_json::from_value(serde_json::json!({ "name": "after", "connection": { "local": {} } }))?;
    client.put_machine(&machine).await?;
    Ok(())
}
