//! A deployment: release, environment, machines, and what the request, the variables and the process say about it.

use std::sync::Arc;

use windlass_model::{
    Manifest, Process, Release, Step, StepName, TaskKind, nearest,
    process::{OnDeadlock, OnUnavailable, Placed, Priority},
    template::Mode,
    variables::{Context, Place, System, VariableSet},
    views::DeployRequest,
};
use windlass_scheduler::{OnDeadlock as Deadlock, StepPlan, TaskPlan, Unavailable};
use windlass_store::Batch;

use super::{
    Prepared, number, settings,
    step::{Surroundings, plan_step},
};
use crate::{board::first_view, catalog, error::EngineError, releases, services::Services};

/// Furthest start in the future: 30 days.
const FURTHEST_MS: u64 = 30 * 24 * 3600 * 1000;
/// Runs of one deployment: what is decided about all of them at once is one commit.
const MAX_RUNS: usize = 20_000;

/// Plans a deployment.
///
/// # Errors
/// When something it names does not exist, nothing matches, or it asks for what is not allowed.
pub async fn prepare_deployment(services: &Services, request: DeployRequest) -> Result<Prepared, EngineError> {
    let environment = catalog::environment(services, &request.environment).await?.name;
    let project = catalog::project(services, &request.project).await?.name;
    let release = releases::get(services, &project, request.version.as_deref()).await?;
    let machines = catalog::machines(services).await?;
    for name in &request.machines {
        if !machines.iter().any(|machine| machine.name == *name) {
            return Err(EngineError::not_found("machine", name).fix("windlass machine list"));
        }
    }
    check_skipped(&release.process, &request.skip)?;
    let variables = Arc::new(VariableSet::new(releases::variables(services, &project, &release.version).await?));
    let surroundings = Surroundings {
        release: &release,
        environment: &environment,
        machines: &machines,
        variables,
        request: &request,
    };
    let mut steps = Vec::new();
    for (index, step) in release.process.all_steps().enumerate() {
        let manifest = manifest(services, &release, &step).await?;
        steps.push(plan_step(&surroundings, index, &step, manifest.as_ref())?);
    }
    if steps.iter().all(|step| step.skip.is_some()) {
        return Err(EngineError::invalid(
            "nothing-to-do",
            format!("no step of {project} has anything to do in {environment}"),
        )
        .fix("give machines of that environment the roles that the steps ask for"));
    }
    let runs: usize = steps.iter().map(StepPlan::runs).sum();
    if runs > MAX_RUNS {
        return Err(EngineError::invalid(
            "too-many-runs",
            format!("the steps have {runs} runs in all, and a deployment has at most {MAX_RUNS}"),
        )
        .fix("deploy to some of the machines at a time, with --only"));
    }
    let what = TaskKind::Deployment {
        project: project.clone(),
        version: release.version.clone(),
        environment: environment.clone(),
        machines: request.machines.clone(),
        skip: request.skip.clone(),
    };
    let now = services.shared.clock.now_ms();
    let mut plan = TaskPlan::deployment(what.title(), format!("{}/{}", project.key(), environment.key()), steps);
    general(&mut plan, &release.process, &surroundings.context(None, None))?;
    asked_for(&mut plan, &release.process, &request, now)?;
    let uses: Vec<String> = release.process.all_steps().map(|step| step.does()).collect();
    let (id, number) = number(services).await?;
    let view = first_view(id, what, &plan, &uses, now);
    Ok(Prepared { plan, view, with: Batch::new(), _number: number })
}

/// Whether every step that is to be left out exists and may be.
fn check_skipped(process: &Process, skip: &[StepName]) -> Result<(), EngineError> {
    for name in skip {
        let Some(found) = process.all_steps().find(|step| step.name == *name) else {
            let near = nearest(name.as_str(), process.all_steps().map(|step| step.step.name.as_str()));
            let error = EngineError::not_found("step", name);
            return Err(match near {
                Some(near) => error.fix(format!("did you mean {near}?")),
                None => error.fix("name a step of the release: windlass project show <project>"),
            });
        };
        let required = std::iter::once(found.step).chain(&found.steps).find(|step| step.required);
        if let Some(required) = required {
            let what = if required.name == found.name {
                format!("step {name} is required")
            } else {
                format!("step {name} holds step {}, which is required", required.name)
            };
            return Err(EngineError::invalid("step-required", format!("{what}, and cannot be left out"))
                .fix(format!("deploy without --skip {name}")));
        }
    }
    Ok(())
}

async fn manifest(services: &Services, release: &Release, step: &Step) -> Result<Option<Manifest>, EngineError> {
    let Some(uses) = &step.uses else {
        return Ok(None);
    };
    let pinned = release.guests.get(uses).ok_or_else(|| {
        EngineError::not_found("plugin", uses).fix(format!("windlass release create {}", release.project))
    })?;
    let plugin = services.plugins.load(services, &pinned.sha256).await?;
    Ok(Some((**plugin.manifest()).clone()))
}

/// What the process and the variables say about the whole deployment.
fn general(plan: &mut TaskPlan, process: &Process, context: &Context) -> Result<(), EngineError> {
    plan.guided = process.guided;
    plan.max_parallelism = settings::number(context, settings::MAX_PARALLELISM, process.max_parallelism)?;
    plan.max_runs = settings::number(context, settings::MAX_RUNS, process.max_runs)?;
    plan.max_acquisitions = settings::number(context, settings::MAX_ACQUISITIONS, process.max_acquisitions)?;
    plan.lock_wait_ms = process.lock_wait_seconds.map(|seconds| seconds.saturating_mul(1000));
    plan.unavailable = match process.unavailable {
        OnUnavailable::Fail => Unavailable::Fail,
        OnUnavailable::Skip => Unavailable::Skip,
        OnUnavailable::Exclude => Unavailable::Exclude,
    };
    plan.on_deadlock = match process.on_deadlock {
        OnDeadlock::Fail => Deadlock::Fail,
        OnDeadlock::Ask => Deadlock::Ask,
    };
    let tag = match settings::text(context, settings::CONCURRENCY_TAG)? {
        Some(tag) => Some(tag),
        None => process.concurrency_tag.as_deref().map(|tag| expanded_tag(context, tag)).transpose()?,
    };
    // Names are one name whatever their case, and so are tags made of them.
    if let Some(tag) = tag.map(|tag| tag.trim().to_lowercase()).filter(|tag| !tag.is_empty()) {
        plan.concurrency_tag = Some(tag);
    }
    Ok(())
}

fn expanded_tag(context: &Context, tag: &str) -> Result<String, EngineError> {
    let invalid = |why: String| {
        EngineError::invalid("concurrency-tag", format!("the concurrency tag {tag:?}: {why}"))
            .fix("use what is known before the first step, such as #{Project.Name}, then create a new release")
    };
    let expanded = context.expand(tag, Mode::Strict).map_err(|error| invalid(error.to_string()))?;
    if expanded.secrets_used { Err(invalid("it would show a secret".to_owned())) } else { Ok(expanded.text) }
}

/// What the request says about its place in the queue.
fn asked_for(plan: &mut TaskPlan, process: &Process, request: &DeployRequest, now: u64) -> Result<(), EngineError> {
    plan.priority = match request.priority.unwrap_or(process.priority) {
        Priority::Low => -1,
        Priority::Normal => 0,
        Priority::High => 1,
    };
    // A part of a deployment is no successor of a whole one, and none of them follows it.
    let whole = request.machines.is_empty() && request.skip.is_empty();
    if whole && request.supersede.unwrap_or(process.supersede) {
        plan.supersede = Some(format!("{}/{}", request.project.key(), request.environment.key()));
    }
    plan.start_at_ms = request.start_at_ms.filter(|at| *at > now);
    if plan.start_at_ms.is_some_and(|at| at - now > FURTHEST_MS) {
        return Err(EngineError::invalid("too-far", "a deployment can be scheduled at most 30 days ahead")
            .fix("choose an earlier start"));
    }
    plan.expires_ms = match request.expires_after_seconds {
        Some(0) => {
            return Err(EngineError::invalid("expires", "a deployment cannot expire before it could start")
                .fix("give it some time, such as --expires-after 1h"));
        }
        after => after.map(|after| plan.start_at_ms.unwrap_or(now).saturating_add(after.saturating_mul(1000))),
    };
    Ok(())
}

impl Surroundings<'_> {
    /// The variables before anything has run, as a step sees them.
    pub(super) fn context(&self, step: Option<(&Placed<'_>, usize)>, manifest: Option<&Manifest>) -> Context {
        let Self { release, environment, .. } = self;
        let mut system =
            System::new().project(&release.project).environment(environment).release(&release.version, &release.notes);
        let mut place = Place { environment: Some((*environment).clone()), ..Place::default() };
        if let Some((step, index)) = step {
            system = system.step(&step.name, index);
            place.step = Some(step.name.clone());
            if let Some(windlass_model::On::Role(role)) = step.on() {
                place.step_role = Some(role.clone());
            }
            let inputs = manifest.into_iter().flat_map(Manifest::package_inputs);
            let mut named = inputs.filter_map(|input| release.package(step.with.get(input)?.as_str()?));
            if let Some((id, pinned)) = named.next() {
                system = system.package(id.as_str(), &pinned.version);
            }
        }
        Context::new(Arc::clone(&self.variables), place).system(system)
    }
}
