//! Acting on decisions about runs: who waits is told, who is suspended is started again.
//!
//! A suspended run has no guest, and nothing of it is kept here: the scheduler's state says which it is, where it runs
//! and which attempt it is.

use std::{
    collections::HashMap,
    sync::{MutexGuard, PoisonError},
};

use tokio::sync::oneshot;
use windlass_scheduler::{
    Decision, LockRequest, Resource, RunKey, State, WaitOn,
    progress::{Phase, Resume, RunProgress, Suspended},
};
use windlass_store::StoreError;

use super::{Driver, Given, MachineLock, turn::Turn};
use crate::records::RESUMES;

impl Driver {
    /// Keeps what a suspended run is told when it goes on, with the event that says so: it is started only later.
    pub(super) fn keep_resume(&self, turn: &mut Turn, decision: &Decision) -> Result<(), StoreError> {
        let (run, resume) = match decision {
            Decision::ResumeRun { run, answer, error } if answer.is_some() || error.is_some() => {
                (*run, Resume { answer: answer.clone(), error: error.clone() })
            }
            Decision::RefuseLock { request, error } if !self.locks().contains_key(request) => {
                (request.run, Resume { answer: None, error: Some(error.clone()) })
            }
            _ => return Ok(()),
        };
        match self.state.run_id(run) {
            Some(id) => RESUMES.put(&mut turn.batch, id.as_str(), &resume),
            None => Ok(()),
        }
    }

    fn locks(&self) -> MutexGuard<'_, HashMap<LockRequest, oneshot::Sender<Result<u64, String>>>> {
        self.shared.locks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does what a decision says, or has it done.
    pub(super) fn act(&self, decision: Decision) {
        self.show_question(&decision);
        let answer = match &decision {
            Decision::GrantLock { request, token } => Some((*request, Ok(*token))),
            Decision::RefuseLock { request, error } => Some((*request, Err(error.clone()))),
            _ => None,
        };
        if let Some((request, answer)) = answer {
            let waiter = self.locks().remove(&request);
            match waiter {
                // A run that stopped waiting has sent its own release.
                Some(waiter) => drop(waiter.send(answer)),
                None => self.start_again(request.run),
            }
            return;
        }
        match decision {
            Decision::ResumeRun { run, .. } => self.start_again(run),
            Decision::StopRun { run, .. } => {
                self.order(decision);
                // It has to be there to stop in good order.
                if self.is_suspended(run) {
                    self.start_again(run);
                }
            }
            _ => self.order(decision),
        }
    }

    /// Has it done, given what belongs to it.
    fn order(&self, decision: Decision) {
        let error = self.state.task(decision.task()).and_then(|(_, progress)| progress.error.clone());
        let lock = self.machine_lock(&decision);
        self.actor.act(decision, Given { error, lock });
    }

    /// The lock of its machine with which a run starts.
    ///
    /// Of all that a run holds there it is this one that its commands prove. Every run on a machine holds it, whatever
    /// else it locks, so whoever could be in the way of a late command has it or had it; and a command proves one lock.
    fn machine_lock(&self, decision: &Decision) -> Option<MachineLock> {
        let Decision::StartRun { run, machine: Some(machine), token, .. } = decision else { return None };
        let (plan, _) = self.state.task(run.task)?;
        let mode = plan.steps.get(run.step as usize)?.machine_mode();
        Some(MachineLock { resource: Resource::machine(machine), mode, token: *token })
    }

    fn is_suspended(&self, run: RunKey) -> bool {
        let known = run_progress(&self.state, run);
        known.is_some_and(|known| known.phase == Phase::Running && !known.works())
    }

    /// Starts a run that was suspended, if it still is to run.
    fn start_again(&self, run: RunKey) {
        let Some((plan, _)) = self.state.task(run.task) else { return };
        let Some(known) = run_progress(&self.state, run).filter(|known| known.phase == Phase::Running) else { return };
        let own = plan.steps.get(run.step as usize).and_then(|step| step.machine(run.place as usize));
        let machine = own.or(known.worker.as_ref()).cloned();
        self.order(Decision::StartRun { run, machine, attempt: known.attempt, token: known.token });
    }

    /// What is to be done after a restart. Runs that the scheduler wakes by itself stay suspended.
    pub(super) fn open_decisions(&self) -> Vec<Decision> {
        let sleeps = |run: &RunKey| {
            let watches = |waits: &Suspended| waits.ready.is_none() && matches!(waits.on, WaitOn::Other(_));
            let known = run_progress(&self.state, *run);
            self.is_suspended(*run) && !known.and_then(|known| known.waits.as_ref()).is_some_and(watches)
        };
        let mut open = self.state.open_decisions();
        open.retain(|decision| match decision {
            Decision::StartRun { run, .. } => !sleeps(run),
            // Whoever runs asks again and is answered.
            Decision::GrantLock { .. } => false,
            _ => true,
        });
        open
    }
}

fn run_progress(state: &State, run: RunKey) -> Option<&RunProgress> {
    state.task(run.task)?.1.steps.get(run.step as usize)?.runs.get(run.place as usize)
}
