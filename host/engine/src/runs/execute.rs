//! One run from start to its last word.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use windlass_effects::{
    CancelToken, Failure, Grants, Layers, PackageHandle, PackageInfo, SecretHandle, SessionHandle, Waist,
};
use windlass_model::{
    Machine, MachineName, Manifest, On, RunId, SecretText, Step,
    manifest::InputKind,
    process::Placed,
    task::{LogLevel, pool_node, run_node},
    template::Mode,
    variables::Context,
};
use windlass_packages::digest::Sha256;
use windlass_scheduler::{RunKey, RunOutcome};
use windlass_script::Ending;
use windlass_store::Batch;
use windlass_wasm::{LentPackage, LentSession, Limits, RunError, RunRequest};

use super::{
    commands::Commands,
    context::{self, RunVariables, Subject, TaskContext},
    journal::{StoredJournal, recorded},
    performer::RunPerformer,
};
use crate::{error::EngineError, logs::NodeLog, services::Services};

/// The handle of the one machine that a run is lent.
const SESSION: SessionHandle = SessionHandle(1);
/// Longest run whose step names no limit; the scheduler stops it long before.
const WALL: Duration = Duration::from_secs(7 * 24 * 3600);

/// Code of a failure to reach a machine on which nothing was begun.
const UNAVAILABLE: &str = "machine-unavailable";

/// A run that is to be executed.
pub struct Execution {
    /// Its key.
    pub run: RunKey,
    /// Its machine.
    pub machine: Option<MachineName>,
    /// Its attempt, from 1.
    pub attempt: u32,
    /// Set when it shall stop.
    pub cancel: CancelToken,
    /// What has gone wrong in its task so far.
    pub error: Option<String>,
}

/// How a run ended, and what is left to do once that is durable.
pub struct Ended {
    /// How.
    pub outcome: RunOutcome,
    /// Records that belong into the commit of its end.
    pub with: Batch,
    /// Results that the machine may forget then.
    pub settled: Option<(Arc<windlass_machines::Machine>, Vec<windlass_machines::Ticket>)>,
}

impl Ended {
    /// A run that ended before it could do anything.
    #[must_use]
    pub fn early(outcome: RunOutcome) -> Self {
        Self { outcome, with: Batch::new(), settled: None }
    }
}

/// Executes a run. Never fails: what goes wrong is its outcome.
pub async fn execute(services: &Arc<Services>, context: &Arc<TaskContext>, execution: Execution) -> Ended {
    let cancel = execution.cancel.clone();
    if step_of(context, execution.run).is_some_and(|step| step.uses.is_none()) {
        // A person agreed to it, or its child steps do its work.
        return Ended::early(RunOutcome::Succeeded);
    }
    match begin(services, context, &execution).await {
        Ok(begun) => {
            let result = match &context.subject {
                Subject::Deployment { release, .. } => run_step(services, release, &begun).await,
                Subject::Script { name, text, arguments } => run_script(services, name, text, arguments, &begun).await,
            };
            let outcome = judge(result, &begun.log, &cancel);
            services.logs.flush().await;
            let tickets = begun.performer.commands.take_tickets();
            let settled = begun.performer.machine.clone().map(|machine| (machine, tickets));
            Ended { outcome, with: begun.journal.take_waiting(), settled }
        }
        Err(failure) => {
            let unavailable = failure.code == UNAVAILABLE;
            let node = begin_node(context, &execution);
            let id = run_id(&execution, step_of(context, execution.run).is_some());
            if let Ok(log) =
                services.logs.open(execution.run.task, &node, id.as_str(), &windlass_effects::Masker::default()).await
            {
                let outcome = match judge(Err(failure), &log, &cancel) {
                    RunOutcome::Failed { error } if unavailable => RunOutcome::Unavailable { error },
                    outcome => outcome,
                };
                services.logs.flush().await;
                return Ended::early(outcome);
            }
            Ended::early(RunOutcome::Failed { error: failure.message })
        }
    }
}

/// The last word of a run, said in its log and told to the scheduler.
fn judge(result: Result<(), Failure>, log: &NodeLog, cancel: &CancelToken) -> RunOutcome {
    let failure = match result {
        Ok(()) => return RunOutcome::Succeeded,
        Err(failure) => failure,
    };
    if failure.code == "cancelled" && cancel.is_cancelled() {
        log.conclude(LogLevel::Warning, "cancelled");
        return RunOutcome::Cancelled;
    }
    log.conclude(LogLevel::Error, &failure.message);
    if let Some(fix) = failure.attribute("fix").filter(|fix| !fix.is_empty()) {
        log.conclude(LogLevel::Error, &format!("fix: {fix}"));
    }
    // One line for lists; the log has the rest.
    let error = failure.message.lines().next().unwrap_or_default().chars().take(500).collect();
    if failure.code == "unknown-outcome" { RunOutcome::Unknown { error } } else { RunOutcome::Failed { error } }
}

/// A run that is ready to go.
struct Begun {
    run: RunKey,
    step: Option<Step>,
    log: Arc<NodeLog>,
    context: Context,
    masker: windlass_effects::Masker,
    performer: Arc<RunPerformer>,
    journal: Arc<StoredJournal>,
    cancel: CancelToken,
    entries: Vec<windlass_effects::Entry>,
    plugin: Option<windlass_wasm::Plugin>,
    lent: BTreeMap<String, LentPackage>,
    secrets: BTreeMap<String, SecretHandle>,
    machine: Option<Machine>,
}

fn begin_node(context: &TaskContext, execution: &Execution) -> String {
    match step_of(context, execution.run) {
        Some(step) => match step.on() {
            Some(On::Pool(pool)) => pool_node(&step.name, pool),
            _ => run_node(&step.name, execution.machine.as_ref()),
        },
        None => script_node(context),
    }
}

fn script_node(context: &TaskContext) -> String {
    match &context.subject {
        Subject::Script { name, .. } => format!("{name}/server"),
        Subject::Deployment { .. } => String::new(),
    }
}

fn step_of(context: &TaskContext, run: RunKey) -> Option<Placed<'_>> {
    match &context.subject {
        Subject::Deployment { release, .. } => release.process.step(run.step as usize),
        Subject::Script { .. } => None,
    }
}

async fn begin(services: &Arc<Services>, task: &Arc<TaskContext>, execution: &Execution) -> Result<Begun, Failure> {
    let run = execution.run;
    let placed = step_of(task, run);
    let step = placed.map(|placed| placed.step.clone());
    let machine = match &execution.machine {
        Some(name) => Some(context::machine(services, name).await.map_err(engine)?),
        None => None,
    };
    let place = placed.map(|placed| (placed, run.step as usize));
    let RunVariables { mut context, masker, mut system } =
        task.for_run(services, place, machine.as_ref()).await.map_err(engine)?;
    if let Some(error) = &execution.error {
        system = system.set("Deployment.Error", error.as_str());
        context = context.system(system.clone());
    }
    let id = run_id(execution, step.is_some());
    let node = begin_node(task, execution);
    let log = services.logs.open(run.task, &node, id.as_str(), &masker).await.map_err(|error| engine(error.into()))?;
    let entries = recorded(services, &id).await.map_err(|error| engine(error.into()))?;

    let plugin = match (&task.subject, &step) {
        (Subject::Deployment { release, .. }, Some(step)) => {
            let pinned = step.uses.as_ref().and_then(|uses| release.guests.get(uses)).ok_or_else(|| missing(step))?;
            Some(services.plugins.load(services, &pinned.sha256).await.map_err(engine)?)
        }
        _ => None,
    };
    let manifest = plugin.as_ref().map(|plugin| Arc::clone(plugin.manifest()));
    let (secrets, secret_values) = lend_secrets(manifest.as_deref(), step.as_ref(), &context)?;
    let (lent, packages) = lend_packages(task, manifest.as_deref(), step.as_ref(), &context)?;
    if let Some(first) = lent.values().next() {
        context = context.system(system.package(&first.info.id, &first.info.version));
    }
    let reached = match &machine {
        Some(machine) => {
            let reached = reach(services, machine, &log, &execution.cancel).await;
            // What has begun there may go on without us: then it is no longer a machine that was never reached.
            let fresh = entries.is_empty();
            Some(reached.map_err(|failure| {
                let unavailable = fresh && failure.code == "unreachable";
                if unavailable { Failure { code: UNAVAILABLE.to_owned(), ..failure } } else { failure }
            })?)
        }
        None => None,
    };
    let performer = Arc::new(RunPerformer {
        services: Arc::clone(services),
        run,
        id: id.clone(),
        node: node.clone(),
        context: context.clone(),
        log: Arc::clone(&log),
        secrets: secret_values,
        packages,
        machine: reached,
        commands: Commands::default(),
    });
    let place = (node.rsplit_once('/').map_or("", |(step, _)| step), machine.as_ref().map(|machine| &machine.name));
    let journal = Arc::new(StoredJournal::new(Arc::clone(services), Arc::clone(task), run, id, place, &entries));
    let cancel = execution.cancel.clone();
    Ok(Begun { run, step, log, context, masker, performer, journal, cancel, entries, plugin, lent, secrets, machine })
}

async fn reach(
    services: &Services,
    machine: &Machine,
    log: &NodeLog,
    cancel: &CancelToken,
) -> Result<Arc<windlass_machines::Machine>, Failure> {
    let endpoint = crate::machines::endpoint(&machine.connection).map_err(engine)?;
    let reached = super::performer::until(cancel, services.machines.connect(&endpoint)).await;
    if let Err(failure) = &reached
        && failure.retryable
    {
        log.say(LogLevel::Warning, &format!("{} could not be reached", machine.name));
    }
    reached
}

fn run_id(execution: &Execution, is_step: bool) -> RunId {
    let run = execution.run;
    if is_step {
        RunId::new(run.task, run.step as usize, execution.machine.as_ref(), execution.attempt)
    } else {
        RunId::script(run.task)
    }
}

/// Inputs of kind secret become handles; their values stay with the performer.
#[allow(clippy::type_complexity, reason = "two halves of one thing")]
fn lend_secrets(
    manifest: Option<&Manifest>,
    step: Option<&Step>,
    context: &Context,
) -> Result<(BTreeMap<String, SecretHandle>, BTreeMap<SecretHandle, SecretText>), Failure> {
    let (mut handles, mut values) = (BTreeMap::new(), BTreeMap::new());
    let (Some(manifest), Some(step)) = (manifest, step) else {
        return Ok((handles, values));
    };
    for input in manifest.inputs.iter().filter(|input| input.kind == InputKind::Secret) {
        let Some(text) = step.with.get(&input.name).and_then(|value| value.as_str()) else {
            continue;
        };
        let expanded = context.expand(text, Mode::Strict).map_err(|error| invalid(&input.name, &error.to_string()))?;
        let handle = SecretHandle(format!("input:{}", input.name));
        handles.insert(input.name.clone(), handle.clone());
        values.insert(handle, SecretText::new(expanded.text));
    }
    Ok((handles, values))
}

/// Inputs of kind package become handles to what the release pinned.
#[allow(clippy::type_complexity, reason = "two halves of one thing")]
fn lend_packages(
    task: &TaskContext,
    manifest: Option<&Manifest>,
    step: Option<&Step>,
    context: &Context,
) -> Result<(BTreeMap<String, LentPackage>, BTreeMap<PackageHandle, (PackageInfo, Sha256)>), Failure> {
    let (mut lent, mut packages) = (BTreeMap::new(), BTreeMap::new());
    let (Some(manifest), Some(step), Subject::Deployment { release, .. }) = (manifest, step, &task.subject) else {
        return Ok((lent, packages));
    };
    for (number, input) in manifest.package_inputs().enumerate() {
        let Some(text) = step.with.get(input).and_then(|value| value.as_str()) else {
            continue;
        };
        let id = context.expand(text, Mode::Strict).map_err(|error| invalid(input, &error.to_string()))?.text;
        let Some((id, pinned)) = release.package(&id) else {
            let message = format!("the release {} does not hold the package {id}", release.version);
            return Err(Failure::new("not-found", message).fix(format!("windlass release create {}", release.project)));
        };
        let digest: Sha256 = pinned.sha256.parse().map_err(|_| invalid(input, "its digest is damaged"))?;
        let handle = PackageHandle(u32::try_from(number).unwrap_or(u32::MAX).saturating_add(1));
        let info = PackageInfo {
            id: id.to_string(),
            version: pinned.version.clone(),
            sha256: pinned.sha256.clone(),
            size: pinned.size,
        };
        lent.insert(input.to_owned(), LentPackage { handle, info: info.clone() });
        packages.insert(handle, (info, digest));
    }
    Ok((lent, packages))
}

fn grants(begun: &Begun, capabilities: BTreeSet<windlass_model::Capability>) -> Grants {
    let names = begun.context_secrets();
    Grants {
        capabilities,
        sessions: begun.machine.iter().map(|machine| (SESSION, machine.name.to_string())).collect(),
        packages: begun.lent.values().map(|lent| (lent.handle, lent.info.id.clone())).collect(),
        secrets: begun.secrets.values().cloned().chain(names).collect(),
    }
}

impl Begun {
    /// Every secret variable may be named by its own name: the run's project owns it.
    fn context_secrets(&self) -> Vec<SecretHandle> {
        use windlass_model::template::Lookup;
        self.context.names().into_iter().map(SecretHandle).collect()
    }

    fn waist(&self, grants: Grants) -> Arc<dyn Waist> {
        Arc::new(Layers::new(
            grants,
            Arc::clone(&self.journal),
            self.entries.clone(),
            self.masker.clone(),
            Arc::clone(&self.performer),
            Arc::clone(&self.log) as Arc<dyn windlass_effects::LineSink>,
            self.cancel.clone(),
        ))
    }
}

async fn run_step(services: &Arc<Services>, _release: &windlass_model::Release, begun: &Begun) -> Result<(), Failure> {
    let (Some(plugin), Some(step)) = (&begun.plugin, &begun.step) else {
        return Err(Failure::new("io", "the step has no plugin"));
    };
    let capabilities: BTreeSet<_> = plugin.manifest().capabilities.iter().cloned().collect();
    let wall = step.timeout_seconds.map_or(WALL, |seconds| Duration::from_secs(seconds.saturating_add(60)));
    let request = RunRequest {
        with: step.with.clone(),
        secrets: begun.secrets.clone(),
        packages: begun.lent.clone(),
        session: begun.machine.as_ref().map(|machine| LentSession { handle: SESSION, name: machine.name.to_string() }),
        grants: capabilities.clone(),
        limits: Limits { wall, ..Limits::default() },
    };
    let waist = begun.waist(grants(begun, capabilities));
    match services.wasm.run(plugin, request, waist).await {
        Ok(_) => Ok(()),
        Err(RunError::Failed(failure)) => Err(failure),
        Err(error) => Err(error.into_failure()),
    }
}

async fn run_script(
    services: &Arc<Services>,
    name: &str,
    text: &str,
    arguments: &BTreeMap<String, serde_json::Value>,
    begun: &Begun,
) -> Result<(), Failure> {
    let script =
        windlass_script::Script::compile(name, text).map_err(|error| Failure::new("invalid", error.to_string()))?;
    let capabilities: BTreeSet<_> = script.manifest().needs.iter().cloned().collect();
    let waist = begun.waist(grants(begun, capabilities));
    let request = windlass_script::Request {
        arguments: arguments.clone(),
        task: Some(begun.run.task),
        sessions: BTreeMap::new(),
        time_limit: Some(WALL),
    };
    match services.scripts.run(Arc::new(script), request, waist).await {
        Ending::Finished => Ok(()),
        Ending::Failed(diagnostic) => Err(Failure::new(diagnostic.code.clone(), diagnostic.to_string())),
        Ending::Cancelled => Err(Failure::cancelled()),
        Ending::Stopped(stop) => Err(Failure::new("host", stop.to_string())),
    }
}

fn engine(error: EngineError) -> Failure {
    let failure = Failure::new(error.code, error.message);
    match error.fix {
        Some(fix) => failure.fix(fix),
        None => failure,
    }
}

fn invalid(input: &str, why: &str) -> Failure {
    Failure::new("invalid", format!("the input {input}: {why}"))
}

fn missing(step: &Step) -> Failure {
    Failure::new("not-found", format!("the release does not pin a plugin for step {}", step.name))
        .fix("create a new release")
}
