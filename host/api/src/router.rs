//! The routes, made from the table of operations, and answers to what matches none of them.

use std::sync::Arc;

use axum::{
    Router,
    extract::Request,
    http::{Method, StatusCode, Uri},
    response::{IntoResponse, Response},
    routing::{MethodFilter, on},
};
use tokio_util::sync::CancellationToken;
use tower_http::trace::{DefaultOnResponse, TraceLayer};
use tracing::Level;
use windlass_engine::Engine;

use crate::{app::App, fault::Fault, operation::Operation, operations};

/// The whole API over an engine.
pub fn router(engine: Engine) -> Router {
    routes(&App::new(engine, CancellationToken::new()))
}

/// The whole API over what is shared.
pub fn routes(app: &Arc<App>) -> Router {
    let mut router = Router::new();
    for operation in operations::all() {
        router = router.route(operation.path, route(app, operation));
    }
    let trace = TraceLayer::new_for_http()
        // Neither headers nor query: they may hold what does not belong in a log.
        .make_span_with(
            |request: &Request| tracing::info_span!("request", method = %request.method(), path = request.uri().path()),
        )
        .on_response(DefaultOnResponse::new().level(Level::DEBUG));
    router.fallback(unknown).method_not_allowed_fallback(wrong_method).layer(trace)
}

fn route(app: &Arc<App>, operation: &'static Operation) -> axum::routing::MethodRouter {
    let app = Arc::clone(app);
    let handler = move |request: Request| {
        let app = Arc::clone(&app);
        async move { operation.answer(app, request).await }
    };
    // GET answers HEAD too. A method the filter does not know would be a mistake in the table.
    let filter = MethodFilter::try_from(operation.method.clone()).unwrap_or(MethodFilter::GET);
    on(filter, handler)
}

async fn unknown(method: Method, uri: Uri) -> Response {
    Fault::new(StatusCode::NOT_FOUND, "no-such-route", format!("there is nothing at {method} {}", uri.path()))
        .fix("see /api/v1/openapi.json for what there is")
        .into_response()
}

async fn wrong_method(method: Method, uri: Uri) -> Response {
    Fault::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", format!("{} does not take {method}", uri.path()))
        .fix("see the Allow header, and /api/v1/openapi.json")
        .into_response()
}
