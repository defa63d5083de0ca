//! Idempotency keys: a repeated request gets the first answer instead of doing its work again.
//!
//! Answers are kept in memory for a day, bounded in number and size. What a request made is recorded by the engine, in
//! the commit that makes it: when its answer is no longer here, as after a restart, it is written anew from that. A
//! refusal made nothing, so it is judged again. The work runs in a task of its own, so a client that goes away and asks
//! again finds it done.

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
use tokio::sync::watch;
use windlass_engine::{Engine, Made, Once};

use crate::{
    fault::Fault,
    handlers::{catalog, tasks},
    input::Answer,
};

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

/// The answer to a request that was done before, as far as is known from what it made.
///
/// # Errors
/// When its key came with another body.
pub async fn from_before(engine: &Engine, once: &Once) -> Result<Option<Saved>, Fault> {
    let response = match engine.made_before(once).await? {
        None => return Ok(None),
        Some(Made::Task(task)) => tasks::created(engine.task(task).await?.summary).respond(),
        Some(Made::Release { project, version }) => {
            catalog::created(engine.release(&project, Some(&version)).await?).respond()
        }
    };
    Ok(Some(Saved { replayed: true, ..Saved::of(response).await }))
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
    once: Once,
    size: usize,
    /// None until the first request is answered; closed without an answer when it failed.
    answer: watch::Receiver<Option<Saved>>,
}

impl Replays {
    /// The answer under a key: that of the first request with it, which may be known from `before`, or of `work`.
    pub async fn answer(
        &self,
        once: &Once,
        before: impl Future<Output = Result<Option<Saved>, Fault>>,
        work: impl Future<Output = Saved> + Send + 'static,
    ) -> Result<Saved, Fault> {
        let known = self.lock().known(once)?;
        let (mut answer, repeated) = match known {
            Some(answer) => (answer, true),
            None => {
                if let Some(saved) = before.await? {
                    return Ok(saved);
                }
                let mut state = self.lock();
                // Another one may have begun meanwhile.
                match state.known(once)? {
                    Some(answer) => (answer, true),
                    None => (self.begin(&mut state, once, work), false),
                }
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
        once: &Once,
        work: impl Future<Output = Saved> + Send + 'static,
    ) -> watch::Receiver<Option<Saved>> {
        let (sender, receiver) = watch::channel(None);
        let key = once.key().to_owned();
        state.slots.insert(key.clone(), Slot { once: once.clone(), size: 0, answer: receiver.clone() });
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
    /// The answer, perhaps to come, to a request that came before.
    fn known(&mut self, once: &Once) -> Result<Option<watch::Receiver<Option<Saved>>>, Fault> {
        self.forget_old();
        let Some(slot) = self.slots.get(once.key()) else { return Ok(None) };
        once.same(&slot.once)?;
        Ok(Some(slot.answer.clone()))
    }

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
        let once = Once::new(&key.to_string(), b"");
        let before = async { Ok(None) };
        let answer = replays.answer(&once, before, async move { saved(status, size) }).await.unwrap();
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
