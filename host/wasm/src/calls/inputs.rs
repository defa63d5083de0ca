//! `windlass:step/inputs`: what the author of a process wrote under `with:`, checked against the manifest.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::Value;
use wasmtime::component::Resource;
use windlass_effects::{Effect, Failure, Outcome, SecretHandle};
use windlass_model::{
    Capability, Manifest,
    manifest::{InputKind, With},
};

use super::base::Secret;
use super::packages::Package;
use super::{Calls, Reply, refuse, unexpected};
use crate::{bindings::windlass::step::inputs, request::LentPackage};

/// Most texts with templates in one structured input: each costs one effect.
const MAX_TEXTS: usize = 200;

/// The inputs of a run.
pub struct Inputs {
    pub manifest: Arc<Manifest>,
    pub with: With,
    pub secrets: BTreeMap<String, SecretHandle>,
    pub packages: BTreeMap<String, LentPackage>,
    pub may_use_packages: bool,
}

impl Inputs {
    /// The value of an input, or its default; an error if the manifest knows no input of that name or kind.
    fn value(&self, name: &str) -> Result<Option<Value>, Failure> {
        let declared = self.declared(name)?;
        if declared.kind == InputKind::Secret {
            let message = format!("the input {name} is a secret, which has no text that a plugin could read");
            return Err(Failure::new("secret", message).fix("ask for it by `secret`"));
        }
        Ok(self.with.get(name).or(declared.default.as_ref()).filter(|value| !value.is_null()).cloned())
    }

    fn declared(&self, name: &str) -> Result<&windlass_model::manifest::Input, Failure> {
        self.manifest.input(name).ok_or_else(|| {
            let known: Vec<_> = self.manifest.inputs.iter().map(|input| input.name.as_str()).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            let shown = crate::text::one_line(name, 100);
            Failure::new("invalid", format!("the plugin's manifest has no input {shown}; it has {known}"))
                .fix("declare the input in the plugin's manifest")
        })
    }
}

impl inputs::Host for Calls {}

impl inputs::HostInputs for Calls {
    async fn text(&mut self, inputs: Resource<Inputs>, name: String) -> Reply<Option<String>> {
        let value = match self.table.get(&inputs)?.value(&name) {
            Ok(value) => value,
            Err(failure) => return refuse(failure),
        };
        let text = match value {
            None => return Ok(Ok(None)),
            Some(Value::String(text)) => match self.expanded(text).await? {
                Ok(text) => text,
                Err(failure) => return refuse(about(&name, failure)),
            },
            Some(mut other) => match self.expand_all(&mut other).await? {
                Ok(()) => other.to_string(),
                Err(failure) => return refuse(about(&name, failure)),
            },
        };
        Ok(Ok(Some(text)))
    }

    async fn json(&mut self, inputs: Resource<Inputs>, name: String) -> Reply<Option<String>> {
        let mut value = match self.table.get(&inputs)?.value(&name) {
            Ok(Some(value)) => value,
            Ok(None) => return Ok(Ok(None)),
            Err(failure) => return refuse(failure),
        };
        match self.expand_all(&mut value).await? {
            Ok(()) => Ok(Ok(Some(value.to_string()))),
            Err(failure) => refuse(about(&name, failure)),
        }
    }

    async fn secret(&mut self, inputs: Resource<Inputs>, name: String) -> Reply<Option<Resource<Secret>>> {
        let inputs = self.table.get(&inputs)?;
        if let Err(failure) = inputs.declared(&name) {
            return refuse(failure);
        }
        match inputs.secrets.get(&name).cloned() {
            Some(handle) => Ok(Ok(Some(self.hand_out(Secret { name, handle })?))),
            None => Ok(Ok(None)),
        }
    }

    async fn package(&mut self, inputs: Resource<Inputs>, name: String) -> Reply<Option<Resource<Package>>> {
        let inputs = self.table.get(&inputs)?;
        if let Err(failure) = inputs.declared(&name) {
            return refuse(failure);
        }
        if !inputs.may_use_packages {
            let capability = Capability::Package;
            let message = format!("the input {name} needs the capability {capability}, which was not granted");
            return refuse(Failure::denied(message).fix("ask for it in the manifest's capabilities"));
        }
        match inputs.packages.get(&name).cloned() {
            Some(LentPackage { handle, info }) => Ok(Ok(Some(self.hand_out(Package { handle, info })?))),
            None => Ok(Ok(None)),
        }
    }

    async fn drop(&mut self, inputs: Resource<Inputs>) -> wasmtime::Result<()> {
        self.table.delete(inputs)?;
        Ok(())
    }
}

impl Calls {
    /// A text with its templates replaced. Asks nothing if there are none.
    async fn expanded(&mut self, text: String) -> wasmtime::Result<Result<String, Failure>> {
        if !text.contains("#{") {
            return Ok(Ok(text));
        }
        match self.ask(Effect::Expand { text }).await? {
            Ok(Outcome::Text(text)) => Ok(Ok(text)),
            Ok(other) => Err(unexpected("expand", &other)),
            Err(failure) => Ok(Err(failure)),
        }
    }

    /// Replaces the templates in every text of a structured value, in the order in which they are written.
    async fn expand_all(&mut self, value: &mut Value) -> wasmtime::Result<Result<(), Failure>> {
        let mut texts = Vec::new();
        collect(value, &mut texts);
        texts.retain(|text| text.contains("#{"));
        if texts.len() > MAX_TEXTS {
            let message = format!("it has {} texts with templates, at most {MAX_TEXTS} are expanded", texts.len());
            return Ok(Err(Failure::new("too-large", message)));
        }
        for text in texts {
            match self.expanded(std::mem::take(text)).await? {
                Ok(expanded) => *text = expanded,
                Err(failure) => return Ok(Err(failure)),
            }
        }
        Ok(Ok(()))
    }
}

fn collect<'a>(value: &'a mut Value, texts: &mut Vec<&'a mut String>) {
    match value {
        Value::String(text) => texts.push(text),
        Value::Array(items) => items.iter_mut().for_each(|item| collect(item, texts)),
        Value::Object(fields) => fields.iter_mut().for_each(|(_, field)| collect(field, texts)),
        _ => {}
    }
}

fn about(input: &str, mut failure: Failure) -> Failure {
    failure.message = format!("the input {input} cannot be read: {}", failure.message);
    failure.with("input", input)
}
