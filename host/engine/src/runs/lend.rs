//! What a step's inputs lend to its run: secrets and packages become handles, their values stay on this side.

use std::collections::BTreeMap;

use windlass_effects::{Failure, PackageHandle, PackageInfo, SecretHandle};
use windlass_model::{Manifest, SecretText, Step, manifest::InputKind, template::Mode, variables::Context};
use windlass_packages::digest::Sha256;
use windlass_wasm::LentPackage;

use super::context::{Subject, TaskContext};

/// Inputs of kind secret become handles; their values stay with the performer.
#[allow(clippy::type_complexity, reason = "two halves of one thing")]
pub fn lend_secrets(
    manifest: Option<&Manifest>,
    step: Option<&Step>,
    context: &Context,
) -> Result<(BTreeMap<String, SecretHandle>, BTreeMap<SecretHandle, SecretText>), Failure> {
    let (mut handles, mut values) = (BTreeMap::new(), BTreeMap::new());
    let (Some(manifest), Some(step)) = (manifest, step) else {
        return Ok((handles, values));
    };
    for input in manifest.inputs.iter().filter(|input| input.kind == InputKind::Secret) {
        let Some(text) = step.with.get(&input.name).and_then(|value| value.as_str()) else {
            continue;
        };
        let expanded = context.expand(text, Mode::Strict).map_err(|error| invalid(&input.name, &error.to_string()))?;
        let handle = SecretHandle(format!("input:{}", input.name));
        handles.insert(input.name.clone(), handle.clone());
        values.insert(handle, SecretText::new(expanded.text));
    }
    Ok((handles, values))
}

/// Inputs of kind package become handles to what the release pinned.
#[allow(clippy::type_complexity, reason = "two halves of one thing")]
pub fn lend_packages(
    task: &TaskContext,
    manifest: Option<&Manifest>,
    step: Option<&Step>,
    context: &Context,
) -> Result<(BTreeMap<String, LentPackage>, BTreeMap<PackageHandle, (PackageInfo, Sha256)>), Failure> {
    let (mut lent, mut packages) = (BTreeMap::new(), BTreeMap::new());
    let (Some(manifest), Some(step), Subject::Deployment { release, .. }) = (manifest, step, &task.subject) else {
        return Ok((lent, packages));
    };
    for (number, input) in manifest.package_inputs().enumerate() {
        let Some(text) = step.with.get(input).and_then(|value| value.as_str()) else {
            continue;
        };
        let id = context.expand(text, Mode::Strict).map_err(|error| invalid(input, &error.to_string()))?.text;
        let Some((id, pinned)) = release.package(&id) else {
            let message = format!("the release {} does not hold the package {id}", release.version);
            return Err(Failure::new("not-found", message).fix(format!("windlass release create {}", release.project)));
        };
        let digest: Sha256 = pinned.sha256.parse().map_err(|_| invalid(input, "its digest is damaged"))?;
        let handle = PackageHandle(u32::try_from(number).unwrap_or(u32::MAX).saturating_add(1));
        let info = PackageInfo {
            id: id.to_string(),
            version: pinned.version.clone(),
            sha256: pinned.sha256.clone(),
            size: pinned.size,
        };
        lent.insert(input.to_owned(), LentPackage { handle, info: info.clone() });
        packages.insert(handle, (info, digest));
    }
    Ok((lent, packages))
}

fn invalid(input: &str, why: &str) -> Failure {
    Failure::new("invalid", format!("the input {input}: {why}"))
}
