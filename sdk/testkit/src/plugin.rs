//! Runs plugins in a fake world.

use std::{collections::BTreeMap, sync::Arc};

use windlass_effects::{PackageHandle, SecretHandle, SessionHandle, Waist};
use windlass_model::manifest::{InputKind, With};
use windlass_wasm::{Config, LentPackage, LentSession, Limits, Plugin, PluginHost, RunRequest};

use crate::{
    fake::FakeWorld,
    replay::{Past, at_every_index},
    run::{FINISHED, Run, finish},
};

/// What a plugin is given: its `with:`. Inputs that are secrets or packages hold the name of one in the world.
pub type PluginInputs = With;

impl FakeWorld {
    /// Runs a plugin on the world's first machine, if there is one. It is granted what its manifest asks for.
    ///
    /// # Errors
    /// When the component is refused; how the run went is in the answer.
    pub async fn run_plugin(&self, component: &[u8], with: PluginInputs) -> Result<Run, String> {
        let prepared = self.prepare(component, with).await?;
        Ok(self.plugin_from(&prepared, Past::default()).await)
    }

    /// Runs a plugin once to its end, then interrupted at every index of its journal: as if the server had died there,
    /// and suspended there and taken up again. Effects, answers, lines and the ending must be the same each time.
    ///
    /// # Errors
    /// When the component is refused, or the first replay that went another way.
    pub async fn replay_plugin_at_every_index(&self, component: &[u8], with: PluginInputs) -> Result<Run, String> {
        let prepared = self.prepare(component, with).await?;
        at_every_index(async |past| self.plugin_from(&prepared, past).await).await.map_err(|fault| fault.to_string())
    }

    async fn plugin_from(&self, prepared: &Prepared, past: Past) -> Run {
        let Prepared { host, plugin, request } = prepared;
        let (live, recorder) = self.live(request.grants.iter().cloned(), past);
        let waist = Arc::clone(&recorder) as Arc<dyn Waist>;
        let ending = match host.run(plugin, request.clone(), waist).await {
            Ok(_) => FINISHED.to_owned(),
            Err(error) => error.to_string(),
        };
        finish(ending, &live, &recorder)
    }

    async fn prepare(&self, component: &[u8], with: PluginInputs) -> Result<Prepared, String> {
        let host = PluginHost::new(Config::default()).map_err(|error| error.to_string())?;
        let plugin = host.load(component).await.map_err(|refused| refused.to_string())?;
        let manifest = plugin.manifest();
        let named = |kind: InputKind| {
            manifest.inputs.iter().filter(move |input| input.kind == kind).filter_map(|input| {
                let name = with.get(&input.name)?.as_str()?;
                Some((input.name.clone(), name.to_owned()))
            })
        };
        let packages = named(InputKind::Package).filter_map(|(input, id)| {
            let mut known = (1..).zip(&self.start.packages);
            let (handle, (info, _)) = known.find(|(_, (info, _))| info.id == id)?;
            Some((input, LentPackage { handle: PackageHandle(handle), info: info.clone() }))
        });
        let session = self
            .start
            .machines
            .first()
            .map(|machine| LentSession { handle: SessionHandle(1), name: machine.name.clone() });
        let request = RunRequest {
            secrets: named(InputKind::Secret).map(|(input, name)| (input, SecretHandle(name))).collect(),
            packages: packages.collect::<BTreeMap<_, _>>(),
            with: with.clone(),
            session,
            grants: manifest.capabilities.iter().cloned().collect(),
            limits: Limits::default(),
        };
        Ok(Prepared { host, plugin, request })
    }
}

/// A plugin that is loaded, and what it is given.
struct Prepared {
    host: PluginHost,
    plugin: Plugin,
    request: RunRequest,
}
