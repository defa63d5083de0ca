//! `windlass serve`: opens the engine, serves the API, and ends in good order.
//!
//! Deployments survive the end of the server whatever its reason: commands on machines go on and are picked up at the
//! next start. So stopping waits only for what nobody could pick up: requests that are being answered, and requests to
//! strangers. A store that stopped ends the process with a code of its own.

mod notify;
mod plugins;
mod token;

use std::{io::IsTerminal, net::SocketAddr, path::PathBuf, time::Duration};

use clap::Args;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;
use windlass_api::ServeError;
use windlass_engine::{Engine, EngineConfig};

use super::Context;
use crate::{
    config::{LogFormat, ProcessEnv, Server, ServerFlags},
    errors::Failure,
    exit::Exit,
};

/// How long closing the store may take after that.
const CLOSE_WITHIN: Duration = Duration::from_secs(30);
/// What is logged when nobody says otherwise.
const DEFAULT_LOG: &str = "info,sled=warn,wasmtime=warn,cranelift=warn";

/// Run the server
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  windlass serve\n  windlass serve --data /var/lib/windlass --listen 127.0.0.1:7227 --plugins /usr/lib/windlass\n\n\
                  Settings come from flags, WINDLASS_* variables, windlass.toml, in this order: windlass help config.\n\
                  The first start writes a token to DATA/token, where the commands on this machine find it.\n\n\
                  SIGTERM and Ctrl-C stop it: it takes no more work, leaves commands on machines running, and\n\
                  exits with 0; the next start goes on with everything. A second signal ends it at once.\n\
                  A service for systemd: windlass help systemd."
)]
pub struct Serve {
    /// Folder for everything the server keeps
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Address and port to listen on [default: 127.0.0.1:7227]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// How to log; for people on a terminal, JSON elsewhere
    #[arg(long, value_enum)]
    log_format: Option<LogFormat>,
    /// Install the plugins in this folder at start
    #[arg(long, value_name = "DIR")]
    plugins: Option<PathBuf>,
    /// How long a stop may wait for what cannot be taken up later [default: 10]
    #[arg(long, value_name = "SECONDS")]
    stop_within: Option<u64>,
    /// Go on with what was under way in the backup that the data was restored from
    #[arg(long)]
    resume_restored: bool,
}

/// Runs it.
///
/// # Errors
/// When the server cannot start, or its store stops.
pub async fn run(context: &Context<'_>, command: Serve) -> Result<Exit, Failure> {
    let resume = command.resume_restored;
    let flags = ServerFlags {
        data: command.data,
        listen: command.listen,
        log_format: command.log_format,
        plugins: command.plugins,
        stop_within: command.stop_within,
    };
    let settings = Server::resolve(flags, &ProcessEnv, context.config_file()?)?;
    start_log(settings.log_format);
    // Signals are caught from the first moment: a stop during the start is a stop as well.
    let stop = stop_signal()?;
    let listener = listen(settings.listen).await?;
    let address =
        listener.local_addr().map_err(|error| Failure::new("listen", "failed to listen").cause(error.to_string()))?;
    let engine = open(&settings, resume).await?;
    let exit = serve(&settings, &engine, listener, address, stop).await;
    if matches!(&exit, Err(failure) if failure.exit == Exit::StoreStopped) {
        // There is nothing left to close, and waiting for threads that wait for a broken disk helps nobody. What they
        // hold goes with the process, which is about to end.
        std::mem::forget(engine);
        return exit;
    }
    if tokio::time::timeout(CLOSE_WITHIN, engine.close()).await.is_err() {
        tracing::warn!("closing takes too long and is left; nothing acknowledged is lost");
    }
    exit
}

async fn serve(
    settings: &Server,
    engine: &Engine,
    listener: TcpListener,
    address: SocketAddr,
    stop: CancellationToken,
) -> Result<Exit, Failure> {
    token::provide(engine, &settings.token_file()).await?;
    if let Some(folder) = &settings.plugins {
        plugins::install_from(engine, folder).await?;
    }
    let url = crate::config::url_of(address);
    tracing::info!(%url, data = %settings.data.display(), version = env!("CARGO_PKG_VERSION"), "ready");
    notify::send(&format!("READY=1\nSTATUS=serving {url}"));
    let drained = drain(engine.clone(), stop.clone(), settings.stop_within);
    match windlass_api::serve(listener, engine.clone(), stop.cancelled_owned(), settings.stop_within).await {
        // It began with the stop as well, so this is no second wait.
        Ok(()) => drained.await.unwrap_or_default(),
        Err(error @ ServeError::Store(_)) => {
            let failure = Failure::new("store-stopped", "the server ended").cause(error.to_string());
            return Err(failure.fix("windlass serve").exit(Exit::StoreStopped));
        }
        Err(error) => {
            return Err(Failure::new("serve", "the server ended").cause(error.to_string()));
        }
    }
    tracing::info!("stopped; what runs on machines goes on and is picked up at the next start");
    Ok(Exit::Done)
}

/// Drains the engine once the server is told to stop.
fn drain(engine: Engine, stop: CancellationToken, within: Duration) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        stop.cancelled().await;
        notify::send("STOPPING=1");
        if !engine.drain(within).await {
            let seconds = within.as_secs();
            tracing::warn!(seconds, "a request to a stranger did not end in time; the next start asks how it ended");
        }
    })
}

async fn open(settings: &Server, resume_restored: bool) -> Result<Engine, Failure> {
    let mut config = EngineConfig::new(&settings.data);
    config.settings = settings.limits.over(config.settings);
    config.resume_restored = resume_restored;
    Engine::open(config).await.map_err(|error| {
        let failure = Failure::new(error.code, format!("failed to open the data in {}", settings.data.display()))
            .cause(error.message);
        match error.fix {
            Some(fix) => failure.fix(fix),
            None => failure,
        }
    })
}

async fn listen(address: SocketAddr) -> Result<TcpListener, Failure> {
    TcpListener::bind(address).await.map_err(|error| {
        let failure = Failure::new("listen", format!("failed to listen on {address}")).cause(error.to_string());
        match error.kind() {
            std::io::ErrorKind::AddrInUse => {
                failure.fix("another server may be running; choose another port: windlass serve --listen 127.0.0.1:0")
            }
            _ => failure.fix("choose an address of this machine: windlass serve --listen 127.0.0.1:7227"),
        }
    })
}

/// Set when the process is asked to stop.
fn stop_signal() -> Result<CancellationToken, Failure> {
    let failed = |error: std::io::Error| Failure::new("system", "failed to watch for signals").cause(error.to_string());
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let stop = CancellationToken::new();
    let told = stop.clone();
    tokio::spawn(async move {
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        tracing::info!("stopping");
        told.cancel();
        // Who asks twice does not want to wait.
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        tracing::warn!("stopped at once, as asked twice");
        std::process::exit(i32::from(Exit::Interrupted.code()));
    });
    Ok(stop)
}

fn start_log(format: Option<LogFormat>) {
    let filter = std::env::var("WINDLASS_LOG").ok().and_then(|text| EnvFilter::try_new(text).ok());
    let filter = filter.unwrap_or_else(|| EnvFilter::new(DEFAULT_LOG));
    let terminal = std::io::stderr().is_terminal();
    let format = format.unwrap_or(if terminal { LogFormat::Pretty } else { LogFormat::Json });
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // Fails only when a subscriber is set already, which is as good.
    let _ = match format {
        LogFormat::Pretty => log.with_ansi(terminal).with_target(false).try_init(),
        LogFormat::Json => log.json().flatten_event(true).try_init(),
    };
}
