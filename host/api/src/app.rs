//! What every request shares.

use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use windlass_engine::Engine;

use crate::idempotency::Replays;

/// Event streams open at the same time, at most.
const MAX_STREAMS: usize = 256;
/// Large bodies in memory at the same time.
const MAX_BLOBS: usize = 2;

/// The engine, and what bounds the use of it.
pub struct App {
    /// What is served.
    pub engine: Engine,
    /// Set when the server stops: endless answers end.
    pub closing: CancellationToken,
    /// First answers to requests with an idempotency key.
    pub replays: Replays,
    /// Open event streams.
    pub streams: Arc<Semaphore>,
    /// Places for large bodies in memory.
    pub blobs: Arc<Semaphore>,
}

impl App {
    /// Over an engine.
    #[must_use]
    pub fn new(engine: Engine, closing: CancellationToken) -> Arc<Self> {
        Arc::new(Self {
            engine,
            closing,
            replays: Replays::default(),
            streams: Arc::new(Semaphore::new(MAX_STREAMS)),
            blobs: Arc::new(Semaphore::new(MAX_BLOBS)),
        })
    }
}
