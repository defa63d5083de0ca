//! What the server says of itself: version and links, health, its own description.

use std::time::Duration;

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use schemars::{JsonSchema, SchemaGenerator};
use serde::Serialize;
use windlass_model::views::{DiskLevel, ServerInfo};

use crate::{
    fault::Fault,
    input::{Answer, Content, Json},
    openapi,
    operation::Call,
    operations,
};

/// How long the store may take to say that it is there.
const READY_WITHIN: Duration = Duration::from_secs(2);

/// State of the server.
#[derive(Serialize, JsonSchema)]
pub struct Health {
    /// Always `ok`.
    status: &'static str,
    /// What the server's disk still allows; told by `ready` only.
    #[serde(skip_serializing_if = "Option::is_none")]
    disk: Option<DiskLevel>,
}

/// Version and links.
pub async fn info(call: Call) -> Result<Json<ServerInfo>, Fault> {
    Ok(Json(ServerInfo {
        name: "windlass".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        links: operations::lists().map(|operation| (operation.id.to_owned(), operation.path.to_owned())).collect(),
        disk: Some(call.app.engine.disk()),
    }))
}

/// The process runs.
pub async fn live(_: Call) -> Result<Json<Health>, Fault> {
    Ok(Json(Health { status: "ok", disk: None }))
}

/// The server takes requests: its store answers, and it is not stopping.
pub async fn ready(call: Call) -> Result<Json<Health>, Fault> {
    let not = |why: &str| Fault::new(StatusCode::SERVICE_UNAVAILABLE, "not-ready", why).fix("look at the server's log");
    if call.app.closing.is_cancelled() {
        return Err(not("the server is stopping"));
    }
    match tokio::time::timeout(READY_WITHIN, call.app.engine.check_token("")).await {
        Ok(Ok(_)) => Ok(Json(Health { status: "ok", disk: Some(call.app.engine.disk().level) })),
        Ok(Err(error)) => Err(error.into()),
        Err(_) => Err(not("the store does not answer")),
    }
}

/// The OpenAPI document.
pub struct Document;

impl Answer for Document {
    fn describe(_: &mut SchemaGenerator) -> (StatusCode, Vec<Content>) {
        (StatusCode::OK, vec![Content { media: "application/json", schema: None, required: true }])
    }

    fn respond(self) -> Response {
        let json = HeaderValue::from_static("application/json");
        ([(header::CONTENT_TYPE, json)], openapi::text()).into_response()
    }
}

/// The OpenAPI document.
pub async fn document(_: Call) -> Result<Document, Fault> {
    Ok(Document)
}
