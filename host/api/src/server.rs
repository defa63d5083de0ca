//! Connections: accepting, limits and timeouts, and an end in good order.

use std::{sync::Arc, time::Duration};

use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use windlass_engine::Engine;

use crate::{app::App, router::routes, stall::Stall};

/// Connections open at the same time; more wait in the system's queue.
const MAX_CONNECTIONS: usize = 1024;
/// How long a request's head may take, and so how long a connection may be idle.
const HEAD_WITHIN: Duration = Duration::from_secs(30);
/// How often an idle HTTP/2 peer is asked whether it is there.
const PING: Duration = Duration::from_secs(30);
/// Requests at the same time over one HTTP/2 connection.
const MAX_STREAMS: u32 = 128;
/// How long running requests may take once the store stopped: enough for saying so, since nothing else can be answered any more.
const DRAIN_BROKEN: Duration = Duration::from_secs(1);
/// Failures to accept, one after the other, before it is given up.
const MAX_ACCEPT_FAILURES: u32 = 100;

/// Why serving ended other than by being told to.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// No connection can be accepted any more.
    #[error(
        "no connection can be accepted any more: {0}; check the limit of open files (ulimit -n) and start the server again"
    )]
    Accept(std::io::Error),
    /// The store stopped; nothing can be kept.
    #[error("the store stopped: {0}; start the server again")]
    Store(Arc<str>),
}

/// Serves until `shutdown` resolves, then lets running requests end, for no longer than `drain`.
///
/// # Errors
/// When no connection can be accepted any more, or the engine's store stopped.
pub async fn serve(
    listener: TcpListener,
    engine: Engine,
    shutdown: impl Future<Output = ()> + Send,
    drain: Duration,
) -> Result<(), ServeError> {
    let closing = CancellationToken::new();
    let app = App::new(engine.clone(), closing.clone());
    let mut server = Server {
        service: TowerToHyperService::new(routes(&app)),
        builder: builder(),
        places: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
        graceful: GracefulShutdown::new(),
        connections: JoinSet::new(),
    };
    let result = tokio::select! {
        () = shutdown => Ok(()),
        reason = engine.stopped() => Err(ServeError::Store(reason)),
        error = server.accept(&listener) => Err(ServeError::Accept(error)),
    };
    drop(listener);
    closing.cancel();
    let limit = if matches!(result, Err(ServeError::Store(_))) { DRAIN_BROKEN } else { drain };
    server.drain(limit).await;
    result
}

struct Server {
    service: TowerToHyperService<axum::Router>,
    builder: auto::Builder<TokioExecutor>,
    places: Arc<Semaphore>,
    graceful: GracefulShutdown,
    connections: JoinSet<()>,
}

fn builder() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    // A client that sent half a body and no more may still read: it is told why that was not taken. One that is gone
    // altogether is noticed when something is written to it, at the latest by the heartbeat of an event stream.
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_WITHIN).half_close(true);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING)
        .max_concurrent_streams(MAX_STREAMS);
    builder
}

impl Server {
    /// Accepts until that is no longer possible.
    async fn accept(&mut self, listener: &TcpListener) -> std::io::Error {
        let mut failures = 0;
        loop {
            // Never closed, so the place is there sooner or later.
            let place = Arc::clone(&self.places).acquire_owned().await;
            match listener.accept().await {
                Ok((stream, _)) => {
                    failures = 0;
                    while self.connections.try_join_next().is_some() {}
                    let connection = self.connection(stream);
                    self.connections.spawn(async move {
                        let _place = place;
                        connection.await;
                    });
                }
                Err(error) => {
                    failures += 1;
                    if failures == MAX_ACCEPT_FAILURES {
                        return error;
                    }
                    tracing::warn!(%error, "failed to accept a connection");
                    // Mostly too many open files: others must close first.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    fn connection(&self, stream: TcpStream) -> impl Future<Output = ()> + Send + use<> {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "failed to send small answers at once");
        }
        let connection = self.builder.serve_connection(TokioIo::new(Stall::new(stream)), self.service.clone());
        let watched = self.graceful.watch(connection.into_owned());
        async move {
            if let Err(error) = watched.await {
                tracing::debug!(error, "a connection ended badly");
            }
        }
    }

    /// Lets running requests end, within bounds.
    async fn drain(mut self, limit: Duration) {
        if tokio::time::timeout(limit, self.graceful.shutdown()).await.is_err() {
            tracing::warn!("some requests did not end in time and are cut off");
        }
        self.connections.shutdown().await;
    }
}
