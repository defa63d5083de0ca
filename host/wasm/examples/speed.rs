//! Prints what a plugin costs: compiling, loading compiled code, and one whole run in a fresh sandbox.
//!
//! `cargo run --release -p windlass-wasm --example speed -- plugins/dist/deploy-package.wasm`
//! The run is made with no inputs and an answer of "done" to every effect; it may fail, its price is the same.

use std::{path::PathBuf, sync::Arc, time::Instant};

use async_trait::async_trait;
use windlass_effects::{Answer, CancelToken, Effect, Failure, Line, Stop, Waist};
use windlass_model::Capability;
use windlass_wasm::{Config, PluginHost, RunRequest};

const RUNS: u32 = 2000;

#[derive(Default)]
struct Nothing(CancelToken);

#[async_trait]
impl Waist for Nothing {
    async fn call(&self, effect: Effect) -> Result<Answer, Stop> {
        Ok(Err(Failure::new("unavailable", effect.name())))
    }
    fn log(&self, _: Line) {}
    fn progress(&self, _: u64, _: u64, _: String) {}
    fn cancel(&self) -> &CancelToken {
        &self.0
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).map(PathBuf::from).ok_or("name a component")?;
    let bytes: Arc<[u8]> = std::fs::read(&path)?.into();
    let folder = tempfile::tempdir()?;
    let config = || Config { cache: Some(folder.path().to_owned()), ..Config::default() };

    let start = Instant::now();
    PluginHost::new(config())?.load(bytes.clone()).await?;
    println!("{:<44}{:>10.1} ms", "compile and describe", start.elapsed().as_secs_f64() * 1e3);

    let host = PluginHost::new(config())?;
    let start = Instant::now();
    let plugin = host.load(bytes).await?;
    println!("{:<44}{:>10.1} ms", "load compiled code and describe", start.elapsed().as_secs_f64() * 1e3);

    let request = || RunRequest { grants: Capability::ALL.into(), ..RunRequest::default() };
    let waist: Arc<dyn Waist> = Arc::new(Nothing::default());
    let first = host.run(&plugin, request(), waist.clone()).await;
    println!("one run ends with: {}", first.map_or_else(|error| error.to_string(), |_| "success".to_owned()));
    let start = Instant::now();
    for _ in 0..RUNS {
        let _ = host.run(&plugin, request(), waist.clone()).await;
    }
    let each = start.elapsed() / RUNS;
    println!("{:<44}{:>10.3} ms", "fresh sandbox, one run, drop", each.as_secs_f64() * 1e3);
    Ok(())
}
