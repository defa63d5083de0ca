//! JSON Schemas of the files, for editors: completion and checks while typing.
//!
//! Made from the same types that the files are read into, in draft 7, which is what editors know. The
//! process gets a part for each installed step type, so that `with:` is completed too.

use schemars::{JsonSchema, generate::SchemaSettings};
use serde::Serialize;
use serde_json::{Map, Value as Json, json};

use crate::{
    machine::{Environment, Machine},
    manifest::{Input, InputKind, Manifest},
    process::{PluginRef, Process},
    project::Project,
    variable::Scope,
};

/// The files that have a schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// `environments.yaml`
    Environments,
    /// `machines.yaml`
    Machines,
    /// `project.yaml`
    Project,
    /// `process.yaml`
    Process,
    /// `variables.yaml`
    Variables,
}

impl FileKind {
    /// Every kind.
    pub const ALL: [Self; 5] = [Self::Environments, Self::Machines, Self::Project, Self::Process, Self::Variables];

    /// Name of the file.
    #[must_use]
    pub fn file_name(self) -> &'static str {
        match self {
            Self::Environments => "environments.yaml",
            Self::Machines => "machines.yaml",
            Self::Project => "project.yaml",
            Self::Process => "process.yaml",
            Self::Variables => "variables.yaml",
        }
    }
}

/// The schema of a file, with the inputs of the installed step types.
#[must_use]
pub fn schema(kind: FileKind, manifests: &[Manifest]) -> Json {
    match kind {
        FileKind::Environments => of::<EnvironmentsFile>(),
        FileKind::Machines => of::<MachinesFile>(),
        FileKind::Project => of::<Project>(),
        FileKind::Variables => of::<VariablesFile>(),
        FileKind::Process => {
            let mut schema = of::<Process>();
            if let Some(step) = schema.pointer_mut("/definitions/Step") {
                with_step_types(step, manifests);
            }
            schema
        }
    }
}

fn of<T: JsonSchema>() -> Json {
    SchemaSettings::draft07().into_generator().into_root_schema_for::<T>().to_value()
}

/// Environments that releases are deployed to.
#[derive(Serialize, JsonSchema)]
#[schemars(deny_unknown_fields, rename = "environments")]
struct EnvironmentsFile {
    /// The environments.
    environments: Vec<Environment>,
}

/// Machines that are deployed to or worked from.
#[derive(Serialize, JsonSchema)]
#[schemars(deny_unknown_fields, rename = "machines")]
struct MachinesFile {
    /// The machines.
    machines: Vec<Machine>,
}

/// Variables of a project.
#[derive(Serialize, JsonSchema)]
#[schemars(deny_unknown_fields, rename = "variables")]
struct VariablesFile {
    /// The variables. A name may come several times with different scopes.
    variables: Vec<VariableEntry>,
}

/// A variable: either `value` or `secret`.
#[derive(Serialize, JsonSchema)]
#[schemars(
    deny_unknown_fields,
    extend("oneOf" = [{ "required": ["value"] }, { "required": ["secret"] }])
)]
struct VariableEntry {
    /// Name; case does not count.
    name: String,
    /// Its value, which may hold #{…} expressions.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("type" = ["string", "number", "boolean"]))]
    value: Option<String>,
    /// Where its secret value is read from when the files are applied.
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<SecretEntry>,
    /// Where it holds: kinds are all required, of each list one must match.
    #[serde(default)]
    scope: Scope,
}

/// Where a secret is read from.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[allow(dead_code)] // only its schema is used
enum SecretEntry {
    /// Environment variable of whoever applies the files.
    Env(String),
    /// File beside the project's files.
    File(String),
}

/// Adds the known step types to the schema of a step.
fn with_step_types(step: &mut Json, manifests: &[Manifest]) {
    let mut newest: Vec<(String, &Manifest)> = Vec::new();
    for manifest in manifests {
        let Some(major) = manifest.major() else {
            continue;
        };
        let uses = PluginRef { id: manifest.id.clone(), major };
        let best = Manifest::newest(manifests, &uses);
        let known = newest.iter().any(|(name, _)| *name == uses.to_string());
        if let (Some(best), false) = (best, known) {
            newest.push((uses.to_string(), best));
        }
    }
    if newest.is_empty() {
        return;
    }
    newest.sort_by(|a, b| a.0.cmp(&b.0));
    let names: Vec<&str> = newest.iter().map(|(uses, _)| uses.as_str()).collect();
    if let Some(uses) = step.pointer_mut("/properties/uses") {
        // Offered by name, but others are not refused: what is installed differs between servers.
        *uses = json!({ "anyOf": [{ "enum": names }, uses.take()] });
    }
    let parts: Vec<Json> = newest.iter().map(|(uses, manifest)| step_type(uses, manifest)).collect();
    if let Some(step) = step.as_object_mut() {
        step.insert("allOf".to_owned(), Json::Array(parts));
    }
}

fn step_type(uses: &str, manifest: &Manifest) -> Json {
    let mut properties = Map::new();
    for input in &manifest.inputs {
        properties.insert(input.name.clone(), input_schema(input));
    }
    let required: Vec<&str> = manifest
        .inputs
        .iter()
        .filter(|input| input.required && input.default.is_none())
        .map(|input| input.name.as_str())
        .collect();
    let mut then = json!({
        "properties": {
            "with": {
                "type": "object",
                "title": manifest.title,
                "properties": properties,
                "required": required,
                "additionalProperties": false,
            }
        }
    });
    if let (false, Some(with)) = (manifest.description.is_empty(), then.pointer_mut("/properties/with")) {
        with["description"] = Json::from(manifest.description.as_str());
    }
    if let (false, Some(then)) = (required.is_empty(), then.as_object_mut()) {
        then.insert("required".to_owned(), json!(["with"]));
    }
    json!({
        "if": { "properties": { "uses": { "const": uses } }, "required": ["uses"] },
        "then": then,
    })
}

fn input_schema(input: &Input) -> Json {
    let template = json!({ "type": "string", "pattern": "#\\{" });
    let text = json!({ "type": "string" });
    let mut schema = match input.kind {
        InputKind::Text | InputKind::Secret | InputKind::Package => text,
        InputKind::Integer => json!({ "anyOf": [{ "type": "integer" }, template] }),
        InputKind::Boolean => json!({ "anyOf": [{ "type": "boolean" }, template] }),
        InputKind::List => json!({ "type": "array", "items": text }),
        InputKind::Map => json!({ "type": "object", "additionalProperties": text }),
    };
    if !input.choices.is_empty() {
        schema = json!({ "anyOf": [{ "enum": input.choices }, template] });
    }
    if let Some(entries) = schema.as_object_mut() {
        for (key, words) in [("title", &input.title), ("description", &input.description)] {
            if !words.is_empty() {
                entries.insert(key.to_owned(), Json::from(words.as_str()));
            }
        }
        if let Some(default) = &input.default {
            entries.insert("default".to_owned(), default.clone());
        }
    }
    schema
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_has_a_schema_that_refuses_unknown_keys() {
        for kind in FileKind::ALL {
            let schema = schema(kind, &[]);
            assert_eq!(schema["additionalProperties"], false, "{kind:?}");
            assert_eq!(schema["$schema"], "http://json-schema.org/draft-07/schema#");
        }
        let names = FileKind::ALL.map(FileKind::file_name);
        assert_eq!(names, crate::files::FILE_NAMES);
    }

    #[test]
    fn variables_take_a_value_or_a_secret() {
        let schema = schema(FileKind::Variables, &[]);
        insta::assert_json_snapshot!(schema.pointer("/definitions/VariableEntry"));
    }

    #[test]
    fn installed_step_types_complete_with() {
        let manifest = |version: &str, inputs: Json| -> Manifest {
            serde_json::from_value(json!({
                "id": "deploy-package", "version": version, "title": "Deploy a package", "inputs": inputs
            }))
            .unwrap()
        };
        let manifests = [
            manifest("1.9.0", json!([])),
            manifest(
                "1.10.0",
                json!([
                    { "name": "package", "type": "package", "required": true, "description": "what to deploy" },
                    { "name": "keep", "type": "integer", "default": 3 },
                    { "name": "mode", "enum": ["copy", "link"] },
                    { "name": "substitute", "type": "list" },
                ]),
            ),
            manifest("2.0.0", json!([])),
        ];
        let schema = schema(FileKind::Process, &manifests);
        let step = schema.pointer("/definitions/Step").unwrap();
        insta::assert_json_snapshot!(json!({ "uses": step["properties"]["uses"], "allOf": step["allOf"] }));
    }
}
