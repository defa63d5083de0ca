//! The files that teams write, and the folder they lie in.
//!
//! A workspace is a folder with `environments.yaml` and `machines.yaml` (both may be absent) and any
//! number of project folders; a folder that holds `project.yaml` is itself a project. Reading is pure:
//! [`read`] takes paths and texts and answers a [`Workspace`] together with everything that is wrong,
//! each error at its line. [`gather`] fetches those texts through the small trait [`Source`]. What the
//! names mean across files is for [`crate::validate`].

mod decode;
mod places;
mod shape;
mod source;
mod steps;
#[cfg(test)]
mod tests;
mod yaml;

use std::collections::BTreeMap;

pub use places::Places;
pub(crate) use places::{Part, Subject};
pub use source::{Entry, Folder, Source, gather};

use crate::{
    codes::Code,
    diagnostic::{Diagnostic, Severity},
    secret::SecretText,
    validate::{Known, validate},
    variable::VariableValue,
    workspace::{ProjectFiles, Workspace},
};
use shape::Shape;
use yaml::{Document, Node};

/// Names of the files, in the order in which they are read.
pub const FILE_NAMES: [&str; 5] =
    ["environments.yaml", "machines.yaml", "project.yaml", "process.yaml", "variables.yaml"];

/// Shortest secret: shorter ones cannot be masked without blackening whole logs.
const MIN_SECRET: usize = 4;

/// A file of a workspace: its path below the workspace, with `/`, and its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Path, such as `shop/process.yaml`.
    pub path: String,
    /// Content.
    pub text: String,
}

/// A workspace as read, with all that is wrong with it.
#[derive(Debug, Clone, Default)]
pub struct Loaded {
    /// What could be read. Secrets are empty until [`Loaded::read_secrets`].
    pub workspace: Workspace,
    /// Where everything stands in the files.
    pub places: Places,
    /// What is wrong so far.
    pub diagnostics: Vec<Diagnostic>,
    secrets: Vec<SecretPlace>,
    /// Set when something had to be left out of `workspace`.
    incomplete: bool,
}

/// Where a secret comes from when files are applied.
#[derive(Debug, Clone, PartialEq, Eq)]
enum SecretFrom {
    Env(String),
    File(String),
}

#[derive(Debug, Clone)]
struct SecretPlace {
    project: usize,
    variable: usize,
    /// Folder of the project, to which file names are relative.
    folder: String,
    from: SecretFrom,
}

/// Reads the files of a workspace.
#[must_use]
pub fn read(files: &[File]) -> Loaded {
    let mut loaded = Loaded::default();
    let mut folders: BTreeMap<&str, BTreeMap<&str, &File>> = BTreeMap::new();
    for file in files {
        let (folder, name) = file.path.rsplit_once('/').unwrap_or(("", &file.path));
        folders.entry(folder).or_default().insert(name, file);
    }
    if let Some(top) = folders.get("") {
        if let Some(file) = top.get("environments.yaml") {
            let (document, read) = loaded.document(file, decode::environments);
            loaded.workspace.environments = read.unwrap_or_default();
            loaded.places.environments = document;
        }
        if let Some(file) = top.get("machines.yaml") {
            let (document, read) = loaded.document(file, decode::machines);
            loaded.workspace.machines = read.unwrap_or_default();
            loaded.places.machines = document;
        }
    }
    for (folder, names) in &folders {
        let part = |name| names.get(name).copied();
        let (project, process) = (part("project.yaml"), part("process.yaml"));
        let variables = part("variables.yaml");
        match (project, process) {
            (Some(project), Some(process)) => {
                loaded.project(folder, project, process, variables);
            }
            (None, None) if variables.is_none() => {}
            (project, _) => {
                let missing = if project.is_none() { "project.yaml" } else { "process.yaml" };
                loaded.missing(folder, missing);
            }
        }
    }
    loaded.sort();
    loaded
}

impl Loaded {
    /// Checks names and inputs across the files, if nothing had to be left out; what was left out
    /// would only cause errors that are none.
    pub fn validate(&mut self, known: &Known) {
        if !self.incomplete {
            self.diagnostics.extend(validate(&self.workspace, &self.places, known));
            self.sort();
        }
    }

    /// Puts what is wrong in the order in which a person walks through the files.
    fn sort(&mut self) {
        self.diagnostics.sort_by(|a, b| (&a.file, a.line, a.column).cmp(&(&b.file, b.line, b.column)));
    }

    /// Makes every warning an error, as `--strict` asks for.
    pub fn deny_warnings(&mut self) {
        for diagnostic in &mut self.diagnostics {
            diagnostic.severity = Severity::Error;
        }
    }

    /// Whether nothing is wrong that stops.
    #[must_use]
    pub fn is_good(&self) -> bool {
        !self.diagnostics.iter().any(Diagnostic::is_error)
    }

    /// Fills in the secrets from where the files say they are.
    pub fn read_secrets(&mut self, source: &dyn Source) {
        for place in std::mem::take(&mut self.secrets) {
            let read = match &place.from {
                SecretFrom::Env(name) => {
                    source.env(name).ok_or_else(|| format!("the environment variable {name} is not set"))
                }
                SecretFrom::File(path) => {
                    let full = join(&place.folder, path);
                    source.read(&full).map_err(|error| format!("the file {full} cannot be read: {error}"))
                }
            };
            let secret = match read {
                Ok(text) => SecretText::new(text.trim_end_matches(['\r', '\n'])),
                Err(why) => {
                    let diagnostic = Diagnostic::new(Code::E0405, why).fix("provide it where `windlass apply` runs");
                    self.secret_error(&place, diagnostic);
                    continue;
                }
            };
            if secret.expose().chars().count() < MIN_SECRET {
                let diagnostic =
                    Diagnostic::new(Code::E0406, format!("the secret has fewer than {MIN_SECRET} characters"))
                        .fix("use a longer secret, or a plain value if it is none");
                self.secret_error(&place, diagnostic);
                continue;
            }
            if let Some(variable) = self
                .workspace
                .projects
                .get_mut(place.project)
                .and_then(|project| project.variables.get_mut(place.variable))
            {
                variable.value = VariableValue::Secret(secret);
            }
        }
    }

    fn secret_error(&mut self, place: &SecretPlace, mut diagnostic: Diagnostic) {
        let path = [Part::Key("variables"), Part::Index(place.variable), Part::Key("secret")];
        let subject = Subject::Variables(place.project);
        self.places.place(&mut diagnostic, subject, &path);
        self.diagnostics.push(diagnostic);
    }

    fn document<T>(
        &mut self,
        file: &File,
        decode: impl FnOnce(&mut Shape<'_>, &Node) -> T,
    ) -> (Option<Document>, Option<T>) {
        match Document::parse(&file.path, &file.text) {
            Ok(document) => {
                let mut shape = Shape::new(&document, &mut self.diagnostics);
                let read = decode(&mut shape, &document.root);
                self.incomplete |= shape.incomplete;
                (Some(document), Some(read))
            }
            Err(diagnostic) => {
                self.diagnostics.push(*diagnostic);
                self.incomplete = true;
                (None, None)
            }
        }
    }

    fn project(&mut self, folder: &str, project: &File, process: &File, variables: Option<&File>) {
        let (project_document, project) = self.document(project, decode::project);
        let (process_document, process) = self.document(process, steps::process);
        let (variables_document, variables) = match variables {
            Some(file) => self.document(file, decode::variables),
            None => (None, None),
        };
        let index = self.workspace.projects.len();
        let mut plain = Vec::new();
        let mut secrets = Vec::new();
        for (variable, from) in variables.unwrap_or_default() {
            if let Some(from) = from {
                secrets.push(SecretPlace { project: index, variable: plain.len(), folder: folder.to_owned(), from });
            }
            plain.push(variable);
        }
        let (Some(Some(project)), Some(process)) = (project, process) else {
            return;
        };
        self.secrets.extend(secrets);
        self.workspace.projects.push(ProjectFiles { project, process, variables: plain });
        self.places.projects.push(places::ProjectDocuments {
            project: project_document,
            process: process_document,
            variables: variables_document,
        });
    }

    fn missing(&mut self, folder: &str, name: &str) {
        let path = join(folder, name);
        let mut diagnostic = Diagnostic::new(Code::E0111, format!("{path} is missing")).fix(match name {
            "project.yaml" => {
                let name = folder.rsplit('/').next().unwrap_or_default();
                let name = if name.is_empty() { "shop" } else { name };
                format!("create {path} with the line: name: {name}")
            }
            _ => format!("create {path} with the line: steps: []"),
        });
        diagnostic.file = if folder.is_empty() { ".".to_owned() } else { folder.to_owned() };
        self.diagnostics.push(diagnostic);
        self.incomplete = true;
    }
}

fn join(folder: &str, name: &str) -> String {
    if folder.is_empty() || name.starts_with('/') { name.to_owned() } else { format!("{folder}/{name}") }
}
