//! Checks of what a step is given: its inputs against the manifest of its step type, and the
//! templates in them.

use serde_json::Value as Json;

use super::{Check, steps::with};
use crate::{
    codes::Code,
    diagnostic::Diagnostic,
    files::{Part, Subject},
    manifest::{Input, InputKind, Manifest},
    name::PackageId,
    process::Step,
    suggest::nearest,
};

impl<'w> Check<'w> {
    pub(super) fn inputs(&mut self, index: usize, place: &[Part<'_>], step: &Step, manifest: &Manifest) {
        let subject = Subject::Process(index);
        let inputs = with(place, Part::Key("with"));
        for (key, value) in &step.with {
            let Some(input) = manifest.input(key) else {
                let diagnostic = unknown_input(key, step, manifest);
                self.report(subject, &with(&inputs, Part::KeyOf(key)), diagnostic);
                continue;
            };
            let wrong = wrong_kind(input, value)
                .or_else(|| wrong_choice(input, value))
                .or_else(|| self.unknown_package(input, value))
                .or_else(|| clear_secret(input, value));
            if let Some(diagnostic) = wrong {
                self.report(subject, &with(&inputs, Part::Key(key)), diagnostic);
            }
        }
        for input in &manifest.inputs {
            let given = step.with.get(&input.name).is_some_and(|v| !v.is_null());
            if input.required && input.default.is_none() && !given {
                let diagnostic = missing_input(input, step);
                let key = if step.with.is_empty() { "name" } else { "with" };
                self.report(subject, &with(place, Part::KeyOf(key)), diagnostic);
            }
        }
    }

    fn unknown_package(&self, input: &Input, value: &Json) -> Option<Diagnostic> {
        if input.kind != InputKind::Package || is_template(value) {
            return None;
        }
        let text = value.as_str()?;
        let id = match PackageId::new(text) {
            Ok(id) => id,
            Err(error) => {
                return Some(
                    Diagnostic::new(Code::E0105, error.to_string())
                        .fix("write the id of a package, without its version"),
                );
            }
        };
        let known = self.known.packages.as_ref()?;
        if known.contains(&id) {
            return None;
        }
        let near = nearest(text, known.iter().map(PackageId::as_str));
        Some(
            Diagnostic::new(Code::E0207, format!("there is no package {id}"))
                .near_or(near, format!("windlass package push {id}.1.0.0.tar.gz")),
        )
    }
}

fn unknown_input(key: &str, step: &Step, manifest: &Manifest) -> Diagnostic {
    let names: Vec<&str> = manifest.inputs.iter().map(|i| i.name.as_str()).collect();
    let near = nearest(key, &names);
    let mut diagnostic = Diagnostic::new(Code::E0304, format!("{} has no input {key:?}", step.does()));
    if !names.is_empty() {
        diagnostic = diagnostic.cause(format!("its inputs are {}", names.join(", ")));
    }
    diagnostic.near_or(near, format!("windlass plugin inspect {}", manifest.id))
}

fn missing_input(input: &Input, step: &Step) -> Diagnostic {
    let message = format!("step {} needs the input {}", step.name, input.name);
    let mut diagnostic = Diagnostic::new(Code::E0303, message);
    if !input.description.is_empty() {
        diagnostic = diagnostic.cause(format!("{}: {}", input.name, input.description));
    }
    diagnostic.fix(format!("add under with: {}: {}", input.name, example(input.kind)))
}

fn example(kind: InputKind) -> &'static str {
    match kind {
        InputKind::Text => "…",
        InputKind::Integer => "1",
        InputKind::Boolean => "true",
        InputKind::List => "[…]",
        InputKind::Map => "{ … }",
        InputKind::Secret => "\"#{NAME}\"",
        InputKind::Package => "PACKAGE-ID",
    }
}

/// What a kind takes, in words.
fn expected(kind: InputKind) -> &'static str {
    match kind {
        InputKind::Text => "text",
        InputKind::Integer => "a whole number",
        InputKind::Boolean => "true or false",
        InputKind::List => "a list of texts",
        InputKind::Map => "a map of texts",
        InputKind::Secret => "text that names a secret variable",
        InputKind::Package => "the id of a package",
    }
}

fn wrong_kind(input: &Input, value: &Json) -> Option<Diagnostic> {
    let fits = match input.kind {
        InputKind::Text | InputKind::Secret | InputKind::Package => value.is_string(),
        InputKind::Integer => value.is_i64() || value.is_u64() || is_template(value),
        InputKind::Boolean => value.is_boolean() || is_template(value),
        InputKind::List => value.as_array().is_some_and(|items| items.iter().all(Json::is_string)),
        InputKind::Map => value.as_object().is_some_and(|entries| entries.values().all(Json::is_string)),
    };
    if fits {
        return None;
    }
    let found = match value {
        Json::Null => "nothing",
        Json::Bool(_) => "a flag",
        Json::Number(_) => "a number",
        Json::String(_) => "text",
        Json::Array(_) if input.kind == InputKind::List => "a list with other values",
        Json::Array(_) => "a list",
        Json::Object(_) if input.kind == InputKind::Map => "a map with other values",
        Json::Object(_) => "a map",
    };
    let message = format!("{} must be {}, not {found}", input.name, expected(input.kind));
    Some(Diagnostic::new(Code::E0305, message).fix(remedy(input, value)))
}

/// How to write a value of the kind that is wanted. What was written is not repeated: it may be a secret.
fn remedy(input: &Input, value: &Json) -> String {
    let name = &input.name;
    let is_scalar = |value: &Json| matches!(value, Json::String(_) | Json::Number(_) | Json::Bool(_));
    let takes_text = matches!(input.kind, InputKind::Text | InputKind::Package);
    match (input.kind, value) {
        (_, Json::Number(_) | Json::Bool(_)) if takes_text => "put the value in quotes".to_owned(),
        (InputKind::List, Json::String(_)) => format!("put it in brackets: {name}: [\"…\"]"),
        (InputKind::List, Json::Number(_) | Json::Bool(_)) => format!("put it in quotes and brackets: {name}: [\"…\"]"),
        (InputKind::List, Json::Array(items)) if items.iter().all(is_scalar) => {
            "put numbers and flags in it in quotes".to_owned()
        }
        (InputKind::Map, Json::Object(entries)) if entries.values().all(is_scalar) => {
            "put numbers and flags in it in quotes".to_owned()
        }
        (InputKind::List, _) => format!("write texts only: {name}: [\"…\", \"…\"]"),
        (InputKind::Map, _) => format!("write texts only: {name}: {{ KEY: \"…\" }}"),
        (kind, _) => format!("write {name}: {}", example(kind)),
    }
}

fn wrong_choice(input: &Input, value: &Json) -> Option<Diagnostic> {
    if input.choices.is_empty() || is_template(value) || input.choices.contains(value) {
        return None;
    }
    let text = |value: &Json| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let choices: Vec<String> = input.choices.iter().map(text).collect();
    let near = nearest(&text(value), &choices);
    let message = format!("{} cannot be {:?}", input.name, text(value));
    Some(
        Diagnostic::new(Code::E0306, message)
            .cause(format!("{} is one of {}", input.name, choices.join(", ")))
            .near_or(near, format!("write {}", choices.join(" or "))),
    )
}

/// A secret input is to name a secret, not to be one.
fn clear_secret(input: &Input, value: &Json) -> Option<Diagnostic> {
    let text = value.as_str()?;
    if input.kind != InputKind::Secret || text.is_empty() || text.contains("#{") {
        return None;
    }
    Some(
        Diagnostic::new(Code::W0404, format!("{} holds a secret in clear text", input.name))
            .fix(format!("make it a secret variable and write {}: \"#{{NAME}}\"", input.name)),
    )
}

fn is_template(value: &Json) -> bool {
    value.as_str().is_some_and(|text| text.contains("#{"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// What is said to each value of a kind that does not take it.
    #[test]
    fn a_value_of_the_wrong_kind_is_told_how_to_be_written() {
        let values =
            [json!(null), json!(7), json!(true), json!("a"), json!(["a", 1]), json!([["a"]]), json!({ "a": 1 })];
        let mut told = String::new();
        for kind in ["text", "integer", "boolean", "list", "map", "secret", "package"] {
            let input: Input = serde_json::from_value(json!({ "name": "x", "type": kind })).unwrap();
            for value in &values {
                if let Some(wrong) = wrong_kind(&input, value) {
                    told.push_str(&format!("{value}: {}\n  fix: {}\n", wrong.message, wrong.fix));
                }
            }
        }
        insta::assert_snapshot!(told);
    }
}
