//! Packages of the deployment.

use crate::bindings::windlass::packages::packages::Package as Raw;

/// One version of one package, chosen by the host for this run.
pub struct Package {
    pub(crate) raw: Raw,
}

impl Package {
    pub(crate) fn new(raw: Raw) -> Self {
        Self { raw }
    }

    /// The identifier, such as `shop-web`.
    pub fn id(&self) -> String {
        self.raw.id()
    }

    /// The version, such as `1.4.0`.
    pub fn version(&self) -> String {
        self.raw.version()
    }

    /// SHA-256 of the archive in lower-case hexadecimal.
    pub fn sha256(&self) -> String {
        self.raw.sha256()
    }

    /// Size of the archive in bytes.
    pub fn size(&self) -> u64 {
        self.raw.size()
    }
}
