//! Whatever goes wrong, as an RFC 9457 problem: what, why, and one thing to do.

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use windlass_engine::{EngineError, ErrorKind};
use windlass_model::{
    diagnostic::Diagnostic,
    views::{Mistake, Problem},
};

/// A refusal or failure on its way to the client.
#[derive(Debug)]
pub struct Fault {
    status: StatusCode,
    code: &'static str,
    detail: String,
    fix: Option<String>,
    errors: Vec<Mistake>,
}

impl Fault {
    /// A fault with that status and code.
    pub fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self { status, code, detail: detail.into(), fix: None, errors: Vec::new() }
    }

    /// What was sent cannot be taken.
    pub fn invalid(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, code, detail)
    }

    /// Something larger than allowed.
    pub fn too_large(limit: u64) -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "too-large",
            format!("the body is larger than the {limit} bytes allowed here"),
        )
        .fix("send less at a time")
    }

    /// The server failed. The cause goes to its log only, found again by a number.
    pub fn internal(cause: &dyn std::fmt::Display) -> Self {
        let incident = format!("{:08x}", rand::random::<u32>());
        tracing::error!(incident, %cause, "a request failed");
        let detail = format!("the server failed to do this (incident {incident})");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", detail)
            .fix(format!("search the server's log for incident={incident}"))
    }

    /// Whether the client went silent: then nothing more of it is waited for.
    pub fn is_stall(&self) -> bool {
        self.status == StatusCode::REQUEST_TIMEOUT
    }

    /// The same, with what to do about it.
    #[must_use]
    pub fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = Some(fix.into());
        self
    }

    /// The same, naming one mistake.
    #[must_use]
    pub fn mistake(mut self, at: impl Into<String>, detail: impl Into<String>) -> Self {
        self.errors.push(Mistake { at: at.into(), detail: detail.into() });
        self
    }
}

impl From<EngineError> for Fault {
    fn from(error: EngineError) -> Self {
        let status = match error.kind {
            ErrorKind::NotFound => StatusCode::NOT_FOUND,
            ErrorKind::Invalid => StatusCode::UNPROCESSABLE_ENTITY,
            ErrorKind::Conflict => StatusCode::CONFLICT,
            ErrorKind::Denied => StatusCode::FORBIDDEN,
            ErrorKind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            ErrorKind::Broken => StatusCode::BAD_REQUEST,
            ErrorKind::Stalled => StatusCode::REQUEST_TIMEOUT,
            ErrorKind::NoSpace => StatusCode::INSUFFICIENT_STORAGE,
            ErrorKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            ErrorKind::Internal => return Self::internal(&error),
        };
        let mistake = |wrong: Diagnostic| {
            let fix = if wrong.fix.is_empty() { String::new() } else { format!("; {}", wrong.fix) };
            Mistake { at: wrong.path, detail: format!("{}: {}{fix}", wrong.code, wrong.message) }
        };
        let errors = error.diagnostics.into_iter().map(mistake).collect();
        Self { status, code: error.code, detail: error.message, fix: error.fix, errors }
    }
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        let status = self.status;
        let problem = Problem {
            kind: format!("urn:windlass:problem:{}", self.code),
            title: status.canonical_reason().unwrap_or("Error").to_owned(),
            status: status.as_u16(),
            detail: self.detail,
            code: self.code.to_owned(),
            fix: self.fix,
            errors: self.errors,
        };
        let mut response = (status, axum::Json(problem)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"windlass\""));
        }
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
        }
        response
    }
}
