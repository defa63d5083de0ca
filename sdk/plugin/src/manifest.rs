//! What a plugin says about itself.

use serde_json::{Map, Value, json};

/// What a step is called, takes, sets and needs. Becomes the manifest that the host reads.
#[derive(Clone, Debug)]
pub struct Manifest {
    fields: Map<String, Value>,
    inputs: Vec<Value>,
    outputs: Vec<Value>,
    capabilities: Vec<Value>,
    locks: Vec<Value>,
}

impl Manifest {
    /// A step such as `deploy-package`, its version as three numbers, and a title of a few words.
    pub fn new(id: &str, version: &str, title: &str) -> Self {
        let fields = [("id", id), ("version", version), ("title", title)];
        Self {
            fields: fields.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect(),
            inputs: Vec::new(),
            outputs: Vec::new(),
            capabilities: Vec::new(),
            locks: Vec::new(),
        }
    }

    /// What the step does, in full sentences.
    pub fn description(mut self, text: &str) -> Self {
        self.fields.insert("description".to_owned(), text.into());
        self
    }

    /// Adds an input; forms show them in this order.
    pub fn input(mut self, name: &str, input: Input) -> Self {
        let mut schema = input.schema;
        schema.insert("name".to_owned(), name.into());
        self.inputs.push(Value::Object(schema));
        self
    }

    /// Adds an output variable that the step may set.
    pub fn output(mut self, name: &str, description: &str) -> Self {
        self.outputs.push(json!({ "name": name, "description": description }));
        self
    }

    /// Asks for a capability. The host refuses to run a plugin that uses what it did not ask for.
    pub fn capability(mut self, capability: Capability) -> Self {
        self.capabilities.push(capability.as_str().into());
        self
    }

    /// Names a resource that no other step may use meanwhile, such as `dir:{install_dir}`, where `{…}` is an input.
    /// A resource is meant per machine unless it begins with `global:`. A step that names none locks its whole machine.
    pub fn exclusive_lock(mut self, resource: &str) -> Self {
        self.locks.push(json!({ "resource": resource, "mode": "exclusive" }));
        self
    }

    /// Names a resource that others may use meanwhile if they share it too.
    pub fn shared_lock(mut self, resource: &str) -> Self {
        self.locks.push(json!({ "resource": resource, "mode": "shared" }));
        self
    }

    /// The step needs no machine: it runs on machines if `on:` selects some, and otherwise once without one.
    pub fn runs_anywhere(mut self) -> Self {
        self.fields.insert("runs_on".to_owned(), "anywhere".into());
        self
    }

    /// The manifest as the host reads it.
    pub fn to_json(&self) -> Value {
        let mut all = self.fields.clone();
        let lists = [
            ("inputs", &self.inputs),
            ("outputs", &self.outputs),
            ("capabilities", &self.capabilities),
            ("locks", &self.locks),
        ];
        for (name, list) in lists {
            all.insert(name.to_owned(), Value::Array(list.clone()));
        }
        Value::Object(all)
    }
}

/// One input of a step.
#[derive(Clone, Debug)]
pub struct Input {
    schema: Map<String, Value>,
}

impl Input {
    /// A text; its `#{…}` templates are expanded before the step sees it.
    pub fn text() -> Self {
        Self::of("text")
    }

    /// A whole number.
    pub fn integer() -> Self {
        Self::of("integer")
    }

    /// True or false.
    pub fn boolean() -> Self {
        Self::of("boolean")
    }

    /// A list of texts.
    pub fn list() -> Self {
        Self::of("list")
    }

    /// Texts by name.
    pub fn map() -> Self {
        Self::of("map")
    }

    /// A secret, read with [`crate::Inputs::secret`].
    pub fn secret() -> Self {
        Self::of("secret")
    }

    /// A package of the deployment, read with [`crate::Inputs::package`].
    pub fn package() -> Self {
        Self::of("package")
    }

    /// The label in a form.
    pub fn title(self, text: &str) -> Self {
        self.key("title", text)
    }

    /// What it means, with its unit.
    pub fn description(self, text: &str) -> Self {
        self.key("description", text)
    }

    /// What it is when it is not given. May hold `#{…}` templates.
    pub fn default(self, value: impl Into<Value>) -> Self {
        self.key("default", value)
    }

    /// The only values that are allowed.
    pub fn one_of(self, values: &[&str]) -> Self {
        self.key("enum", json!(values))
    }

    /// Refused without a value.
    pub fn required(self) -> Self {
        self.key("required", true)
    }

    fn of(kind: &str) -> Self {
        Self { schema: Map::new() }.key("type", kind)
    }

    fn key(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.schema.insert(name.to_owned(), value.into());
        self
    }
}

/// What a plugin may ask the host for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capability {
    /// Run commands and touch files on the machine of the step.
    Machine,
    /// Be handed packages.
    Package,
    /// Make HTTP requests.
    Http,
    /// See tasks and wait for them.
    TasksRead,
    /// Queue deployments.
    TasksDeploy,
    /// Take named locks.
    Lock,
    /// Read secrets in clear instead of handing them on.
    SecretReveal,
}

impl Capability {
    /// Its name in the manifest.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Machine => "machine",
            Self::Package => "package",
            Self::Http => "http",
            Self::TasksRead => "tasks-read",
            Self::TasksDeploy => "tasks-deploy",
            Self::Lock => "lock",
            Self::SecretReveal => "secret-reveal",
        }
    }
}
