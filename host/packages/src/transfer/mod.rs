//! The package barrier: every package on every machine before any step installs.
//!
//! `acquire` sends to many machines at once in a sliding window, sends no bytes twice, retries what
//! a broken link explains, and returns when every machine has settled. It only orchestrates: how
//! bytes reach one machine is behind `Receiver`. A failing machine never stops the others; what a
//! failure means for the deployment is the caller's decision.

mod machine;
mod progress;
mod report;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt as _;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

pub use progress::Progress;
pub use report::{AcquireReport, Failure, MachineReport, PackageReport, Status, TransferEvent};

use crate::payload::PayloadSource;
use machine::Courier;

/// One machine's side of a transfer. Every call may be dropped at any moment, and repeated.
#[async_trait]
pub trait Receiver: Send + Sync {
    /// Does the machine hold a whole, verified copy at `source.cache_path()`?
    async fn has(&self, source: &PayloadSource) -> Result<bool, LinkError>;

    /// Sends the bytes, has the machine verify their SHA-256, and gives them their final name.
    ///
    /// Reports bytes as they leave. Returns soon once `cancel` is cancelled.
    async fn receive(
        &self,
        source: &PayloadSource,
        progress: &Progress,
        cancel: &CancellationToken,
    ) -> Result<(), LinkError>;
}

/// Why a machine could not take a package. A fragment that fits after "because".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct LinkError {
    /// What happened, and one thing to do.
    pub reason: String,
    /// True when the same call may well succeed in a moment: a link that broke, not a full disk.
    pub retryable: bool,
}

/// What one machine is to hold.
#[derive(Clone)]
pub struct Delivery {
    /// The machine's name. Deliveries of one name are joined.
    pub machine: Arc<str>,
    /// The way to it.
    pub receiver: Arc<dyn Receiver>,
    /// The packages, sent in this order.
    pub parcels: Vec<Parcel>,
}

/// One package for one machine.
#[derive(Debug, Clone)]
pub struct Parcel {
    /// What people call it, such as `shop-web 1.4.0`.
    pub package: Arc<str>,
    /// Its bytes.
    pub source: PayloadSource,
}

/// How to acquire.
#[derive(Debug, Clone)]
pub struct AcquireOptions {
    /// Machines sent to at the same time.
    pub window: usize,
    /// Tries for each package and machine, the first included.
    pub attempts: u32,
    /// The wait before the second try; it doubles with each further one.
    pub first_wait: Duration,
    /// The longest wait between two tries.
    pub longest_wait: Duration,
    /// How long the question whether a machine has a package may take.
    pub ask_limit: Duration,
    /// How long no byte may move before the try counts as broken.
    pub stall_limit: Duration,
    /// How long a receiver may take to stop once told so.
    pub stop_grace: Duration,
}

impl Default for AcquireOptions {
    fn default() -> Self {
        Self {
            window: 10,
            attempts: 4,
            first_wait: Duration::from_millis(500),
            longest_wait: Duration::from_secs(10),
            ask_limit: Duration::from_secs(30),
            stall_limit: Duration::from_secs(60),
            stop_grace: Duration::from_secs(2),
        }
    }
}

/// Sends every package to every machine that lacks it, and returns when all have settled.
///
/// Progress is told through `events` without ever waiting for a slow listener; starts, retries and
/// ends are not dropped while the listener listens.
pub async fn acquire(
    plan: Vec<Delivery>,
    options: &AcquireOptions,
    events: mpsc::Sender<TransferEvent>,
    cancel: &CancellationToken,
) -> AcquireReport {
    let couriers = join(plan).into_iter().enumerate().map(|(place, delivery)| {
        let courier = Courier { delivery, options, events: events.clone(), cancel };
        async move { (place, courier.deliver().await) }
    });
    let mut settled: Vec<_> = futures::stream::iter(couriers).buffer_unordered(options.window.max(1)).collect().await;
    settled.sort_by_key(|(place, _)| *place);
    AcquireReport { machines: settled.into_iter().map(|(_, report)| report).collect() }
}

/// One delivery a machine, so that nothing is sent to it from two places.
fn join(plan: Vec<Delivery>) -> Vec<Delivery> {
    let mut joined: Vec<Delivery> = Vec::with_capacity(plan.len());
    let mut places = std::collections::HashMap::new();
    for delivery in plan {
        let place = *places.entry(delivery.machine.clone()).or_insert(joined.len());
        match joined.get_mut(place) {
            Some(known) => known.parcels.extend(delivery.parcels),
            None => joined.push(delivery),
        }
    }
    joined
}
