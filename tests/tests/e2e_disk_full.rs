//! A data folder whose disk fills up under a running server: what is new is refused in words, what runs goes on to its
//! end, and all is well again once there is space.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test ends at its first surprise"
)]

use std::{
    io::Write,
    path::Path,
    time::{Duration, Instant},
};

use windlass_client::{Client, LogRange};
use windlass_model::{
    Machine, TaskId, TaskState,
    views::{DiskLevel, PushMode, ScriptRequest},
};
use windlass_tests::{
    server::Server,
    shop::{self, Anything},
};

/// The server keeps 64 MiB back; of the rest a quarter of the disk is kept from new work.
const DISK: u32 = 200;
/// The server looks at its disk every few seconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// Polls until the server sees the disk as it is.
async fn seen(client: &Client, level: DiskLevel) -> Anything<String> {
    let begin = Instant::now();
    loop {
        let disk = client.info().await?.disk.ok_or("the server does not know its disk")?;
        if disk.level == level {
            return Ok(disk.message);
        }
        assert!(begin.elapsed() < PATIENCE, "never seen as {level:?}: {}", disk.message);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Fills the disk but for a little.
fn fill(ballast: &Path) -> std::io::Result<()> {
    let mut file = std::fs::File::create(ballast)?;
    while file.write_all(&[1; 64 << 10]).is_ok() {}
    // So that what runs has not to live on the reserve.
    let length = file.metadata()?.len();
    file.set_len(length.saturating_sub(8 << 20))
}

async fn put_machine(client: &Client, name: &str) -> Result<Machine, windlass_client::ClientError> {
    let machine = serde_json::json!({ "name": name, "connection": { "local": {} } });
    client.put_machine(&serde_json::from_value(machine).unwrap()).await
}

async fn run_script(client: &Client, text: String) -> Result<TaskId, windlass_client::ClientError> {
    let request = ScriptRequest { name: "s".into(), text, arguments: Default::default() };
    client.run_script(&request).await.map(|task| task.id)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_what_is_new_and_what_runs_goes_on() -> Anything<()> {
    let Some(server) = Server::on_small_disk(DISK)? else {
        eprintln!("no file system may be mounted here; the engine's own tests of refusals have to do");
        return Ok(());
    };
    let client = server.client()?;
    seen(&client, DiskLevel::Good).await?;
    put_machine(&client, "before").await?;
    let ballast = server.seen_data().join("ballast");
    // Far longer than everything below; it is cancelled at the end.
    let running = run_script(&client, "for n in 0..3000 { log(`still here ${n}`); sleep(0.1); }".into()).await?;
    fill(&ballast)?;
    let said = seen(&client, DiskLevel::Critical).await?;
    assert!(said.starts_with("the disk of the data folder is full: "), "{said}");

    let archive = shop::archive(&[("hello", "hello\n")])?;
    let size = archive.len() as u64;
    let content = std::io::Cursor::new(archive);
    let refused = [
        put_machine(&client, "during").await.map(drop),
        run_script(&client, "sleep(1);".into()).await.map(drop),
        client.push_package("shop-web.1.0.0.tar.gz", content, size, None, PushMode::Fail).await.map(drop),
    ];
    for (refused, what) in
        refused.into_iter().zip(["change a machine", "queue a script", "take in the package shop-web.1.0.0"])
    {
        let error = refused.unwrap_err();
        assert_eq!((error.status(), error.code()), (Some(507), "disk-nearly-full"), "{error}");
        assert!(error.to_string().contains(&format!("there is no room to {what}")), "{error}");
        assert!(error.fix().is_some_and(|fix| fix.starts_with("free some space")), "{:?}", error.fix());
    }
    let range = LogRange { node: "s/server".into(), ..LogRange::default() };
    let before = client.log(running, &range).await?.items.len();
    let begin = Instant::now();
    while client.log(running, &range).await?.items.len() <= before {
        assert!(begin.elapsed() < PATIENCE, "what runs does not go on");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let cancelled = client.cancel(running).await?;
    assert_eq!(cancelled.id, running, "what runs can be ended");

    std::fs::remove_file(&ballast)?;
    seen(&client, DiskLevel::Good).await?;
    put_machine(&client, "after").await?;
    let names: Vec<_> = client.machines().await?.iter().map(|machine| machine.name.to_string()).collect();
    assert_eq!(names, ["after", "before"]);
    let begin = Instant::now();
    while client.task(running).await?.summary.state != TaskState::Cancelled {
        assert!(begin.elapsed() < PATIENCE, "it never ended");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}
