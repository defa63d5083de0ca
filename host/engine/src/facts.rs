//! Conditions of steps: whether what a step's `if:` says holds, once the steps before it have ended.

use std::sync::Arc;

use windlass_effects::Masker;
use windlass_model::{process::Placed, task::LogLevel};

use crate::{
    runs::{Subject, TaskContext},
    services::Services,
};

/// Whether the condition of a step holds. One that cannot be told does not, and the step's log says why.
pub async fn holds(services: &Arc<Services>, context: &TaskContext, step: u32, error: Option<String>) -> bool {
    let Subject::Deployment { release, .. } = &context.subject else {
        return false;
    };
    let Some(placed) = release.process.step(step as usize) else {
        return false;
    };
    let Some(condition) = &placed.condition else {
        return true;
    };
    match judge(services, context, placed, step, condition, error).await {
        Ok(holds) => holds,
        Err(why) => {
            let text = format!("its condition cannot be told, and counts as false: {why}");
            let log = services.logs.open(context.task, placed.name.as_str(), "", &Masker::default()).await;
            match log {
                Ok(log) => log.say(LogLevel::Error, &text),
                Err(error) => tracing::warn!(task = %context.task, step, %error, "{text}"),
            }
            false
        }
    }
}

async fn judge(
    services: &Services,
    context: &TaskContext,
    placed: Placed<'_>,
    step: u32,
    condition: &str,
    error: Option<String>,
) -> Result<bool, String> {
    let known = context.known(services).await.map_err(|error| error.message)?;
    let variables = context.seen_by(&known, Some((placed, step as usize)), None);
    let mut system = variables.system;
    if let Some(error) = error {
        system = system.set("Deployment.Error", error);
    }
    variables.context.system(system).holds(condition).map_err(|error| error.to_string())
}
