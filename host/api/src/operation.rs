//! One operation of the API: how it is found, what it takes and gives, and what surrounds every call of it.
//!
//! An [`Operation`] is made from a handler whose types say path, query, body and answer. Parsing, the OpenAPI entry and
//! the route all come from those types, so they cannot tell different stories.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::{FromRequestParts, Path, Query, Request},
    http::{HeaderMap, Method, StatusCode, Uri, header, request::Parts},
    response::{IntoResponse, Response},
};
use futures::{FutureExt, future::BoxFuture};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::DeserializeOwned;
use windlass_engine::{Once, failpoint};

use crate::{
    app::App,
    fault::Fault,
    idempotency::{self, Saved},
    input::{Answer, Content, Input, MAX_JSON, Nothing, buffer},
};

/// How long an operation may take unless it says otherwise.
const TIME_LIMIT: Duration = Duration::from_secs(30);
/// Longest token worth looking up.
const MAX_TOKEN: usize = 512;

/// Whose token a request carries.
#[derive(Clone, Default)]
struct Who(String);

/// A request as a handler sees it.
pub struct Call<P = Nothing, Q = Nothing, B = ()> {
    /// What is served.
    pub app: Arc<App>,
    /// Name of the token that the request carries.
    pub who: String,
    /// Its idempotency key, where the operation honours one.
    pub once: Option<Once>,
    /// The request's headers.
    pub headers: HeaderMap,
    /// Parameters in the path.
    pub path: P,
    /// Parameters in the query.
    pub query: Q,
    /// The body.
    pub body: B,
}

/// Parameters of a path or a query.
pub trait Params: DeserializeOwned + JsonSchema + Send + 'static {}
impl<T: DeserializeOwned + JsonSchema + Send + 'static> Params for T {}

type Run = Arc<dyn Fn(Arc<App>, Request) -> BoxFuture<'static, Result<Response, Fault>> + Send + Sync>;

/// One operation.
#[derive(Clone)]
pub struct Operation {
    /// Its method.
    pub method: Method,
    /// Its path, parameters in braces.
    pub path: &'static str,
    /// Its name for programs.
    pub id: &'static str,
    /// What it does, for people.
    pub summary: &'static str,
    /// Whether it needs no token.
    pub public: bool,
    /// Whether a repetition with the same `Idempotency-Key` gets the first answer.
    pub idempotent: bool,
    time_limit: Option<Duration>,
    describe: fn(&mut SchemaGenerator) -> Description,
    run: Run,
}

/// What an operation takes and gives.
pub struct Description {
    /// Schema of the path's parameters.
    pub path: Schema,
    /// Schema of the query's parameters.
    pub query: Schema,
    /// Its body.
    pub body: Option<Content>,
    /// Status of success.
    pub status: StatusCode,
    /// Forms of the answer.
    pub answers: Vec<Content>,
}

impl Operation {
    /// An operation done by `handler`.
    pub fn new<P, Q, B, A, H, F>(
        method: Method,
        path: &'static str,
        id: &'static str,
        summary: &'static str,
        handler: H,
    ) -> Self
    where
        P: Params,
        Q: Params,
        B: Input,
        A: Answer,
        H: Fn(Call<P, Q, B>) -> F + Copy + Send + Sync + 'static,
        F: Future<Output = Result<A, Fault>> + Send + 'static,
    {
        let run = move |app: Arc<App>, request: Request| {
            async move {
                let (mut parts, body) = request.into_parts();
                let params = path_params(path, &mut parts).await?;
                let query = query(&parts.uri)?;
                let body = B::read(&app, &parts.headers, body).await?;
                let who = parts.extensions.remove::<Who>().unwrap_or_default().0;
                let once = parts.extensions.remove::<Once>();
                let call = Call { app, who, once, headers: parts.headers, path: params, query, body };
                handler(call).await.map(Answer::respond)
            }
            .boxed()
        };
        let describe = |schemas: &mut SchemaGenerator| {
            let (status, answers) = A::describe(schemas);
            let (path, query) = (P::json_schema(schemas), Q::json_schema(schemas));
            Description { path, query, body: B::describe(schemas), status, answers }
        };
        Self {
            method,
            path,
            id,
            summary,
            public: false,
            idempotent: false,
            time_limit: Some(TIME_LIMIT),
            describe,
            run: Arc::new(run),
        }
    }

    /// The same, without a token.
    #[must_use]
    pub fn public(mut self) -> Self {
        self.public = true;
        self
    }

    /// The same, honouring idempotency keys.
    #[must_use]
    pub fn idempotent(mut self) -> Self {
        self.idempotent = true;
        self
    }

    /// The same, with another time limit.
    #[must_use]
    pub fn within(mut self, limit: Duration) -> Self {
        self.time_limit = Some(limit);
        self
    }

    /// The same without a time limit: what it reads and waits for must be bounded by itself.
    #[must_use]
    pub fn bounded_by_itself(mut self) -> Self {
        self.time_limit = None;
        self
    }

    /// What it takes and gives.
    pub fn description(&self, schemas: &mut SchemaGenerator) -> Description {
        (self.describe)(schemas)
    }

    /// Answers a request, whatever happens.
    pub async fn answer(&self, app: Arc<App>, request: Request) -> Response {
        let call = AssertUnwindSafe(self.call(app, request)).catch_unwind().await;
        failpoint::pass(|| format!("api/{}/done", self.id));
        match call {
            Ok(Ok(response)) => response,
            Ok(Err(fault)) => fault.into_response(),
            Err(_) => panicked().into_response(),
        }
    }

    async fn call(&self, app: Arc<App>, mut request: Request) -> Result<Response, Fault> {
        let who = if self.public { String::new() } else { authenticate(&app, request.headers()).await? };
        request.extensions_mut().insert(Who(who.clone()));
        let key = if self.idempotent { idempotency::key(request.headers())? } else { None };
        let answer = match key {
            Some(key) => self.once(app, request, format!("{who}\n{key}")).boxed(),
            None => (self.run)(app, request),
        };
        match self.time_limit {
            None => answer.await,
            Some(limit) => tokio::time::timeout(limit, answer).await.unwrap_or_else(|_| {
                let detail = format!("the server did not get this done within {} s", limit.as_secs());
                Err(Fault::new(StatusCode::SERVICE_UNAVAILABLE, "timeout", detail)
                    .fix("look whether it was done, then ask again"))
            }),
        }
    }

    /// Does it, unless it was done under that key. The work goes on when the client goes away: the answer must be
    /// there when the client asks again.
    async fn once(&self, app: Arc<App>, request: Request, key: String) -> Result<Response, Fault> {
        let (mut parts, body) = request.into_parts();
        let bytes = buffer(&parts.headers, body, MAX_JSON).await?;
        let once = Once::new(&format!("{key}\n{}", parts.uri.path()), &bytes);
        parts.extensions.insert(once.clone());
        let (run, shared) = (Arc::clone(&self.run), Arc::clone(&app));
        let work = async move {
            let request = Request::from_parts(parts, Body::from(bytes));
            let done = AssertUnwindSafe(run(shared, request)).catch_unwind().await;
            let response = done.unwrap_or_else(|_| Err(panicked())).unwrap_or_else(IntoResponse::into_response);
            Saved::of(response).await
        };
        let before = idempotency::from_before(&app.engine, &once);
        app.replays.answer(&once, before, work).await.map(IntoResponse::into_response)
    }
}

fn panicked() -> Fault {
    Fault::internal(&"a handler panicked; the message is above")
}

/// Finds out whose token a request carries.
async fn authenticate(app: &App, headers: &HeaderMap) -> Result<String, Fault> {
    let refused = |detail: &str| {
        Fault::new(StatusCode::UNAUTHORIZED, "unauthorized", detail).fix(
            "set WINDLASS_TOKEN, or name a file that holds one: --token-file FILE; a server writes its first token to DATA/token",
        )
    };
    let header = headers.get(header::AUTHORIZATION).ok_or_else(|| refused("the request carries no token"))?;
    let (scheme, token) = header.to_str().unwrap_or_default().split_once(' ').unwrap_or_default();
    let token = token.trim();
    if !scheme.eq_ignore_ascii_case("bearer") || token.is_empty() || token.len() > MAX_TOKEN {
        return Err(refused("the Authorization header holds no bearer token"));
    }
    app.engine.check_token(token).await?.ok_or_else(|| refused("the token is not valid here"))
}

async fn path_params<P: Params>(template: &str, parts: &mut Parts) -> Result<P, Fault> {
    if !template.contains('{') {
        return serde_json::from_value(serde_json::json!({})).map_err(|error| Fault::internal(&error));
    }
    let Path(params) = Path::<P>::from_request_parts(parts, &()).await.map_err(|rejection| {
        Fault::invalid("path-refused", format!("the path cannot be taken: {}", plain(&rejection.body_text())))
            .fix(format!("write it like {template}"))
    })?;
    Ok(params)
}

fn query<Q: Params>(uri: &Uri) -> Result<Q, Fault> {
    let Query(query) = Query::<Q>::try_from_uri(uri).map_err(|rejection| {
        Fault::invalid("query-refused", format!("the query cannot be taken: {}", plain(&rejection.body_text())))
            .fix("see its parameters in /api/v1/openapi.json")
    })?;
    Ok(query)
}

/// The framework's words without its preamble.
fn plain(text: &str) -> &str {
    text.split_once(": ").map_or(text, |(_, cause)| cause)
}
