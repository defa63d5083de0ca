//! Where things stand: from a place in the data to a line and column of a file.

use std::fmt::Write as _;

use super::{decode, yaml::Document};
use crate::diagnostic::Diagnostic;

/// The documents that a workspace was read from. Empty for a workspace that came without files.
#[derive(Debug, Clone, Default)]
pub struct Places {
    pub(super) environments: Option<Document>,
    pub(super) machines: Option<Document>,
    pub(super) projects: Vec<ProjectDocuments>,
}

#[derive(Debug, Clone, Default)]
pub(super) struct ProjectDocuments {
    pub(super) project: Option<Document>,
    pub(super) process: Option<Document>,
    pub(super) variables: Option<Document>,
}

/// Which file of a workspace is meant; projects by their position in it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Subject {
    Environments,
    Machines,
    Project(usize),
    Process(usize),
    Variables(usize),
}

/// A step of the way from the root of a file to a value.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Part<'p> {
    Key(&'p str),
    Index(usize),
    /// As `Key`, but the key itself is meant and not its value.
    KeyOf(&'p str),
}

impl Places {
    /// Whether the workspace has that file.
    pub(crate) fn has(&self, subject: Subject) -> bool {
        self.document(subject).is_some()
    }

    /// Puts the place of a value, or of what is nearest to it, into a diagnostic.
    pub(crate) fn place(&self, diagnostic: &mut Diagnostic, subject: Subject, path: &[Part<'_>]) {
        diagnostic.path = in_words(subject, path);
        if let Some(document) = self.document(subject) {
            let (at, _) = decode::find(&document.root, path);
            document.place(diagnostic, at);
        }
    }

    /// Moves a diagnostic to the first place of a text inside the value at a path.
    pub(crate) fn narrow(&self, diagnostic: &mut Diagnostic, subject: Subject, path: &[Part<'_>], part: &str) {
        if let Some(document) = self.document(subject)
            && let (at, Some(_)) = decode::find(&document.root, path)
            && let Some(span) = document.part(at, part)
        {
            document.place(diagnostic, span);
        }
    }

    fn document(&self, subject: Subject) -> Option<&Document> {
        let project = |index: usize| self.projects.get(index);
        match subject {
            Subject::Environments => self.environments.as_ref(),
            Subject::Machines => self.machines.as_ref(),
            Subject::Project(index) => project(index)?.project.as_ref(),
            Subject::Process(index) => project(index)?.process.as_ref(),
            Subject::Variables(index) => project(index)?.variables.as_ref(),
        }
    }
}

/// The place as a path through the request body.
fn in_words(subject: Subject, path: &[Part<'_>]) -> String {
    let mut text = match subject {
        Subject::Environments | Subject::Machines => String::new(),
        Subject::Project(index) => format!("projects[{index}].project"),
        Subject::Process(index) => format!("projects[{index}].process"),
        Subject::Variables(index) => format!("projects[{index}]"),
    };
    for part in path {
        match part {
            Part::Index(index) => {
                let _ = write!(text, "[{index}]");
            }
            Part::Key(key) | Part::KeyOf(key) => {
                if !text.is_empty() {
                    text.push('.');
                }
                text.push_str(key);
            }
        }
    }
    text
}
