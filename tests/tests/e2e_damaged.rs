//! A store in which single records cannot be read: they are named by their keys, and everything else goes on.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test ends at its first surprise"
)]

use std::time::{Duration, Instant};

use windlass_client::Client;
use windlass_model::{TaskId, TaskState, views::ScriptRequest};
use windlass_store::{Batch, EmbeddedOptions, EmbeddedStore, Key, Store, TableName};
use windlass_tests::{server::Server, shop::Anything};

const PATIENCE: Duration = Duration::from_secs(60);

async fn script(client: &Client, text: &str) -> Anything<TaskId> {
    let request = ScriptRequest { name: "s".into(), text: text.into(), arguments: Default::default() };
    Ok(client.run_script(&request).await?.id)
}

async fn until(client: &Client, task: TaskId, state: TaskState) -> Anything<()> {
    let begin = Instant::now();
    while client.task(task).await?.summary.state != state {
        assert!(begin.elapsed() < PATIENCE, "{:#?}", client.task(task).await?);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// Writes over records of a stopped server.
async fn damaged(server: &Server, records: &[(&'static str, Key)]) -> Anything<()> {
    let options = EmbeddedOptions { reserve_bytes: 0, ..EmbeddedOptions::default() };
    let store = EmbeddedStore::open(&server.data().join("store"), &options)?;
    let mut batch = Batch::new();
    for (table, key) in records {
        batch.put(&TableName::new(table), key.clone(), &b"\x01{\"torn\":"[..]);
    }
    store.commit(batch).await?;
    store.close().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_record_is_named_and_the_rest_goes_on() -> Anything<()> {
    let mut server = Server::bare()?;
    let client = server.client()?;
    for text in ["info(1);", "info(2);"] {
        let task = script(&client, text).await?;
        until(&client, task, TaskState::Succeeded).await?;
    }
    let (third, fourth) = (script(&client, "sleep(3600);").await?, script(&client, "sleep(3600);").await?);
    for task in [third, fourth] {
        until(&client, task, TaskState::Executing).await?;
    }
    server.kill9()?;
    // The summary of a task that is over, and how the run of an open one stands.
    damaged(&server, &[("tasks", Key::of_id(2)), ("runs", Key::of_id(3).id(1).id(0))]).await?;

    server.restart()?;
    let client = server.client()?;
    let listed: Vec<_> = client.tasks(&Default::default()).await?.items.iter().map(|task| task.id.0).collect();
    assert_eq!(listed, [4, 3, 1], "the damaged one is left out, the rest is there");
    assert_eq!(client.task(TaskId(2)).await.unwrap_err().status(), Some(500));
    for task in [third, fourth] {
        assert_eq!(client.task(task).await?.summary.state, TaskState::Executing);
        client.cancel(task).await?;
        until(&client, task, TaskState::Cancelled).await?;
    }
    assert_eq!(script(&client, "info(5);").await?, TaskId(5));
    let log = server.log();
    for table in ["tasks/", "runs/"] {
        let named = log.lines().any(|line| line.contains("ERROR") && line.contains(table));
        assert!(named, "the log does not name the record of {table}: {log}");
    }

    server.kill9()?;
    let checked = server.cli(&["store", "check", "--data", server.data().to_str().unwrap()])?;
    assert_eq!(checked.code, 65, "{checked:#?}");
    assert!(checked.out.contains("damaged: tasks/") && checked.out.contains("damaged: runs/"), "{}", checked.out);

    // Damage in the journal itself hides none of that, and what it took is named, too.
    let journal = server.data().join("store/journal");
    let segment = std::fs::read_dir(journal)?.map(|entry| entry.unwrap().path()).min().unwrap();
    let mut bytes = std::fs::read(&segment)?;
    let script = bytes.windows(8).position(|window| window == b"info(2);").unwrap();
    bytes[script] ^= 1;
    std::fs::write(&segment, bytes)?;
    let refused = server.restart().unwrap_err().to_string();
    assert!(refused.contains("acknowledged commits follow") && refused.contains("truncate -s"), "{refused}");
    let checked = server.cli(&["store", "check", "--data", server.data().to_str().unwrap()])?;
    assert_eq!(checked.code, 65, "{checked:#?}");
    for told in ["cannot be read; the rest can", "damaged: scripts/", "damaged: tasks/", "damaged: runs/"] {
        assert!(checked.out.contains(told), "{told} is not in {}", checked.out);
    }
    Ok(())
}
