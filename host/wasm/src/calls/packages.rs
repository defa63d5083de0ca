//! `windlass:packages`: handles to packages.

use wasmtime::component::Resource;
use windlass_effects::{PackageHandle, PackageInfo};

use super::Calls;
use crate::bindings::windlass::packages::packages;

/// A package that was lent to the run. What is known of it is part of the release, so no effect is needed to tell.
pub struct Package {
    pub handle: PackageHandle,
    pub info: PackageInfo,
}

impl packages::Host for Calls {}

impl packages::HostPackage for Calls {
    async fn id(&mut self, package: Resource<Package>) -> wasmtime::Result<String> {
        Ok(self.table.get(&package)?.info.id.clone())
    }

    async fn version(&mut self, package: Resource<Package>) -> wasmtime::Result<String> {
        Ok(self.table.get(&package)?.info.version.clone())
    }

    async fn sha256(&mut self, package: Resource<Package>) -> wasmtime::Result<String> {
        Ok(self.table.get(&package)?.info.sha256.clone())
    }

    async fn size(&mut self, package: Resource<Package>) -> wasmtime::Result<u64> {
        Ok(self.table.get(&package)?.info.size)
    }

    async fn drop(&mut self, package: Resource<Package>) -> wasmtime::Result<()> {
        self.table.delete(package)?;
        Ok(())
    }
}
