//! Reads and checks the manifest that a plugin gives of itself.

use std::collections::BTreeSet;

use windlass_model::{Manifest, manifest::InputKind};

use crate::{contract::Import, error::Refused, text};

/// Largest manifest, bytes of JSON.
const MAX_JSON: usize = 256 << 10;
/// Most inputs, outputs, locks.
const MAX_ENTRIES: usize = 200;

/// The manifest in this JSON, if it is one.
pub(crate) fn read(json: &str, imports: &[Import]) -> Result<Manifest, Refused> {
    let wrong = |detail: String| Refused::Manifest { detail };
    if json.len() > MAX_JSON {
        return Err(wrong(format!("it has {} bytes, at most {MAX_JSON} are read", json.len())));
    }
    let manifest: Manifest =
        serde_json::from_str(json).map_err(|error| wrong(text::one_line(&error.to_string(), 500)))?;
    check(&manifest).map_err(|detail| wrong(text::one_line(&detail, 500)))?;
    let undeclared = imports.iter().find_map(|import| {
        let needs = import.needs.as_ref().filter(|needs| import.calls && !manifest.capabilities.contains(needs))?;
        Some(Refused::Undeclared { interface: import.interface.clone(), capability: needs.clone() })
    });
    undeclared.map_or(Ok(manifest), Err)
}

fn check(manifest: &Manifest) -> Result<(), String> {
    let kebab = |name: &str| {
        name.starts_with(|c: char| c.is_ascii_lowercase())
            && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
    };
    if !kebab(&manifest.id) || manifest.id.len() > 60 {
        return Err(format!("the id {:?} is not lower-case words joined by hyphens", manifest.id));
    }
    if !is_version(&manifest.version) {
        return Err(format!("the version {:?} is not three numbers such as 1.0.0", manifest.version));
    }
    if manifest.title.trim().is_empty() {
        return Err("the title is empty".to_owned());
    }
    let lists = [manifest.inputs.len(), manifest.outputs.len(), manifest.locks.len(), manifest.capabilities.len()];
    if lists.into_iter().any(|len| len > MAX_ENTRIES) {
        return Err(format!("it lists more than {MAX_ENTRIES} inputs, outputs, capabilities or locks"));
    }
    check_inputs(manifest)?;
    manifest.locks.iter().try_for_each(|lock| check_lock(manifest, &lock.resource))
}

fn check_inputs(manifest: &Manifest) -> Result<(), String> {
    let mut names = BTreeSet::new();
    for input in &manifest.inputs {
        let name = &input.name;
        if name.is_empty() || !name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_') {
            return Err(format!("the input {name:?} is not lower-case words joined by underscores"));
        }
        if !names.insert(name) {
            return Err(format!("the input {name} is there twice"));
        }
        if input.required && input.default.is_some() {
            return Err(format!("the input {name} is required and has a default: it can only be one of them"));
        }
        if input.kind == InputKind::Secret && input.default.is_some() {
            return Err(format!("the input {name} is a secret and has a default, which everybody could read"));
        }
        if let Some(default) = input.default.as_ref().filter(|value| !fits(input.kind, value)) {
            return Err(format!("the default of the input {name} is {default}, which does not fit its type"));
        }
    }
    Ok(())
}

fn fits(kind: InputKind, value: &serde_json::Value) -> bool {
    let template = value.as_str().is_some_and(|text| text.contains("#{"));
    template
        || match kind {
            InputKind::Text | InputKind::Secret | InputKind::Package => value.is_string(),
            InputKind::Integer => value.is_i64() || value.is_u64(),
            InputKind::Boolean => value.is_boolean(),
            InputKind::List => value.as_array().is_some_and(|items| items.iter().all(serde_json::Value::is_string)),
            InputKind::Map => value.as_object().is_some_and(|map| map.values().all(serde_json::Value::is_string)),
        }
}

/// Every `{…}` in the name of a lock must be an input.
fn check_lock(manifest: &Manifest, resource: &str) -> Result<(), String> {
    let mut rest = resource;
    while let Some((_, after)) = rest.split_once('{') {
        let Some((input, tail)) = after.split_once('}') else {
            return Err(format!("the lock {resource:?} has a {{ that is not closed"));
        };
        if manifest.input(input).is_none() {
            return Err(format!("the lock {resource:?} names the input {input:?}, which does not exist"));
        }
        rest = tail;
    }
    if resource.is_empty() { Err("a lock has no name".to_owned()) } else { Ok(()) }
}

fn is_version(text: &str) -> bool {
    let mut numbers = 0;
    text.split('.').all(|number| {
        numbers += 1;
        number.parse::<u32>().is_ok_and(|value| value.to_string() == number)
    }) && numbers == 3
}

/// Compares the manifest file that lies beside a component with what the component says.
pub(crate) fn compare(file: &Manifest, component: &Manifest) -> Result<(), Refused> {
    if file == component {
        return Ok(());
    }
    let fields = |manifest: &Manifest| serde_json::to_value(manifest).unwrap_or_default();
    let (file, component) = (fields(file), fields(component));
    let differing: Vec<_> = component
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(name, value)| file.get(name.as_str()) != Some(value))
        .map(|(name, _)| name.as_str())
        .collect();
    Err(Refused::Sidecar { detail: format!("they differ in {}", differing.join(", ")) })
}
