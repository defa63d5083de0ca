//! Variables and the scopes they hold in.

use std::{collections::BTreeSet, fmt};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    name::{EnvironmentName, MachineName, Role, StepName},
    secret::SecretText,
};

/// One value of a variable, with the scope it holds in. A name may have several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variable {
    /// Name; compared without regard to case.
    pub name: String,
    /// Its value there.
    pub value: VariableValue,
    /// Where it holds.
    pub scope: Scope,
}

/// What a variable holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VariableValue {
    /// Text, may hold `#{…}` expressions.
    Text(String),
    /// A secret, taken literally.
    Secret(SecretText),
}

/// Where a value holds: each list that is not empty must contain the place asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Scope {
    /// Environments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub environments: Vec<EnvironmentName>,
    /// Roles of the machine.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<Role>,
    /// Machines.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub machines: Vec<MachineName>,
    /// Steps.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<StepName>,
}

impl Scope {
    /// Whether the value holds everywhere.
    #[must_use]
    pub fn is_everywhere(&self) -> bool {
        *self == Self::default()
    }

    /// Whether two scopes name the same places, in whatever order.
    #[must_use]
    pub fn same_as(&self, other: &Self) -> bool {
        fn same<T: Ord>(a: &[T], b: &[T]) -> bool {
            a.iter().collect::<BTreeSet<_>>() == b.iter().collect::<BTreeSet<_>>()
        }
        same(&self.environments, &other.environments)
            && same(&self.roles, &other.roles)
            && same(&self.machines, &other.machines)
            && same(&self.steps, &other.steps)
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fn list<T: fmt::Display>(kind: &str, items: &[T]) -> Option<String> {
            let items: Vec<String> = items.iter().map(ToString::to_string).collect();
            (!items.is_empty()).then(|| format!("{kind} {}", items.join("|")))
        }
        let parts: Vec<String> = [
            list("environment", &self.environments),
            list("role", &self.roles),
            list("machine", &self.machines),
            list("step", &self.steps),
        ]
        .into_iter()
        .flatten()
        .collect();
        if parts.is_empty() { f.write_str("(everywhere)") } else { write!(f, "({})", parts.join(", ")) }
    }
}
