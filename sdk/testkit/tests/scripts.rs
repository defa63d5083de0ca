//! Every script in `scripts/` does what the scenarios beside it say, straight and replayed from every index.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test ends at its first surprise"
)]

use std::{fs, path::PathBuf};

use windlass_testkit::scenarios;

fn scripts() -> Vec<PathBuf> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../scripts");
    let mut found: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ext| ext == "rhai"))
        .collect();
    found.sort();
    found
}

#[tokio::test]
async fn every_scenario_holds() {
    let scripts = scripts();
    assert!(scripts.len() >= 2);
    let mut faults = Vec::new();
    for script in scripts {
        let source = fs::read_to_string(&script).unwrap();
        let scenarios = scenarios(&script).unwrap_or_else(|error| panic!("{error}"));
        assert!(!scenarios.is_empty(), "{}", script.display());
        for scenario in scenarios {
            if let Err(fault) = scenario.check(&source).await {
                faults.push(format!("{}: {fault}", script.display()));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n\n"));
}
