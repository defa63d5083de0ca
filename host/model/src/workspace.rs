//! What `windlass apply` sends: everything that a folder of files says, and the answer to it.
//!
//! This is the one request in which secrets travel as plain text, over the connection that carries
//! them to the server. Nothing else in the crate serializes a secret.

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser::SerializeSeq};

use crate::{
    diff::Change,
    machine::{Environment, Machine},
    process::Process,
    project::Project,
    secret::SecretText,
    variable::{Scope, Variable, VariableValue},
};

/// Environments, machines and projects, as files or a request say them.
///
/// Environments and machines that are not named stay as they are on the server; a project that is
/// named is replaced as a whole, with its process and its variables.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Workspace {
    /// Environments to create or change.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub environments: Vec<Environment>,
    /// Machines to create or change.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub machines: Vec<Machine>,
    /// Projects to create or replace.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub projects: Vec<ProjectFiles>,
}

/// A project with all that its folder says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProjectFiles {
    /// The project itself.
    pub project: Project,
    /// Its process.
    pub process: Process,
    /// Its variables. Secrets are in clear here.
    #[serde(default, skip_serializing_if = "Vec::is_empty", with = "clear")]
    #[schemars(with = "Vec<ClearVariable>")]
    pub variables: Vec<Variable>,
}

/// What applying a workspace did, or would do.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct ApplyReport {
    /// What changed, in the order of the files.
    pub changes: Vec<Change>,
    /// How many things were as asked for already.
    pub unchanged: usize,
}

/// A variable with its value in clear: `value` or `secret`, exactly one of them.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ClearVariable {
    /// Name of the variable.
    name: String,
    /// Its value, which may hold `#{…}` expressions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    /// Its secret value, taken literally.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    secret: Option<String>,
    /// Where it holds.
    #[serde(default, skip_serializing_if = "Scope::is_everywhere")]
    scope: Scope,
}

impl TryFrom<ClearVariable> for Variable {
    type Error = String;

    fn try_from(clear: ClearVariable) -> Result<Self, String> {
        let value = match (clear.value, clear.secret) {
            (Some(text), None) => VariableValue::Text(text),
            (None, Some(secret)) => VariableValue::Secret(SecretText::new(secret)),
            _ => {
                return Err(format!("variable {:?} must have either a value or a secret", clear.name));
            }
        };
        Ok(Self { name: clear.name, value, scope: clear.scope })
    }
}

/// Variables with their secrets in clear: for [`ProjectFiles`], and nothing else.
mod clear {
    use super::{ClearVariable, Deserialize, Deserializer, SerializeSeq, Serializer, Variable, VariableValue, de};

    pub(super) fn serialize<S: Serializer>(variables: &[Variable], serializer: S) -> Result<S::Ok, S::Error> {
        let mut seq = serializer.serialize_seq(Some(variables.len()))?;
        for variable in variables {
            let (value, secret) = match &variable.value {
                VariableValue::Text(text) => (Some(text.clone()), None),
                VariableValue::Secret(secret) => (None, Some(secret.expose().to_owned())),
            };
            seq.serialize_element(&ClearVariable {
                name: variable.name.clone(),
                value,
                secret,
                scope: variable.scope.clone(),
            })?;
        }
        seq.end()
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Variable>, D::Error> {
        Vec::<ClearVariable>::deserialize(deserializer)?
            .into_iter()
            .map(|clear| clear.try_into().map_err(de::Error::custom))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workspace_survives_json_with_its_secrets() {
        let json = r#"{"environments":[{"name":"test"}],"projects":[{"project":{"name":"shop"},"process":{"steps":[]},"variables":[{"name":"A","value":"1"},{"name":"P","secret":"hush","scope":{"roles":["web"]}}]}]}"#;
        let workspace: Workspace = serde_json::from_str(json).unwrap();
        assert_eq!(serde_json::to_string(&workspace).unwrap(), json);
        assert!(!format!("{workspace:?}").contains("hush"));
    }

    #[test]
    fn a_variable_has_a_value_or_a_secret_and_not_both() {
        let with = |fields: &str| {
            let json = format!(
                r#"{{"project":{{"name":"p"}},"process":{{"steps":[]}},"variables":[{{"name":"A"{fields}}}]}}"#
            );
            serde_json::from_str::<ProjectFiles>(&json).map_err(|e| e.to_string())
        };
        assert!(with(r#","value":"1""#).is_ok());
        for wrong in ["", r#","value":"1","secret":"hush""#] {
            let said = with(wrong).unwrap_err();
            assert!(said.contains("either a value or a secret"), "{said}");
            assert!(!said.contains("hush"));
        }
    }
}
