//! The variables that the server itself sets: `Project.Name`, `Machine.Host` and their like.
//!
//! One table names them all, so that validation, resolution and the documentation cannot disagree.
//! Each is also found under the prefix `Octopus.`, for people who bring templates along.

use std::collections::BTreeMap;

use crate::{
    machine::Machine,
    name::{EnvironmentName, ProjectName, Role, StepName},
    task::TaskId,
};

/// Every variable of the server with what it holds.
const TABLE: &[(&str, &str)] = &[
    ("Project.Name", "name of the project"),
    ("Environment.Name", "name of the environment deployed to"),
    ("Release.Number", "version of the release"),
    ("Release.Notes", "notes of the release"),
    ("Release.Previous.Number", "version deployed there before"),
    ("Deployment.Id", "number of the task"),
    ("Deployment.Error", "what went wrong, once a step failed"),
    ("Task.Id", "number of the task"),
    ("Machine.Name", "name of the machine worked on"),
    ("Machine.Host", "its host name or address"),
    ("Machine.Hostname", "its host name or address"),
    ("Machine.Roles", "its roles, separated by commas"),
    ("Machine.Home", "folder for what Windlass keeps there"),
    ("Step.Name", "name of the step"),
    ("Step.Number", "position of the step, from 1"),
    ("Action.Name", "name of the step"),
    ("Action.Package.PackageId", "package of the step"),
    ("Action.Package.PackageVersion", "version of that package"),
    ("Web.ServerUri", "address of the server"),
];

/// Names of the server's variables, each with what it holds.
pub fn system_names() -> impl Iterator<Item = (&'static str, &'static str)> {
    TABLE.iter().copied()
}

/// Whether a name is one of the server's variables, with or without the prefix `Octopus.`.
#[must_use]
pub fn is_system_name(name: &str) -> bool {
    let name = without_prefix(name);
    TABLE.iter().any(|(known, _)| known.eq_ignore_ascii_case(name))
}

/// Drops the prefix `Octopus.`, whatever its case.
pub(crate) fn without_prefix(name: &str) -> &str {
    const PREFIX: &str = "octopus.";
    match name.get(..PREFIX.len()) {
        Some(start) if start.eq_ignore_ascii_case(PREFIX) => name.get(PREFIX.len()..).unwrap_or(name),
        _ => name,
    }
}

/// Values of the server's variables at one place, set one by one.
#[derive(Debug, Clone, Default)]
pub struct System {
    values: BTreeMap<String, String>,
}

impl System {
    /// None set.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets any name; for the few that have no method of their own.
    #[must_use]
    pub fn set(mut self, name: &str, value: impl Into<String>) -> Self {
        self.values.insert(without_prefix(name).to_lowercase(), value.into());
        self
    }

    /// The project.
    #[must_use]
    pub fn project(self, name: &ProjectName) -> Self {
        self.set("Project.Name", name.as_str())
    }

    /// The environment deployed to.
    #[must_use]
    pub fn environment(self, name: &EnvironmentName) -> Self {
        self.set("Environment.Name", name.as_str())
    }

    /// The release.
    #[must_use]
    pub fn release(self, version: &str, notes: &str) -> Self {
        self.set("Release.Number", version).set("Release.Notes", notes)
    }

    /// The task, which is the deployment.
    #[must_use]
    pub fn task(self, id: TaskId) -> Self {
        self.set("Task.Id", id.to_string()).set("Deployment.Id", id.to_string())
    }

    /// The machine worked on.
    #[must_use]
    pub fn machine(self, machine: &Machine) -> Self {
        let roles: Vec<&str> = machine.roles.iter().map(Role::as_str).collect();
        self.set("Machine.Name", machine.name.as_str())
            .set("Machine.Host", machine.connection.host())
            .set("Machine.Hostname", machine.connection.host())
            .set("Machine.Roles", roles.join(","))
            .set("Machine.Home", machine.connection.home())
    }

    /// The step, with its position in the process counted from 0.
    #[must_use]
    pub fn step(self, name: &StepName, index: usize) -> Self {
        self.set("Step.Name", name.as_str())
            .set("Step.Number", (index + 1).to_string())
            .set("Action.Name", name.as_str())
    }

    /// The package of the step.
    #[must_use]
    pub fn package(self, id: &str, version: &str) -> Self {
        self.set("Action.Package.PackageId", id).set("Action.Package.PackageVersion", version)
    }

    /// The value of a name, with or without the prefix `Octopus.`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.values.get(&without_prefix(name).to_lowercase()).map(String::as_str)
    }
}
