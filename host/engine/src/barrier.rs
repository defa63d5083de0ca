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
    MachineName, RunState, TaskId,
    task::{LogLevel, PACKAGES_NODE, TaskChange},
};
use windlass_packages::{
    digest::Sha256,
    transfer::{AcquireOptions, Delivery, Parcel, Status, TransferEvent, acquire as transfer},
};
use windlass_scheduler::Event;

use crate::{
    board::packages_node,
    error::EngineError,
    logs::NodeLog,
    machines::endpoint,
    packages::{Mailbox, form, source},
    runs::{self, Subject, TaskContext},
    services::Services,
};

/// Machines that are connected to at once.
const REACHED_AT_ONCE: usize = 20;

/// What a machine's steps need.
type Needs = BTreeMap<MachineName, BTreeSet<(String, String)>>;

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
    let needs = needs(&services, &context).await;
    let needs = match needs {
        Ok(needs) => needs,
        Err(error) => {
            for name in &machines {
                report(&services, task, name, Err(Missed::other(error.message.clone())), &log).await;
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
    let mut plan = Vec::new();
    while let Some((name, delivery)) = reached.next().await {
        match delivery {
            Ok(delivery) => plan.push(delivery),
            Err(error) => report(&services, task, &name, Err(error), &log).await,
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
        report(&services, task, name, reached, &log).await;
    }
}

/// Which packages each machine needs: those of all steps that run there.
async fn needs(services: &Services, context: &TaskContext) -> Result<Needs, EngineError> {
    let mut needs = Needs::new();
    let Subject::Deployment { release, .. } = &context.subject else {
        return Ok(needs);
    };
    let detail = crate::tasks::detail(services, context.task).await?;
    let known = context.known(services).await?;
    let mut machines = BTreeMap::new();
    for (step, view) in release.process.all_steps().zip(&detail.steps) {
        let Some(guest) = step.uses.as_ref().and_then(|uses| release.guests.get(uses)) else {
            continue;
        };
        let plugin = services.plugins.load(services, &guest.sha256).await?;
        let texts: Vec<_> =
            plugin.manifest().package_inputs().filter_map(|input| step.with.get(input)?.as_str()).collect();
        if texts.is_empty() {
            continue;
        }
        for name in view.runs.iter().filter_map(|run| run.machine.as_ref()) {
            if !machines.contains_key(name) {
                machines.insert(name.clone(), runs::machine(services, name).await?);
            }
            let variables = context.seen_by(&known, Some((step, 0)), machines.get(name)).context;
            for text in &texts {
                let id = variables
                    .expand(text, windlass_model::template::Mode::Strict)
                    .map_err(|error| EngineError::invalid("template", format!("step {}: {error}", step.name)))?
                    .text;
                let (id, pinned) = release.package(&id).ok_or_else(|| {
                    EngineError::not_found("package", &id).fix(format!("windlass release create {}", release.project))
                })?;
                let label = format!("{id} {}", pinned.version);
                needs.entry(name.clone()).or_default().insert((label, pinned.sha256.clone()));
            }
        }
    }
    Ok(needs)
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

/// A machine, connected.
async fn reach(services: &Services, name: &MachineName) -> Result<Arc<Machine>, Missed> {
    let record = runs::machine(services, name).await.map_err(|error| Missed::other(error.message))?;
    let endpoint = endpoint(&record.connection).map_err(|error| Missed::other(error.message))?;
    services.machines.connect(&endpoint).await.map_err(|error| Missed {
        unavailable: matches!(error, MachineError::Unreachable { .. } | MachineError::Handshake { .. }),
        error: format!("{error}; {}", error.fix()),
    })
}

async fn delivery(
    services: &Arc<Services>,
    name: &MachineName,
    wanted: &BTreeSet<(String, String)>,
    cancel: &CancelToken,
) -> Result<Delivery, Missed> {
    let machine = tokio::select! {
        reached = reach(services, name) => reached?,
        () = cancel.cancelled() => return Err(Missed::other("the transfer was stopped")),
    };
    let mut parcels = Vec::new();
    for (label, digest) in wanted {
        let digest: Sha256 = digest.parse().map_err(|_| Missed::other(format!("the digest of {label} is damaged")))?;
        let source =
            source(services, &digest, form(machine.endpoint())).await.map_err(|error| Missed::other(error.message))?;
        parcels.push(Parcel { package: label.as_str().into(), source });
    }
    Ok(Delivery {
        machine: name.as_str().into(),
        receiver: Arc::new(Mailbox::new(Arc::clone(services), machine)),
        parcels,
    })
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
async fn report(services: &Services, task: TaskId, machine: &MachineName, result: Result<(), Missed>, log: &NodeLog) {
    if let Err(Missed { error, .. }) = &result {
        log.say(LogLevel::Error, &format!("{machine}: {error}"));
    }
    services.logs.flush().await;
    let machine = Some(machine.clone());
    let event = match result {
        Ok(()) => Event::PackagesAcquired { task, machine },
        Err(Missed { error, unavailable }) => Event::PackagesFailed { task, machine, error, unavailable },
    };
    services.driver.send(event).await;
}
