//! Projects, and releases: immutable snapshots of what a deployment needs.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    name::{PackageId, ProjectName},
    process::{PluginRef, Process},
};

/// A thing that is released and deployed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Project {
    /// Its name.
    pub name: ProjectName,
    /// What it is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
}

/// A release: what was to be deployed at the moment it was created, for ever.
///
/// Variables belong to it too; since they hold secrets they are kept beside it, named by
/// [`Release::variables_digest`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Release {
    /// Project it belongs to.
    pub project: ProjectName,
    /// Version, unique in the project.
    pub version: String,
    /// The process as it was.
    pub process: Process,
    /// Packages by id.
    pub packages: BTreeMap<PackageId, PinnedPackage>,
    /// Plugins by the reference that steps use.
    #[schemars(with = "BTreeMap<String, PinnedGuest>")]
    pub guests: BTreeMap<PluginRef, PinnedGuest>,
    /// SHA-256 of the variables that were snapshot with it.
    pub variables_digest: String,
    /// Notes for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub notes: String,
    /// Creation time, milliseconds since 1970 UTC.
    pub created_ms: u64,
}

impl Release {
    /// The pinned package with this id, in whatever case it is written.
    #[must_use]
    pub fn package(&self, id: &str) -> Option<(&PackageId, &PinnedPackage)> {
        self.packages.get_key_value(&PackageId::new(id).ok()?)
    }
}

/// A package version as a release pins it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PinnedPackage {
    /// Version in the feed.
    pub version: String,
    /// SHA-256 of the payload, the bytes that machines receive.
    pub sha256: String,
    /// Size of the payload in bytes.
    pub size: u64,
}

/// A guest as a release pins it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PinnedGuest {
    /// Full version.
    pub version: String,
    /// SHA-256 of the component.
    pub sha256: String,
}
