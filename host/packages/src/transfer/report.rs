//! What an acquisition tells while it runs, and what it reports at the end.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use crate::digest::Blob;

/// Something happened to one package on its way to one machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum TransferEvent {
    /// The machine lacks it, and sending starts.
    Started {
        /// To which machine.
        machine: Arc<str>,
        /// Which package.
        package: Arc<str>,
        /// How many bytes will be sent.
        bytes: u64,
    },
    /// Bytes left.
    Progress {
        /// To which machine.
        machine: Arc<str>,
        /// Which package.
        package: Arc<str>,
        /// Bytes so far in this try.
        done: u64,
        /// Bytes in all.
        total: u64,
    },
    /// A try broke, and another follows.
    Retrying {
        /// To which machine.
        machine: Arc<str>,
        /// Which package.
        package: Arc<str>,
        /// The number of the try that broke.
        attempt: u32,
        /// The wait before the next.
        wait: Duration,
        /// Why it broke.
        reason: String,
    },
    /// Nothing more will happen to it.
    Settled {
        /// On which machine.
        machine: Arc<str>,
        /// Which package.
        package: Arc<str>,
        /// How it ended.
        status: Status,
    },
}

/// How the delivery of one package to one machine ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum Status {
    /// The machine had it already.
    Cached,
    /// It was sent and verified.
    Sent {
        /// Tries it took.
        attempts: u32,
    },
    /// It could not be delivered.
    Failed {
        /// Tries made.
        attempts: u32,
        /// Why the last one broke.
        reason: String,
    },
    /// The acquisition was cancelled first.
    Cancelled,
    /// An earlier package failed on this machine.
    NotTried,
}

/// The end of an acquisition: every machine, in the order of the plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AcquireReport {
    /// The machines.
    pub machines: Vec<MachineReport>,
}

/// What became of one machine's packages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MachineReport {
    /// The machine's name.
    pub machine: Arc<str>,
    /// Its packages, in the order of the plan.
    pub packages: Vec<PackageReport>,
}

/// What became of one package on one machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PackageReport {
    /// Which package.
    pub package: Arc<str>,
    /// The bytes that were to be there.
    pub blob: Blob,
    /// How it ended.
    pub status: Status,
}

/// One machine that does not hold one of its packages, and why. Displays as a sentence fragment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure<'r> {
    /// The machine's name.
    pub machine: &'r str,
    /// Which package.
    pub package: &'r str,
    /// Tries made.
    pub attempts: u32,
    /// Why the last one broke.
    pub reason: &'r str,
}

impl Status {
    /// True when the machine holds the package.
    pub fn is_there(&self) -> bool {
        matches!(self, Self::Cached | Self::Sent { .. })
    }
}

impl MachineReport {
    /// True when the machine holds all its packages.
    pub fn is_complete(&self) -> bool {
        self.packages.iter().all(|package| package.status.is_there())
    }
}

impl AcquireReport {
    /// True when every machine holds all its packages: the barrier is open.
    pub fn is_complete(&self) -> bool {
        self.machines.iter().all(MachineReport::is_complete)
    }

    /// Every delivery that failed, in the order of the plan.
    pub fn failures(&self) -> impl Iterator<Item = Failure<'_>> {
        self.machines.iter().flat_map(|machine| {
            machine.packages.iter().filter_map(|package| match &package.status {
                Status::Failed { attempts, reason } => {
                    Some(Failure { machine: &machine.machine, package: &package.package, attempts: *attempts, reason })
                }
                _ => None,
            })
        })
    }

    /// Bytes of all packages that were sent, each counted once a machine.
    pub fn bytes_sent(&self) -> u64 {
        let packages = self.machines.iter().flat_map(|machine| &machine.packages);
        packages.filter(|package| matches!(package.status, Status::Sent { .. })).map(|package| package.blob.size).sum()
    }
}

impl fmt::Display for Failure<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { machine, package, attempts, reason } = self;
        let tries = if *attempts == 1 { "1 try" } else { &format!("{attempts} tries") };
        write!(f, "{machine} did not get {package} after {tries}: {reason}")
    }
}
