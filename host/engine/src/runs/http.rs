//! HTTP requests of guests, made from the server.

use std::time::Duration;

use futures::StreamExt;
use windlass_effects::{
    Answer, CancelToken, Failure, HeaderValue, HttpRequest, HttpResponse, Outcome, UNKNOWN_OUTCOME,
};

use windlass_model::SecretText;

use super::performer::RunPerformer;

/// Longest a request may take.
const MAX_TIMEOUT: Duration = Duration::from_secs(600);
/// Bytes of a body that an answer may carry.
const MAX_BODY: usize = 12 << 10;
/// Headers of a response that are handed on.
const MAX_HEADERS: usize = 100;

pub(super) async fn send(run: &RunPerformer, request: &HttpRequest, cancel: &CancelToken) -> Answer {
    let timeout = Duration::from_millis(request.timeout_ms).clamp(Duration::from_millis(1), MAX_TIMEOUT);
    let invalid =
        |what: &str, why: String| Failure::new("invalid", format!("{what} of the request cannot be used: {why}"));
    let url = reqwest::Url::parse(&request.url).map_err(|error| invalid("the address", error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(invalid("the address", format!("{} is neither http nor https", url.scheme())));
    }
    let method = request.method.parse().map_err(|_| invalid("the method", format!("{:?}", request.method)))?;
    let mut builder = run.services.http.request(method, url).timeout(timeout);
    for (name, value) in &request.headers {
        builder = match value {
            HeaderValue::Text(text) => builder.header(name, text),
            HeaderValue::Secret { prefix, secret } => {
                let value = SecretText::new(format!("{prefix}{}", run.secret(secret)?.expose()));
                builder.header(name, value.expose())
            }
        };
    }
    if let Some(key) = &request.idempotency_key {
        builder = builder.header("idempotency-key", key);
    }
    if !request.body.is_empty() {
        builder = builder.body(request.body.clone());
    }
    tokio::select! {
        answer = receive(builder, (request.max_body as usize).min(MAX_BODY)) => {
            answer.map_err(|error| sent(&error, request)).map(Outcome::Http)
        }
        () = cancel.cancelled() => Err(Failure::cancelled()),
    }
}

async fn receive(builder: reqwest::RequestBuilder, max: usize) -> Result<HttpResponse, reqwest::Error> {
    let response = builder.send().await?;
    let status = response.status().as_u16();
    let headers = response
        .headers()
        .iter()
        .take(MAX_HEADERS)
        .map(|(name, value)| (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
        .collect();
    let (mut body, mut truncated) = (Vec::new(), false);
    let mut stream = response.bytes_stream();
    while let Some(piece) = stream.next().await {
        let piece = piece?;
        let room = max.saturating_sub(body.len());
        body.extend_from_slice(piece.get(..room.min(piece.len())).unwrap_or_default());
        if piece.len() > room {
            truncated = true;
            break;
        }
    }
    Ok(HttpResponse { status, headers, body, truncated })
}

/// What went wrong, without the address: it may hold a secret. A request that may have arrived, and must not arrive
/// twice, has an unknown outcome.
fn sent(error: &reqwest::Error, request: &HttpRequest) -> Failure {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    let what = if error.is_timeout() {
        ("timeout", "the request took too long".to_owned())
    } else if error.is_connect() {
        ("unreachable", format!("the server could not be reached: {cause}"))
    } else {
        ("io", format!("the request failed: {cause}"))
    };
    let maybe_arrived = !error.is_connect() && !error.is_builder();
    if maybe_arrived && !request.repeatable() {
        let message = format!("{}, and nobody can know whether the {} arrived", what.1, request.method);
        return Failure::new(UNKNOWN_OUTCOME, message)
            .fix("look at the receiver; a request with an idempotency key is repeated without asking");
    }
    Failure::new(what.0, what.1).retryable()
}
