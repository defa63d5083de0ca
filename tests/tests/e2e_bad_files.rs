//! Mistakes in files: told at their line by every command that reads them, and nothing is applied.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test ends at its first surprise"
)]

use windlass_tests::{shop::Anything, site::Site};

/// A mistake in a file: what it says, and what the commands say to it.
struct Mistake {
    file: &'static str,
    text: &'static str,
    said: &'static [&'static str],
}

const MISTAKES: [Mistake; 8] = [
    Mistake {
        file: "shop/process.yaml",
        text: "steps:\n  - name: web\n    uses: [run-script@1\n",
        said: &["error[E0101]", "process.yaml:"],
    },
    Mistake {
        file: "shop/process.yaml",
        text: "steps:\n  - name: web\n    uses: run-script@1\n    role: web\n    rollin: { window: 2 }\n    with: { script: date }\n",
        said: &["error[E0102]", "process.yaml:5", "rollin", "rolling"],
    },
    Mistake {
        file: "shop/process.yaml",
        text: "steps:\n  - name: web\n    uses: run-script@1\n    on: { role: web }\n    rolling: { window: two }\n    with: { script: date }\n",
        said: &["error[E0104]", "process.yaml:5:24", "whole number"],
    },
    Mistake {
        file: "shop/process.yaml",
        text: "steps:\n  - name: web\n    uses: run-script@1\n    on: { role: web }\n    with: { script: date, arguments: 7 }\n",
        said: &["error[E0305]", "process.yaml:5", "list"],
    },
    Mistake {
        file: "shop/process.yaml",
        text: "steps:\n  - name: web\n    uses: run-script@1\n    on: { machine: web7 }\n    with: { script: date }\n",
        said: &["error[E0202]", "process.yaml:4", "web7", "web0"],
    },
    Mistake {
        file: "shop/process.yaml",
        text: "steps:\n  - name: web\n    uses: deploy-package@1\n    on: { role: web }\n    with: { package: shop-wbe }\n",
        said: &["E0207", "process.yaml:5", "shop-wbe"],
    },
    Mistake {
        file: "shop/process.yaml",
        text: "steps:\n  - name: web\n    uses: deploy-pakage@1\n    on: { role: web }\n",
        said: &["error[E0301]", "process.yaml:3", "deploy-pakage", "deploy-package"],
    },
    Mistake {
        file: "machines.yaml",
        text: "machines:\n  - { name: web9, environments: [tset], roles: [web], connection: { local: {} } }\n",
        said: &["error[E0201]", "machines.yaml:2", "tset", "test"],
    },
];

#[tokio::test(flavor = "multi_thread")]
async fn mistakes_in_files_are_shown_at_their_line_and_nothing_is_applied() -> Anything<()> {
    let steps = "  - { name: s, uses: run-script@1, on: { role: web }, with: { script: date } }\n";
    let site = Site::new(1, steps).await?;
    let files = site.files();
    let before = site.server.catalog().await?;
    let mut told = String::new();
    for mistake in &MISTAKES {
        let file = files.join(mistake.file);
        let good = std::fs::read_to_string(&file)?;
        std::fs::write(&file, mistake.text)?;
        for command in ["validate", "apply"] {
            let ended = site.server.cli(&[command, &files.display().to_string()])?;
            assert_eq!(ended.code, 1, "{command} of {}: {ended:#?}", mistake.text);
            for part in mistake.said {
                assert!(
                    ended.err.contains(part),
                    "{command} does not say {part:?} to\n{}but\n{}",
                    mistake.text,
                    ended.err
                );
            }
            assert!(ended.err.contains("fix:") || ended.err.contains("help:"), "no fix in\n{}", ended.err);
            if command == "apply" {
                told.push_str(&ended.err.replace(&files.display().to_string(), "FOLDER"));
                told.push('\n');
            }
        }
        assert_eq!(site.server.catalog().await?, before, "changed by {}", mistake.text);
        std::fs::write(&file, good)?;
    }
    insta::assert_snapshot!(told);
    assert!(site.apply()?.good()?.starts_with("nothing to change"));
    Ok(())
}
