//! What operations take from a request, and what they answer: parsing, limits, and the schema of each in one place.

use std::{future::Future, io, sync::Arc, time::Duration};

use axum::{
    body::{Body, Bytes},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::BytesMut;
use futures::{StreamExt, TryStreamExt};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{
    Deserialize, Serialize,
    de::{DeserializeOwned, IgnoredAny},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    sync::OwnedSemaphorePermit,
};
use tokio_util::io::StreamReader;

use crate::{app::App, fault::Fault};

/// Largest JSON body, in bytes.
pub const MAX_JSON: u64 = 2 << 20;
/// Largest plugin, in bytes.
pub const MAX_PLUGIN: u64 = 64 << 20;
/// What is still read of a body that was refused, in bytes and time: a connection closed with bytes on the way is reset,
/// and then the client never sees why.
const DRAIN: (u64, Duration) = (256 << 20, Duration::from_secs(10));
/// How long the next piece of a body may take: less than an operation, so that it is this that the client is told.
const STALL: Duration = Duration::from_secs(20);

/// No path parameters, or no query.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Nothing {}

/// What a body or an answer looks like.
pub struct Content {
    /// Its media type.
    pub media: &'static str,
    /// Its schema; none for raw bytes and streams.
    pub schema: Option<Schema>,
    /// Whether it must be there.
    pub required: bool,
}

/// A request body.
pub trait Input: Sized + Send {
    /// What it looks like, if there is one.
    fn describe(schemas: &mut SchemaGenerator) -> Option<Content>;

    /// Reads it.
    fn read(app: &App, headers: &HeaderMap, body: Body) -> impl Future<Output = Result<Self, Fault>> + Send;
}

/// An answer.
pub trait Answer {
    /// Its status and what it may look like.
    fn describe(schemas: &mut SchemaGenerator) -> (StatusCode, Vec<Content>);

    /// Turns it into a response.
    fn respond(self) -> Response;
}

impl Input for () {
    fn describe(_: &mut SchemaGenerator) -> Option<Content> {
        None
    }

    async fn read(_: &App, _: &HeaderMap, _: Body) -> Result<Self, Fault> {
        Ok(())
    }
}

/// JSON, as body or answer.
pub struct Json<T>(pub T);

impl<T: DeserializeOwned + JsonSchema + Send> Input for Json<T> {
    fn describe(schemas: &mut SchemaGenerator) -> Option<Content> {
        Some(Content { media: "application/json", schema: Some(schemas.subschema_for::<T>()), required: true })
    }

    async fn read(_: &App, headers: &HeaderMap, body: Body) -> Result<Self, Fault> {
        check_json(headers)?;
        parse(&buffer(headers, body, MAX_JSON).await?).map(Self)
    }
}

impl<T: Serialize + JsonSchema> Answer for Json<T> {
    fn describe(schemas: &mut SchemaGenerator) -> (StatusCode, Vec<Content>) {
        (StatusCode::OK, vec![json::<T>(schemas)])
    }

    fn respond(self) -> Response {
        axum::Json(self.0).into_response()
    }
}

/// JSON that may be left out.
pub struct OptionalJson<T>(pub T);

impl<T: DeserializeOwned + Default + JsonSchema + Send> Input for OptionalJson<T> {
    fn describe(schemas: &mut SchemaGenerator) -> Option<Content> {
        Json::<T>::describe(schemas).map(|content| Content { required: false, ..content })
    }

    async fn read(_: &App, headers: &HeaderMap, body: Body) -> Result<Self, Fault> {
        let bytes = buffer(headers, body, MAX_JSON).await?;
        if bytes.is_empty() {
            return Ok(Self(T::default()));
        }
        check_json(headers)?;
        parse(&bytes).map(Self)
    }
}

/// Raw bytes, held in memory.
pub struct Blob {
    /// The bytes.
    pub bytes: Bytes,
    /// One of the few places for large bodies, taken until the handler is done.
    _place: Option<OwnedSemaphorePermit>,
}

impl Input for Blob {
    fn describe(_: &mut SchemaGenerator) -> Option<Content> {
        Some(Content { media: "application/octet-stream", schema: None, required: true })
    }

    async fn read(app: &App, headers: &HeaderMap, body: Body) -> Result<Self, Fault> {
        // Never closed, so there is a place sooner or later, or the operation's time is over.
        let place = Arc::clone(&app.blobs).acquire_owned().await.ok();
        Ok(Self { bytes: buffer(headers, body, MAX_PLUGIN).await?, _place: place })
    }
}

/// Raw bytes, read as they come.
pub struct Upload {
    /// The bytes.
    pub bytes: Box<dyn AsyncRead + Send + Unpin>,
    /// How many are announced.
    pub length: Option<u64>,
}

impl Input for Upload {
    fn describe(_: &mut SchemaGenerator) -> Option<Content> {
        Some(Content { media: "application/octet-stream", schema: None, required: true })
    }

    async fn read(_: &App, headers: &HeaderMap, body: Body) -> Result<Self, Fault> {
        let bytes = StreamReader::new(body.into_data_stream().map_err(io::Error::other));
        Ok(Self { bytes: Box::new(bytes), length: content_length(headers) })
    }
}

/// Something new, and where it is.
pub struct Created<T> {
    /// Its path.
    pub location: String,
    /// What it is.
    pub value: T,
}

impl<T: Serialize + JsonSchema> Answer for Created<T> {
    fn describe(schemas: &mut SchemaGenerator) -> (StatusCode, Vec<Content>) {
        (StatusCode::CREATED, vec![json::<T>(schemas)])
    }

    fn respond(self) -> Response {
        let mut response = (StatusCode::CREATED, axum::Json(self.value)).into_response();
        if let Ok(location) = HeaderValue::try_from(self.location) {
            response.headers_mut().insert(header::LOCATION, location);
        }
        response
    }
}

/// The description of a JSON answer.
pub fn json<T: JsonSchema>(schemas: &mut SchemaGenerator) -> Content {
    Content { media: "application/json", schema: Some(schemas.subschema_for::<T>()), required: true }
}

/// Percent-encodes one segment of a path.
pub fn segment(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}

/// Reads a whole body of at most `limit` bytes.
pub async fn buffer(headers: &HeaderMap, body: Body, limit: u64) -> Result<Bytes, Fault> {
    let announced = content_length(headers).unwrap_or(0);
    let mut pieces = body.into_data_stream();
    if announced > limit {
        drain(StreamReader::new(pieces.map_err(io::Error::other))).await;
        return Err(Fault::too_large(limit));
    }
    let mut bytes = BytesMut::new();
    loop {
        let piece = tokio::time::timeout(STALL, pieces.next()).await.map_err(|_| {
            let detail =
                format!("the body stalled: nothing came for {} s after {} bytes", STALL.as_secs(), bytes.len());
            Fault::new(StatusCode::REQUEST_TIMEOUT, "body-stalled", detail).fix("check the link and send it again")
        })?;
        let Some(piece) = piece else { return Ok(bytes.freeze()) };
        let piece = piece.map_err(|_| {
            let detail = format!("the body broke off after {} bytes", bytes.len());
            Fault::new(StatusCode::BAD_REQUEST, "body-broken", detail).fix("send it again")
        })?;
        if bytes.len() as u64 + piece.len() as u64 > limit {
            drain(StreamReader::new(pieces.map_err(io::Error::other))).await;
            return Err(Fault::too_large(limit));
        }
        bytes.extend_from_slice(&piece);
    }
}

/// Reads on to the end of what nobody wants, within bounds.
pub async fn drain(body: impl AsyncRead + Unpin) {
    let (limit, within) = DRAIN;
    let mut rest = body.take(limit);
    // Whatever comes of it: the refusal is what matters.
    let _ = tokio::time::timeout(within, tokio::io::copy(&mut rest, &mut tokio::io::sink())).await;
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn check_json(headers: &HeaderMap) -> Result<(), Fault> {
    let given = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    let media = given.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    if media == "application/json" || (media.starts_with("application/") && media.ends_with("+json")) {
        return Ok(());
    }
    let shown = if media.is_empty() { "no content type".to_owned() } else { media };
    Err(Fault::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "not-json",
        format!("the body must be JSON, but it has {shown}"),
    )
    .fix("send the header Content-Type: application/json"))
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Fault> {
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err(no_json("", "it is empty".to_owned()));
    }
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        // Where the break is, the parser does not know the next key: it says `?`.
        let path = error.path().to_string();
        let at = path.trim_end_matches('?').trim_end_matches('.');
        let cause = placed(error.inner());
        if !error.inner().is_data() {
            return no_json(at, cause);
        }
        // What breaks off further on is told first: what is wrong before may be a part of that.
        if let Err(broken) = serde_json::from_slice::<IgnoredAny>(bytes) {
            return no_json("", placed(&broken));
        }
        Fault::invalid("body-refused", format!("the body cannot be taken: {}", within(at, &cause)))
            .mistake(at, cause)
            .fix("compare it with its schema in /api/v1/openapi.json")
    })?;
    json.end().map_err(|error| no_json("", placed(&error)))?;
    Ok(value)
}

fn no_json(at: &str, cause: String) -> Fault {
    Fault::new(StatusCode::BAD_REQUEST, "body-no-json", format!("the body is no JSON: {}", within(at, &cause)))
        .mistake(at, cause)
        .fix("send JSON as its schema in /api/v1/openapi.json says")
}

fn within(at: &str, cause: &str) -> String {
    if at.is_empty() { cause.to_owned() } else { format!("{at}: {cause}") }
}

/// What the parser met, and where: `missing field `name` (line 3, column 12)`.
fn placed(error: &serde_json::Error) -> String {
    let (line, column) = (error.line(), error.column());
    let text = error.to_string();
    let what = text.strip_suffix(&format!(" at line {line} column {column}")).unwrap_or(&text);
    let what = if error.is_eof() { "it ends too early" } else { what };
    format!("{what} (line {line}, column {column})")
}
