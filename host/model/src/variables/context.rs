//! Everything that a `#{…}` can name at one place: the server's variables, outputs of earlier steps,
//! and the project's own variables, looked up in that order.

use std::{borrow::Cow, sync::Arc};

use super::{Outputs, Place, System, VariableSet, key_after, system::without_prefix};
use crate::{
    template::{Expanded, Found, Lookup, LookupError, Mode, Template, TemplateError, is_truthy},
    variable::VariableValue,
};

/// What can be named at one place. Cheap to make for each run: the big parts are shared.
#[derive(Debug, Clone, Default)]
pub struct Context {
    variables: Arc<VariableSet>,
    place: Place,
    system: System,
    outputs: Arc<Outputs>,
}

impl Context {
    /// The variables of a project, read at a place.
    #[must_use]
    pub fn new(variables: Arc<VariableSet>, place: Place) -> Self {
        Self { variables, place, ..Self::default() }
    }

    /// Adds the server's variables.
    #[must_use]
    pub fn system(mut self, system: System) -> Self {
        self.system = system;
        self
    }

    /// Adds outputs of earlier steps.
    #[must_use]
    pub fn outputs(mut self, outputs: Arc<Outputs>) -> Self {
        self.outputs = outputs;
        self
    }

    /// Expands a text.
    ///
    /// # Errors
    /// As [`Template::expand`].
    pub fn expand(&self, text: &str, mode: Mode) -> Result<Expanded, TemplateError> {
        Template::parse(text).expand(self, mode)
    }

    /// Whether a condition holds: everything it names has a value, and the whole is neither empty nor `0`, `no` or
    /// `false`.
    ///
    /// # Errors
    /// When it does not parse, or a value cannot be told.
    pub fn holds(&self, condition: &str) -> Result<bool, TemplateError> {
        let template = Template::parse(condition);
        if let Some(error) = template.errors().first() {
            return Err(error.clone());
        }
        let expanded = template.expand(self, Mode::Leave)?;
        Ok(expanded.unresolved.is_empty() && is_truthy(&expanded.text))
    }

    /// Expands the value of a variable by its name, none when there is no such variable.
    ///
    /// # Errors
    /// As [`Template::expand`], in strict mode.
    pub fn value(&self, name: &str) -> Result<Option<Expanded>, TemplateError> {
        crate::template::expand_name(self, name)
    }
}

impl Lookup for Context {
    fn get(&self, name: &str) -> Result<Option<Found<'_>>, LookupError> {
        if let Some(text) = self.system.get(name) {
            return Ok(Some(Found::literal(text)));
        }
        if let Some(output) = OutputPath::parse(name) {
            let found = self
                .outputs
                .get(output.step, output.machine, output.name)
                .map_err(|error| LookupError(error.to_string()))?;
            if let Some((text, secret)) = found {
                return Ok(Some(Found { text: Cow::Borrowed(text), secret, literal: true }));
            }
        }
        let found = self.variables.resolve(name, &self.place).map_err(|error| LookupError(error.to_string()))?;
        Ok(found.map(|variable| match &variable.value {
            VariableValue::Text(text) => Found { text: Cow::Borrowed(text), secret: false, literal: false },
            VariableValue::Secret(secret) => {
                Found { text: Cow::Borrowed(secret.expose()), secret: true, literal: true }
            }
        }))
    }

    fn keys(&self, prefix: &str) -> Vec<String> {
        self.variables.keys_under(prefix)
    }

    fn names(&self) -> Vec<String> {
        self.variables
            .names()
            .map(str::to_owned)
            .chain(super::system_names().map(|(name, _)| name.to_owned()))
            .collect()
    }
}

/// `Step[name].Output.X` or `Step[name].Output[machine].X`, also written `Action[…]`.
pub(crate) struct OutputPath<'a> {
    pub(crate) step: &'a str,
    pub(crate) machine: Option<&'a str>,
    pub(crate) name: &'a str,
}

impl<'a> OutputPath<'a> {
    pub(crate) fn parse(path: &'a str) -> Option<Self> {
        let path = without_prefix(path);
        let rest = strip(path, "step[").or_else(|| strip(path, "action["))?;
        let step = key_after(rest, 0)?;
        let rest = strip(rest.get(step.len()..)?, "].output")?;
        if let Some(name) = rest.strip_prefix('.') {
            return Some(Self { step, machine: None, name });
        }
        let rest = rest.strip_prefix('[')?;
        let machine = key_after(rest, 0)?;
        let name = rest.get(machine.len()..)?.strip_prefix("].")?;
        Some(Self { step, machine: Some(machine), name })
    }
}

/// What follows a prefix, compared without regard to case.
fn strip<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let start = text.get(..prefix.len())?;
    start.eq_ignore_ascii_case(prefix).then(|| text.get(prefix.len()..))?
}
