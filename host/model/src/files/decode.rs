//! From trees to the domain: what each file may say.
//!
//! The keys here are those of the serde forms that the API uses; a test holds the two together. What
//! names mean across files is for [`crate::validate`].

use super::{
    SecretFrom,
    shape::{Fields, Shape},
    yaml::{Node, Span, Value},
};
use crate::{
    codes::Code,
    diagnostic::Diagnostic,
    machine::{Connection, Environment, Machine, SshAuth},
    project::Project,
    secret::SecretText,
    variable::{Scope, Variable, VariableValue},
};

/// `environments.yaml`
pub(super) fn environments(shape: &mut Shape<'_>, root: &Node) -> Vec<Environment> {
    whole_list(shape, root, "environments", environment)
}

/// `machines.yaml`
pub(super) fn machines(shape: &mut Shape<'_>, root: &Node) -> Vec<Machine> {
    whole_list(shape, root, "machines", machine)
}

/// `variables.yaml`: each variable, and where its secret comes from if it is one.
pub(super) fn variables(shape: &mut Shape<'_>, root: &Node) -> Vec<(Variable, Option<SecretFrom>)> {
    whole_list(shape, root, "variables", variable)
}

/// `project.yaml`
pub(super) fn project(shape: &mut Shape<'_>, root: &Node) -> Option<Project> {
    let fields = shape.fields(root, "a project", &["name", "description"])?;
    let description = shape.optional_text(&fields, "description");
    let name = shape.required(&fields, "name", "shop")?;
    Some(Project { name: shape.name(name, "name")?, description: description? })
}

/// A file that is one list under one key. An empty file is an empty list.
fn whole_list<T>(
    shape: &mut Shape<'_>,
    root: &Node,
    key: &'static str,
    read: impl FnMut(&mut Shape<'_>, &Node) -> Option<T>,
) -> Vec<T> {
    if root.value == Value::Null {
        return Vec::new();
    }
    let Some(fields) = shape.fields(root, "the file", &[key]) else {
        return Vec::new();
    };
    let Some(node) = shape.required(&fields, key, "[]") else {
        return Vec::new();
    };
    shape.list(node, key, read).unwrap_or_default()
}

fn environment(shape: &mut Shape<'_>, node: &Node) -> Option<Environment> {
    let fields = shape.fields(node, "an environment", &["name", "description"])?;
    let description = shape.optional_text(&fields, "description");
    let name = shape.required(&fields, "name", "production")?;
    Some(Environment { name: shape.name(name, "name")?, description: description? })
}

fn machine(shape: &mut Shape<'_>, node: &Node) -> Option<Machine> {
    const KEYS: &[&str] = &["name", "environments", "roles", "pools", "connection", "disabled"];
    let fields = shape.fields(node, "a machine", KEYS)?;
    let environments = shape.names(&fields, "environments");
    let roles = shape.names(&fields, "roles");
    let pools = shape.names(&fields, "pools");
    let disabled = shape.flag(&fields, "disabled");
    let connection = shape
        .required(&fields, "connection", "{ ssh: { host: web1.example.org, user: deploy } }")
        .and_then(|node| connection(shape, node));
    let name = shape.required(&fields, "name", "web1")?;
    Some(Machine {
        name: shape.name(name, "name")?,
        environments: environments?,
        roles: roles?,
        pools: pools?,
        connection: connection?,
        disabled: disabled?,
    })
}

/// A variant that may be written as a bare word: `agent`, `local`.
fn bare_word(node: &Node, word: &str) -> bool {
    matches!(&node.value, Value::Text(text) if text == word)
}

/// An optional text, kept apart from an empty one.
pub(super) fn maybe_text(shape: &mut Shape<'_>, fields: &Fields<'_>, key: &str) -> Option<Option<String>> {
    match fields.get(key) {
        Some(node) => shape.text(node, key).map(Some),
        None => Some(None),
    }
}

fn connection(shape: &mut Shape<'_>, node: &Node) -> Option<Connection> {
    let (kind, node) = shape.one_of(node, "a connection", &["ssh", "local"])?;
    if kind == "local" {
        if node.value == Value::Null {
            return Some(Connection::Local { home: None });
        }
        let fields = shape.fields(node, "a local connection", &["home"])?;
        let home = maybe_text(shape, &fields, "home")?;
        return Some(Connection::Local { home });
    }
    const KEYS: &[&str] = &["host", "port", "user", "auth", "host_key", "home", "reconnect_seconds"];
    let fields = shape.fields(node, "an SSH connection", KEYS)?;
    let host = shape.required(&fields, "host", "web1.example.org").and_then(|node| shape.text(node, "host"));
    let user = shape.required(&fields, "user", "deploy").and_then(|node| shape.text(node, "user"));
    let port = match fields.get("port") {
        Some(node) => shape.number(node, "port", 1..=65535),
        None => Some(22),
    };
    let auth = match fields.get("auth") {
        Some(node) => auth(shape, node),
        None => Some(SshAuth::default()),
    };
    let host_key = maybe_text(shape, &fields, "host_key");
    let home = maybe_text(shape, &fields, "home");
    let reconnect_seconds = match fields.get("reconnect_seconds") {
        Some(node) => Some(shape.number(node, "reconnect_seconds", 0..=u64::from(u32::MAX))?),
        None => None,
    };
    Some(Connection::Ssh {
        host: host?,
        port: u16::try_from(port?).ok()?,
        user: user?,
        auth: auth?,
        host_key: host_key?,
        home: home?,
        reconnect_seconds: reconnect_seconds.and_then(|seconds| u32::try_from(seconds).ok()),
    })
}

fn auth(shape: &mut Shape<'_>, node: &Node) -> Option<SshAuth> {
    if bare_word(node, "agent") {
        return Some(SshAuth::Agent);
    }
    let known = ["agent", "key-file", "password"];
    let (kind, node) = shape.one_of(node, "auth", &known)?;
    match kind {
        "agent" => Some(SshAuth::Agent),
        "key-file" => {
            let fields = shape.fields(node, "a key file", &["path", "passphrase_env"])?;
            let passphrase_env = maybe_text(shape, &fields, "passphrase_env");
            let path = shape.required(&fields, "path", "/etc/windlass/id_ed25519")?;
            Some(SshAuth::KeyFile { path: shape.text(path, "path")?, passphrase_env: passphrase_env? })
        }
        _ => {
            let fields = shape.fields(node, "a password", &["env"])?;
            let env = shape.required(&fields, "env", "WEB1_PASSWORD")?;
            Some(SshAuth::Password { env: shape.text(env, "env")? })
        }
    }
}

fn variable(shape: &mut Shape<'_>, node: &Node) -> Option<(Variable, Option<SecretFrom>)> {
    let fields = shape.fields(node, "a variable", &["name", "value", "secret", "scope"])?;
    let scope = match fields.get("scope") {
        Some(node) => scope(shape, node),
        None => Some(Scope::default()),
    };
    let value = value(shape, &fields);
    let name = shape.required(&fields, "name", "Database.Url")?;
    let (value, from) = value?;
    let variable = Variable { name: variable_name(shape, name)?, value, scope: scope? };
    Some((variable, from))
}

/// A name that `#{…}` can say.
fn variable_name(shape: &mut Shape<'_>, node: &Node) -> Option<String> {
    let text = shape.loose_text(node, "name")?;
    if crate::template::is_path(&text) {
        return Some(text);
    }
    let diagnostic = Diagnostic::new(Code::E0105, format!("{text:?} is no name that #{{…}} could say"))
        .fix("use letters, digits, '-' and '_', with dots between parts: Database.Url");
    shape.fail(node.at, diagnostic)
}

fn value(shape: &mut Shape<'_>, fields: &Fields<'_>) -> Option<(VariableValue, Option<SecretFrom>)> {
    match (fields.get("value"), fields.get("secret")) {
        (Some(node), None) => {
            let text = shape.loose_text(node, "value")?;
            Some((VariableValue::Text(text), None))
        }
        (None, Some(node)) => {
            let from = secret(shape, node)?;
            Some((VariableValue::Secret(SecretText::default()), Some(from)))
        }
        (Some(_), Some(node)) => shape.fail(
            node.at,
            Diagnostic::new(Code::E0104, "a variable has both value and secret").fix("keep one of the two"),
        ),
        (None, None) => {
            let at = fields.entries().first().map_or(fields.at(), |(key, _)| key.at);
            shape.fail::<()>(
                at,
                Diagnostic::new(Code::E0103, "a variable has neither value nor secret")
                    .fix("add value: …, or secret: { env: NAME }"),
            );
            None
        }
    }
}

fn secret(shape: &mut Shape<'_>, node: &Node) -> Option<SecretFrom> {
    if let Value::Text(_) = node.value {
        let mut diagnostic = Diagnostic::new(Code::E0104, "a secret is never written into the file")
            .cause("whoever reads the repository would read the secret")
            .fix("write secret: { env: NAME } or secret: { file: PATH }");
        diagnostic.file.clone_from(&shape.document.file);
        (diagnostic.line, diagnostic.column) = (node.at.line, node.at.column);
        // Without its line: the secret may stand there.
        shape.diagnostics.push(diagnostic);
        shape.incomplete = true;
        return None;
    }
    let (kind, node) = shape.one_of(node, "a secret", &["env", "file"])?;
    let text = shape.text(node, kind)?;
    Some(if kind == "env" { SecretFrom::Env(text) } else { SecretFrom::File(text) })
}

fn scope(shape: &mut Shape<'_>, node: &Node) -> Option<Scope> {
    const KEYS: &[&str] = &["environments", "roles", "machines", "steps"];
    let fields = shape.fields(node, "a scope", KEYS)?;
    let environments = shape.names(&fields, "environments");
    let roles = shape.names(&fields, "roles");
    let machines = shape.names(&fields, "machines");
    let steps = shape.names(&fields, "steps");
    Some(Scope { environments: environments?, roles: roles?, machines: machines?, steps: steps? })
}

/// The key of a list's element, for places: where the element itself stands.
pub(super) fn find<'n>(node: &'n Node, path: &[super::Part<'_>]) -> (Span, Option<&'n Node>) {
    let mut node = node;
    let mut at = node.at;
    for (index, part) in path.iter().enumerate() {
        let last = index + 1 == path.len();
        let next = match (part, &node.value) {
            (super::Part::Index(index), Value::List(nodes)) => nodes.get(*index),
            (super::Part::Key(key), Value::Map(entries)) => {
                entries.iter().find(|(k, _)| k.text == *key).map(|(_, n)| n)
            }
            (super::Part::KeyOf(key), Value::Map(entries)) if last => {
                let found = entries.iter().find(|(k, _)| k.text == *key);
                return (found.map_or(at, |(k, _)| k.at), found.map(|(_, n)| n));
            }
            _ => None,
        };
        let Some(next) = next else { return (at, None) };
        node = next;
        at = node.at;
    }
    (at, Some(node))
}
