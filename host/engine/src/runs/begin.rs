//! What a run needs before its guest starts: its guest, variables, journal, and what is lent to it.
//!
//! Everything but the machine is gathered without leaving the server, so that a replay can do the same.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use windlass_effects::{
    EffectClass, Entry, EntryState, Failure, Masker, PackageHandle, PackageInfo, SecretHandle, UNKNOWN_OUTCOME,
};
use windlass_model::{
    Machine, MachineName, On, RunId, SecretText, Step,
    process::Placed,
    task::{LogLevel, pool_node, run_node},
    variables::Context,
};
use windlass_packages::digest::Sha256;
use windlass_scheduler::{RunKey, progress::Resume};
use windlass_store::{Key, Seq};
use windlass_wasm::{LentPackage, Plugin};

use super::{
    commands::Commands,
    context::{self, RunVariables, Subject, TaskContext},
    execute::Execution,
    journal::{Aside, StoredJournal, recorded},
    lend::{lend_packages, lend_secrets},
    performer::{RunPerformer, until},
    pinned::Pinned,
    waits,
};
use crate::{
    error::EngineError,
    logs::NodeLog,
    records::{PINS, Pin, RESUMES},
    services::Services,
};

/// Code of a failure to reach a machine on which nothing was begun.
pub const UNAVAILABLE: &str = "machine-unavailable";

/// What a run is made of, before anything is reached.
pub struct Parts {
    pub task: Arc<TaskContext>,
    pub run: RunKey,
    pub id: RunId,
    pub node: String,
    pub step: Option<Step>,
    pub context: Context,
    pub masker: Masker,
    pub entries: Vec<Entry>,
    pub plugin: Option<Plugin>,
    pub lent: BTreeMap<String, LentPackage>,
    pub packages: BTreeMap<PackageHandle, (PackageInfo, Sha256)>,
    pub secrets: BTreeMap<String, SecretHandle>,
    pub secret_values: BTreeMap<SecretHandle, SecretText>,
    /// Its machine as it is now.
    pub machine: Option<Machine>,
    pin: Option<Pin>,
    /// Where its machine was when the run began, if that is another place now.
    moved_from: Option<String>,
}

/// A run that is ready to go.
pub struct Begun {
    pub parts: Parts,
    pub log: Arc<NodeLog>,
    pub performer: Arc<RunPerformer>,
    pub journal: Arc<StoredJournal>,
    pub cancel: windlass_effects::CancelToken,
}

/// Why a run cannot start.
pub enum Unready {
    /// It cannot.
    Failed(Failure),
    /// Not yet: its machine is away, and it is suspended.
    Suspended,
}

impl From<Failure> for Unready {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

pub fn begin_node(context: &TaskContext, execution: &Execution) -> String {
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

pub fn step_of(context: &TaskContext, run: RunKey) -> Option<Placed<'_>> {
    match &context.subject {
        Subject::Deployment { release, .. } => release.process.step(run.step as usize),
        Subject::Script { .. } => None,
    }
}

/// What a run is gathered for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// To run.
    Run,
    /// To replay what is recorded: its machine may be gone.
    Replay,
}

/// Gathers what a run is made of.
///
/// # Errors
/// What is gone or wrong, with what to do about it.
pub async fn gather(
    services: &Services,
    task: &Arc<TaskContext>,
    execution: &Execution,
    purpose: Purpose,
) -> Result<Parts, Failure> {
    let run = execution.run;
    let placed = step_of(task, run);
    let step = placed.map(|placed| placed.step.clone());
    let id = run_id(execution, step.is_some());
    let entries = recorded(services, &id).await.map_err(|error| engine(error.into()))?;
    let pinned = match entries.is_empty() {
        true => None,
        false => {
            PINS.get(&*services.shared.store, Key::of_text(id.as_str())).await.map_err(|error| engine(error.into()))?
        }
    };
    let was = pinned.as_ref().and_then(|pin| pin.machine.clone());
    let machine = match &execution.machine {
        Some(_) if purpose == Purpose::Replay && was.is_some() => was.clone(),
        Some(name) => {
            Some(context::machine(services, name).await.map_err(|error| removed(name, engine(error), &entries))?)
        }
        None => None,
    };
    let error = pinned.as_ref().map_or_else(|| execution.error.clone(), |pin| pin.error.clone());
    let known = match pinned {
        Some(pin) => task.pinned(services, Seq(pin.upto)).await.map_err(engine)?,
        None => task.known(services).await.map_err(engine)?,
    };
    let place = placed.map(|placed| (placed, run.step as usize));
    let seen = task.seen_by(&known, place, was.as_ref().or(machine.as_ref()));
    let RunVariables { mut context, masker, mut system } = seen;
    if let Some(error) = &error {
        system = system.set("Deployment.Error", error.as_str());
        context = context.system(system.clone());
    }
    let plugin = load_plugin(services, task, step.as_ref()).await?;
    let manifest = plugin.as_ref().map(|plugin| Arc::clone(plugin.manifest()));
    let (secrets, secret_values) = lend_secrets(manifest.as_deref(), step.as_ref(), &context)?;
    let (lent, packages) = lend_packages(task, manifest.as_deref(), step.as_ref(), &context)?;
    if let Some(first) = lent.values().next() {
        context = context.system(system.package(&first.info.id, &first.info.version));
    }
    let pin = entries.is_empty().then(|| Pin { upto: known.upto().0, machine: machine.clone(), error });
    let moved_from = was.zip(machine.as_ref()).and_then(|(was, now)| moved(&was, now));
    let node = begin_node(task, execution);
    let task = Arc::clone(task);
    Ok(Parts {
        task,
        run,
        id,
        node,
        step,
        context,
        masker,
        entries,
        plugin,
        lent,
        packages,
        secrets,
        secret_values,
        machine,
        pin,
        moved_from,
    })
}

/// Makes a run ready to go.
///
/// # Errors
/// What is gone or wrong, or that its machine is away for now.
pub async fn begin(services: &Arc<Services>, task: &Arc<TaskContext>, execution: &Execution) -> Result<Begun, Unready> {
    let mut parts = gather(services, task, execution, Purpose::Run).await?;
    let pin = parts.pin.take();
    let Parts { run, id, node, context, masker, machine, .. } = &parts;
    let log = services.logs.open(run.task, node, id.as_str(), masker).await;
    let log = log.map_err(|error| engine(error.into()))?;
    let waited = parts.entries.last().filter(|entry| entry.state == EntryState::Started);
    let resume = match waited {
        Some(entry) => stored_resume(services, id).await?.map(|resume| (entry.index, resume)),
        None => None,
    };
    if let (Some(from), Some(machine)) = (&parts.moved_from, machine) {
        return Err(Unready::Failed(gone(elsewhere(machine, from), &parts.entries)));
    }
    let aside = Aside { pin, told: resume.is_some() };
    let place = (node.rsplit_once('/').map_or("", |(step, _)| step), machine.as_ref().map(|machine| &machine.name));
    let (own, task) = (Arc::clone(services), Arc::clone(&parts.task));
    let journal = Arc::new(StoredJournal::new(own, task, *run, id.clone(), place, &parts.entries, aside));
    let tries = parts.entries.iter().filter(|entry| entry.tries > 0).map(|entry| (entry.index, entry.tries));
    let mut performer = RunPerformer {
        services: Arc::clone(services),
        run: *run,
        id: id.clone(),
        node: node.clone(),
        log: Arc::clone(&log),
        pinned: Pinned {
            context: context.clone(),
            secrets: parts.secret_values.clone(),
            packages: parts.packages.clone(),
        },
        machine: None,
        lock: execution.lock.clone(),
        commands: Commands::default(),
        masker: masker.clone(),
        resume: Mutex::new(resume),
        tries: Mutex::new(tries.collect()),
    };
    if let Some(machine) = machine {
        let began = !parts.entries.is_empty();
        performer.machine = Some(reach(services, &performer, machine, began, execution).await?);
    }
    let (performer, cancel) = (Arc::new(performer), execution.cancel.clone());
    Ok(Begun { parts, log, performer, journal, cancel })
}

async fn stored_resume(services: &Services, id: &RunId) -> Result<Option<Resume>, Failure> {
    let stored = RESUMES.get(&*services.shared.store, id.as_str()).await.map_err(|error| engine(error.into()))?;
    Ok(stored.map(|stored| stored.value))
}

/// Reaches the machine of a run. One that has begun waits for a machine that is away.
async fn reach(
    services: &Services,
    performer: &RunPerformer,
    machine: &Machine,
    began: bool,
    execution: &Execution,
) -> Result<Arc<windlass_machines::Machine>, Unready> {
    let endpoint = crate::machines::endpoint(&machine.connection).map_err(engine)?;
    let failure = match until(&execution.cancel, services.machines.connect(&endpoint)).await {
        Ok(reached) => return Ok(reached),
        Err(failure) => failure,
    };
    if !failure.retryable {
        return Err(Unready::Failed(failure));
    }
    if began {
        let now = services.shared.clock.now_ms();
        let wait = services.offline.wait(execution.run, machine.name.as_str(), &failure, now);
        if let Some(wait) = wait
            && let windlass_effects::Attempt::Suspended(_) =
                waits::suspend_with(performer, wait.on, wait.text, wait.with, &execution.cancel).await
        {
            return Err(Unready::Suspended);
        }
    }
    performer.log.say(LogLevel::Warning, &format!("{} could not be reached", machine.name));
    // What has begun there may go on without us: then it is no longer a machine that was never reached.
    let unavailable = !began && failure.code == "unreachable";
    let failure = if unavailable { Failure { code: UNAVAILABLE.to_owned(), ..failure } } else { failure };
    Err(Unready::Failed(failure))
}

/// What is told of a machine that is not known any more, by its name.
fn removed(name: &MachineName, failure: Failure, entries: &[Entry]) -> Failure {
    if failure.code != "not-found" || entries.is_empty() {
        return failure;
    }
    let message = format!("the machine {name} was removed from the server after this step had begun on it");
    let fix = format!(
        "look on the machine for what the step did, add {name} again with windlass machine add, and deploy again"
    );
    gone(Failure::new("machine-removed", message).fix(fix), entries)
}

/// What is told of something that is gone while the run may have work going on: then nobody can know how that ends.
fn gone(failure: Failure, entries: &[Entry]) -> Failure {
    let pending = |entry: &Entry| entry.state == EntryState::Started && entry.class == EffectClass::Ticketed;
    let Some(last) = entries.last().filter(|entry| pending(entry)) else { return failure };
    let message = format!("{}; nobody can know how this ended: {}", failure.message, last.in_words());
    let fix = failure.attribute("fix").unwrap_or_default().to_owned();
    Failure::new(UNKNOWN_OUTCOME, message).fix(fix)
}

/// Where a machine was, if that is another place than where it is now.
fn moved(was: &Machine, now: &Machine) -> Option<String> {
    let place = |machine: &Machine| match &machine.connection {
        windlass_model::Connection::Local { home } => ("this machine".to_owned(), home.clone()),
        windlass_model::Connection::Ssh { host, port, user, home, .. } => {
            (format!("{user}@{host}:{port}"), home.clone())
        }
    };
    let (before, after) = (place(was), place(now));
    let home = before.1.as_ref().map(|home| format!(" in {home}")).unwrap_or_default();
    (before != after).then(|| format!("{}{home}", before.0))
}

fn elsewhere(machine: &Machine, from: &str) -> Failure {
    let name = &machine.name;
    let message = format!("the machine {name} was {from} when this step began on it, and is another one now");
    let fix = format!("make {name} what it was with windlass apply and retry, or deploy again");
    Failure::new("machine-changed", message).fix(fix)
}

/// The plugin that the release pinned for a step.
async fn load_plugin(services: &Services, task: &TaskContext, step: Option<&Step>) -> Result<Option<Plugin>, Failure> {
    let (Subject::Deployment { release, .. }, Some(step)) = (&task.subject, step) else {
        return Ok(None);
    };
    let uses = step.uses.as_ref().ok_or_else(|| missing(step))?;
    let pinned = release.guests.get(uses).ok_or_else(|| missing(step))?;
    let loaded = services.plugins.load(services, &pinned.sha256).await;
    loaded.map(Some).map_err(|error| {
        let mut failure = engine(error);
        if failure.code == "not-found" {
            let (id, version) = (&uses.id, &pinned.version);
            failure = Failure::new(
                "plugin-gone",
                format!(
                    "the component of {id} {version} that the release {} pinned is gone from the server (SHA-256 {})",
                    release.version, pinned.sha256
                ),
            )
            .fix(format!("windlass plugin install {id}.wasm, with the very file of {version}, and retry"));
        }
        failure
    })
}

pub fn run_id(execution: &Execution, is_step: bool) -> RunId {
    let run = execution.run;
    if is_step {
        RunId::new(run.task, run.step as usize, execution.machine.as_ref(), execution.attempt)
    } else {
        RunId::script(run.task)
    }
}

pub fn engine(error: EngineError) -> Failure {
    let failure = Failure::new(error.code, error.message);
    match error.fix {
        Some(fix) => failure.fix(fix),
        None => failure,
    }
}

fn missing(step: &Step) -> Failure {
    Failure::new("not-found", format!("the release does not pin a plugin for step {}", step.name))
        .fix("create a new release")
}
