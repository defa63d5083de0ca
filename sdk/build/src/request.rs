//! A build from end to end: look whether anything changed, find a toolchain, compile, verify, write.
//! The order matters: nothing is written to `dist` before every component has passed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::compile::{Artifact, compile};
use crate::event::Say;
use crate::stamp::Stamp;
use crate::toolchain::{Surroundings, Toolchain};
use crate::verify::{Verified, host, verify};
use crate::{BuildError, Event, Install, dist, lock};

/// A request to build all plugins of a workspace (or the one of a package that stands alone).
#[derive(Debug, Clone)]
pub struct Guests {
    workspace: PathBuf,
    install: Install,
    force: bool,
    surroundings: Option<Surroundings>,
}

/// What a build left in `dist`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Built {
    /// The plugins, sorted by id.
    pub plugins: Vec<Plugin>,
    /// True if nothing had changed and nothing was built.
    pub fresh: bool,
}

/// One plugin, ready to install.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Plugin {
    /// Its id, as in `uses: id@1`.
    pub id: String,
    /// Its version.
    pub version: String,
    /// `<id>.wasm`.
    pub component: PathBuf,
    /// `<id>.json`, the manifest that the component describes itself with.
    pub manifest: PathBuf,
    /// SHA-256 of the component, in hexadecimal digits.
    pub sha256: String,
}

impl Guests {
    /// Builds what lies in this folder, into its subfolders `target` and `dist`.
    pub fn in_workspace(folder: impl Into<PathBuf>) -> Self {
        Self { workspace: folder.into(), install: Install::Never, force: false, surroundings: None }
    }

    /// Whether a missing toolchain may be installed. Not, unless said.
    #[must_use]
    pub fn install(mut self, install: Install) -> Self {
        self.install = install;
        self
    }

    /// Builds even if nothing seems to have changed.
    #[must_use]
    pub fn force(mut self, force: bool) -> Self {
        self.force = force;
        self
    }

    /// Looks for toolchains somewhere else than this process would; for tests.
    #[must_use]
    pub fn surroundings(mut self, surroundings: Surroundings) -> Self {
        self.surroundings = Some(surroundings);
        self
    }

    /// Builds. Dropping the future ends the tools it started.
    pub async fn build(&self, say: Say<'_>) -> Result<Built, BuildError> {
        // Cargo names files by their real path; what lies inside the workspace is told by comparing with it.
        let workspace = self.workspace.canonicalize().map_err(BuildError::file("find", &self.workspace))?;
        if !workspace.join("Cargo.toml").is_file() {
            return Err(BuildError::NoWorkspace(workspace));
        }
        let dist = dist::prepare(&workspace)?;
        let _lock = lock::lock(&dist, say).await?;
        let before = Stamp::read(&dist);
        if !self.force
            && let Some(plugins) = before.as_ref().and_then(|stamp| stamp.still_true(&workspace, &dist))
        {
            say(Event::Fresh { plugins: plugins.len() });
            return Ok(Built { plugins, fresh: true });
        }
        let surroundings = self.surroundings.clone().unwrap_or_else(Surroundings::of_this_process);
        let toolchain = Toolchain::find(&surroundings, &workspace, self.install, say).await?;
        say(Event::Toolchain(toolchain.title.clone()));
        // Before cargo reads them: a file saved during the build then counts as changed.
        let inputs = Stamp::inputs(&workspace, before.as_ref());
        let artifacts = compile(&toolchain, &workspace, &workspace.join("target"), say).await?;
        let plugins = write_verified(&workspace, &dist, &artifacts, say).await?;
        dist::remove_leftovers(&dist, before.as_ref(), &plugins)?;
        Stamp::of(&workspace, inputs, &artifacts, &plugins).write(&dist)?;
        Ok(Built { plugins, fresh: false })
    }
}

/// Verifies all components, then writes them. Test fixtures (packages below `fixtures`) misbehave on purpose: they are
/// compiled with the rest, but neither verified nor written.
async fn write_verified(
    workspace: &Path,
    dist: &Path,
    artifacts: &[Artifact],
    say: Say<'_>,
) -> Result<Vec<Plugin>, BuildError> {
    let fixtures = workspace.join("fixtures");
    let host = host()?;
    let mut verified = Vec::with_capacity(artifacts.len());
    for artifact in artifacts.iter().filter(|artifact| !artifact.folder.starts_with(&fixtures)) {
        verified.push((artifact.package.clone(), verify(&host, artifact).await?));
    }
    let mut plugins = Vec::with_capacity(verified.len());
    for component in by_id(verified)? {
        say(Event::Ready {
            id: component.id.clone(),
            version: component.version.clone(),
            bytes: component.bytes.len() as u64,
        });
        plugins.push(dist::write(dist, component)?);
    }
    Ok(plugins)
}

/// Sorts by id; an id belongs to one package only.
fn by_id(verified: Vec<(String, Verified)>) -> Result<Vec<Verified>, BuildError> {
    let mut sorted: BTreeMap<String, (String, Verified)> = BTreeMap::new();
    for (package, component) in verified {
        let id = component.id.clone();
        if let Some((first, _)) = sorted.insert(id.clone(), (package.clone(), component)) {
            return Err(BuildError::SameId { id, first, second: package });
        }
    }
    Ok(sorted.into_values().map(|(_, component)| component).collect())
}

#[cfg(test)]
mod tests {
    use super::{Verified, by_id};

    fn plugin(package: &str, id: &str) -> (String, Verified) {
        let verified = Verified { id: id.into(), version: "1.0.0".into(), manifest: String::new(), bytes: Vec::new() };
        (package.into(), verified)
    }

    #[test]
    fn an_id_belongs_to_one_package() {
        let sorted = by_id(vec![plugin("p", "b"), plugin("q", "a")]).ok().unwrap();
        assert_eq!(sorted.iter().map(|p| p.id.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        let error = by_id(vec![plugin("p", "a"), plugin("q", "a")]).err().unwrap();
        insta::assert_snapshot!(error, @r#"
        the packages p and q both describe themselves as "a"
          fix: change the id of one of them
        "#);
    }
}
