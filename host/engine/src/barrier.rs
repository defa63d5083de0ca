//! The package barrier: every package reaches every machine before any step installs.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use futures::{StreamExt, stream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use windlass_effects::CancelToken;
use windlass_machines::{Machine, MachineError};
use windlass_model::{
    MachineName, Release, RunState, TaskId,
    task::{LogLevel, PACKAGES_NODE, TaskChange},
    template::Mode,
};
use windlass_packages::{
    digest::Sha256,
    transfer::{AcquireOptions, Delivery, MachineReport, Parcel, Status, TransferEvent, acquire as transfer},
};
use windlass_scheduler::{Event, TaskPlan};
use windlass_store::{Batch, StoreError};

use crate::{
    board::packages_node,
    error::EngineError,
    holdings,
    logs::NodeLog,
    machines::{endpoint, place},
    packages::{Mailbox, form, source},
    runs::{self, Subject, TaskContext},
    services::Services,
};

/// Machines that are connected to at once.
const REACHED_AT_ONCE: usize = 20;

/// A package that a machine needs, as the release pinned it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Need {
    /// Its id.
    pub package: String,
    /// Its version.
    pub version: String,
    /// Digest of its plain payload.
    pub sha256: String,
}

impl Need {
    /// What people call it.
    fn label(&self) -> String {
        format!("{} {}", self.package, self.version)
    }
}

/// What the steps on each machine need.
pub type Needs = BTreeMap<MachineName, BTreeSet<Need>>;

/// Brings all packages of a task to its machines and reports each machine to the scheduler.
pub async fn acquire(
    services: Arc<Services>,
    context: Arc<TaskContext>,
    machines: Vec<MachineName>,
    cancel: CancelToken,
) {
    let task = context.task;
    let log = services.logs.open(task, PACKAGES_NODE, "", &windlass_effects::Masker::default()).await;
    let Ok(log) = log else { return };
    let needs = match needed(&services, &context).await {
        Ok(needs) => needs,
        Err(error) => {
            for name in &machines {
                report(&services, task, name, Err(Missed::other(error.message.clone())), Batch::new(), &log).await;
            }
            return;
        }
    };
    let reached = machines.clone().into_iter().map(|name| {
        let (services, cancel) = (Arc::clone(&services), cancel.clone());
        let wanted = needs.get(&name).cloned().unwrap_or_default();
        async move {
            let delivery = delivery(&services, &name, &wanted, &cancel).await;
            (name, delivery)
        }
    });
    let mut reached = stream::iter(reached).buffered(REACHED_AT_ONCE);
    let (mut plan, mut places) = (Vec::new(), BTreeMap::new());
    while let Some((name, delivery)) = reached.next().await {
        match delivery {
            Ok((delivery, place)) => {
                plan.push(delivery);
                places.insert(name, place);
            }
            Err(error) => report(&services, task, &name, Err(error), Batch::new(), &log).await,
        }
    }
    let (sender, receiver) = mpsc::channel(256);
    let follower = tokio::spawn(follow(Arc::clone(&services), task, Arc::clone(&log), receiver, machines.clone()));
    let (stop, options) = (CancellationToken::new(), AcquireOptions::default());
    let result = {
        let work = transfer(plan, &options, sender, &stop);
        tokio::pin!(work);
        tokio::select! {
            report = &mut work => report,
            () = cancel.cancelled() => {
                stop.cancel();
                work.await
            }
        }
    };
    // The follower ends with the transfer's last event.
    let _ = follower.await;
    for machine in &result.machines {
        let Some(name) = machines.iter().find(|name| name.as_str() == &*machine.machine) else {
            continue;
        };
        let failed = result.failures().find(|failure| failure.machine == &*machine.machine);
        let reached = match failed {
            Some(failure) => {
                // The transfer says only what broke: whether the machine is away altogether is asked once more.
                let unavailable =
                    !cancel.is_cancelled() && reach(&services, name).await.is_err_and(|error| error.unavailable);
                Err(Missed { error: failure.to_string(), unavailable })
            }
            None => Ok(()),
        };
        let mut with = Batch::new();
        let noted = places.get(name).map_or(Ok(()), |place| note(&services, &mut with, place, machine));
        if let Err(error) = noted {
            // Plans know less, and the deployment goes on.
            tracing::warn!(machine = %name, %error, "what the machine holds is not noted");
            with = Batch::new();
        }
        report(&services, task, name, reached, with, &log).await;
    }
}

/// Notes what a machine holds now, and how fast it got it.
fn note(services: &Services, batch: &mut Batch, place: &str, machine: &MachineReport) -> Result<(), StoreError> {
    for package in &machine.packages {
        match package.status {
            Status::Cached | Status::Sent { .. } => holdings::note(batch, place, &package.blob.sha256, true)?,
            Status::Failed { .. } => holdings::note(batch, place, &package.blob.sha256, false)?,
            Status::Cancelled | Status::NotTried => {}
        }
    }
    services.rates.put(batch, place)
}

async fn needed(services: &Services, context: &TaskContext) -> Result<Needs, EngineError> {
    let task = context.task;
    let plan = services.driver.look(move |state| state.task(task).map(|(plan, _)| Arc::clone(plan))).await?;
    match plan {
        Some(plan) => needs(services, context, &plan).await,
        // It is over already: nobody waits for packages any more.
        None => Ok(Needs::new()),
    }
}

/// Which packages each machine needs: those of all steps that run there.
///
/// # Errors
/// When a step names a package that cannot be told, or that the release does not hold.
pub async fn needs(services: &Services, context: &TaskContext, plan: &TaskPlan) -> Result<Needs, EngineError> {
    let mut needs = Needs::new();
    let Subject::Deployment { release, .. } = &context.subject else {
        return Ok(needs);
    };
    let known = context.known(services).await?;
    let mut machines = BTreeMap::new();
    for (index, (step, planned)) in release.process.all_steps().zip(&plan.steps).enumerate() {
        let guest = step.uses.as_ref().and_then(|uses| release.guests.get(uses));
        let Some(guest) = guest.filter(|_| planned.skip.is_none()) else {
            continue;
        };
        let plugin = services.plugins.load(services, &guest.sha256).await?;
        for text in plugin.manifest().package_inputs().filter_map(|input| step.with.get(input)?.as_str()) {
            // Most name it outright, which is the same on every machine.
            let outright = if text.contains("#{") { None } else { Some(pinned(release, text)?) };
            for name in (0..planned.runs()).filter_map(|place| planned.machine(place)) {
                let need = match &outright {
                    Some(need) => need.clone(),
                    None => {
                        if !machines.contains_key(name) {
                            machines.insert(name.clone(), runs::machine(services, name).await?);
                        }
                        let variables = context.seen_by(&known, Some((step, index)), machines.get(name)).context;
                        let expanded = variables.expand(text, Mode::Strict);
                        let invalid = |error| EngineError::invalid("template", format!("step {}: {error}", step.name));
                        pinned(release, &expanded.map_err(invalid)?.text)?
                    }
                };
                needs.entry(name.clone()).or_default().insert(need);
            }
        }
    }
    Ok(needs)
}

fn pinned(release: &Release, id: &str) -> Result<Need, EngineError> {
    let (id, pinned) = release.package(id).ok_or_else(|| {
        EngineError::not_found("package", id).fix(format!("windlass release create {}", release.project))
    })?;
    Ok(Need { package: id.to_string(), version: pinned.version.clone(), sha256: pinned.sha256.clone() })
}

/// Why a machine did not get its packages.
struct Missed {
    error: String,
    /// Whether it could not be reached at all.
    unavailable: bool,
}

impl Missed {
    fn other(error: impl Into<String>) -> Self {
        Self { error: error.into(), unavailable: false }
    }
}

impl From<EngineError> for Missed {
    fn from(error: EngineError) -> Self {
        let EngineError { message, fix, .. } = error;
        Self::other(fix.map_or(message.clone(), |fix| format!("{message}; {fix}")))
    }
}

/// A machine, connected.
async fn reach(services: &Services, name: &MachineName) -> Result<Arc<Machine>, Missed> {
    let record = runs::machine(services, name).await?;
    let endpoint = endpoint(&record.connection)?;
    services.machines.connect(&endpoint).await.map_err(|error| Missed {
        unavailable: matches!(error, MachineError::Unreachable { .. } | MachineError::Handshake { .. }),
        error: format!("{error}; {}", error.fix()),
    })
}

/// What goes to a machine, and the place where it keeps it.
async fn delivery(
    services: &Arc<Services>,
    name: &MachineName,
    wanted: &BTreeSet<Need>,
    cancel: &CancelToken,
) -> Result<(Delivery, String), Missed> {
    let machine = tokio::select! {
        reached = reach(services, name) => reached?,
        () = cancel.cancelled() => return Err(Missed::other("the transfer was stopped")),
    };
    let mut parcels = Vec::new();
    for need in wanted {
        let label = need.label();
        let damaged = |_| Missed::other(format!("the digest of {label} is damaged"));
        let digest: Sha256 = need.sha256.parse().map_err(damaged)?;
        let source = source(services, &digest, form(machine.endpoint())).await?;
        parcels.push(Parcel { package: label.into(), source });
    }
    let place = place(machine.endpoint());
    let receiver = Arc::new(Mailbox::new(Arc::clone(services), machine));
    Ok((Delivery { machine: name.as_str().into(), receiver, parcels }, place))
}

/// Tells people how far the transfer is.
async fn follow(
    services: Arc<Services>,
    task: TaskId,
    log: Arc<NodeLog>,
    mut events: mpsc::Receiver<TransferEvent>,
    machines: Vec<MachineName>,
) {
    while let Some(event) = events.recv().await {
        let (machine, level, text) = match event {
            TransferEvent::Progress { machine, package, done, total } => {
                if let Some(name) = machines.iter().find(|name| name.as_str() == &*machine) {
                    let progress = windlass_model::task::Progress { done, total, note: package.to_string() };
                    show(&services, task, name, progress);
                }
                continue;
            }
            TransferEvent::Started { machine, package, bytes } => {
                (machine, LogLevel::Info, format!("sending {package}, {bytes} bytes"))
            }
            TransferEvent::Retrying { machine, package, attempt, wait, reason } => {
                let text = format!("{package}: {reason}; attempt {attempt} follows in {} s", wait.as_secs().max(1));
                (machine, LogLevel::Warning, text)
            }
            TransferEvent::Settled { machine, package, status: Status::Cached } => {
                (machine, LogLevel::Info, format!("has {package} already"))
            }
            TransferEvent::Settled { machine, package, status: Status::Sent { .. } } => {
                (machine, LogLevel::Info, format!("holds {package}, verified"))
            }
            // The report tells of failures.
            TransferEvent::Settled { .. } => continue,
        };
        log.say(level, &format!("{machine}: {text}"));
    }
}

fn show(services: &Services, task: TaskId, machine: &MachineName, progress: windlass_model::task::Progress) {
    let (node, state) = (packages_node(machine), RunState::Running);
    services.shared.publish(task, TaskChange::Run { node, state, reason: None, error: None, progress: Some(progress) });
}

/// Tells the scheduler, and through it everyone, how it went on one machine.
async fn report(
    services: &Services,
    task: TaskId,
    machine: &MachineName,
    result: Result<(), Missed>,
    with: Batch,
    log: &NodeLog,
) {
    if let Err(Missed { error, .. }) = &result {
        log.say(LogLevel::Error, &format!("{machine}: {error}"));
    }
    services.logs.flush().await;
    let machine = Some(machine.clone());
    let event = match result {
        Ok(()) => Event::PackagesAcquired { task, machine },
        Err(Missed { error, unavailable }) => Event::PackagesFailed { task, machine, error, unavailable },
    };
    services.driver.send_with(event, with).await;
}
