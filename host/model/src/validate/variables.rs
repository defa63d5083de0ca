//! Checks of variables: scopes, ambiguity, reserved names, secrets in clear, and every template.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value as Json;

use super::{Check, steps::with};
use crate::{
    codes::Code,
    diagnostic::Diagnostic,
    files::{Part, Subject},
    name::StepName,
    process::Step,
    suggest::nearest,
    template::Template,
    variable::{Scope, Variable, VariableValue},
    variables::{OutputPath, is_system_name, strip_octopus, system_names},
    workspace::ProjectFiles,
};

impl<'w> Check<'w> {
    pub(super) fn variables(&mut self, index: usize, names: &Names<'w>) {
        let project = names.project;
        let subject = Subject::Variables(index);
        let mut seen: BTreeMap<String, Vec<&Scope>> = BTreeMap::new();
        let reader = Reader::anywhere(names);
        for (at, variable) in project.variables.iter().enumerate() {
            if self.is_full() {
                return;
            }
            let place = [Part::Key("variables"), Part::Index(at)];
            let name = with(&place, Part::Key("name"));
            if is_system_name(&variable.name) {
                let diagnostic = Diagnostic::new(Code::E0407, format!("{} is set by the server", variable.name))
                    .fix("choose another name");
                self.report(subject, &name, diagnostic);
            }
            let scopes = seen.entry(variable.name.to_lowercase()).or_default();
            if scopes.iter().any(|scope| scope.same_as(&variable.scope)) {
                let diagnostic =
                    Diagnostic::new(Code::E0401, format!("{} has two values {}", variable.name, variable.scope))
                        .cause("it could not be told which of them holds")
                        .fix("remove one of them, or give it a narrower scope");
                self.report(subject, &name, diagnostic);
            }
            scopes.push(&variable.scope);
            self.scope(subject, &place, &variable.scope, project);
            if looks_like_a_secret(variable) {
                let diagnostic =
                    Diagnostic::new(Code::W0404, format!("{} looks like a secret in clear text", variable.name)).fix(
                        format!(
                            "write secret: {{ env: {} }} instead of value",
                            variable.name.to_uppercase().replace(['.', '-', ' '], "_")
                        ),
                    );
                self.report(subject, &name, diagnostic);
            }
            if let VariableValue::Text(text) = &variable.value {
                let value = with(&place, Part::Key("value"));
                self.template(subject, &value, text, &reader);
            }
        }
    }

    fn scope(&mut self, subject: Subject, place: &[Part<'_>], scope: &Scope, project: &ProjectFiles) {
        let place = with(place, Part::Key("scope"));
        let list = |key| with(&place, Part::Key(key));
        self.environment_names(subject, &list("environments"), &scope.environments);
        self.role_names(subject, &list("roles"), &scope.roles);
        let machines: Vec<(usize, Diagnostic)> = scope
            .machines
            .iter()
            .enumerate()
            .filter_map(|(at, name)| Some((at, self.unknown_machine(name)?)))
            .collect();
        self.elements(subject, &list("machines"), machines);
        let steps: Vec<(usize, Diagnostic)> = scope
            .steps
            .iter()
            .enumerate()
            .filter_map(|(at, name)| Some((at, unknown_step(name.as_str(), project)?)))
            .collect();
        self.elements(subject, &list("steps"), steps);
    }

    /// Checks every text in the inputs of a step as a template.
    pub(super) fn step_templates(&mut self, index: usize, place: &[Part<'_>], step: &Step, reader: &Reader<'_>) {
        let subject = Subject::Process(index);
        let inputs = with(place, Part::Key("with"));
        for (key, value) in &step.with {
            let place = with(&inputs, Part::Key(key));
            match value {
                Json::String(text) => self.template(subject, &place, text, reader),
                Json::Array(items) => {
                    for (at, item) in items.iter().enumerate() {
                        if let Some(text) = item.as_str() {
                            self.template(subject, &with(&place, Part::Index(at)), text, reader);
                        }
                    }
                }
                Json::Object(entries) => {
                    for (key, item) in entries {
                        if let Some(text) = item.as_str() {
                            self.template(subject, &with(&place, Part::Key(key)), text, reader);
                        }
                    }
                }
                _ => {}
            }
        }
    }

    pub(super) fn template(&mut self, subject: Subject, place: &[Part<'_>], text: &str, reader: &Reader<'_>) {
        let template = Template::parse(text);
        if let Some(error) = template.errors().first() {
            let diagnostic = Diagnostic::new(Code::E0402, error.to_string())
                .fix("correct the expression, or write ##{ for the two characters themselves");
            self.report_within(subject, place, diagnostic, &error.expression);
            return;
        }
        for (_, path) in template.paths() {
            // An unknown variable is a warning, and finding what was meant costs a look at all names.
            if self.is_full_of_warnings() && OutputPath::parse(&path).is_none() {
                continue;
            }
            if let Some(diagnostic) = reader.unknown_path(&path) {
                self.report_within(subject, place, diagnostic, &path);
            }
        }
    }
}

fn unknown_step(name: &str, project: &ProjectFiles) -> Option<Diagnostic> {
    let steps = || project.process.all_steps().map(|step| step.step.name.as_str());
    if steps().any(|step| step.eq_ignore_ascii_case(name)) {
        return None;
    }
    let message = format!("the process of {} has no step {name}", project.project.name);
    let near = nearest(name, steps());
    let diagnostic = Diagnostic::new(Code::E0205, message);
    Some(diagnostic.near_or(near, "name one of the steps of process.yaml"))
}

/// What templates of a project may name.
pub(super) struct Names<'w> {
    pub(super) project: &'w ProjectFiles,
    /// Names of the variables, in lower case.
    variables: BTreeSet<String>,
}

impl<'w> Names<'w> {
    pub(super) fn of(project: &'w ProjectFiles) -> Self {
        let variables = project.variables.iter();
        Self { project, variables: variables.map(|v| v.name.to_lowercase()).collect() }
    }
}

/// Who reads a template: a step, or any step through a variable.
pub(super) struct Reader<'n> {
    names: &'n Names<'n>,
    /// Number of steps that have ended when the reader starts, where that is known.
    ended: Option<usize>,
    /// Further steps that have ended by then: for a child step, those of its unit that come before it.
    unit: std::ops::Range<usize>,
}

impl<'n> Reader<'n> {
    fn anywhere(names: &'n Names<'n>) -> Self {
        Self { names, ended: None, unit: 0..0 }
    }

    /// Before the first step.
    pub(super) fn start(names: &'n Names<'n>) -> Self {
        Self { names, ended: Some(0), unit: 0..0 }
    }

    /// A step, by the numbers of the first step of its group, the first of its unit, and its own: what started
    /// together with it has not ended before it.
    pub(super) fn step(names: &'n Names<'n>, group: usize, lead: usize, own: usize) -> Self {
        Self { names, ended: Some(group), unit: lead..own }
    }

    /// What is wrong with a path, if it names nothing that could have a value.
    fn unknown_path(&self, path: &str) -> Option<Diagnostic> {
        if let Some(output) = OutputPath::parse(path) {
            return self.unknown_output(&output);
        }
        let lower = path.to_lowercase();
        if is_system_name(path) || strip_octopus(&lower).starts_with("template.each.") {
            return None;
        }
        // The rest of the path may lead into a JSON value.
        let fronts = lower.match_indices(['.', '[']).map(|(at, _)| at);
        let known = fronts
            .chain([lower.len()])
            .filter_map(|end| lower.get(..end))
            .any(|front| self.names.variables.contains(front));
        if known {
            return None;
        }
        let names = self.names.project.variables.iter().map(|v| v.name.as_str());
        let near = nearest(path, names.chain(system_names().map(|(name, _)| name)));
        Some(
            Diagnostic::new(Code::W0403, format!("there is no variable {path}"))
                .near_or(near, format!("add it to variables.yaml: - {{ name: {path}, value: … }}")),
        )
    }

    fn unknown_output(&self, output: &OutputPath<'_>) -> Option<Diagnostic> {
        // A step name in brackets that is no name at all cannot be meant as one.
        let step = StepName::new(output.step).ok()?;
        if let Some(diagnostic) = unknown_step(step.as_str(), self.names.project) {
            return Some(diagnostic);
        }
        let at = self.names.project.process.all_steps().position(|s| s.name == step)?;
        if at < self.ended? || self.unit.contains(&at) {
            return None;
        }
        let message = format!("step {step} has not ended when its output is read");
        Some(Diagnostic::new(Code::E0208, message).fix(format!("read it in a step that starts after {step}")))
    }
}

/// Whether a plain value is named or shaped like a password, token or key.
fn looks_like_a_secret(variable: &Variable) -> bool {
    const WORDS: &[&str] =
        &["password", "passwd", "passphrase", "secret", "token", "apikey", "privatekey", "accesskey", "credential"];
    const STARTS: &[&str] = &["-----BEGIN", "ghp_", "github_pat_", "AKIA", "xoxb-", "glpat-"];
    let VariableValue::Text(text) = &variable.value else {
        return false;
    };
    // A value that names another variable holds no secret itself, nor does an empty one.
    if text.is_empty() || text.contains("#{") {
        return false;
    }
    let last = variable.name.rsplit('.').next().unwrap_or_default();
    let plain: String = last.chars().filter(|c| c.is_alphanumeric()).collect::<String>().to_lowercase();
    WORDS.iter().any(|word| plain.ends_with(word)) || STARTS.iter().any(|start| text.trim_start().starts_with(start))
}
