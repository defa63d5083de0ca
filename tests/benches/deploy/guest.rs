//! What a plugin costs that does nothing but ask for one command: made, run and dropped.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use windlass_effects::{Answer, CancelToken, Effect, Exit, Line, Outcome, SessionHandle, Stop, Waist};
use windlass_model::Capability;
use windlass_wasm::{Config, LentSession, Limits, PluginHost, RunRequest};

use crate::Anything;

const RUNS: u32 = 500;

/// Answers at once.
#[derive(Default)]
struct Answering(CancelToken);

#[async_trait]
impl Waist for Answering {
    async fn call(&self, effect: Effect) -> Result<Answer, Stop> {
        Ok(Ok(match effect {
            Effect::Expand { text } => Outcome::Text(text),
            Effect::Variable { .. } => Outcome::MaybeText(None),
            Effect::Run { .. } => Outcome::Exit(Exit::default()),
            _ => Outcome::Done,
        }))
    }

    fn log(&self, _line: Line) {}

    fn progress(&self, _done: u64, _total: u64, _note: String) {}

    fn cancel(&self) -> &CancelToken {
        &self.0
    }
}

/// Mean time of a run of the bundled `run-script` plugin.
pub async fn instantiate() -> Anything<Duration> {
    let plugins = windlass_tests::guests::plugins().await?;
    let file = plugins.iter().find(|file| file.to_string_lossy().contains("run-script")).ok_or("no run-script")?;
    let host = PluginHost::new(Config::default())?;
    let plugin = host.load(std::fs::read(file)?).await?;
    let started = Instant::now();
    for _ in 0..RUNS {
        let request = RunRequest {
            with: BTreeMap::from([("script".to_owned(), "true".into())]).into_iter().collect(),
            secrets: BTreeMap::new(),
            packages: BTreeMap::new(),
            session: Some(LentSession { handle: SessionHandle(1), name: "web1".to_owned() }),
            grants: BTreeSet::from_iter(Capability::ALL),
            limits: Limits::default(),
        };
        host.run(&plugin, request, Arc::new(Answering::default())).await?;
    }
    Ok(started.elapsed() / RUNS)
}
