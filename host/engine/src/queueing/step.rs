//! What one step means for the scheduler: where it runs, what it keeps from others, what it waits for.

use std::sync::Arc;

use windlass_model::{
    EnvironmentName, Machine, MachineName, Manifest, On, Release, Role,
    manifest::{LockNeed, LockScope, RunsOn},
    process::{Approval, OnExpiry, Placed, StepIsolation},
    template::Mode,
    variables::{Context, VariableSet},
    views::DeployRequest,
};
use windlass_scheduler::{Approval as Agreement, Choice, Isolation, StepPlan, Where};

use super::settings;
use crate::error::EngineError;

/// What the steps of one deployment are planned with.
pub struct Surroundings<'d> {
    /// The release.
    pub release: &'d Release,
    /// Where it goes.
    pub environment: &'d EnvironmentName,
    /// All machines there are.
    pub machines: &'d [Machine],
    /// Variables of the release.
    pub variables: Arc<VariableSet>,
    /// What was asked for.
    pub request: &'d DeployRequest,
}

/// Plans one step.
///
/// # Errors
/// When it does not say where it runs, or one of its texts cannot be told yet.
pub fn plan_step(
    around: &Surroundings<'_>,
    index: usize,
    step: &Placed<'_>,
    manifest: Option<&Manifest>,
) -> Result<StepPlan, EngineError> {
    let context = around.context(Some((step, index)), manifest);
    let (place, nobody) = around.place(step, manifest)?;
    let mut plan = StepPlan::new(step.name.clone(), place);
    plan.skip = around.left_out(step).or(nobody);
    plan.start = step.start;
    plan.child = step.parent.is_some();
    plan.condition = step.when;
    plan.asks_fact = step.condition.is_some();
    plan.approval = step.approval.as_ref().map(|approval| agreement(step, approval, &context)).transpose()?;
    plan.window = step.rolling.map(|rolling| rolling.window);
    plan.needs_packages =
        manifest.is_some_and(|manifest| manifest.package_inputs().any(|input| step.with.contains_key(input)));
    plan.isolation = around.isolation(step, manifest, &context)?;
    plan.hold = step.hold;
    plan.required = step.required;
    plan.retries = step.retries;
    plan.backoff_ms = step.retry_after_seconds.saturating_mul(1000);
    if let Some(seconds) = step.timeout_seconds {
        plan.timeout_ms = Some(seconds.saturating_mul(1000));
    }
    Ok(plan)
}

impl Surroundings<'_> {
    /// Where a step runs, and why it does not if nothing there matches.
    fn place(&self, step: &Placed<'_>, manifest: Option<&Manifest>) -> Result<(Where, Option<String>), EngineError> {
        let usable = |machine: &&Machine| {
            let only = &self.request.machines;
            !machine.disabled && (only.is_empty() || only.contains(&machine.name))
        };
        match step.on() {
            None if manifest.is_some_and(|manifest| manifest.runs_on == RunsOn::Machine) => {
                let message = format!("step {} runs on machines, and does not say which", step.name);
                Err(EngineError::invalid("no-machines", message).fix("add on: { role: … } to the step"))
            }
            None => Ok((Where::Server, None)),
            Some(On::Role(role)) => {
                let found = self.targets(role, usable);
                let nobody =
                    found.is_empty().then(|| format!("no machine of {} has the role {role}", self.environment));
                Ok((Where::Machines(found), nobody))
            }
            Some(On::Machine(name)) => {
                let found = self.machines.iter().filter(usable).find(|machine| machine.name == *name);
                let nobody =
                    found.is_none().then(|| format!("the machine {name} does not exist, is disabled or left out"));
                Ok((Where::Machines(found.map(|machine| machine.name.clone()).into_iter().collect()), nobody))
            }
            // Who works for it is asked when the step is ready.
            Some(On::Pool(pool)) => Ok((Where::Pool(pool.clone()), None)),
        }
    }

    fn targets(&self, role: &Role, usable: impl Fn(&&Machine) -> bool) -> Vec<MachineName> {
        let here = |machine: &&Machine| machine.environments.contains(self.environment) && machine.roles.contains(role);
        self.machines.iter().filter(usable).filter(here).map(|machine| machine.name.clone()).collect()
    }

    /// Why a step does not run in this deployment, whatever its machines.
    fn left_out(&self, step: &Placed<'_>) -> Option<String> {
        let skipped = &self.request.skip;
        if skipped.contains(&step.name) || step.parent.is_some_and(|parent| skipped.contains(&parent.name)) {
            return Some("it was left out of this deployment".to_owned());
        }
        if step.disabled {
            return Some("it is disabled".to_owned());
        }
        let elsewhere = !step.environments.is_empty() && !step.environments.contains(self.environment);
        elsewhere.then(|| format!("it is not meant for {}", self.environment))
    }

    fn isolation(
        &self,
        step: &Placed<'_>,
        manifest: Option<&Manifest>,
        context: &Context,
    ) -> Result<Isolation, EngineError> {
        if !step.steps.is_empty() && step.hold == LockScope::Call {
            // It does nothing itself: its child steps keep from others what they need.
            return Ok(Isolation::Shared);
        }
        let mut locks = Vec::new();
        if let Some(manifest) = manifest {
            locks.extend(manifest.locks.iter().map(|need| filled(need, step, manifest, context)));
        }
        for need in &step.locks {
            locks.push(LockNeed { resource: lock_name(step, &need.resource, context)?, ..need.clone() });
        }
        let bypass = settings::flag(context, settings::BYPASS)?;
        let wanted = match (step.isolation, self.release.process.isolation, bypass) {
            (StepIsolation::Declared, _, Some(true)) if locks.is_empty() => StepIsolation::Shared,
            (StepIsolation::Declared, _, Some(false)) if locks.is_empty() => StepIsolation::Exclusive,
            (StepIsolation::Declared, all, _) if step.locks.is_empty() => all,
            (own, ..) => own,
        };
        Ok(match wanted {
            StepIsolation::Exclusive => Isolation::Exclusive,
            StepIsolation::Shared => Isolation::Shared,
            StepIsolation::Declared if !locks.is_empty() => Isolation::Resources(locks),
            StepIsolation::Declared if matches!(step.on(), Some(On::Pool(_))) => Isolation::Shared,
            StepIsolation::Declared => Isolation::Exclusive,
        })
    }
}

fn lock_name(step: &Placed<'_>, resource: &str, context: &Context) -> Result<String, EngineError> {
    let invalid = |why: String| {
        EngineError::invalid("lock-name", format!("step {}: the lock {resource:?}: {why}", step.name))
            .fix("use what is known before the first step, then create a new release")
    };
    let expanded = context.expand(resource, Mode::Strict).map_err(|error| invalid(error.to_string()))?;
    if expanded.secrets_used { Err(invalid("it would show a secret".to_owned())) } else { Ok(expanded.text) }
}

/// What a person is asked. What only later steps bring to light stays as it was written.
fn agreement(step: &Placed<'_>, approval: &Approval, context: &Context) -> Result<Agreement, EngineError> {
    let invalid = |why: String| {
        EngineError::invalid("instructions", format!("step {}: the instructions: {why}", step.name))
            .fix("correct them, then create a new release")
    };
    let text = context.expand(&approval.instructions, Mode::Leave).map_err(|error| invalid(error.to_string()))?;
    if text.secrets_used {
        return Err(invalid("they would show a secret".to_owned()));
    }
    Ok(Agreement {
        instructions: text.text,
        responsible: approval.responsible.clone(),
        expires_ms: approval.expires_after_seconds.map(|seconds| seconds.saturating_mul(1000)),
        on_expiry: match approval.on_expiry {
            OnExpiry::Abort => Choice::Abort,
            OnExpiry::Proceed => Choice::Proceed,
        },
        keeps_tag: approval.block_concurrent,
    })
}

/// A lock's name with the step's inputs, or what they are without a value, in place of `{input}`.
fn filled(need: &LockNeed, step: &Placed<'_>, manifest: &Manifest, context: &Context) -> LockNeed {
    let mut resource = need.resource.clone();
    for input in &manifest.inputs {
        if let Some(value) = step.with.get(&input.name).or(input.default.as_ref()) {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            resource = resource.replace(&format!("{{{}}}", input.name), &text);
        }
    }
    // What only a machine brings to light stays as it was written: on that machine it is the same for everyone.
    match context.expand(&resource, Mode::Leave) {
        Ok(expanded) if !expanded.secrets_used => resource = expanded.text,
        _ => {}
    }
    LockNeed { resource, ..need.clone() }
}
