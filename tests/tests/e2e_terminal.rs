//! What a person sees who watches a deployment on a terminal: the tree redrawn in place, narrow windows, Ctrl-C.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test ends at its first surprise"
)]

use windlass_tests::{shop::Anything, site::Site, terminal::Terminal};

/// Prints a line and goes on only once there is a file `gate` in the home of the target.
const GATE: &str = r##"
  - name: gate
    uses: run-script@1
    on: { role: web }
    with:
      script: |
        echo "waiting at the gate of #{Machine.Name}"
        while [ ! -e ~/gate ]; do sleep 0.05; done
  - name: after
    uses: run-script@1
    on: { role: web }
    with: { script: "echo through" }
"##;

async fn gated() -> Anything<Site> {
    let site = Site::new(2, GATE).await?;
    site.release("1.0.0")?;
    Ok(site)
}

fn open(site: &Site, target: usize) -> Anything<()> {
    Ok(std::fs::write(site.targets[target].home().join("gate"), "")?)
}

fn deploy(site: &Site, size: (u16, u16)) -> Anything<Terminal> {
    site.server.on_terminal(&["deploy", "shop", "-e", "test"], size)
}

/// Whether both machines stand at their gates, and nothing is on the screen twice.
fn at_the_gates(screen: &str) -> bool {
    ["task 1 ", "web0 ", "web1 ", " after"].iter().all(|part| screen.matches(part).count() == 1)
        && screen.matches("waiting at the gate").count() == 2
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tree_is_redrawn_in_place_and_a_summary_stays() -> Anything<()> {
    let site = gated().await?;
    let mut terminal = deploy(&site, (100, 30))?;
    let modes = terminal.modes()?;
    let screen = terminal.until(at_the_gates)?;
    let title = screen.lines().next().unwrap_or_default();
    assert!(title.contains("task 1 · deploy shop 1.0.0 to test  executing · "), "{screen}");

    // Some frames later everything stands where it stood.
    let drawn = |screen: &str| screen.lines().next().unwrap_or_default().chars().next();
    let (first, place) = (drawn(&screen), terminal.cursor());
    let later = terminal.until(|screen| drawn(screen) != first && at_the_gates(screen))?;
    assert_eq!(later.lines().count(), screen.lines().count(), "{screen}\n---\n{later}");
    assert_eq!(terminal.cursor(), place, "the cursor rests where it rested");

    open(&site, 0)?;
    let half = terminal.until(|screen| screen.contains("1 of 2 machines done"))?;
    assert!(!half.contains("web0 "), "what is over leaves the tree\n{half}");
    open(&site, 1)?;
    assert_eq!(terminal.end()?, 0);
    let screen = terminal.screen();
    let lines: Vec<&str> = screen.lines().collect();
    assert!(
        lines[0].starts_with("✓ gate  2 machines · ") && lines[1].starts_with("✓ after  2 machines · "),
        "{screen}"
    );
    assert!(lines.last().unwrap().starts_with("✓ task 1 · deploy shop 1.0.0 to test  succeeded in "), "{screen}");
    assert_eq!(screen.matches("deploy shop 1.0.0 to test").count(), 1, "the tree is gone\n{screen}");
    assert_eq!(terminal.cursor(), (0, u16::try_from(lines.len())?), "the next prompt begins a line");
    assert!(terminal.shows_cursor());
    assert_eq!(terminal.modes()?, modes);
    assert!(terminal.raw().contains("\u{1b}[32m"), "there are colours");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_window_may_become_narrow_and_wide_again() -> Anything<()> {
    let site = gated().await?;
    let mut terminal = deploy(&site, (100, 30))?;
    terminal.until(at_the_gates)?;
    for (columns, rows) in [(40, 30), (40, 8), (24, 5), (120, 40)] {
        terminal.resize(columns, rows)?;
        let fits = |screen: &str| {
            let lines: Vec<&str> = screen.lines().filter(|line| !line.trim().is_empty()).collect();
            let titles = lines.iter().filter(|line| line.contains("task 1")).count();
            titles == 1 && lines.len() < usize::from(rows) && lines.iter().any(|line| line.contains("gate"))
        };
        terminal.until(fits)?;
    }
    terminal.until(at_the_gates)?;
    open(&site, 0)?;
    open(&site, 1)?;
    assert_eq!(terminal.end()?, 0);
    assert!(terminal.screen().trim_end().lines().last().unwrap().contains("succeeded in "), "{}", terminal.screen());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_detaches_says_what_goes_on_and_leaves_the_terminal_as_it_was() -> Anything<()> {
    let site = gated().await?;
    let mut terminal = deploy(&site, (80, 24))?;
    let modes = terminal.modes()?;
    terminal.until(at_the_gates)?;
    terminal.type_in("\u{3}")?;
    assert_eq!(terminal.end()?, 130);
    let screen = terminal.screen();
    for said in ["detached: task 1 goes on", "windlass task follow 1", "windlass task cancel 1"] {
        assert_eq!(screen.matches(said).count(), 1, "{said:?} in\n{screen}");
    }
    assert_eq!(screen.matches("task 1 · deploy").count(), 1, "no half of a tree is left\n{screen}");
    assert_eq!(terminal.cursor().0, 0, "the next prompt begins a line\n{screen}");
    assert!(terminal.shows_cursor());
    assert_eq!(terminal.modes()?, modes);

    // It does go on; whoever looks again sees all of it.
    let mut again = site.server.on_terminal(&["task", "follow", "1"], (80, 24))?;
    again.until(at_the_gates)?;
    open(&site, 0)?;
    open(&site, 1)?;
    assert_eq!(again.end()?, 0);
    assert!(again.screen().contains("✓ gate  2 machines"), "{}", again.screen());
    Ok(())
}
