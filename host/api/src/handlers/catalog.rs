//! Environments, machines, projects, releases, and applying files to all of them.

use schemars::JsonSchema;
use serde::Deserialize;
use windlass_model::{
    Environment, Machine, MachineName, Project, ProjectName, Release,
    views::{Items, MachineReport, ProjectDetail, ReleaseRequest, TrustReport, TrustRequest},
    workspace::{ApplyReport, Workspace},
};

use super::whole;
use crate::{
    fault::Fault,
    input::{Created, Json, Nothing, OptionalJson, segment},
    operation::Call,
};

/// Which machine.
#[derive(Deserialize, JsonSchema)]
pub struct MachinePath {
    /// Its name.
    machine: MachineName,
}

/// Which project.
#[derive(Deserialize, JsonSchema)]
pub struct ProjectPath {
    /// Its name.
    project: ProjectName,
}

/// Which release.
#[derive(Deserialize, JsonSchema)]
pub struct ReleasePath {
    /// Project it belongs to.
    project: ProjectName,
    /// Its version, or `latest`.
    version: String,
}

/// How to apply.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ApplyQuery {
    /// Only tell what would change.
    #[serde(default)]
    dry_run: bool,
}

pub async fn apply(call: Call<Nothing, ApplyQuery, Json<Workspace>>) -> Result<Json<ApplyReport>, Fault> {
    Ok(Json(call.app.engine.apply(call.body.0, call.query.dry_run).await?))
}

pub async fn environments(call: Call) -> Result<Json<Items<Environment>>, Fault> {
    Ok(whole(call.app.engine.environments().await?))
}

pub async fn machines(call: Call) -> Result<Json<Items<Machine>>, Fault> {
    Ok(whole(call.app.engine.machines().await?))
}

pub async fn machine(call: Call<MachinePath>) -> Result<Json<Machine>, Fault> {
    Ok(Json(call.app.engine.machine(&call.path.machine).await?))
}

pub async fn put_machine(call: Call<MachinePath, Nothing, Json<Machine>>) -> Result<Json<Machine>, Fault> {
    let machine = call.body.0;
    if machine.name != call.path.machine {
        let detail = format!("the path names the machine {}, the body {}", call.path.machine, machine.name);
        return Err(Fault::invalid("name-differs", detail)
            .mistake("name", "differs from the path")
            .fix("use one name in both"));
    }
    Ok(Json(call.app.engine.put_machine(machine).await?))
}

pub async fn trust(call: Call<MachinePath, Nothing, OptionalJson<TrustRequest>>) -> Result<Json<TrustReport>, Fault> {
    let fingerprint = call.body.0.fingerprint;
    Ok(Json(call.app.engine.trust_machine(&call.path.machine, fingerprint.as_deref()).await?))
}

pub async fn check(call: Call<MachinePath>) -> Result<Json<MachineReport>, Fault> {
    Ok(Json(call.app.engine.check_machine(&call.path.machine).await?))
}

pub async fn projects(call: Call) -> Result<Json<Items<Project>>, Fault> {
    Ok(whole(call.app.engine.projects().await?))
}

pub async fn project(call: Call<ProjectPath>) -> Result<Json<ProjectDetail>, Fault> {
    Ok(Json(call.app.engine.project(&call.path.project).await?))
}

pub async fn releases(call: Call<ProjectPath>) -> Result<Json<Items<Release>>, Fault> {
    Ok(whole(call.app.engine.releases(&call.path.project).await?))
}

pub async fn release(call: Call<ReleasePath>) -> Result<Json<Release>, Fault> {
    let version = Some(call.path.version.as_str()).filter(|version| *version != "latest");
    Ok(Json(call.app.engine.release(&call.path.project, version).await?))
}

pub async fn create_release(
    call: Call<ProjectPath, Nothing, OptionalJson<ReleaseRequest>>,
) -> Result<Created<Release>, Fault> {
    Ok(created(call.app.engine.once(call.once).create_release(&call.path.project, call.body.0).await?))
}

pub fn created(release: Release) -> Created<Release> {
    let (project, version) = (segment(release.project.as_str()), segment(&release.version));
    Created { location: format!("/api/v1/projects/{project}/releases/{version}"), value: release }
}
