//! A server that dies by `kill -9` in the midst of a deployment, and one that comes back: nothing runs twice.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test ends at its first surprise"
)]

use windlass_model::{TaskId, TaskState};
use windlass_tests::{shop::Anything, site::Site};

/// Counts its own runs in a file on the target, and goes on only when told to.
const STEPS: &str = r#"
  - name: count
    uses: run-script@1
    on: { role: web }
    with:
      script: |
        echo run >> "$HOME/runs"
        for n in 1 2 3 4 5; do echo "before $n"; done
        while [ ! -e "$HOME/go" ]; do [ -d "$HOME" ] || exit 1; sleep 0.05; done
        for n in 1 2 3 4 5; do echo "after $n"; done
  - { name: next, uses: run-script@1, on: { role: web }, with: { script: "echo ran next >> $HOME/runs" } }
"#;

/// A site whose server was killed while the script waited on both targets, and the watcher of that deployment.
async fn killed() -> Anything<(Site, windlass_tests::server::Process)> {
    let mut site = Site::new(2, STEPS).await?;
    site.release("1.0.0")?;
    let mut watching = site.server.spawn(&["deploy", "shop", "-e", "test"])?;
    watching.until_out(|out| out.contains("count/web0 | before 5") && out.contains("count/web1 | before 5"))?;
    site.server.kill9()?;
    Ok((site, watching))
}

fn let_go(site: &Site) -> Anything<()> {
    for target in &site.targets {
        std::fs::write(target.home().join("go"), "")?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_takes_its_commands_up_again_and_none_runs_twice() -> Anything<()> {
    let (mut site, watching) = killed().await?;
    site.server.restart()?;
    let again = site.client()?.task(TaskId(1)).await?;
    assert_eq!(
        again.summary.state,
        TaskState::Executing,
        "what ran is taken up, not failed: {:?}",
        again.summary.error
    );
    let_go(&site)?;
    // Who watched all the time sees the end as if nothing had been.
    let ended = watching.end()?;
    assert_eq!(ended.code, 0, "{ended:#?}");
    assert!(ended.out.contains("lost the server, trying again"), "{}", ended.out);
    for (number, target) in site.targets.iter().enumerate() {
        assert_eq!(std::fs::read_to_string(target.home().join("runs"))?, "run\nran next\n", "on web{number}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_command_prints_while_the_server_is_away_is_not_lost() -> Anything<()> {
    let (mut site, watching) = killed().await?;
    let_go(&site)?;
    site.server.restart()?;
    assert_eq!(watching.end()?.code, 0);
    for machine in ["web0", "web1"] {
        let log = site.log(TaskId(1), &format!("count/{machine}")).await?;
        for n in 1..=5 {
            assert!(log.contains(&format!("before {n}")) && log.contains(&format!("after {n}")), "{log:#?}");
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_line_is_in_the_log_once_over_a_restart() -> Anything<()> {
    let (mut site, watching) = killed().await?;
    site.server.restart()?;
    let_go(&site)?;
    let ended = watching.end()?;
    assert_eq!(ended.code, 0);
    let expected: Vec<_> =
        ["before", "after"].iter().flat_map(|word| (1..=5).map(move |n| format!("{word} {n}"))).collect();
    for machine in ["web0", "web1"] {
        let log = site.log(TaskId(1), &format!("count/{machine}")).await?;
        let printed: Vec<_> =
            log.iter().filter(|line| line.starts_with("before") || line.starts_with("after")).collect();
        assert!(printed.iter().copied().eq(&expected), "on {machine}: {log:#?}");
        for line in &expected {
            let shown = ended.out.matches(&format!("count/{machine} | {line}\n")).count();
            assert_eq!(shown, 1, "who watched saw {line} of {machine} {shown} times:\n{}", ended.out);
        }
    }
    Ok(())
}
