//! What applying files changes: two workspaces compared, thing by thing and field by field.
//!
//! Things are matched by name without regard to case, variables by name and scope. Fields are
//! compared in the form in which they serialize, so that a new field is compared without a line here.
//! Of a secret it is only said that it changed.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use crate::{
    machine::{Connection, Machine},
    process::{Process, Step},
    variable::{Variable, VariableValue},
    workspace::{ApplyReport, ProjectFiles, Workspace},
};

/// Something that is added, changed or removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Change {
    /// What happens to it.
    pub action: Action,
    /// What it is: `machine web1`, `step web of shop`.
    pub subject: String,
    /// What changes in it, for changes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub details: Vec<Detail>,
}

/// What happens to a thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// It is new.
    Add,
    /// It was there already, and is different now.
    Change,
    /// It is gone.
    Remove,
}

/// A field that changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Detail {
    /// The field, such as `with.package`.
    pub field: String,
    /// Its value before, as short text; none when there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// Its value after, as short text; none when there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

impl Workspace {
    /// The state after files are applied to this one: what they name replaces what is there, and what
    /// they do not name stays. A machine keeps its trusted host key if the files give none and its
    /// address is the same.
    #[must_use]
    pub fn with(&self, files: &Self) -> Self {
        let mut after = self.clone();
        for environment in &files.environments {
            put(&mut after.environments, environment.clone(), |e| &e.name);
        }
        for machine in &files.machines {
            let mut machine = machine.clone();
            if let Some(old) = self.machines.iter().find(|m| m.name == machine.name) {
                keep_trust(old, &mut machine);
            }
            put(&mut after.machines, machine, |m| &m.name);
        }
        for project in &files.projects {
            put(&mut after.projects, project.clone(), |p| &p.project.name);
        }
        after
    }
}

/// Replaces the element of the same name, or adds it at the end.
fn put<T, N: PartialEq>(list: &mut Vec<T>, item: T, name: impl Fn(&T) -> &N) {
    match list.iter_mut().find(|old| name(old) == name(&item)) {
        Some(old) => *old = item,
        None => list.push(item),
    }
}

fn keep_trust(old: &Machine, new: &mut Machine) {
    if let (
        Connection::Ssh { host: old_host, port: old_port, host_key: trusted, .. },
        Connection::Ssh { host, port, host_key: key @ None, .. },
    ) = (&old.connection, &mut new.connection)
        && old_host == host
        && old_port == port
    {
        key.clone_from(trusted);
    }
}

/// Compares two states.
#[must_use]
pub fn diff(before: &Workspace, after: &Workspace) -> ApplyReport {
    let mut report = ApplyReport::default();
    report.things(&before.environments, &after.environments, |e| e.name.key(), |e| format!("environment {}", e.name));
    report.things(&before.machines, &after.machines, |m| m.name.key(), |m| format!("machine {}", m.name));
    let key = |p: &ProjectFiles| p.project.name.key();
    for (old, new) in pairs(&before.projects, &after.projects, key) {
        report.project(old, new);
    }
    report
}

/// Elements of two lists that belong together, in the order of the second, then what it has no more.
fn pairs<'t, T>(before: &'t [T], after: &'t [T], key: impl Fn(&T) -> String) -> Vec<(Option<&'t T>, Option<&'t T>)> {
    let old: BTreeMap<String, &T> = before.iter().map(|item| (key(item), item)).collect();
    let new: BTreeSet<String> = after.iter().map(&key).collect();
    let mut pairs: Vec<_> = after.iter().map(|item| (old.get(&key(item)).copied(), Some(item))).collect();
    let gone = before.iter().filter(|item| !new.contains(&key(item)));
    pairs.extend(gone.map(|item| (Some(item), None)));
    pairs
}

impl ApplyReport {
    fn things<T: Serialize>(
        &mut self,
        before: &[T],
        after: &[T],
        key: impl Fn(&T) -> String,
        subject: impl Fn(&T) -> String,
    ) {
        for (old, new) in pairs(before, after, key) {
            let Some(named) = new.or(old) else { continue };
            self.thing(old.map(to_json), new.map(to_json), subject(named));
        }
    }

    fn thing(&mut self, before: Option<Json>, after: Option<Json>, subject: String) {
        let (action, details) = match (before, after) {
            (None, Some(_)) => (Action::Add, Vec::new()),
            (Some(_), None) => (Action::Remove, Vec::new()),
            (Some(before), Some(after)) if before != after => {
                let mut details = Vec::new();
                fields(&before, &after, String::new(), &mut details);
                (Action::Change, details)
            }
            _ => {
                self.unchanged += 1;
                return;
            }
        };
        self.changes.push(Change { action, subject, details });
    }

    fn project(&mut self, old: Option<&ProjectFiles>, new: Option<&ProjectFiles>) {
        let Some(named) = new.or(old) else { return };
        let name = &named.project.name;
        self.thing(old.map(|p| to_json(&p.project)), new.map(|p| to_json(&p.project)), format!("project {name}"));
        if new.is_none() {
            // The project is gone, and everything in it: one line says it all.
            return;
        }
        let (before, after) = (old.map(steps).unwrap_or_default(), new.map(steps).unwrap_or_default());
        let general = |p: &ProjectFiles| to_json(&Process { steps: Vec::new(), ..p.process.clone() });
        let (was, is) = (old.map(general), new.map(general));
        // A process that says nothing beyond its steps is no thing of its own.
        let plain = to_json(&Process::default());
        if was != is && (was.is_some() || is.as_ref() != Some(&plain)) {
            let was = was.unwrap_or(plain);
            self.thing(Some(was), is, format!("process of {name}"));
        }
        self.order(&before, &after, name.as_str());
        self.things(&before, &after, |step| step.0.name.key(), |step| format!("step {} of {name}", step.0.name));
        self.variables(old.map_or(&[], |p| &p.variables), new.map_or(&[], |p| &p.variables), name.as_str());
    }

    /// Says when steps that stay change their order among each other.
    fn order(&mut self, before: &[Flat<'_>], after: &[Flat<'_>], project: &str) {
        let names = |of: &[Flat<'_>], other: &[Flat<'_>]| {
            let other: BTreeSet<_> = other.iter().map(|s| s.0.name.clone()).collect();
            of.iter().filter(|s| other.contains(&s.0.name)).map(|s| s.0.name.clone()).collect::<Vec<_>>()
        };
        let (old, new) = (names(before, after), names(after, before));
        if old == new {
            return;
        }
        let listed = |names: &[crate::name::StepName]| {
            let names: Vec<&str> = names.iter().map(|n| n.as_str()).collect();
            Some(names.join(", "))
        };
        self.changes.push(Change {
            action: Action::Change,
            subject: format!("process of {project}"),
            details: vec![Detail { field: "order".to_owned(), before: listed(&old), after: listed(&new) }],
        });
    }

    fn variables(&mut self, before: &[Variable], after: &[Variable], project: &str) {
        let subject = |variable: &Variable| {
            let mut text = format!("variable {} of {project}", variable.name);
            if !variable.scope.is_everywhere() {
                text.push(' ');
                text.push_str(&variable.scope.to_string());
            }
            text
        };
        for (old, new) in pairs(before, after, variable_key) {
            let Some(named) = new.or(old) else { continue };
            let (action, details) = match (old, new) {
                (None, _) => (Action::Add, Vec::new()),
                (_, None) => (Action::Remove, Vec::new()),
                (Some(old), Some(new)) if old.value == new.value => {
                    self.unchanged += 1;
                    continue;
                }
                (Some(old), Some(new)) => (Action::Change, vec![value_change(&old.value, &new.value)]),
            };
            self.changes.push(Change { action, subject: subject(named), details });
        }
    }
}

/// A step that says of its child steps only their names: each of them is compared by itself.
struct Flat<'s>(&'s Step);

fn steps(project: &ProjectFiles) -> Vec<Flat<'_>> {
    project.process.all_steps().map(|placed| Flat(placed.step)).collect()
}

impl Serialize for Flat<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut step = to_json(&Step { steps: Vec::new(), ..self.0.clone() });
        if let (false, Some(fields)) = (self.0.steps.is_empty(), step.as_object_mut()) {
            let children: Vec<_> = self.0.steps.iter().map(|child| Json::from(child.name.as_str())).collect();
            fields.insert("steps".to_owned(), Json::Array(children));
        }
        step.serialize(serializer)
    }
}

/// What two values of one variable for the same places share: the name, and the scope in any order.
fn variable_key(variable: &Variable) -> String {
    fn sorted<T: ToString>(names: &[T]) -> Vec<String> {
        let mut names: Vec<String> = names.iter().map(|n| n.to_string().to_lowercase()).collect();
        names.sort();
        names.dedup();
        names
    }
    let Variable { name, scope, .. } = variable;
    let scope = [sorted(&scope.environments), sorted(&scope.roles), sorted(&scope.machines), sorted(&scope.steps)];
    format!("{} {scope:?}", name.to_lowercase())
}

fn value_change(before: &VariableValue, after: &VariableValue) -> Detail {
    let shown = |value: &VariableValue| match value {
        VariableValue::Text(text) => Some(short(&Json::from(text.as_str()))),
        VariableValue::Secret(_) => Some("a secret".to_owned()),
    };
    match (before, after) {
        (VariableValue::Secret(_), VariableValue::Secret(_)) => {
            Detail { field: "secret".to_owned(), before: None, after: None }
        }
        _ => Detail { field: "value".to_owned(), before: shown(before), after: shown(after) },
    }
}

fn to_json<T: Serialize>(item: &T) -> Json {
    // The domain's types always serialize; were it otherwise, they would compare as equal text.
    serde_json::to_value(item).unwrap_or(Json::Null)
}

/// Collects the fields in which two values differ, going into maps but not into lists.
fn fields(before: &Json, after: &Json, path: String, out: &mut Vec<Detail>) {
    if let (Json::Object(old), Json::Object(new)) = (before, after) {
        let keys: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
        for key in keys {
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            match (old.get(key), new.get(key)) {
                (Some(old), Some(new)) if old == new => {}
                (Some(old), Some(new)) => fields(old, new, path, out),
                (old, new) => out.push(Detail { field: path, before: old.map(short), after: new.map(short) }),
            }
        }
        return;
    }
    out.push(Detail { field: path, before: Some(short(before)), after: Some(short(after)) });
}

/// A value in a few words.
fn short(value: &Json) -> String {
    const LONGEST: usize = 60;
    let text = match value {
        Json::Array(items) => {
            let items: Vec<String> = items.iter().map(short).collect();
            format!("[{}]", items.join(", "))
        }
        other => other.to_string(),
    };
    if text.chars().nth(LONGEST).is_none() {
        return text;
    }
    text.chars().take(LONGEST).chain(['…']).collect()
}

impl fmt::Display for Detail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.field)?;
        match (&self.before, &self.after) {
            (Some(before), Some(after)) => write!(f, " {before} → {after}"),
            (None, Some(after)) => write!(f, " {after} (new)"),
            (Some(before), None) => write!(f, " {before} (removed)"),
            (None, None) => f.write_str(" changed"),
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = match self.action {
            Action::Add => '+',
            Action::Change => '~',
            Action::Remove => '-',
        };
        write!(f, "{sign} {}", self.subject)?;
        for (at, detail) in self.details.iter().enumerate() {
            let before = if at == 0 { ": " } else { "; " };
            write!(f, "{before}{detail}")?;
        }
        Ok(())
    }
}

impl fmt::Display for ApplyReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for change in &self.changes {
            writeln!(f, "{change}")?;
        }
        write!(f, "unchanged: {}", self.unchanged)
    }
}

#[cfg(test)]
mod tests;
