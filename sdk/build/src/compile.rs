//! One cargo call for the whole workspace, and what cargo says came out of it. Building all plugins together lets
//! them share dependencies, so the second plugin costs little.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use crate::event::Say;
use crate::process::{run, shown};
use crate::toolchain::Toolchain;
use crate::{BuildError, Event};

/// A first build makes the standard library too; on a small, busy machine that takes minutes.
const BUILD_LIMIT: Duration = Duration::from_secs(30 * 60);

/// One component that cargo made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Artifact {
    /// The cargo package it belongs to.
    pub package: String,
    /// The folder of that package.
    pub folder: PathBuf,
    /// The component.
    pub wasm: PathBuf,
}

/// Builds every package of the workspace and lists the components, sorted by package.
pub(crate) async fn compile(
    toolchain: &Toolchain,
    workspace: &Path,
    target_dir: &Path,
    say: Say<'_>,
) -> Result<Vec<Artifact>, BuildError> {
    let mut cargo = toolchain.cargo_build(workspace, target_dir);
    cargo.args(["--workspace", "--message-format", "json-render-diagnostics"]);
    let ended = run(&mut cargo, BUILD_LIMIT, &|line| say(Event::Line(line.to_owned()))).await?;
    if !ended.success {
        let command = shown(&cargo);
        return Err(BuildError::Compile { workspace: workspace.to_owned(), command, output: ended.stderr });
    }
    let mut made: Vec<Artifact> = ended.stdout.iter().filter_map(|line| artifact(line)).collect();
    made.sort_by(|one, other| one.package.cmp(&other.package));
    if made.is_empty() {
        return Err(BuildError::NoPlugins(workspace.to_owned()));
    }
    Ok(made)
}

/// The fields of cargo's `compiler-artifact` message that matter here.
#[derive(Deserialize)]
struct Message {
    reason: String,
    manifest_path: Option<PathBuf>,
    target: Option<Target>,
    #[serde(default)]
    filenames: Vec<PathBuf>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
    crate_types: Vec<String>,
}

/// A line of cargo's output that announces a component. Every other line is not ours to judge.
fn artifact(line: &str) -> Option<Artifact> {
    let message: Message = serde_json::from_str(line).ok()?;
    let target = message.target.filter(|target| target.crate_types.iter().any(|kind| kind == "cdylib"))?;
    let wasm = message.filenames.into_iter().find(|file| file.extension().is_some_and(|end| end == "wasm"))?;
    let folder = message.manifest_path?.parent()?.to_owned();
    (message.reason == "compiler-artifact").then_some(Artifact { package: target.name.replace('_', "-"), folder, wasm })
}

#[cfg(test)]
mod tests {
    use super::artifact;

    #[test]
    fn only_components_are_taken_from_the_messages_of_cargo() {
        let component = r#"{"reason":"compiler-artifact","package_id":"path+file:///w/p#run-script@1.0.0",
            "manifest_path":"/w/p/Cargo.toml","target":{"kind":["cdylib","rlib"],"crate_types":["cdylib","rlib"],
            "name":"run_script","src_path":"/w/p/src/lib.rs","edition":"2024"},"features":[],
            "filenames":["/w/t/librun_script.rlib","/w/t/run_script.wasm"],"executable":null,"fresh":true}"#;
        let found = artifact(component).expect("a component");
        assert_eq!(found.package, "run-script");
        assert_eq!(found.folder.to_str(), Some("/w/p"));
        assert_eq!(found.wasm.to_str(), Some("/w/t/run_script.wasm"));
        for other in [
            "",
            "warning: not JSON",
            r#"{"reason":"build-finished","success":true}"#,
            &component.replace(r#""cdylib","#, ""),
            &component.replace("compiler-artifact", "something-new"),
            &component.replace(r#","/w/t/run_script.wasm""#, ""),
        ] {
            assert_eq!(artifact(other), None, "{other}");
        }
    }
}
