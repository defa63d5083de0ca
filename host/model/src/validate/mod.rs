//! Checks across files: do names mean something, do inputs fit, can every value be told.
//!
//! [`validate`] judges a whole [`Workspace`] against itself and against what the caller knows of a
//! server ([`Known`]); whatever is not known is not checked, so the same code serves `windlass
//! validate --offline`, `windlass apply` and the API. It finds everything at once and changes nothing.

mod inputs;
mod steps;
mod variables;

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    codes::Code,
    diagnostic::{Diagnostic, MAX_DIAGNOSTICS},
    files::{Part, Places, Subject},
    machine::Machine,
    manifest::Manifest,
    name::{EnvironmentName, MachineName, PackageId, PoolName, Role},
    suggest::nearest,
    workspace::Workspace,
};

/// What the caller knows beyond the files. `None` means not known, and then not checked.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// Installed plugins.
    pub manifests: Option<Vec<Manifest>>,
    /// Packages of the feed.
    pub packages: Option<Vec<PackageId>>,
    /// Environments of the server.
    pub environments: Option<Vec<EnvironmentName>>,
    /// Machines of the server.
    pub machines: Option<Vec<Machine>>,
}

/// Checks a workspace. Errors and warnings come in the order of the files.
#[must_use]
pub fn validate(workspace: &Workspace, places: &Places, known: &Known) -> Vec<Diagnostic> {
    let mut check = Check::new(workspace, places, known);
    check.duplicates_of_the_top();
    check.machines();
    for index in 0..workspace.projects.len() {
        check.project(index);
    }
    check.diagnostics
}

use variables::Names;

/// One validation: the names that exist, and what was found.
struct Check<'w> {
    workspace: &'w Workspace,
    places: &'w Places,
    known: &'w Known,
    environments: Option<BTreeSet<&'w EnvironmentName>>,
    machines: Option<Machines<'w>>,
    diagnostics: Vec<Diagnostic>,
    errors: usize,
}

/// Names that machines bring along.
struct Machines<'w> {
    names: BTreeSet<&'w MachineName>,
    /// Roles of machines that belong to an environment: no deployment reaches the others.
    roles: BTreeSet<&'w Role>,
    pools: BTreeSet<&'w PoolName>,
}

impl<'w> Check<'w> {
    fn new(workspace: &'w Workspace, places: &'w Places, known: &'w Known) -> Self {
        // Without a server's word the files are the whole truth only if they say anything about it.
        let files_say = |subject, empty: bool| places.has(subject) || !empty;
        let environments = (known.environments.is_some()
            || files_say(Subject::Environments, workspace.environments.is_empty()))
        .then(|| {
            let of_files = workspace.environments.iter().map(|e| &e.name);
            of_files.chain(known.environments.iter().flatten()).collect()
        });
        let machines =
            (known.machines.is_some() || files_say(Subject::Machines, workspace.machines.is_empty())).then(|| {
                let all = || all_machines(workspace, known);
                Machines {
                    names: all().map(|machine| &machine.name).collect(),
                    roles: all()
                        .filter(|machine| !machine.environments.is_empty())
                        .flat_map(|machine| &machine.roles)
                        .collect(),
                    pools: all().flat_map(|machine| &machine.pools).collect(),
                }
            });
        Self { workspace, places, known, environments, machines, diagnostics: Vec::new(), errors: 0 }
    }

    fn all_machines(&self) -> impl Iterator<Item = &'w Machine> {
        all_machines(self.workspace, self.known)
    }

    /// Whether enough errors were found. Warnings alone never end the search for errors.
    fn is_full(&self) -> bool {
        self.errors >= MAX_DIAGNOSTICS
    }

    /// Whether there is no room for more warnings.
    fn is_full_of_warnings(&self) -> bool {
        self.diagnostics.len() >= MAX_DIAGNOSTICS
    }

    fn push(&mut self, diagnostic: Diagnostic) {
        if diagnostic.is_error() {
            self.errors += 1;
        }
        self.diagnostics.push(diagnostic);
    }

    fn has_no_room_for(&self, diagnostic: &Diagnostic) -> bool {
        self.is_full() || (!diagnostic.is_error() && self.is_full_of_warnings())
    }

    fn report(&mut self, subject: Subject, path: &[Part<'_>], mut diagnostic: Diagnostic) {
        if self.has_no_room_for(&diagnostic) {
            return;
        }
        self.places.place(&mut diagnostic, subject, path);
        if diagnostic.code == Code::W0404 {
            // The line shows what had better not be shown.
            diagnostic.snippet.clear();
        }
        self.push(diagnostic);
    }

    /// Reports something about a part of a text, with the caret under that part if it can be found.
    fn report_within(&mut self, subject: Subject, path: &[Part<'_>], mut diagnostic: Diagnostic, part: &str) {
        if self.has_no_room_for(&diagnostic) {
            return;
        }
        self.places.place(&mut diagnostic, subject, path);
        self.places.narrow(&mut diagnostic, subject, path, part);
        self.push(diagnostic);
    }

    fn duplicates_of_the_top(&mut self) {
        let environments = self.workspace.environments.iter().map(|e| e.name.as_str());
        self.duplicates(Subject::Environments, "environments", "environment", environments);
        let machines = self.workspace.machines.iter().map(|m| m.name.as_str());
        self.duplicates(Subject::Machines, "machines", "machine", machines);
        let mut seen = BTreeSet::new();
        for (index, project) in self.workspace.projects.iter().enumerate() {
            let name = &project.project.name;
            if !seen.insert(name) {
                let diagnostic = duplicate("project", name.as_str());
                self.report(Subject::Project(index), &[Part::Key("name")], diagnostic);
            }
        }
    }

    /// Reports every name but the first of its kind.
    fn duplicates<'n>(&mut self, subject: Subject, list: &str, what: &str, names: impl Iterator<Item = &'n str>) {
        let mut seen = BTreeMap::new();
        for (index, name) in names.enumerate() {
            if seen.insert(name.to_lowercase(), index).is_some() {
                let path = [Part::Key(list), Part::Index(index), Part::Key("name")];
                self.report(subject, &path, duplicate(what, name));
            }
        }
    }

    fn machines(&mut self) {
        for (index, machine) in self.workspace.machines.iter().enumerate() {
            if self.is_full() {
                return;
            }
            let path = [Part::Key("machines"), Part::Index(index), Part::Key("environments")];
            self.environment_names(Subject::Machines, &path, &machine.environments);
        }
    }

    fn project(&mut self, index: usize) {
        let Some(project) = self.workspace.projects.get(index) else {
            return;
        };
        let names = Names::of(project);
        self.process(index, &names);
        self.variables(index, &names);
    }

    /// Checks a list of environments at a place.
    fn environment_names(&mut self, subject: Subject, path: &[Part<'_>], names: &[EnvironmentName]) {
        let Some(known) = &self.environments else {
            return;
        };
        let unknown: Vec<(usize, Diagnostic)> = names
            .iter()
            .enumerate()
            .filter(|(_, name)| !known.contains(name))
            .map(|(at, name)| {
                let near = nearest(name.as_str(), known.iter().map(|n| n.as_str()));
                let diagnostic = Diagnostic::new(Code::E0201, format!("there is no environment {name}"))
                    .near_or(near, format!("add it to environments.yaml: - name: {name}"));
                (at, diagnostic)
            })
            .collect();
        self.elements(subject, path, unknown);
    }

    fn role_names(&mut self, subject: Subject, path: &[Part<'_>], names: &[Role]) {
        let unknown: Vec<(usize, Diagnostic)> =
            names.iter().enumerate().filter_map(|(at, name)| Some((at, self.unknown_role(name)?))).collect();
        self.elements(subject, path, unknown);
    }

    fn unknown_role(&self, name: &Role) -> Option<Diagnostic> {
        let known = &self.machines.as_ref()?.roles;
        if known.contains(name) || self.is_full_of_warnings() {
            return None;
        }
        let near = nearest(name.as_str(), known.iter().map(|n| n.as_str()));
        let message = format!("no machine of an environment has the role {name}");
        let diagnostic = Diagnostic::new(Code::W0203, message);
        let outside = self.all_machines().find(|m| m.roles.contains(name));
        Some(match outside {
            Some(machine) => diagnostic
                .cause(format!("machine {} has it, but belongs to no environment", machine.name))
                .fix(format!("give machine {} its environments", machine.name)),
            None => diagnostic.near_or(near, "add the role to a machine in machines.yaml"),
        })
    }

    fn unknown_machine(&self, name: &MachineName) -> Option<Diagnostic> {
        let known = &self.machines.as_ref()?.names;
        if known.contains(name) {
            return None;
        }
        let near = nearest(name.as_str(), known.iter().map(|n| n.as_str()));
        Some(
            Diagnostic::new(Code::E0202, format!("there is no machine {name}"))
                .near_or(near, "add it to machines.yaml"),
        )
    }

    fn unknown_pool(&self, name: &PoolName) -> Option<Diagnostic> {
        let known = &self.machines.as_ref()?.pools;
        if known.contains(name) {
            return None;
        }
        let near = nearest(name.as_str(), known.iter().map(|n| n.as_str()));
        Some(
            Diagnostic::new(Code::E0204, format!("no machine works for a pool {name}"))
                .near_or(near, format!("give a machine in machines.yaml: pools: [{name}]")),
        )
    }

    /// Reports diagnostics about elements of a list.
    fn elements(&mut self, subject: Subject, path: &[Part<'_>], diagnostics: Vec<(usize, Diagnostic)>) {
        for (at, diagnostic) in diagnostics {
            let mut path = path.to_vec();
            path.push(Part::Index(at));
            self.report(subject, &path, diagnostic);
        }
    }
}

/// Machines of the files, then those of the server.
fn all_machines<'w>(workspace: &'w Workspace, known: &'w Known) -> impl Iterator<Item = &'w Machine> {
    let of_files = workspace.machines.iter();
    of_files.chain(known.machines.iter().flatten())
}

fn duplicate(what: &str, name: &str) -> Diagnostic {
    Diagnostic::new(Code::E0206, format!("there is already {} {what} {name}", article(what)))
        .cause("names are compared without regard to case")
        .fix("rename one of the two")
}

fn article(what: &str) -> &'static str {
    if what.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" }
}
