//! Arguments of a run: checked against what the script declares, then given to it as `args`.

use std::{collections::BTreeMap, sync::Arc};

use rhai::Dynamic;
use serde_json::Value;
use windlass_model::{
    manifest::{Input, InputKind},
    nearest,
};

use crate::{diagnostic::Diagnostic, manifest::ScriptManifest, value};

/// The arguments as the script sees them. Every declared one is there: `()` when it was not given.
#[derive(Debug, Clone, Default)]
pub(crate) struct Arguments(Arc<BTreeMap<String, Dynamic>>);

impl Arguments {
    /// Checks what was given.
    pub(crate) fn take(
        script: &str,
        manifest: &ScriptManifest,
        given: &BTreeMap<String, Value>,
    ) -> Result<Self, Box<Diagnostic>> {
        let names = || manifest.arguments.iter().map(|input| input.name.as_str());
        if let Some(unknown) = given.keys().find(|key| !names().any(|name| name == *key)) {
            return Err(unknown_argument(script, unknown, names()));
        }
        let mut taken = BTreeMap::new();
        for input in &manifest.arguments {
            let given = given.get(&input.name).or(input.default.as_ref());
            let value = match given {
                None | Some(Value::Null) if input.required => {
                    return Err(Diagnostic::new(
                        script,
                        "argument",
                        format!("the argument {} is missing", input.name),
                        format!("give it: {}=…", input.name),
                    ));
                }
                None | Some(Value::Null) => Dynamic::UNIT,
                Some(given) => fit(script, input, given)?,
            };
            taken.insert(input.name.clone(), value);
        }
        Ok(Self(Arc::new(taken)))
    }

    /// One of them, by name.
    ///
    /// # Errors
    /// A fragment that names what is declared.
    pub(crate) fn get(&self, name: &str) -> Result<Dynamic, String> {
        self.0.get(name).cloned().ok_or_else(|| match nearest(name, self.0.keys().map(String::as_str)) {
            Some(near) => {
                format!("the script declares no argument {name}, did you mean {near}?")
            }
            None => format!("the script declares no argument {name}"),
        })
    }
}

fn unknown_argument<'a>(script: &str, unknown: &str, names: impl Iterator<Item = &'a str> + Clone) -> Box<Diagnostic> {
    let unknown: String = unknown.chars().take(64).collect();
    let fix = match nearest(&unknown, names.clone()) {
        Some(near) => format!("did you mean {near}?"),
        None => match names.collect::<Vec<_>>().join(", ") {
            none if none.is_empty() => "the script takes no arguments".to_owned(),
            known => format!("it takes {known}"),
        },
    };
    Diagnostic::new(script, "argument", format!("the script takes no argument {unknown}"), fix)
}

/// A value as the kind that the script declares. Texts are read, since a command line has nothing else.
fn fit(script: &str, input: &Input, given: &Value) -> Result<Dynamic, Box<Diagnostic>> {
    let kind = match input.kind {
        InputKind::Text | InputKind::Secret | InputKind::Package => "a text",
        InputKind::Integer => "a whole number",
        InputKind::Boolean => "true or false",
        InputKind::List => "a list",
        InputKind::Map => "a map",
    };
    let fitted = match (input.kind, given) {
        (InputKind::Text, Value::String(_)) => Some(given.clone()),
        (InputKind::Text, Value::Number(number)) => Some(Value::String(number.to_string())),
        (InputKind::Integer, Value::Number(number)) => number.as_i64().map(Value::from),
        (InputKind::Integer, Value::String(text)) => text.trim().parse().ok().map(i64::into),
        (InputKind::Boolean, Value::Bool(_)) => Some(given.clone()),
        (InputKind::Boolean, Value::String(text)) => text.trim().parse().ok().map(Value::Bool),
        (InputKind::List, Value::Array(_)) => Some(given.clone()),
        (InputKind::List, Value::String(text)) => Some(Value::Array(
            text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(Value::from).collect(),
        )),
        (InputKind::Map, Value::Object(_)) => Some(given.clone()),
        _ => None,
    };
    let fault = |message: String, fix: String| Diagnostic::new(script, "argument", message, fix);
    let Some(fitted) = fitted else {
        return Err(fault(
            format!("the argument {} is not {kind}", input.name),
            format!("give {kind} for {}", input.name),
        ));
    };
    if !input.choices.is_empty() && !input.choices.contains(&fitted) {
        let choices: Vec<_> = input.choices.iter().map(value::plain).collect();
        return Err(fault(
            format!("the argument {} cannot be {}", input.name, value::plain(&fitted)),
            format!("use one of {}", choices.join(", ")),
        ));
    }
    value::to_dynamic(&fitted)
        .map_err(|why| fault(format!("the argument {} {why}", input.name), "give less".to_owned()))
}
