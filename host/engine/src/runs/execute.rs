//! One run from start to its last word, or until it is suspended.

use std::sync::Arc;

use windlass_effects::{CancelToken, Failure, Layers, Masker, Stop, UNKNOWN_OUTCOME, Waist};
use windlass_machines::{Machine, Ticket};
use windlass_model::{MachineName, RunId, task::LogLevel};
use windlass_scheduler::{RunKey, RunOutcome};

use super::{
    begin::{Begun, Unready, begin, begin_node, run_id, step_of},
    context::TaskContext,
    guest,
    journal::StoredJournal,
};
use crate::{logs::NodeLog, services::Services};

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
}

/// How an execution ended.
pub enum Ended {
    /// The run waits, and the scheduler knows for what: it is started again when that has come.
    Suspended(Settled),
    /// The run is over.
    Over(RunOutcome, Settled),
}

/// Results that the machine may forget, once what came before is durable.
pub type Settled = Option<(Arc<Machine>, Vec<Ticket>)>;

/// Executes a run. Never fails: what goes wrong is its outcome.
pub async fn execute(services: &Arc<Services>, context: &Arc<TaskContext>, execution: Execution) -> Ended {
    let node = begin_node(context, &execution);
    let ended = match begin(services, context, &execution).await {
        Ok(begun) => go_on(services, begun).await,
        Err(Unready::Suspended) => Ended::Suspended(None),
        Err(Unready::Failed(failure)) => {
            let id = run_id(&execution, step_of(context, execution.run).is_some());
            let log = services.logs.open(execution.run.task, &node, id.as_str(), &Masker::default()).await;
            match log {
                Ok(log) => {
                    let outcome = judge(Err(failure), &id, &log, &execution.cancel);
                    services.logs.flush().await;
                    Ended::Over(outcome, None)
                }
                Err(_) => Ended::Over(RunOutcome::Failed { error: failure.message }, None),
            }
        }
    };
    match &ended {
        // What the log keeps of it in memory would be most of what a suspended run takes.
        Ended::Suspended(_) => {
            services.logs.flush().await;
            services.logs.let_go(execution.run.task, &node);
        }
        Ended::Over(..) => services.offline.over(execution.run),
    }
    ended
}

async fn go_on(services: &Arc<Services>, begun: Begun) -> Ended {
    let waist = begun.waist(services);
    let result = guest::run(services, &begun.parts, waist).await;
    let commands = &begun.performer.commands;
    let settled = |tickets| begun.performer.machine.clone().map(|machine| (machine, tickets));
    let result = match result {
        Err(Stop::Suspended(_)) => return Ended::Suspended(settled(commands.detach().await)),
        Err(Stop::Diverged(diverged)) => {
            let fix = format!("see both with windlass task replay {}, then deploy again", begun.parts.id);
            Err(Failure::new("diverged", format!("the step {diverged}")).fix(fix))
        }
        Err(Stop::Host(why)) => Err(Failure::new("host", why)),
        Ok(result) => result,
    };
    let outcome = judge(result, &begun.parts.id, &begun.log, &begun.cancel);
    services.logs.flush().await;
    Ended::Over(outcome, settled(commands.take_tickets()))
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
    fn waist(&self, services: &Arc<Services>) -> Arc<dyn Waist> {
        let parts = &self.parts;
        let step = parts.node.rsplit_once('/').map_or("", |(step, _)| step).to_owned();
        let machine = parts.machine.as_ref().map(|machine| machine.name.to_string());
        let aside = std::mem::take(&mut *self.aside.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
        let (services, task) = (Arc::clone(services), Arc::clone(&parts.task));
        let journal =
            StoredJournal::new(services, task, parts.run, parts.id.clone(), step, machine, &parts.entries, aside);
        Arc::new(Layers::new(
            guest::grants(parts),
            journal,
            parts.entries.clone(),
            parts.masker.clone(),
            Arc::clone(&self.performer),
            Arc::clone(&self.log) as Arc<dyn windlass_effects::LineSink>,
            self.cancel.clone(),
        ))
    }
}
