//! Releases: snapshots of process, packages, variables and plugins, made once and never changed.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};
use windlass_model::{
    PackageId, PinnedPackage, ProjectName, Release, Variable, VariableValue,
    manifest::InputKind,
    template::Mode,
    variables::{Context, Place, System, VariableSet},
    views::ReleaseRequest,
};
use windlass_packages::{range::VersionRange, repository::PreReleases, version::Version};
use windlass_store::{Batch, Key};

use crate::{
    catalog,
    error::EngineError,
    once::{self, Made, Once},
    plugins,
    records::{PROCESSES, RELEASE_VARIABLES, RELEASES, StoredValue, StoredVariable, VARIABLES, all},
    services::Services,
};

/// Key of a release.
pub fn key(project: &ProjectName, version: &str) -> Key {
    Key::of_text(&project.key()).text(version)
}

/// Creates a release.
///
/// # Errors
/// When the project, a plugin or a package is missing, or the version is taken.
pub async fn create(
    services: &Services,
    project: &ProjectName,
    request: ReleaseRequest,
    once: Option<&Once>,
) -> Result<Release, EngineError> {
    let store = &*services.shared.store;
    let project = catalog::project(services, project).await?.name;
    let process = PROCESSES.get(store, Key::of_text(&project.key())).await?.unwrap_or_default();
    if process.steps.is_empty() {
        return Err(EngineError::invalid("empty-process", format!("the project {project} has no steps"))
            .fix("write a process.yaml and run windlass apply"));
    }
    let stored: Vec<StoredVariable> =
        all(store, &VARIABLES, VARIABLES.starting_with(Key::of_text(&project.key()))).await?;
    let open = open_variables(services, &project, &stored)?;
    let installed = plugins::list(store).await?;
    let mut guests = BTreeMap::new();
    let mut ids: Vec<String> = Vec::new();
    let context = Context::new(std::sync::Arc::new(VariableSet::new(open)), Place::default())
        .system(System::new().project(&project));
    for step in process.all_steps() {
        let Some(uses) = &step.uses else {
            continue;
        };
        let (record, pinned) = plugins::resolve(&installed, uses)?;
        for input in record.manifest.inputs.iter().filter(|input| input.kind == InputKind::Package) {
            let Some(text) = step.with.get(&input.name).and_then(|value| value.as_str()) else {
                continue;
            };
            let id = context.expand(text, Mode::Strict).map_err(|error| {
                EngineError::invalid(
                    "package-unknown",
                    format!("step {}: which package it deploys is not known before it runs: {error}", step.name),
                )
                .fix("name the package, or use variables that hold everywhere")
            })?;
            ids.push(id.text);
        }
        guests.insert(uses.clone(), pinned);
    }
    let packages = pin_packages(services, &project, ids, &request).await?;
    let version = match request.version {
        Some(version) => version,
        None => default_version(services, &project, &packages).await?,
    };
    check_version(&version)?;
    let release = Release {
        project: project.clone(),
        version,
        process,
        packages,
        guests,
        variables_digest: digest(&stored)?,
        notes: request.notes,
        created_ms: services.shared.clock.now_ms(),
    };
    store_release(services, &release, &stored, once).await?;
    Ok(release)
}

async fn store_release(
    services: &Services,
    release: &Release,
    variables: &[StoredVariable],
    once: Option<&Once>,
) -> Result<(), EngineError> {
    let key = key(&release.project, &release.version);
    let mut batch = Batch::new();
    RELEASES.require_absent(&mut batch, key.clone());
    RELEASES.put(&mut batch, key.clone(), release)?;
    for (place, variable) in variables.iter().enumerate() {
        RELEASE_VARIABLES.put(&mut batch, key.clone().id(place as u64), variable)?;
    }
    let made = Made::Release { project: release.project.clone(), version: release.version.clone() };
    once::mark(services, once, made, &mut batch)?;
    services.shared.store.commit(batch).await.map(|_| ()).map_err(|error| match error {
        windlass_store::StoreError::Unmet(_) => EngineError::conflict(
            "release-exists",
            format!("the release {} of {} exists", release.version, release.project),
        )
        .fix("choose another version; releases never change"),
        other => other.into(),
    })
}

async fn pin_packages(
    services: &Services,
    project: &ProjectName,
    ids: Vec<String>,
    request: &ReleaseRequest,
) -> Result<BTreeMap<PackageId, PinnedPackage>, EngineError> {
    let mut pinned = BTreeMap::new();
    for id in ids {
        let name = PackageId::new(&id).map_err(|error| {
            EngineError::invalid("package-name", error.to_string()).fix("name the package without its version")
        })?;
        if pinned.contains_key(&name) {
            continue;
        }
        let feed_id: windlass_packages::name::PackageId =
            id.parse().map_err(|error: windlass_packages::name::NameError| {
                EngineError::invalid("package-name", error.to_string()).fix(error.fix())
            })?;
        let wanted = request.packages.get(&name).cloned();
        let wanted_version = match (&wanted, &request.version) {
            (Some(version), _) => Some(version.clone()),
            // A package of the release's own version is what a build means that creates both.
            (None, Some(version)) => match version.parse::<Version>() {
                Ok(parsed) if services.packages.get(&feed_id, &parsed).await.is_ok() => Some(version.clone()),
                _ => None,
            },
            (None, None) => None,
        };
        let found = match wanted_version {
            Some(version) => {
                let version: Version = version.parse().map_err(|error: windlass_packages::version::VersionError| {
                    EngineError::invalid("version", error.to_string()).fix(error.fix())
                })?;
                services.packages.get(&feed_id, &version).await
            }
            None => services.packages.latest(&feed_id, &VersionRange::default(), PreReleases::Allowed).await,
        };
        let record = found.map_err(|error| {
            EngineError::new(
                crate::error::ErrorKind::NotFound,
                "package-missing",
                format!("a release of {project}: {error}"),
            )
            .fix(format!("windlass package push {id}.<version>.tar.gz"))
        })?;
        let blob = record.payload.plain;
        let package = PinnedPackage {
            version: record.name.version.to_string(),
            sha256: blob.sha256.to_string(),
            size: blob.size,
        };
        pinned.insert(name, package);
    }
    if let Some(unused) = request.packages.keys().find(|id| !pinned.contains_key(*id)) {
        return Err(EngineError::invalid(
            "package-unused",
            format!("no step of {project} deploys the package {unused}"),
        )
        .fix("leave it out, or name it in the step that is to deploy it"));
    }
    Ok(pinned)
}

async fn default_version(
    services: &Services,
    project: &ProjectName,
    packages: &BTreeMap<PackageId, PinnedPackage>,
) -> Result<String, EngineError> {
    let newest = packages.values().filter_map(|package| package.version.parse::<Version>().ok()).max();
    let taken: Vec<Version> =
        list(services, project).await?.iter().filter_map(|release| release.version.parse().ok()).collect();
    if let Some(newest) = newest
        && !taken.contains(&newest)
    {
        return Ok(newest.to_string());
    }
    let latest = taken.iter().max().map(ToString::to_string).unwrap_or_else(|| "0.0.0".to_owned());
    let core = latest.split(['-', '+']).next().unwrap_or_default();
    let mut parts: Vec<u64> = core.split('.').map(|part| part.parse().unwrap_or(0)).collect();
    parts.resize(3.max(parts.len()), 0);
    if let Some(patch) = parts.get_mut(2) {
        *patch += 1;
    }
    Ok(parts.iter().map(ToString::to_string).collect::<Vec<_>>().join("."))
}

fn check_version(version: &str) -> Result<(), EngineError> {
    version
        .parse::<Version>()
        .map(|_| ())
        .map_err(|error| EngineError::invalid("version", error.to_string()).fix(error.fix()))
}

fn digest(variables: &[StoredVariable]) -> Result<String, EngineError> {
    let json = serde_json::to_vec(variables).map_err(EngineError::internal)?;
    Ok(hex::encode(Sha256::digest(json)))
}

/// All releases of a project, newest first.
///
/// # Errors
/// When the store stopped.
pub async fn list(services: &Services, project: &ProjectName) -> Result<Vec<Release>, EngineError> {
    let found = RELEASES.all(&*services.shared.store, Key::of_text(&project.key())).await?;
    let mut releases: Vec<Release> = found.into_iter().map(|(_, release)| release).collect();
    releases.sort_by_key(|release| std::cmp::Reverse(release.created_ms));
    Ok(releases)
}

/// One release; without a version the latest.
///
/// # Errors
/// When there is none.
pub async fn get(services: &Services, project: &ProjectName, version: Option<&str>) -> Result<Release, EngineError> {
    let create = || format!("windlass release create {project}");
    match version {
        Some(version) => RELEASES
            .get(&*services.shared.store, key(project, version))
            .await?
            .ok_or_else(|| EngineError::not_found("release", format!("{version} of {project}")).fix(create())),
        None => {
            let newest = list(services, project).await?.into_iter().next();
            newest.ok_or_else(|| EngineError::not_found("release", format!("of {project}")).fix(create()))
        }
    }
}

/// The variables that a release pinned, secrets open.
///
/// # Errors
/// When a secret cannot be opened, or the store stopped.
pub async fn variables(
    services: &Services,
    project: &ProjectName,
    version: &str,
) -> Result<Vec<Variable>, EngineError> {
    let scan = RELEASE_VARIABLES.starting_with(key(project, version));
    let stored = all(&*services.shared.store, &RELEASE_VARIABLES, scan).await?;
    open_variables(services, project, &stored)
}

/// Variables with their secrets open.
///
/// # Errors
/// When a secret cannot be opened.
pub fn open_variables(
    services: &Services,
    project: &ProjectName,
    stored: &[StoredVariable],
) -> Result<Vec<Variable>, EngineError> {
    stored
        .iter()
        .map(|stored| {
            let value = match &stored.value {
                StoredValue::Text(text) => VariableValue::Text(text.clone()),
                StoredValue::Secret(sealed) => VariableValue::Secret(
                    services.vault.unseal(&catalog::variable_place(project, &stored.name), sealed)?,
                ),
            };
            Ok(Variable { name: stored.name.clone(), value, scope: stored.scope.clone() })
        })
        .collect()
}
