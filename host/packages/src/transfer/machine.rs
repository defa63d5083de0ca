//! The delivery to one machine: package after package, with retries, limits and cancel.

use std::collections::HashSet;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{
    AcquireOptions, Delivery, LinkError, MachineReport, PackageReport, Parcel, Progress, Status, TransferEvent,
};

/// Brings one machine what it lacks.
pub(super) struct Courier<'a> {
    pub(super) delivery: Delivery,
    pub(super) options: &'a AcquireOptions,
    pub(super) events: mpsc::Sender<TransferEvent>,
    pub(super) cancel: &'a CancellationToken,
}

/// How one try ended.
enum Try {
    Cached,
    Sent,
    Broken(LinkError),
    Cancelled,
}

impl Courier<'_> {
    /// Returns when every package has settled.
    pub(super) async fn deliver(self) -> MachineReport {
        let mut packages = Vec::with_capacity(self.delivery.parcels.len());
        let mut here = HashSet::new();
        let mut broken = false;
        for parcel in &self.delivery.parcels {
            let blob = parcel.source.blob();
            let status = if here.contains(&blob.sha256) {
                Status::Cached
            } else if self.cancel.is_cancelled() {
                Status::Cancelled
            } else if broken {
                Status::NotTried
            } else {
                self.bring(parcel).await
            };
            if status.is_there() {
                here.insert(blob.sha256);
            }
            broken |= matches!(status, Status::Failed { .. });
            let package = parcel.package.clone();
            self.tell(TransferEvent::Settled {
                machine: self.delivery.machine.clone(),
                package: package.clone(),
                status: status.clone(),
            })
            .await;
            packages.push(PackageReport { package, blob, status });
        }
        MachineReport { machine: self.delivery.machine, packages }
    }

    async fn bring(&self, parcel: &Parcel) -> Status {
        let mut attempt = 1;
        loop {
            let error = match self.attempt(parcel).await {
                Try::Cancelled => return Status::Cancelled,
                // After a broken try it was our own bytes that arrived after all.
                Try::Cached if attempt == 1 => return Status::Cached,
                Try::Cached | Try::Sent => return Status::Sent { attempts: attempt },
                Try::Broken(error) => error,
            };
            if !error.retryable || attempt >= self.options.attempts {
                return Status::Failed { attempts: attempt, reason: error.reason };
            }
            let wait = self.wait_after(attempt);
            self.tell(TransferEvent::Retrying {
                machine: self.delivery.machine.clone(),
                package: parcel.package.clone(),
                attempt,
                wait,
                reason: error.reason,
            })
            .await;
            tokio::select! {
                () = self.cancel.cancelled() => return Status::Cancelled,
                () = sleep(wait) => attempt += 1,
            }
        }
    }

    async fn attempt(&self, parcel: &Parcel) -> Try {
        let asked = tokio::select! {
            () = self.cancel.cancelled() => return Try::Cancelled,
            asked = timeout(
                self.options.ask_limit,
                self.delivery.receiver.has(&parcel.source),
            ) => asked,
        };
        match asked {
            Ok(Ok(true)) => Try::Cached,
            Ok(Ok(false)) => self.send(parcel).await,
            Ok(Err(error)) => Try::Broken(error),
            Err(_) => Try::Broken(LinkError {
                reason: format!(
                    "the machine did not answer within {} s; check that it is up and reachable",
                    self.options.ask_limit.as_secs()
                ),
                retryable: true,
            }),
        }
    }

    async fn send(&self, parcel: &Parcel) -> Try {
        let (machine, package) = (self.delivery.machine.clone(), parcel.package.clone());
        let total = parcel.source.blob().size;
        self.tell(TransferEvent::Started { machine: machine.clone(), package: package.clone(), bytes: total }).await;
        let progress = Progress::new(machine, package, total, self.events.clone());
        let stop = self.cancel.child_token();
        let mut receiving = self.delivery.receiver.receive(&parcel.source, &progress, &stop);
        let ended = tokio::select! {
            received = &mut receiving => {
                return match received {
                    Ok(()) => Try::Sent,
                    Err(_) if self.cancel.is_cancelled() => Try::Cancelled,
                    Err(error) => Try::Broken(error),
                };
            }
            () = self.cancel.cancelled() => Try::Cancelled,
            () = stalled(&progress, self.options.stall_limit) => Try::Broken(LinkError {
                reason: format!(
                    "no byte moved for {} s after {} of {total}; check the network to the machine",
                    self.options.stall_limit.as_secs(),
                    progress.done(),
                ),
                retryable: true,
            }),
        };
        stop.cancel();
        // Whether it stops by itself or is dropped here makes no difference to the outcome.
        let _ = timeout(self.options.stop_grace, receiving).await;
        ended
    }

    fn wait_after(&self, attempt: u32) -> Duration {
        let factor = 1u32.checked_shl(attempt - 1).unwrap_or(u32::MAX);
        self.options.first_wait.saturating_mul(factor).min(self.options.longest_wait)
    }

    /// Waits for room with the listener, but never past a cancel. A listener that left is no fault.
    async fn tell(&self, event: TransferEvent) {
        tokio::select! {
            biased;
            _ = self.events.send(event.clone()) => {}
            () = self.cancel.cancelled() => drop(self.events.try_send(event)),
        }
    }
}

/// Returns once no byte has moved for the whole limit.
async fn stalled(progress: &Progress, limit: Duration) {
    let mut before = progress.done();
    loop {
        sleep(limit).await;
        let now = progress.done();
        if now == before {
            return;
        }
        before = now;
    }
}
