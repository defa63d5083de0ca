//! A plugin that was taken: checked, compiled, described, ready to run.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
};

use wasmtime::component::Component;
use windlass_model::{Capability, Manifest};

use crate::{
    bindings::StepPre,
    calls::Calls,
    contract::{self, Import},
    error::RunError,
};

/// A loaded plugin. Cloning shares it; runs keep the version they started with alive.
#[derive(Clone)]
pub struct Plugin(Arc<Inner>);

struct Inner {
    digest: String,
    sdk: Option<String>,
    size: usize,
    manifest: Arc<Manifest>,
    imports: Vec<Import>,
    component: Component,
    /// Linked once for each set of grants that is in use.
    prepared: Mutex<BTreeMap<BTreeSet<Capability>, StepPre<Calls>>>,
}

/// More sets of grants than an operator makes; beyond it linking is simply done again.
const MAX_PREPARED: usize = 16;

impl Plugin {
    pub(crate) fn new(
        digest: String,
        bytes: &[u8],
        manifest: Manifest,
        imports: Vec<Import>,
        component: Component,
    ) -> Self {
        Self(Arc::new(Inner {
            digest,
            sdk: crate::bytes::sdk(bytes),
            size: bytes.len(),
            manifest: Arc::new(manifest),
            imports,
            component,
            prepared: Mutex::default(),
        }))
    }

    /// SHA-256 of the component, lower-case hexadecimal: what a release pins.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.0.digest
    }

    /// What the plugin says of itself.
    #[must_use]
    pub fn manifest(&self) -> &Arc<Manifest> {
        &self.0.manifest
    }

    /// What it imports.
    #[must_use]
    pub fn imports(&self) -> &[Import] {
        &self.0.imports
    }

    /// The SDK it was built with, such as `rust 0.1.0`, if it says so.
    #[must_use]
    pub fn sdk(&self) -> Option<&str> {
        self.0.sdk.as_deref()
    }

    /// Size of the component, bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.0.size
    }

    /// Whether it checks its inputs itself.
    #[must_use]
    pub fn validates(&self) -> bool {
        self.0.component.get_export_index(None, contract::VALIDATE).is_some()
    }

    pub(crate) fn component(&self) -> &Component {
        &self.0.component
    }

    /// The plugin linked with what these grants allow and nothing else.
    pub(crate) fn prepare(&self, grants: &BTreeSet<Capability>) -> Result<StepPre<Calls>, RunError> {
        let missing = self.0.imports.iter().find_map(|import| {
            let needs = import.needs.as_ref().filter(|needs| import.calls && !grants.contains(needs))?;
            Some(RunError::NotGranted { interface: import.interface.clone(), capability: needs.clone() })
        });
        if let Some(error) = missing {
            return Err(error);
        }
        let mut prepared = self.0.prepared.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pre) = prepared.get(grants) {
            return Ok(pre.clone());
        }
        let pre = contract::linker(self.0.component.engine(), |capability| grants.contains(capability))
            .and_then(|linker| StepPre::new(linker.instantiate_pre(&self.0.component)?))
            .map_err(|error| RunError::Host(format!("{error:#}")))?;
        if prepared.len() < MAX_PREPARED {
            prepared.insert(grants.clone(), pre.clone());
        }
        Ok(pre)
    }
}

impl std::fmt::Debug for Plugin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Plugin({} {} {})", self.0.manifest.id, self.0.manifest.version, self.0.digest)
    }
}
