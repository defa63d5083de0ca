//! Runs plugins in a fake world.

use std::{collections::BTreeMap, sync::Arc};

use windlass_effects::{PackageHandle, SecretHandle, SessionHandle, Waist};
use windlass_model::manifest::{InputKind, With};
use windlass_wasm::{Config, LentPackage, LentSession, Limits, PluginHost, RunRequest};

use crate::{
    fake::FakeWorld,
    run::{FINISHED, ReplayMismatch, Run, finish, same},
};

/// What a plugin is given: its `with:`. Inputs that are secrets or packages hold the name of one in the world.
pub type PluginInputs = With;

impl FakeWorld {
    /// Runs a plugin on the world's first machine, if there is one. It is granted what its manifest asks for.
    ///
    /// # Errors
    /// When the component is refused; how the run went is in the answer.
    pub async fn run_plugin(&self, component: &[u8], with: PluginInputs) -> Result<Run, String> {
        self.replay_plugin(component, with, 0..1).await.map_err(|fault| fault.to_string())
    }

    /// Runs a plugin once from its start, then once from every index of its journal. Every transcript must be the same.
    ///
    /// # Errors
    /// When the component is refused, or the first replay that went another way.
    pub async fn replay_plugin_at_every_index(&self, component: &[u8], with: PluginInputs) -> Result<Run, String> {
        self.replay_plugin(component, with, 0..usize::MAX).await
    }

    async fn replay_plugin(
        &self,
        component: &[u8],
        with: PluginInputs,
        indexes: std::ops::Range<usize>,
    ) -> Result<Run, String> {
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
        let mut first: Option<Run> = None;
        for index in indexes {
            let (recorded, later) = match &first {
                None => (Vec::new(), Vec::new()),
                Some(run) if index > run.journal.len() => break,
                Some(run) => (
                    run.journal.iter().take(index).cloned().collect(),
                    run.history.iter().skip(1).take(index).cloned().collect(),
                ),
            };
            let (live, recorder) = self.live(request.grants.iter().cloned(), recorded, later);
            let waist = Arc::clone(&recorder) as Arc<dyn Waist>;
            let ending = match host.run(&plugin, request.clone(), waist).await {
                Ok(_) => FINISHED.to_owned(),
                Err(error) => error.to_string(),
            };
            let run = finish(ending, &live, &recorder);
            match &first {
                None => first = Some(run),
                Some(first) => same(index, first, &run).map_err(|fault: Box<ReplayMismatch>| fault.to_string())?,
            }
        }
        first.ok_or_else(|| "nothing was run".to_owned())
    }
}
