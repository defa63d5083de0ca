//! One run: a fresh store, one call into the guest, and everything that can end it from outside.
//!
//! A guest ends by itself, by a trap, by a bound, or because the run was cancelled or took too long. In the last two
//! cases it gets time to react; then the epoch callback traps it, which tells where it was; a guest that waits in a
//! host call cannot be trapped, so its call is dropped. The store is dropped in any case and never used again.

use std::{
    future::Future,
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::FutureExt;
use wasmtime::{
    Engine, Store, StoreContextMut, Trap, UpdateDeadline,
    component::{Component, Resource},
};
use windlass_effects::{Failure, Waist};
use windlass_model::{Capability, Manifest};

use crate::{
    bindings::{StepPre, windlass::base::types::Failure as WitFailure},
    calls::{Calls, from_wit, inputs::Inputs, machine::Session},
    contract,
    engine::TICK,
    error::{Frames, RunError},
    limits::{Hit, Limits},
    request::{RunReport, RunRequest},
    trap,
};

/// Time that an interrupted guest has to reach the place where it is trapped, before its call is dropped.
const TO_TRAP: Duration = Duration::from_millis(100);

pub(crate) struct Run {
    store: Store<Calls>,
    limits: Limits,
    /// Tells the epoch callback to trap.
    interrupt: Arc<AtomicBool>,
}

impl Run {
    pub fn new(engine: &Engine, waist: Arc<dyn Waist>, limits: &Limits) -> Self {
        let interrupt = Arc::new(AtomicBool::new(false));
        let mut store = Store::new(engine, Calls::new(waist, limits));
        store.limiter(|calls| &mut calls.limiter);
        store.set_hostcall_fuel(limits.call_bytes);
        // Above the bound of our own table, which has the better message.
        store.set_max_component_handles(limits.handles + 100);
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(on_tick(interrupt.clone(), limits.compute));
        Self { store, limits: limits.clone(), interrupt }
    }

    /// Runs the step.
    pub async fn step(
        &mut self,
        pre: &StepPre<Calls>,
        manifest: Arc<Manifest>,
        request: RunRequest,
    ) -> Result<(), RunError> {
        let answer = self
            .guarded(async |store| {
                let guest = pre.instantiate_async(&mut *store).await?;
                let calls = store.data_mut();
                let target = match request.session {
                    Some(lent) => Some(calls.table.push(Session { handle: lent.handle, name: lent.name })?),
                    None => None,
                };
                let inputs = calls.table.push(Inputs {
                    manifest,
                    with: request.with,
                    secrets: request.secrets,
                    packages: request.packages,
                    may_use_packages: request.grants.contains(&Capability::Package),
                })?;
                // The guest only borrows both: what it holds ends with the call.
                let target = target.map(|session| Resource::new_borrow(session.rep()));
                let inputs = Resource::new_borrow(inputs.rep());
                guest.windlass_step_run().call_run(store, target, inputs).await
            })
            .await;
        match answer {
            Ok(Ok(())) => Ok(()),
            Ok(Err(failure)) => Err(self.failed(from_wit(failure))),
            // A call that has no failure of its own, such as the clock, ends the guest with one.
            Err(RunError::Failed(failure)) => Err(self.failed(failure)),
            Err(error) => Err(error),
        }
    }

    /// A failure of the step, unless it only tells of the cancel.
    fn failed(&self, failure: Failure) -> RunError {
        if failure.code == "cancelled" && self.store.data().waist.cancel().is_cancelled() {
            RunError::Cancelled { forced: false }
        } else {
            RunError::Failed(bounded(failure))
        }
    }

    /// Asks the plugin what it is.
    pub async fn describe(&mut self, pre: &StepPre<Calls>) -> Result<String, RunError> {
        self.guarded(async |store| {
            let guest = pre.instantiate_async(&mut *store).await?;
            guest.windlass_step_run().call_describe(store).await
        })
        .await
    }

    /// Lets the plugin check inputs; it must export `validate`.
    pub async fn validate(&mut self, component: &Component, inputs: String) -> Result<Vec<WitFailure>, RunError> {
        let engine = self.store.engine().clone();
        self.guarded(async |store| {
            let linker = contract::linker(&engine, |_| true)?;
            let instance = linker.instantiate_async(&mut *store, component).await?;
            let missing = || wasmtime::Error::msg("the plugin exports no `check`");
            let interface = component.get_export_index(None, contract::VALIDATE).ok_or_else(missing)?;
            let check = component.get_export_index(Some(&interface), "check").ok_or_else(missing)?;
            let check = instance.get_typed_func::<(&str,), (Vec<WitFailure>,)>(&mut *store, &check)?;
            Ok(check.call_async(store, (inputs.as_str(),)).await?.0)
        })
        .await
    }

    /// What is known of the run now that it has ended.
    pub fn report(&mut self, took: Duration) -> RunReport {
        let calls = self.store.data_mut();
        RunReport { took, peak_memory: calls.limiter.peak(), effects: calls.made, dropped_lines: calls.log.close() }
    }

    /// Drives a call into the guest to its end, whichever that is.
    async fn guarded<T>(
        &mut self,
        call: impl AsyncFnOnce(&mut Store<Calls>) -> wasmtime::Result<T>,
    ) -> Result<T, RunError> {
        let waist = self.store.data().waist.clone();
        let (grace, wall) = (self.limits.grace, self.limits.wall);
        let interrupt = self.interrupt.clone();
        // A panic in a host function is a bug of the host: it must end this run and nothing else.
        let call = AssertUnwindSafe(call(&mut self.store)).catch_unwind();
        let ended = Box::pin(drive(call, &interrupt, waist, grace, wall)).await;
        match ended {
            Ended::Returned(Ok(Ok(value))) => Ok(value),
            Ended::Returned(Ok(Err(error))) => Err(trap::explain(&error, self.store.data())),
            Ended::Returned(Err(_)) => Err(RunError::Host("a host function panicked; see the server's log".to_owned())),
            Ended::Cancelled => Err(RunError::Cancelled { forced: true }),
            Ended::TooLong(trapped) => {
                let frames = match trapped {
                    Some(Ok(Err(error))) if error.downcast_ref::<Trap>() == Some(&Trap::Interrupt) => {
                        trap::frames(&error)
                    }
                    _ => Frames::default(),
                };
                Err(RunError::Limit { hit: Hit::Wall { limit: wall }, frames })
            }
        }
    }
}

/// How a call into a guest ended.
enum Ended<T> {
    /// By itself.
    Returned(T),
    /// The run was cancelled and the guest did not react in time.
    Cancelled,
    /// The run took too long; with what the call came to when it was interrupted.
    TooLong(Option<T>),
}

async fn drive<T>(
    call: impl Future<Output = T>,
    interrupt: &AtomicBool,
    waist: Arc<dyn Waist>,
    grace: Duration,
    wall: Duration,
) -> Ended<T> {
    tokio::pin!(call);
    let cancelled = async {
        waist.cancel().cancelled().await;
        tokio::time::sleep(grace).await;
    };
    let cancelled = tokio::select! {
        biased;
        answer = &mut call => return Ended::Returned(answer),
        () = cancelled => true,
        () = tokio::time::sleep(wall) => false,
    };
    interrupt.store(true, Ordering::Release);
    let trapped = tokio::time::timeout(TO_TRAP, &mut call).await.ok();
    if cancelled { Ended::Cancelled } else { Ended::TooLong(trapped) }
}

/// Looks after a guest that computes: lets others run, counts its time, and traps it when it must end.
fn on_tick(
    interrupt: Arc<AtomicBool>,
    compute: Duration,
) -> impl FnMut(StoreContextMut<'_, Calls>) -> wasmtime::Result<UpdateDeadline> + Send + Sync + 'static {
    let (mut seen, mut ticks) = (0, 0_u32);
    move |store| {
        if interrupt.load(Ordering::Acquire) {
            return Ok(UpdateDeadline::Interrupt);
        }
        let made = store.data().made;
        ticks = if made == seen { ticks.saturating_add(1) } else { 0 };
        seen = made;
        if TICK.saturating_mul(ticks) > compute {
            return Err(wasmtime::Error::new(Hit::Compute { limit: compute }));
        }
        // Tokio's own yield: the built-in one can starve other tasks.
        Ok(UpdateDeadline::YieldCustom(1, Box::pin(tokio::task::yield_now())))
    }
}

/// What a guest says of its failure goes to logs and screens: cleaned and bounded.
fn bounded(mut failure: Failure) -> Failure {
    let clean = crate::text::one_line;
    failure.code = clean(&failure.code, 100);
    failure.message = clean(&failure.message, 4000);
    failure.attributes.truncate(32);
    for (name, value) in &mut failure.attributes {
        *name = clean(name, 100);
        *value = clean(value, 1000);
    }
    failure
}
