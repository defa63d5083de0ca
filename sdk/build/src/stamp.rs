//! Remembers what the last build read and wrote, so that a build with nothing to do ends in milliseconds and without
//! asking cargo. Contents are compared, not times: a fresh checkout or a copied folder is judged rightly.
//! A newer compiler alone does not make guests stale; forcing a build does.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::compile::Artifact;
use crate::dist::{digest, write_aside};
use crate::{BuildError, Plugin};

const FORMAT: u32 = 1;
/// Folders of a workspace that hold no sources.
const NOT_SOURCES: [&str; 2] = ["target", "dist"];

/// The record beside the built plugins.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Stamp {
    format: u32,
    /// Files outside the workspace that were compiled in (the SDK, the contract).
    outside: BTreeSet<PathBuf>,
    /// Digest over names and contents of all inputs, as they were when the build started.
    inputs: String,
    plugins: Vec<Plugin>,
}

/// The state of the sources when a build started.
pub(crate) struct Inputs {
    outside: BTreeSet<PathBuf>,
    digest: String,
}

impl Stamp {
    /// The stamp of the last build, if there is a readable one of this format.
    pub(crate) fn read(dist: &Path) -> Option<Self> {
        let text = fs::read(file(dist)).ok()?;
        serde_json::from_slice(&text).ok().filter(|stamp: &Self| stamp.format == FORMAT)
    }

    /// Looks at the sources now. Files outside the workspace are known from the last build only.
    pub(crate) fn inputs(workspace: &Path, before: Option<&Self>) -> Inputs {
        let outside = before.map(|stamp| stamp.outside.clone()).unwrap_or_default();
        let digest = inputs_digest(workspace, &outside);
        Inputs { outside, digest }
    }

    /// The stamp of a build that has just ended.
    pub(crate) fn of(workspace: &Path, at_start: Inputs, artifacts: &[Artifact], plugins: &[Plugin]) -> Self {
        let outside: BTreeSet<PathBuf> = artifacts
            .iter()
            .flat_map(|artifact| read_by(&artifact.wasm))
            .filter(|file| !file.starts_with(workspace))
            .collect();
        // The first build learns only now what it read outside, so only now can it be digested.
        let inputs = if outside == at_start.outside { at_start.digest } else { inputs_digest(workspace, &outside) };
        Self { format: FORMAT, outside, inputs, plugins: plugins.to_vec() }
    }

    /// The plugins, if neither a source nor a built file has changed.
    pub(crate) fn still_true(&self, workspace: &Path, dist: &Path) -> Option<Vec<Plugin>> {
        let there = |plugin: &Plugin| {
            plugin.component.parent() == Some(dist)
                && plugin.manifest.is_file()
                && plugin.component.with_extension("sha256").is_file()
                && fs::read(&plugin.component).is_ok_and(|bytes| digest(&bytes) == plugin.sha256)
        };
        (self.plugins.iter().all(there) && inputs_digest(workspace, &self.outside) == self.inputs)
            .then(|| self.plugins.clone())
    }

    /// The ids of the plugins.
    pub(crate) fn ids(&self) -> impl Iterator<Item = &String> {
        self.plugins.iter().map(|plugin| &plugin.id)
    }

    pub(crate) fn write(&self, dist: &Path) -> Result<(), BuildError> {
        let path = file(dist);
        let text = serde_json::to_vec_pretty(self).map_err(|cause| BuildError::file("write", &path)(cause.into()))?;
        write_aside(&path, &text)
    }
}

fn file(dist: &Path) -> PathBuf {
    dist.join(".stamp.json")
}

/// The files rustc read for a component, from the list that cargo leaves beside it, and the manifests that govern them.
fn read_by(wasm: &Path) -> BTreeSet<PathBuf> {
    let list = fs::read_to_string(wasm.with_extension("d")).unwrap_or_default();
    let mut files: BTreeSet<PathBuf> = list.lines().flat_map(dependencies).collect();
    let manifests: Vec<PathBuf> = files
        .iter()
        .filter_map(|file| file.ancestors().skip(1).map(|folder| folder.join("Cargo.toml")).find(|file| file.is_file()))
        .collect();
    files.extend(manifests);
    files
}

/// The right side of a rule of a makefile, where a space within a name is written `\ `.
fn dependencies(rule: &str) -> Vec<PathBuf> {
    let Some((_, files)) = rule.split_once(": ") else {
        return Vec::new();
    };
    let one_word = files.replace("\\ ", "\0");
    one_word.split_whitespace().map(|word| PathBuf::from(word.replace('\0', " "))).collect()
}

/// One digest over everything. A file that cannot be read counts as absent, so its coming or going is a change.
fn inputs_digest(workspace: &Path, outside: &BTreeSet<PathBuf>) -> String {
    let mut files = outside.clone();
    collect(workspace, true, &mut files);
    let mut hasher = Sha256::new();
    for file in files {
        let content = fs::read(&file).ok();
        hasher.update(file.as_os_str().as_encoded_bytes());
        hasher.update([0, u8::from(content.is_some())]);
        let content = content.unwrap_or_default();
        hasher.update((content.len() as u64).to_le_bytes());
        hasher.update(&content);
    }
    hex::encode(hasher.finalize())
}

/// Every file below a folder, without what builds leave there. `.cargo` is the one hidden folder that matters.
fn collect(folder: &Path, top: bool, files: &mut BTreeSet<PathBuf>) {
    for entry in folder.read_dir().into_iter().flatten().flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        let name = name.to_string_lossy();
        let hidden = name.starts_with('.') && name != ".cargo";
        match entry.file_type() {
            Ok(kind) if kind.is_dir() && !hidden && !(top && NOT_SOURCES.contains(&&*name)) => {
                collect(&path, false, files)
            }
            Ok(kind) if kind.is_file() && !hidden => {
                files.insert(path);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
#[path = "stamp_tests.rs"]
mod tests;
