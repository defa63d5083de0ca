//! Idempotency keys: a repeated request gets the first answer instead of doing its work again.
//!
//! Answers are kept in memory for a day, bounded in number and size, and forgotten when the server restarts. The work
//! runs in a task of its own, so a client that goes away and asks again finds it done.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use axum::{
    body::{Body, Bytes},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use sha2::{Digest, Sha256};
use tokio::sync::watch;

use crate::fault::Fault;

/// How long an answer is kept.
const KEPT: Duration = Duration::from_secs(24 * 60 * 60);
/// Answers kept, at most.
const MAX_KEPT: usize = 4096;
/// Bytes of kept answers, at most.
const MAX_BYTES: usize = 64 << 20;
/// Largest single answer.
const MAX_ANSWER: usize = 4 << 20;
/// Longest key.
const MAX_KEY: usize = 200;

/// A digest of a body.
pub type BodyDigest = [u8; 32];

/// The digest of a body.
pub fn digest(body: &[u8]) -> BodyDigest {
    Sha256::digest(body).into()
}

/// The key that a request carries.
pub fn key(headers: &HeaderMap) -> Result<Option<String>, Fault> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    match value.to_str() {
        Ok(text) if !text.is_empty() && text.len() <= MAX_KEY => Ok(Some(text.to_owned())),
        _ => Err(Fault::invalid(
            "idempotency-key",
            format!("the Idempotency-Key must be 1 to {MAX_KEY} printable ASCII characters"),
        )
        .fix("use a random UUID")),
    }
}

/// An answer that can be given again.
#[derive(Debug, Clone)]
pub struct Saved {
    status: StatusCode,
    location: Option<HeaderValue>,
    media: Option<HeaderValue>,
    body: Bytes,
    replayed: bool,
}

impl Saved {
    /// Takes a response apart.
    pub async fn of(response: Response) -> Self {
        let (parts, body) = response.into_parts();
        let header = |name| parts.headers.get(name).cloned();
        match axum::body::to_bytes(body, MAX_ANSWER).await {
            Ok(body) => Self {
                status: parts.status,
                location: header(header::LOCATION),
                media: header(header::CONTENT_TYPE),
                body,
                replayed: false,
            },
            Err(_) => Self {
                // It was done; only what it says is too long to be kept. The location tells where it is.
                status: parts.status,
                location: header(header::LOCATION),
                media: None,
                body: Bytes::new(),
                replayed: false,
            },
        }
    }

    /// Whether a repetition should get it: what failed for the server's sake may be tried again.
    fn lasts(&self) -> bool {
        !self.status.is_server_error()
    }
}

impl IntoResponse for Saved {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.body));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        for (name, value) in [(header::LOCATION, self.location), (header::CONTENT_TYPE, self.media)] {
            if let Some(value) = value {
                headers.insert(name, value);
            }
        }
        if self.replayed {
            headers.insert("idempotency-replayed", HeaderValue::from_static("true"));
        }
        response
    }
}

/// First answers by key.
#[derive(Default)]
pub struct Replays(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    slots: HashMap<String, Slot>,
    /// Keys in the order in which they came, with when.
    order: VecDeque<(Instant, String)>,
    bytes: usize,
}

struct Slot {
    digest: BodyDigest,
    size: usize,
    /// None until the first request is answered; closed without an answer when it failed.
    answer: watch::Receiver<Option<Saved>>,
}

impl Replays {
    /// The answer under `key`: that of `work`, or of the first request with that key.
    pub async fn answer(
        &self,
        key: String,
        digest: BodyDigest,
        work: impl Future<Output = Saved> + Send + 'static,
    ) -> Result<Saved, Fault> {
        let (mut answer, repeated) = {
            let mut state = self.lock();
            state.forget_old();
            match state.slots.get(&key) {
                Some(slot) if slot.digest != digest => {
                    return Err(Fault::invalid(
                        "idempotency-key-reused",
                        "this Idempotency-Key came with another body before",
                    )
                    .fix("use a new key for each new request"));
                }
                Some(slot) => (slot.answer.clone(), true),
                None => (self.begin(&mut state, key, digest, work), false),
            }
        };
        let answered = answer.wait_for(Option::is_some).await.ok().and_then(|saved| saved.clone());
        match answered {
            Some(saved) => Ok(Saved { replayed: repeated, ..saved }),
            None => Err(Fault::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "first-attempt-failed",
                "the first request with this key failed",
            )
            .fix("send it again")),
        }
    }

    fn begin(
        &self,
        state: &mut State,
        key: String,
        digest: BodyDigest,
        work: impl Future<Output = Saved> + Send + 'static,
    ) -> watch::Receiver<Option<Saved>> {
        let (sender, receiver) = watch::channel(None);
        state.slots.insert(key.clone(), Slot { digest, size: 0, answer: receiver.clone() });
        state.order.push_back((Instant::now(), key.clone()));
        let shared = Arc::clone(&self.0);
        tokio::spawn(async move {
            let saved = work.await;
            let mut state = lock(&shared);
            if saved.lasts() {
                state.keep(&key, saved.body.len());
            } else {
                state.remove(&key);
            }
            drop(state);
            sender.send_replace(Some(saved));
        });
        receiver
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.0)
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    fn keep(&mut self, key: &str, size: usize) {
        if let Some(slot) = self.slots.get_mut(key) {
            slot.size = size;
            self.bytes += size;
        }
        self.forget_old();
    }

    fn remove(&mut self, key: &str) {
        if let Some(slot) = self.slots.remove(key) {
            self.bytes -= slot.size;
        }
        self.order.retain(|(_, kept)| kept != key);
    }

    fn forget_old(&mut self) {
        while self
            .order
            .front()
            .is_some_and(|(at, _)| at.elapsed() > KEPT || self.order.len() > MAX_KEPT || self.bytes > MAX_BYTES)
        {
            let Some((_, key)) = self.order.pop_front() else { return };
            if let Some(slot) = self.slots.remove(&key) {
                self.bytes -= slot.size;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn saved(status: StatusCode, size: usize) -> Saved {
        Saved { status, location: None, media: None, body: vec![0; size].into(), replayed: false }
    }

    async fn ask(replays: &Replays, key: impl ToString, status: StatusCode, size: usize) -> (StatusCode, bool) {
        let answer = replays.answer(key.to_string(), [0; 32], async move { saved(status, size) }).await.unwrap();
        (answer.status, answer.replayed)
    }

    #[tokio::test]
    async fn what_failed_for_the_servers_sake_is_done_again_and_the_rest_is_not() {
        let (replays, failed, done) = (Replays::default(), StatusCode::SERVICE_UNAVAILABLE, StatusCode::CREATED);
        assert_eq!(ask(&replays, "k", failed, 0).await, (failed, false));
        assert_eq!(ask(&replays, "k", done, 0).await, (done, false));
        assert_eq!(ask(&replays, "k", failed, 0).await, (done, true));
    }

    #[tokio::test]
    async fn answers_are_bounded_in_number_and_size() {
        let replays = Replays::default();
        for key in 0..MAX_KEPT + 10 {
            ask(&replays, key, StatusCode::CREATED, 1).await;
        }
        let kept = replays.lock().slots.len();
        assert_eq!((kept, replays.lock().bytes), (MAX_KEPT, MAX_KEPT));
        for key in 0..20 {
            ask(&replays, format!("large {key}"), StatusCode::CREATED, MAX_ANSWER).await;
        }
        assert!(replays.lock().bytes <= MAX_BYTES);
        assert!(replays.lock().slots.len() < kept, "small old ones made room");
    }
}
