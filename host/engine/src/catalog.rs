//! Environments, machines, projects: what `windlass apply` writes and everything else reads.

use windlass_model::{
    Environment, EnvironmentName, Machine, MachineName, Process, Project, ProjectName, Variable, VariableValue,
    diagnostic::{Diagnostic, MAX_DIAGNOSTICS},
    diff::diff,
    files::Places,
    validate::{Known, validate},
    workspace::{ApplyReport, ProjectFiles, Workspace},
};
use windlass_store::{Batch, Key};

use crate::{
    error::EngineError,
    plugins, pools,
    records::{ENVIRONMENTS, MACHINES, PROCESSES, PROJECTS, StoredValue, StoredVariable, VARIABLES, all},
    releases::open_variables,
    services::Services,
};

/// Where a secret variable belongs, for its seal.
pub fn variable_place(project: &ProjectName, name: &str) -> String {
    format!("project/{}/variable/{}", project.key(), name.to_lowercase())
}

/// All environments by name.
///
/// # Errors
/// When the store stopped.
pub async fn environments(services: &Services) -> Result<Vec<Environment>, EngineError> {
    Ok(all(&*services.shared.store, &ENVIRONMENTS, ENVIRONMENTS.all()).await?)
}

/// One environment.
///
/// # Errors
/// When there is none; the fix names those there are.
pub async fn environment(services: &Services, name: &EnvironmentName) -> Result<Environment, EngineError> {
    match ENVIRONMENTS.get(&*services.shared.store, name.key().as_str()).await? {
        Some(stored) => Ok(stored.value),
        None => {
            let known =
                environments(services).await?.into_iter().map(|environment| environment.name.to_string()).collect();
            Err(EngineError::not_found("environment", name)
                .fix(those(known, "add it to environments.yaml and run windlass apply")))
        }
    }
}

fn those(known: Vec<String>, otherwise: &str) -> String {
    if known.is_empty() { otherwise.to_owned() } else { format!("use one of {}", known.join(", ")) }
}

/// All machines by name.
///
/// # Errors
/// When the store stopped.
pub async fn machines(services: &Services) -> Result<Vec<Machine>, EngineError> {
    Ok(all(&*services.shared.store, &MACHINES, MACHINES.all()).await?)
}

/// One machine.
///
/// # Errors
/// When there is none.
pub async fn machine(services: &Services, name: &MachineName) -> Result<Machine, EngineError> {
    match MACHINES.get(&*services.shared.store, name.key().as_str()).await? {
        Some(stored) => Ok(stored.value),
        None => {
            let known = machines(services).await?.into_iter().map(|machine| machine.name.to_string()).collect();
            Err(EngineError::not_found("machine", name).fix(those(known, "windlass machine add")))
        }
    }
}

/// Creates or changes a machine.
///
/// # Errors
/// When the store stopped.
pub async fn put_machine(services: &Services, machine: &Machine) -> Result<(), EngineError> {
    let mut batch = Batch::new();
    MACHINES.put(&mut batch, machine.name.key().as_str(), machine)?;
    services.shared.store.commit(batch).await?;
    pools::tell(services).await
}

/// All projects by name.
///
/// # Errors
/// When the store stopped.
pub async fn projects(services: &Services) -> Result<Vec<Project>, EngineError> {
    Ok(all(&*services.shared.store, &PROJECTS, PROJECTS.all()).await?)
}

/// One project.
///
/// # Errors
/// When there is none; the fix names those there are.
pub async fn project(services: &Services, name: &ProjectName) -> Result<Project, EngineError> {
    match PROJECTS.get(&*services.shared.store, name.key().as_str()).await? {
        Some(stored) => Ok(stored.value),
        None => {
            let known = projects(services).await?.into_iter().map(|project| project.name.to_string()).collect();
            Err(EngineError::not_found("project", name).fix(those(known, "windlass apply FOLDER")))
        }
    }
}

/// A project's process.
///
/// # Errors
/// When there is no such project.
pub async fn process(services: &Services, name: &ProjectName) -> Result<Process, EngineError> {
    let project = project(services, name).await?;
    Ok(PROCESSES.get(&*services.shared.store, Key::of_text(&project.name.key())).await?.unwrap_or_default())
}

/// Brings the catalog to what a workspace says. With `dry_run` only tells what would change.
///
/// # Errors
/// When the workspace names what does not exist, the store stopped, or somebody changed the same at the same time.
pub async fn apply(services: &Services, workspace: Workspace, dry_run: bool) -> Result<ApplyReport, EngineError> {
    check(services, &workspace).await?;
    let before = current(services, &workspace).await?;
    let after = before.with(&workspace);
    let report = diff(&before, &after);
    if dry_run || report.changes.is_empty() {
        return Ok(report);
    }
    let mut batch = Batch::new();
    for environment in &after.environments {
        ENVIRONMENTS.put(&mut batch, environment.name.key().as_str(), environment)?;
    }
    for machine in &after.machines {
        MACHINES.put(&mut batch, machine.name.key().as_str(), machine)?;
    }
    for files in &after.projects {
        put_project(services, &mut batch, files).await?;
    }
    services.shared.store.commit(batch).await?;
    pools::tell(services).await?;
    tracing::info!(changes = report.changes.len(), unchanged = report.unchanged, "applied a workspace");
    Ok(report)
}

/// The server trusts no client to have validated: every reference is checked again here.
async fn check(services: &Services, workspace: &Workspace) -> Result<(), EngineError> {
    let installed = plugins::list(&*services.shared.store).await?;
    let known = Known {
        manifests: Some(installed.into_iter().map(|record| record.manifest).collect()),
        packages: None,
        environments: Some(environments(services).await?.into_iter().map(|environment| environment.name).collect()),
        machines: Some(machines(services).await?),
    };
    let errors: Vec<_> = validate(workspace, &Places::default(), &known)
        .into_iter()
        .filter(Diagnostic::is_error)
        .take(MAX_DIAGNOSTICS)
        .collect();
    let Some(first) = errors.first() else {
        return Ok(());
    };
    let more = errors.len() - 1;
    let message = if more == 0 { first.message.clone() } else { format!("{} (and {more} more)", first.message) };
    let error = EngineError::invalid("workspace", message).fix(first.fix.clone());
    Err(EngineError { diagnostics: errors, ..error })
}

async fn put_project(services: &Services, batch: &mut Batch, files: &ProjectFiles) -> Result<(), EngineError> {
    let name = &files.project.name;
    PROJECTS.put(batch, name.key().as_str(), &files.project)?;
    PROCESSES.put(batch, Key::of_text(&name.key()), &files.process)?;
    let old: Vec<StoredVariable> =
        all(&*services.shared.store, &VARIABLES, VARIABLES.starting_with(Key::of_text(&name.key()))).await?;
    for place in files.variables.len()..old.len() {
        VARIABLES.delete(batch, Key::of_text(&name.key()).id(place as u64));
    }
    for (place, variable) in files.variables.iter().enumerate() {
        VARIABLES.put(batch, Key::of_text(&name.key()).id(place as u64), &sealed(services, name, variable)?)?;
    }
    Ok(())
}

fn sealed(services: &Services, project: &ProjectName, variable: &Variable) -> Result<StoredVariable, EngineError> {
    let value = match &variable.value {
        VariableValue::Text(text) => StoredValue::Text(text.clone()),
        VariableValue::Secret(secret) => {
            StoredValue::Secret(services.vault.seal(&variable_place(project, &variable.name), secret)?)
        }
    };
    Ok(StoredVariable { name: variable.name.clone(), value, scope: variable.scope.clone() })
}

/// What the catalog says today of everything that the workspace names.
async fn current(services: &Services, wanted: &Workspace) -> Result<Workspace, EngineError> {
    let mut current = Workspace::default();
    let store = &*services.shared.store;
    for environment in &wanted.environments {
        current
            .environments
            .extend(ENVIRONMENTS.get(store, environment.name.key().as_str()).await?.map(|stored| stored.value));
    }
    for machine in &wanted.machines {
        current.machines.extend(MACHINES.get(store, machine.name.key().as_str()).await?.map(|stored| stored.value));
    }
    for files in &wanted.projects {
        let name = &files.project.name;
        let Some(project) = PROJECTS.get(store, name.key().as_str()).await? else {
            continue;
        };
        let key = Key::of_text(&name.key());
        let process = PROCESSES.get(store, key.clone()).await?.unwrap_or_default();
        let stored: Vec<StoredVariable> = all(store, &VARIABLES, VARIABLES.starting_with(key)).await?;
        let variables = open_variables(services, name, &stored)?;
        current.projects.push(ProjectFiles { project: project.value, process, variables });
    }
    Ok(current)
}
