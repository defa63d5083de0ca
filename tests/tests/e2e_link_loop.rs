//! Whole deployments over links that cut, delay, truncate and, in the long form, stall at random byte positions: every
//! one ends as over a good link, each command started once on each target, each of its lines in the log once.
//!
//! `WINDLASS_LONG=1` deploys 200 times instead of a few; `WINDLASS_SEED=n` plays another series.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test ends at its first surprise"
)]

use windlass_tests::{
    proxy::{Proxy, Weather},
    shop::Anything,
    site::Site,
    sshd::Sshd,
};

const STEPS: &str = r#"
  - name: web
    uses: deploy-package@1
    on: { role: web }
    with: { package: shop-web }
  - name: count
    uses: run-script@1
    on: { role: web }
    with:
      script: |
        echo run >> "$HOME/runs"
        n=0; while [ $n -lt 200 ]; do echo "line $n"; n=$((n+1)); if [ $n = 100 ]; then sleep 0.2; fi; done
  - { name: next, uses: run-script@1, on: { role: web }, with: { script: "echo next >> $HOME/runs" } }
"#;

#[tokio::test(flavor = "multi_thread")]
async fn deployments_end_as_over_a_good_link() -> Anything<()> {
    let long = std::env::var_os("WINDLASS_LONG").is_some();
    let seed = std::env::var("WINDLASS_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(4_711_u64);
    let targets = (0..2).map(|_| Sshd::start()).collect::<Result<Vec<_>, _>>()?;
    let weather = |n: usize| Weather { seed: seed + n as u64, faulty: 80, within: 120_000, stalls: long };
    let proxies = targets.iter().map(|target| Proxy::start(target.port(), None)).collect::<Result<Vec<_>, _>>()?;
    let site = Site::unapplied(targets, STEPS).await?;
    site.machines(|number, mut machine| {
        machine["connection"]["ssh"]["port"] = proxies[number].port().into();
        machine["connection"]["ssh"]["reconnect_seconds"] = 240.into();
        machine
    })?;
    site.push("0.9.0", &[("hello", "0.9.0\n")])?;
    site.apply()?.good()?;
    for round in 1..=if long { 200 } else { 4 } {
        let version = format!("1.{round}.0");
        site.push(&version, &[("hello", &format!("{version}\n")), ("more", &"x".repeat(20_000))])?;
        for (number, proxy) in proxies.iter().enumerate() {
            proxy.set_weather(Some(weather(number)));
            // Connections from fair days end too.
            proxy.cut();
        }
        let ended = site.deploy(&version)?;
        let story = format!("seed {seed}, round {round}");
        assert_eq!(ended.code, 0, "{story}: {ended:#?}");
        let task = site.last_task().await?.summary.id;
        for (number, target) in site.targets.iter().enumerate() {
            assert_eq!(site.current(number, "hello").as_deref(), Some(format!("{version}\n").as_str()), "{story}");
            let runs = std::fs::read_to_string(target.home().join("runs"))?;
            assert_eq!(runs, "run\nnext\n".repeat(round), "{story} on web{number}");
            let log = site.log(task, &format!("count/web{number}")).await?;
            let lines: Vec<_> = log.iter().filter(|line| line.starts_with("line ")).cloned().collect();
            let expected: Vec<_> = (0..200).map(|n| format!("line {n}")).collect();
            assert!(lines == expected, "{story} on web{number}: {log:#?}");
        }
    }
    let faults: u32 = proxies.iter().map(Proxy::faults).sum();
    println!("{faults} faults");
    assert!(faults >= 4, "only {faults} faults: the weather was too good to prove anything");
    Ok(())
}
