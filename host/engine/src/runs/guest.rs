//! Driving the guest of a run, whichever kind it is, over any waist: the real one, or one that only replays.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use windlass_effects::{Failure, Grants, SecretHandle, SessionHandle, Stop, Waist};
use windlass_model::{Capability, template::Lookup};
use windlass_script::{Ending, Script};
use windlass_wasm::{LentSession, Limits, RunError, RunRequest};

use super::{begin::Parts, context::Subject};
use crate::services::Services;

/// The handle of the one machine that a run is lent.
const SESSION: SessionHandle = SessionHandle(1);
/// Longest run whose step names no limit; the scheduler stops it long before.
const WALL: Duration = Duration::from_secs(7 * 24 * 3600);

/// What the guest of a run may do.
#[must_use]
pub fn grants(parts: &Parts) -> Grants {
    // Every secret variable may be named by its own name: the run's project owns it.
    let names = parts.context.names().into_iter().map(SecretHandle);
    Grants {
        capabilities: capabilities(parts),
        sessions: parts.machine.iter().map(|machine| (SESSION, machine.name.to_string())).collect(),
        packages: parts.lent.values().map(|lent| (lent.handle, lent.info.id.clone())).collect(),
        secrets: parts.secrets.values().cloned().chain(names).collect(),
    }
}

fn capabilities(parts: &Parts) -> BTreeSet<Capability> {
    match (&parts.plugin, &parts.task.subject) {
        (Some(plugin), _) => plugin.manifest().capabilities.iter().cloned().collect(),
        (None, Subject::Script { name, text, .. }) => {
            // One that does not compile does nothing.
            Script::compile(name, text)
                .map(|script| script.manifest().needs.iter().cloned().collect())
                .unwrap_or_default()
        }
        _ => BTreeSet::new(),
    }
}

/// Runs the guest to its end, or until the waist stops it.
///
/// # Errors
/// Why the waist stopped it.
pub async fn run(services: &Services, parts: &Parts, waist: Arc<dyn Waist>) -> Result<Result<(), Failure>, Stop> {
    match &parts.task.subject {
        Subject::Deployment { .. } => run_step(services, parts, waist).await,
        Subject::Script { name, text, arguments } => run_script(services, parts, name, text, arguments, waist).await,
    }
}

async fn run_step(services: &Services, parts: &Parts, waist: Arc<dyn Waist>) -> Result<Result<(), Failure>, Stop> {
    let (Some(plugin), Some(step)) = (&parts.plugin, &parts.step) else {
        return Ok(Err(Failure::new("io", "the step has no plugin")));
    };
    let wall = step.timeout_seconds.map_or(WALL, |seconds| Duration::from_secs(seconds.saturating_add(60)));
    let request = RunRequest {
        with: step.with.clone(),
        secrets: parts.secrets.clone(),
        packages: parts.lent.clone(),
        session: parts.machine.as_ref().map(|machine| LentSession { handle: SESSION, name: machine.name.to_string() }),
        grants: capabilities(parts),
        limits: Limits { wall, ..Limits::default() },
    };
    match services.wasm.run(plugin, request, waist).await {
        Ok(_) => Ok(Ok(())),
        Err(RunError::Stopped(stop)) => Err(stop),
        Err(error) => Ok(Err(error.into_failure())),
    }
}

async fn run_script(
    services: &Services,
    parts: &Parts,
    name: &str,
    text: &str,
    arguments: &BTreeMap<String, serde_json::Value>,
    waist: Arc<dyn Waist>,
) -> Result<Result<(), Failure>, Stop> {
    let script = match Script::compile(name, text) {
        Ok(script) => script,
        Err(error) => return Ok(Err(Failure::new("invalid", error.to_string()))),
    };
    let request = windlass_script::Request {
        arguments: arguments.clone(),
        task: Some(parts.run.task),
        sessions: BTreeMap::new(),
        time_limit: Some(WALL),
    };
    match services.scripts.run(Arc::new(script), request, waist).await {
        Ending::Finished => Ok(Ok(())),
        Ending::Failed(diagnostic) => Ok(Err(Failure::new(diagnostic.code.clone(), diagnostic.to_string()))),
        Ending::Cancelled => Ok(Err(Failure::cancelled())),
        Ending::Stopped(stop) => Err(stop),
    }
}
