//! Requests and answers: the connection, retries, and turning refusals into errors.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use reqwest::{Body, Method, RequestBuilder, Response, Url, header};
use serde::{Serialize, de::DeserializeOwned};
use windlass_model::{SecretText, views::Problem};

use crate::error::{ClientError, Result};

/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(10);
/// How long an answer may take; the server's own limits are shorter.
const ANSWER: Duration = Duration::from_secs(200);
/// How long an idle connection is kept; the server closes them later.
const IDLE: Duration = Duration::from_secs(20);
/// Slowest upload worth waiting for, in bytes a second.
const SLOWEST: u64 = 16 << 10;
/// Attempts at a request that may be repeated.
const ATTEMPTS: u32 = 3;
/// Pause before the second attempt; the third waits twice as long.
const PAUSE: Duration = Duration::from_millis(250);
/// Bytes of an odd answer worth showing.
const SHOWN: usize = 200;

/// A connection to a server. Clones share it.
#[derive(Debug, Clone)]
pub struct Client(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    http: reqwest::Client,
    server: Url,
    token: SecretText,
}

/// A request that may be made more than once: it only reads, sets, or carries a key.
pub(crate) struct Ask {
    pub method: Method,
    pub url: Url,
    pub body: Option<Bytes>,
    pub accept: &'static str,
}

impl Client {
    /// A client of the server at `url` with a bearer token. Connects only when something is asked.
    ///
    /// # Errors
    /// When the URL is none of a server.
    pub fn new(url: &str, token: impl Into<String>) -> Result<Self> {
        let misuse = |cause: String| ClientError::Misuse { what: "the server's URL", cause };
        let mut server: Url = url.parse().map_err(|error| misuse(format!("{url}: {error}")))?;
        if !matches!(server.scheme(), "http" | "https") || !server.has_host() {
            return Err(misuse(format!("{url}: it must begin with http:// or https:// and name a host")));
        }
        server.set_query(None);
        server.set_fragment(None);
        if !server.path().ends_with('/') {
            let path = format!("{}/", server.path());
            server.set_path(&path);
        }
        // Fails only when a provider is set already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder()
            .user_agent(concat!("windlass-client/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT)
            .pool_idle_timeout(IDLE)
            .tcp_nodelay(true)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| ClientError::of(server.as_str(), &error))?;
        Ok(Self(Arc::new(Inner { http, server, token: SecretText::new(token.into()) })))
    }

    /// The server's URL, ending in a slash.
    #[must_use]
    pub fn server(&self) -> &str {
        self.0.server.as_str()
    }

    /// The URL of a path under `/api/v1`, given by its segments.
    pub(crate) fn url(&self, segments: &[&str]) -> Url {
        let mut url = self.0.server.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(["api", "v1"]).extend(segments);
        }
        url
    }

    /// Reads something.
    pub(crate) async fn get<T: DeserializeOwned>(&self, url: Url) -> Result<T> {
        let ask = Ask { method: Method::GET, url, body: None, accept: "application/json" };
        self.decode(self.ask(ask).await?).await
    }

    /// Sends something; under an idempotency key it is repeated when the answer is lost.
    pub(crate) async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        url: Url,
        body: Option<&impl Serialize>,
    ) -> Result<T> {
        let body = body.map(serde_json::to_vec).transpose();
        let body = body.map_err(|error| ClientError::Misuse { what: "the request", cause: error.to_string() })?;
        let ask = Ask { method, url, body: body.map(Bytes::from), accept: "application/json" };
        self.decode(self.ask(ask).await?).await
    }

    /// Asks until there is an answer, a refusal, or no more sense in asking.
    pub(crate) async fn ask(&self, ask: Ask) -> Result<Response> {
        let key = (ask.method == Method::POST).then(|| hex::encode(rand::random::<[u8; 16]>()));
        let mut attempt = 1;
        loop {
            let mut request =
                self.request(ask.method.clone(), ask.url.clone()).timeout(ANSWER).header(header::ACCEPT, ask.accept);
            if let Some(key) = &key {
                request = request.header("Idempotency-Key", key);
            }
            if let Some(body) = &ask.body {
                request = request.header(header::CONTENT_TYPE, "application/json").body(body.clone());
            }
            match self.check(request).await {
                // A server that is not there is told of at once: nobody wants to wait for that.
                Err(ClientError::Broken { .. }) if attempt < ATTEMPTS => {
                    tokio::time::sleep(PAUSE * attempt).await;
                    attempt += 1;
                }
                done => return done,
            }
        }
    }

    /// Sends `size` bytes, once.
    pub(crate) async fn upload<T: DeserializeOwned>(
        &self,
        request: RequestBuilder,
        size: u64,
        body: Body,
    ) -> Result<T> {
        let within = ANSWER + Duration::from_secs(size / SLOWEST);
        let request = request
            .header(header::CONTENT_TYPE, "application/octet-stream")
            .header(header::CONTENT_LENGTH, size)
            .timeout(within)
            .body(body);
        match self.check(request).await {
            Ok(response) => self.decode(response).await,
            // A server that refuses an upload early closes the connection, and its words may get lost: ask for them.
            Err(broken @ ClientError::Broken { .. }) => match self.info().await {
                Err(refused @ ClientError::Problem(_)) => Err(refused),
                _ => Err(broken),
            },
            Err(error) => Err(error),
        }
    }

    pub(crate) fn request(&self, method: Method, url: Url) -> RequestBuilder {
        self.0.http.request(method, url).bearer_auth(self.0.token.expose())
    }

    /// Sends a request; an answer that is no success becomes an error.
    pub(crate) async fn check(&self, request: RequestBuilder) -> Result<Response> {
        let response = request.send().await.map_err(|error| self.failed(&error))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let is_problem = content_type(&response).starts_with("application/problem+json");
        let body = response.bytes().await.map_err(|error| self.failed(&error))?;
        match serde_json::from_slice::<Problem>(&body) {
            Ok(problem) if is_problem => Err(ClientError::Problem(Box::new(problem))),
            _ => {
                let text: String = String::from_utf8_lossy(&body).chars().take(SHOWN).collect();
                Err(self.foreign(format!("it says {status} {text:?}")))
            }
        }
    }

    async fn decode<T: DeserializeOwned>(&self, response: Response) -> Result<T> {
        let media = content_type(&response);
        let body = response.bytes().await.map_err(|error| self.failed(&error))?;
        serde_json::from_slice(&body)
            .map_err(|error| self.foreign(format!("its answer ({media}) is not understood: {error}")))
    }

    pub(crate) fn failed(&self, error: &reqwest::Error) -> ClientError {
        ClientError::of(self.server(), error)
    }

    pub(crate) fn foreign(&self, cause: String) -> ClientError {
        ClientError::Foreign { server: self.server().to_owned(), cause }
    }
}

fn content_type(response: &Response) -> String {
    let value = response.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    value.unwrap_or("no content type").to_owned()
}
