//! Runs guests in a fake world, and replays them from every point of their journal.

use std::{collections::BTreeMap, fmt, sync::Arc};

use serde_json::Value;
use windlass_effects::{
    CancelToken, Entry, Grants, Layers, LineSink, Masker, PackageHandle, SecretHandle, SessionHandle, Waist,
};
use windlass_model::Capability;
use windlass_script::{Ending, Request, Script, ScriptHost};

use crate::{
    fake::{FakeWorld, Live, State},
    replay::{Past, ReplayMismatch, at_every_index},
    transcript::{Recorder, Transcript},
};

/// How a run went.
#[derive(Debug, Clone)]
pub struct Run {
    /// How it ended, as a person reads it: `finished`, or what went wrong.
    pub ending: String,
    /// What it did.
    pub transcript: Transcript,
    /// What the server would have stored of it.
    pub journal: Vec<Entry>,
    pub(crate) history: Vec<State>,
}

impl Run {
    /// Whether it ended well.
    #[must_use]
    pub fn succeeded(&self) -> bool {
        self.ending == FINISHED
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-- {}", self.transcript, self.ending)
    }
}

pub(crate) const FINISHED: &str = "finished";

impl FakeWorld {
    /// Runs a coordination script. It is granted what its head asks for.
    pub async fn run_script<'a>(&self, source: &str, arguments: impl IntoIterator<Item = (&'a str, Value)>) -> Run {
        self.script_from(source, &owned(arguments), Past::default()).await
    }

    /// Runs a script once to its end, then interrupted at every index of its journal: as if the server had died there,
    /// and suspended there and taken up again. Effects, answers, lines and the ending must be the same each time.
    ///
    /// # Errors
    /// The first replay that went another way.
    pub async fn replay_script_at_every_index<'a>(
        &self,
        source: &str,
        arguments: impl IntoIterator<Item = (&'a str, Value)>,
    ) -> Result<Run, Box<ReplayMismatch>> {
        let arguments = owned(arguments);
        at_every_index(async |past| self.script_from(source, &arguments, past).await).await
    }

    async fn script_from(&self, source: &str, arguments: &BTreeMap<String, Value>, past: Past) -> Run {
        let script = match Script::compile("script.rhai", source) {
            Ok(script) => Arc::new(script),
            Err(fault) => {
                return Run {
                    ending: fault.to_string(),
                    transcript: Transcript::default(),
                    journal: Vec::new(),
                    history: vec![self.start.clone()],
                };
            }
        };
        let needs = script.manifest().needs.clone();
        let (live, recorder) = self.live(needs, past);
        let sessions = self.start.machines.iter().zip(1..);
        let request = Request {
            arguments: arguments.clone(),
            task: self.own_task,
            sessions: sessions.map(|(machine, handle)| (machine.name.clone(), SessionHandle(handle))).collect(),
            time_limit: None,
        };
        let waist = Arc::clone(&recorder) as Arc<dyn Waist>;
        let ending = match ScriptHost::default().run(script, request, waist).await {
            Ending::Finished => FINISHED.to_owned(),
            Ending::Failed(fault) => fault.to_string(),
            Ending::Cancelled => "cancelled".to_owned(),
            Ending::Stopped(stop) => stop.to_string(),
        };
        finish(ending, &live, &recorder)
    }

    /// The world with the real layers before it, and a recorder before those.
    pub(crate) fn live(
        &self,
        capabilities: impl IntoIterator<Item = Capability>,
        mut past: Past,
    ) -> (Arc<Live>, Arc<Recorder>) {
        let start = &self.start;
        let recorded = std::mem::take(&mut past.recorded);
        let live = Arc::new(Live::new(start.clone(), past));
        let names = start.machines.iter().map(|machine| machine.name.clone());
        let packages = start.packages.iter().map(|(info, _)| info.id.clone());
        let grants = Grants {
            capabilities: capabilities.into_iter().collect(),
            sessions: (1..).map(SessionHandle).zip(names).collect(),
            packages: (1..).map(PackageHandle).zip(packages).collect(),
            secrets: start.secrets.keys().cloned().map(SecretHandle).collect(),
        };
        let layers = Layers::new(
            grants,
            Arc::clone(&live),
            recorded,
            Masker::new(start.secrets.values()),
            Arc::clone(&live),
            Arc::clone(&live) as Arc<dyn LineSink>,
            CancelToken::new(),
        );
        (live, Arc::new(Recorder::new(Arc::new(layers))))
    }
}

pub(crate) fn finish(ending: String, live: &Live, recorder: &Recorder) -> Run {
    Run { ending, transcript: recorder.transcript(), journal: live.entries(), history: live.history() }
}

fn owned<'a>(arguments: impl IntoIterator<Item = (&'a str, Value)>) -> BTreeMap<String, Value> {
    arguments.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}
