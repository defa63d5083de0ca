//! The backup, streamed as it is made.

use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use schemars::SchemaGenerator;
use windlass_engine::BackupStream;

use crate::{
    fault::Fault,
    input::{Answer, Content},
    operation::Call,
};

/// A tar file.
pub struct Download(BackupStream);

impl Answer for Download {
    fn describe(_: &mut SchemaGenerator) -> (StatusCode, Vec<Content>) {
        (StatusCode::OK, vec![Content { media: "application/x-tar", schema: None, required: true }])
    }

    fn respond(self) -> Response {
        let headers = [
            (header::CONTENT_TYPE, HeaderValue::from_static("application/x-tar")),
            (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        ];
        (headers, Body::from_stream(self.0)).into_response()
    }
}

/// Everything the server keeps. A file that was cut short does not pass as one.
pub async fn backup(call: Call) -> Result<Download, Fault> {
    Ok(Download(call.app.engine.backup().await?))
}
