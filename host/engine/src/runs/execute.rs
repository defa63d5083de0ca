//! One run from start to its last word, or until it is suspended.

use std::sync::Arc;

use windlass_effects::{CancelToken, Failure, Layers, Masker, Stop, UNKNOWN_OUTCOME, Waist};
use windlass_machines::{Machine, Ticket};
use windlass_model::{MachineName, RunId, task::LogLevel};
use windlass_scheduler::{RunKey, RunOutcome};
use windlass_store::Batch;

use super::{
    begin::{Begun, UNAVAILABLE, Unready, begin, begin_node, run_id, step_of},
    context::TaskContext,
    guest,
};
use crate::{driver::MachineLock, logs::NodeLog, services::Services};

/// A run that is to be executed.
#[derive(Clone)]
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
    /// How it holds its machine.
    pub lock: Option<MachineLock>,
}

/// How an execution ended.
pub enum Ended {
    /// The run waits, and the scheduler knows for what: it is started again when that has come.
    Suspended(Settled),
    /// The run is over.
    Over(Box<Over>),
}

/// How a run ended.
pub struct Over {
    /// How.
    pub outcome: RunOutcome,
    /// Records that belong into the commit of its end.
    pub with: Batch,
    /// What its machine may forget then.
    pub settled: Settled,
}

impl Ended {
    /// A run that ended before it could do anything.
    #[must_use]
    pub fn early(outcome: RunOutcome) -> Self {
        Self::Over(Box::new(Over { outcome, with: Batch::new(), settled: None }))
    }
}

/// Results that the machine may forget, once what came before is durable.
pub type Settled = Option<(Arc<Machine>, Vec<Ticket>)>;

/// Executes a run. Never fails: what goes wrong is its outcome.
pub async fn execute(services: &Arc<Services>, context: &Arc<TaskContext>, execution: Execution) -> Ended {
    if step_of(context, execution.run).is_some_and(|step| step.uses.is_none()) {
        // A person agreed to it, or its child steps do its work.
        return Ended::early(RunOutcome::Succeeded);
    }
    let node = begin_node(context, &execution);
    let mut ended = match begin(services, context, &execution).await {
        Ok(begun) => go_on(services, begun).await,
        Err(Unready::Suspended) => Ended::Suspended(None),
        Err(Unready::Failed(failure)) => {
            let unavailable = failure.code == UNAVAILABLE;
            let id = run_id(&execution, step_of(context, execution.run).is_some());
            let log = services.logs.open(execution.run.task, &node, id.as_str(), &Masker::default()).await;
            match log {
                Ok(log) => {
                    let outcome = match judge(Err(failure), &id, &log, &execution.cancel) {
                        RunOutcome::Failed { error } if unavailable => RunOutcome::Unavailable { error },
                        outcome => outcome,
                    };
                    services.logs.flush().await;
                    Ended::early(outcome)
                }
                Err(_) => Ended::early(RunOutcome::Failed { error: failure.message }),
            }
        }
    };
    match &mut ended {
        // What the log keeps of it in memory would be most of what a suspended run takes.
        Ended::Suspended(_) => {
            services.logs.flush().await;
            services.logs.let_go(execution.run.task, &node);
        }
        Ended::Over(over) => {
            over.with.append(services.offline.over(execution.run));
        }
    }
    ended
}

async fn go_on(services: &Arc<Services>, begun: Begun) -> Ended {
    let waist = begun.waist();
    let result = guest::run(services, &begun.parts, waist).await;
    let commands = &begun.performer.commands;
    let settled = |tickets| begun.performer.machine.clone().map(|machine| (machine, tickets));
    let result = match result {
        Err(Stop::Suspended(_)) => {
            let tickets = commands.detach().await;
            // Without them the run would do again what the machine is about to forget.
            let kept = begun.journal.keep_waiting().await;
            return Ended::Suspended(kept.ok().and_then(|()| settled(tickets)));
        }
        Err(Stop::Diverged(diverged)) => {
            let fix = format!("see both with windlass task replay {}, then deploy again", begun.parts.id);
            Err(Failure::new("diverged", format!("the step {diverged}")).fix(fix))
        }
        Err(Stop::Host(why)) => Err(Failure::new("host", why)),
        Ok(result) => result,
    };
    let outcome = judge(result, &begun.parts.id, &begun.log, &begun.cancel);
    services.logs.flush().await;
    let (with, settled) = (begun.journal.take_waiting(), settled(commands.take_tickets()));
    Ended::Over(Box::new(Over { outcome, with, settled }))
}

/// The last word of a run, said in its log and told to the scheduler.
fn judge(result: Result<(), Failure>, id: &RunId, log: &NodeLog, cancel: &CancelToken) -> RunOutcome {
    let failure = match result {
        Ok(()) => return RunOutcome::Succeeded,
        Err(failure) => failure,
    };
    if failure.code == "cancelled" && cancel.is_cancelled() {
        log.conclude(LogLevel::Warning, "cancelled");
        return RunOutcome::Cancelled;
    }
    tracing::debug!(run = %id, code = failure.code, "a run failed");
    log.conclude(LogLevel::Error, &failure.message);
    if let Some(fix) = failure.attribute("fix").filter(|fix| !fix.is_empty()) {
        log.conclude(LogLevel::Error, &format!("fix: {fix}"));
    }
    // One line for lists; the log has the rest.
    let error = failure.message.lines().next().unwrap_or_default().chars().take(500).collect();
    if failure.code == UNKNOWN_OUTCOME { RunOutcome::Unknown { error } } else { RunOutcome::Failed { error } }
}

impl Begun {
    fn waist(&self) -> Arc<dyn Waist> {
        let parts = &self.parts;
        Arc::new(Layers::new(
            guest::grants(parts),
            Arc::clone(&self.journal),
            parts.entries.clone(),
            parts.masker.clone(),
            Arc::clone(&self.performer),
            Arc::clone(&self.log) as Arc<dyn windlass_effects::LineSink>,
            self.cancel.clone(),
        ))
    }
}
