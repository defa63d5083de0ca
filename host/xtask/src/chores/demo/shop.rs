//! The sample application `tests/fixtures/shop`, fitted to the targets of this run.

use std::fs;
use std::path::{Path, PathBuf};

use super::targets::{TARGETS, Targets};
use crate::Outcome;

/// The versions deployed, each with the files that it does not have yet.
pub const VERSIONS: [(&str, &[&str]); 2] =
    [("1.0.0", &["pages/discounts.html", "migrations/002-discounts.sql"]), ("1.1.0", &[])];

/// The packages: id, and folder below the sample's.
const PACKAGES: [(&str, &str); 2] = [("shop-db", "db"), ("shop-web", "web")];

/// Writes the workspace into `folder`: the sample's files, with this run's machines and ports. Answers where it is.
pub fn write(root: &Path, folder: &Path, targets: &Targets, ports: &[u16]) -> Outcome<PathBuf> {
    let (sample, workspace) = (sample(root), folder.join("workspace"));
    let failed =
        |error: std::io::Error| format!("cannot write the workspace of the demo to {}: {error}", workspace.display());
    fs::create_dir_all(workspace.join("shop")).map_err(failed)?;
    for file in ["environments.yaml", "shop/project.yaml", "shop/process.yaml"] {
        fs::copy(sample.join(file), workspace.join(file)).map_err(failed)?;
    }
    fs::write(workspace.join("machines.yaml"), targets.machines_yaml()).map_err(failed)?;
    fs::write(workspace.join("shop/variables.yaml"), variables_yaml(ports)).map_err(failed)?;
    Ok(workspace)
}

/// The targets are one machine, so each web server has its own port; and they end with this process at the latest.
fn variables_yaml(ports: &[u16]) -> String {
    let ports = TARGETS.iter().zip(ports).map(|(target, port)| {
        format!("  - name: Web.Port\n    value: {port}\n    scope: {{ machines: [{}] }}\n", target.name)
    });
    format!("variables:\n  - name: Web.EndsWith\n    value: {}\n{}", std::process::id(), ports.collect::<String>())
}

/// The commands that pack and push both packages in a version.
pub fn package_commands(root: &Path, folder: &Path, version: &str, without: &[&str]) -> Vec<Vec<String>> {
    let to = folder.join("packages").display().to_string();
    let pack = |(id, below): &(&str, &str)| {
        let content = sample(root).join("packages").join(below).display().to_string();
        let words = ["package", "pack", &content, "--id", id, "--version", version, "--to", &to, "--push"];
        let excluded = without.iter().flat_map(|file| ["--exclude", file]);
        words.into_iter().chain(excluded).map(str::to_owned).collect()
    };
    PACKAGES.iter().map(pack).collect()
}

fn sample(root: &Path) -> PathBuf {
    root.join("tests/fixtures/shop")
}
