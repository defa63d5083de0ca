//! What a run is started with, and what is known of it afterwards.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use windlass_effects::{PackageHandle, PackageInfo, SecretHandle, SessionHandle};
use windlass_model::{Capability, manifest::With};

use crate::limits::Limits;

/// Everything that is lent to a run besides its waist.
#[derive(Debug, Clone, Default)]
pub struct RunRequest {
    /// The inputs as written under `with:`. Defaults come from the manifest, templates are expanded when the guest
    /// reads an input.
    pub with: With,
    /// Handles of the inputs that are secrets, by the input's name.
    pub secrets: BTreeMap<String, SecretHandle>,
    /// Packages of the inputs that name one, by the input's name.
    pub packages: BTreeMap<String, LentPackage>,
    /// The machine of the run; none for a run on the server.
    pub session: Option<LentSession>,
    /// What the manifest asks for and the operator allowed.
    pub grants: BTreeSet<Capability>,
    /// Bounds of the run.
    pub limits: Limits,
}

/// A machine that is lent to a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LentSession {
    /// The handle that effects name.
    pub handle: SessionHandle,
    /// The machine's name.
    pub name: String,
}

/// A package that is lent to a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LentPackage {
    /// The handle that effects name.
    pub handle: PackageHandle,
    /// What is known of it.
    pub info: PackageInfo,
}

/// What is known of a run that ended well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunReport {
    /// How long it took, waiting included.
    pub took: Duration,
    /// Most linear memory in use, bytes.
    pub peak_memory: usize,
    /// How many effects it asked for.
    pub effects: u64,
    /// Lines of its log that were left out because there were too many.
    pub dropped_lines: u64,
}
