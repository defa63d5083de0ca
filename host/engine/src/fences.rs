//! Lifting fences: asking a machine whether what an abandoned run started there is over.
//!
//! A run that did not stop when it was killed counts as over, and what it held stays fenced. The machine is asked again
//! and again, by the run's tickets, until it says that none of them runs any more and none can still start; then the
//! fence is lifted. Until then only a person lifts it: `windlass lock break`.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use windlass_effects::{EffectClass, Entry};
use windlass_machines::{Lost, Machine, MachineError, RunState, Ticket};
use windlass_model::{MachineName, RunId};
use windlass_scheduler::{Event, RunKey};

use crate::{
    actor::Hands,
    error::EngineError,
    identity::Identity,
    machines,
    runs::{machine, recorded},
    services::Services,
};

/// Wait before the machine is asked again, first and at most.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// Time that what still runs has between the request to end and its end by force.
const GRACE: Duration = Duration::from_secs(10);
/// Attempts of one run whose tickets are looked for: those by itself and those by people, and some more.
const ATTEMPTS: u32 = 32;
/// Times that a person had one command done once more, of which the last are looked for.
const TRIES: u32 = 32;

/// Watches a fenced run until its fence is gone, and lifts it once the run is proven to be over.
pub async fn watch(services: Arc<Services>, hands: Arc<Hands>, run: RunKey) {
    let mut pause = PAUSES.0;
    loop {
        let fence = services.driver.look(move |state| state.fences().find(|fence| fence.run == run).cloned()).await;
        let Ok(Some(fence)) = fence else { return };
        match is_over(&services, &hands, run, fence.machine.as_ref()).await {
            Ok(true) => {
                tracing::info!(?run, "an abandoned run is proven to be over: its fence is lifted");
                return services.driver.send(Event::RunFenced { run }).await;
            }
            Ok(false) => tracing::debug!(?run, "an abandoned run still runs"),
            Err(error) => tracing::debug!(?run, %error, "nobody can tell yet whether an abandoned run still runs"),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSES.1);
    }
}

/// Whether nothing of a run goes on, or can still begin.
async fn is_over(
    services: &Services,
    hands: &Hands,
    run: RunKey,
    name: Option<&MachineName>,
) -> Result<bool, EngineError> {
    let failed = |error: MachineError| EngineError::internal(error);
    if hands.is_at_work(run) {
        // Its guest may start something new at any moment. When it ends, the scheduler is told so.
        return Ok(false);
    }
    let Some(name) = name else {
        // It ran in an earlier process of this server, which is gone.
        return Ok(true);
    };
    let tickets = tickets(services, run, name).await?;
    if tickets.is_empty() {
        return Ok(true);
    }
    let endpoint = machines::endpoint(&machine(services, name).await?.connection)?;
    let machine = services.machines.connect(&endpoint).await.map_err(failed)?;
    for ticket in tickets {
        if !ticket_is_over(&machine, &ticket).await.map_err(failed)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether a command is over, or can never start. One that goes on is told to end: its run was given up.
async fn ticket_is_over(machine: &Machine, ticket: &Ticket) -> Result<bool, MachineError> {
    if is_dead(machine.status(ticket).await?) {
        return Ok(true);
    }
    let after = machine.cancel(ticket, GRACE).await?;
    // The cancel has ended whatever bore the ticket, with its supervisor or without.
    Ok(is_dead(after) || matches!(after, RunState::Lost(_)))
}

fn is_dead(state: RunState) -> bool {
    match state {
        RunState::Done { .. } | RunState::Fenced | RunState::Gone | RunState::Lost(Lost::Reboot) => true,
        // What lost its supervisor may go on without it, and what has not started may start yet.
        RunState::Lost(Lost::Died | Lost::NeverSeen)
        | RunState::Absent
        | RunState::Prepared
        | RunState::Starting
        | RunState::Running { .. } => false,
    }
}

/// Everything that a run may have started on its machine.
async fn tickets(services: &Services, run: RunKey, name: &MachineName) -> Result<BTreeSet<Ticket>, EngineError> {
    let mut tickets = BTreeSet::new();
    for attempt in 1..=ATTEMPTS {
        let id = RunId::new(run.task, run.step as usize, Some(name), attempt);
        for entry in recorded(services, &id).await? {
            tickets.extend(tickets_of(&services.identity, &id, &entry).map_err(EngineError::internal)?);
        }
    }
    Ok(tickets)
}

/// Those of one effect: one for each time that it was done. Of what nobody knew how it ended, an earlier one may go on.
fn tickets_of(identity: &Identity, id: &RunId, entry: &Entry) -> Result<Vec<Ticket>, MachineError> {
    if entry.class != EffectClass::Ticketed || !matches!(entry.effect.as_str(), "run" | "start") {
        return Ok(Vec::new());
    }
    (entry.tries.saturating_sub(TRIES)..=entry.tries).map(|tries| identity.ticket(id, entry.index, tries)).collect()
}

#[cfg(test)]
mod tests {
    use windlass_effects::Effect;

    use super::*;

    #[tokio::test]
    async fn every_time_that_a_command_was_done_is_asked_about() {
        let folder = tempfile::tempdir().unwrap();
        let vault = crate::vault::Vault::open(&folder.path().join("key")).unwrap();
        let identity = Identity::load(&windlass_store::MemoryStore::new(), &vault).await.unwrap();
        let id = RunId::new(windlass_model::TaskId(7), 2, Some(&"web1".parse().unwrap()), 1);
        let command: Effect = serde_json::from_value(serde_json::json!({
            "effect": "run", "session": 1, "command": { "program": { "argv": ["true"] } }
        }))
        .unwrap();
        let calls = |tries, effect: &Effect| {
            let entry = Entry { tries, ..Entry::started(4, effect) };
            let tickets = tickets_of(&identity, &id, &entry).unwrap();
            tickets.iter().map(|ticket| ticket.to_string()).collect::<Vec<_>>()
        };
        let ticket = |call: &str| {
            let known = identity.ticket(&id, 4, 0).unwrap().to_string();
            known.replacen(".4.", &format!(".{call}."), 1)
        };
        assert_eq!(calls(0, &command), [ticket("4")]);
        assert_eq!(calls(2, &command), [ticket("4"), ticket("4-1"), ticket("4-2")]);
        assert_eq!(calls(1000, &command).len(), TRIES as usize + 1);
        assert!(calls(0, &Effect::Now).is_empty());
    }
}
