//! A server that is killed by `kill -9` at random points of deployments that have everything, while a second client
//! writes: every deployment ends as an undisturbed one does, no command starts twice, no line is logged twice, and
//! nothing acknowledged is lost.
//!
//! 25 kills, 500 with `WINDLASS_LONG=1`. A round that fails prints its seed: `WINDLASS_CHAOS_SEED=N` begins with that
//! round. The kills come at the same times then, though the machine may be faster or slower.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test ends at its first surprise"
)]

use std::time::{Duration, Instant};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use windlass_model::TaskId;
use windlass_tests::{
    shop::Anything,
    stage::{Picture, Stage},
    writer::Writer,
};

const KILLS_IN_A_ROUND: u64 = 5;
const ROUNDS: u64 = 5;
const LONG_ROUNDS: u64 = 100;

/// Plays a version undisturbed. Gives the picture, and how long it took.
async fn undisturbed(stage: &mut Stage, version: &str) -> Anything<(Picture, Duration)> {
    stage.release(version)?;
    let begin = Instant::now();
    let task = stage.site.client()?.run_script(&Stage::request(version)).await?.id;
    stage.ended(task).await?;
    let took = begin.elapsed();
    let picture = stage.picture(task, version).await?;
    picture.check()?;
    Ok((picture, took))
}

/// Plays a version while the server is killed again and again.
async fn disturbed(stage: &mut Stage, version: &str, random: &mut StdRng, span: Duration) -> Anything<Picture> {
    stage.release(version)?;
    let task = stage.site.client()?.run_script(&Stage::request(version)).await?.id;
    for _ in 0..KILLS_IN_A_ROUND {
        let pause = span.mul_f64(random.random_range(0.0..1.3) / KILLS_IN_A_ROUND as f64);
        tokio::time::sleep(pause).await;
        if random.random_range(0..5) == 0 {
            // It may die while it comes back as well.
            stage.site.server.restart_and_kill(Duration::from_millis(random.random_range(0..600)))?;
        }
        stage.site.server.restart()?;
    }
    stage.ended(task).await?;
    stage.picture(task, version).await
}

/// One round with a seed of its own.
async fn round(stage: &mut Stage, seed: u64, expected: &Picture, span: Duration) -> Anything<()> {
    let mut random = StdRng::seed_from_u64(seed);
    let version = format!("7.{seed}.7");
    let mut writer = Writer::start(&stage.site.server, seed)?;
    let picture = disturbed(stage, &version, &mut random, span).await?;
    writer.stop().await?;
    let kept = writer.check(&stage.site.client()?).await?;
    picture.check()?;
    let differences = expected.differences(&picture);
    if !differences.is_empty() {
        return Err(format!("it ended otherwise than an undisturbed one:\n{}", differences.join("\n")).into());
    }
    eprintln!("seed {seed}: {KILLS_IN_A_ROUND} kills, the same end; {kept}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_ends_its_deployments_as_if_nothing_had_been() -> Anything<()> {
    let rounds = if std::env::var_os("WINDLASS_LONG").is_some() { LONG_ROUNDS } else { ROUNDS };
    let first = std::env::var("WINDLASS_CHAOS_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let mut stage = Stage::new().await?;
    let (expected, span) = undisturbed(&mut stage, "7.0.7").await?;
    eprintln!("undisturbed it takes {span:?}");
    for seed in first..first + rounds {
        if let Err(error) = round(&mut stage, seed, &expected, span).await {
            panic!(
                "seed {seed}: {error}\nagain: WINDLASS_CHAOS_SEED={seed} cargo test --workspace --test e2e_kill_loop\n\
                 the server says: {}",
                stage.site.server.log()
            );
        }
    }
    Ok(())
}

/// A writer whose scripts come back twice would be seen: the check of the checker.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_there_twice_is_noticed() -> Anything<()> {
    let stage = Stage::new().await?;
    let server = &stage.site.server;
    let mut writer = Writer::start(server, 0)?;
    let client = server.client()?;
    let begin = Instant::now();
    while client.tasks(&Default::default()).await?.items.len() < 2 {
        if begin.elapsed() > Duration::from_secs(60) {
            writer.stop().await?;
            panic!("nothing is written");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    writer.stop().await?;
    let kept = writer.check(&client).await?;
    assert!(kept.contains("scripts acknowledged"), "{kept}");
    let twice = windlass_model::views::ScriptRequest {
        name: "write-0-0".into(),
        text: "info(\"written\");".into(),
        arguments: Default::default(),
    };
    let second: TaskId = client.run_script(&twice).await?.id;
    stage.ended(second).await?;
    let told = writer.check(&client).await.unwrap_err().to_string();
    assert!(told.contains("write-0-0"), "{told}");
    Ok(())
}
