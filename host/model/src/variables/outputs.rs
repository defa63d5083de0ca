//! Output variables of the steps that ran before.
//!
//! A step that ran on several machines may have set the same output to different values. Reading it
//! without naming a machine is then an error; only equal values are one value.

use std::collections::BTreeMap;

use crate::name::{MachineName, StepName};

/// Outputs of earlier steps, by step and name, each machine apart.
#[derive(Debug, Clone, Default)]
pub struct Outputs {
    by_step: BTreeMap<String, BTreeMap<String, Values>>,
}

#[derive(Debug, Clone)]
struct Values {
    /// Name as the step wrote it.
    name: String,
    /// By machine key; the empty key stands for a run without a machine.
    by_machine: BTreeMap<String, Value>,
}

#[derive(Clone)]
struct Value {
    machine: Option<MachineName>,
    text: String,
    secret: bool,
}

impl std::fmt::Debug for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = if self.secret { "…" } else { &self.text };
        write!(f, "{:?}: {text:?}", self.machine)
    }
}

/// The machines of a step disagree on an output.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "output {name} of step {step} differs between {}; name the machine: #{{Step[{step}].Output[{first}].{name}}}",
    machines.join(", "),
    first = machines.first().map_or("machine", String::as_str)
)]
pub struct AmbiguousOutput {
    /// The step.
    pub step: String,
    /// The output.
    pub name: String,
    /// Machines that set it.
    pub machines: Vec<String>,
}

impl Outputs {
    /// Records what a step set on a machine; a later value of the same run replaces the earlier.
    pub fn set(
        &mut self,
        step: &StepName,
        machine: Option<&MachineName>,
        name: &str,
        text: impl Into<String>,
        secret: bool,
    ) {
        let values = self
            .by_step
            .entry(step.key())
            .or_default()
            .entry(name.to_lowercase())
            .or_insert_with(|| Values { name: name.to_owned(), by_machine: BTreeMap::new() });
        values.by_machine.insert(
            machine.map(MachineName::key).unwrap_or_default(),
            Value { machine: machine.cloned(), text: text.into(), secret },
        );
    }

    /// The text of an output and whether it is secret.
    ///
    /// # Errors
    /// When no machine is named and the machines' values differ.
    pub fn get(&self, step: &str, machine: Option<&str>, name: &str) -> Result<Option<(&str, bool)>, AmbiguousOutput> {
        let Some(values) = self.by_step.get(&step.to_lowercase()).and_then(|outputs| outputs.get(&name.to_lowercase()))
        else {
            return Ok(None);
        };
        if let Some(machine) = machine {
            let value = values.by_machine.get(&machine.to_lowercase());
            return Ok(value.map(|value| (value.text.as_str(), value.secret)));
        }
        let mut all = values.by_machine.values();
        let Some(first) = all.next() else {
            return Ok(None);
        };
        if values.by_machine.values().any(|v| v.text != first.text) {
            return Err(AmbiguousOutput {
                step: step.to_owned(),
                name: values.name.clone(),
                machines: values
                    .by_machine
                    .values()
                    .map(|v| v.machine.as_ref().map_or_else(|| "server".to_owned(), ToString::to_string))
                    .collect(),
            });
        }
        let secret = values.by_machine.values().any(|v| v.secret);
        Ok(Some((first.text.as_str(), secret)))
    }
}
