//! The OpenAPI 3.1 document, made from the table of operations.

use std::sync::LazyLock;

use axum::http::StatusCode;
use schemars::{Schema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};
use windlass_model::views::Problem;

use crate::{
    input::Content,
    operation::{Description, Operation},
    operations,
};

static TEXT: LazyLock<String> = LazyLock::new(|| format!("{:#}\n", document()));

/// The document as text.
pub fn text() -> &'static str {
    &TEXT
}

/// The OpenAPI document of this version.
#[must_use]
pub fn document() -> Value {
    let mut schemas = SchemaSettings::draft2020_12()
        .with(|settings| {
            settings.definitions_path = "/components/schemas".into();
            settings.meta_schema = None;
        })
        .into_generator();
    let problem = schemas.subschema_for::<Problem>();
    let mut paths = Map::new();
    for operation in operations::all() {
        let described = describe(operation, &mut schemas, &problem);
        let entry = paths.entry(operation.path).or_insert_with(|| json!({}));
        if let Some(entry) = entry.as_object_mut() {
            entry.insert(operation.method.as_str().to_ascii_lowercase(), described);
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Windlass",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Everything that the command line and the pages do. Errors are RFC 9457 problems with a code for programs and a fix for people.",
            "license": { "name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0" },
        },
        "security": [{ "token": [] }],
        "paths": paths,
        "components": {
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer" } },
            "schemas": schemas.take_definitions(true),
        },
    })
}

fn describe(operation: &Operation, schemas: &mut SchemaGenerator, problem: &Schema) -> Value {
    let Description { path, query, body, status, answers } = operation.description(schemas);
    let mut parameters = parameters("path", &path);
    parameters.extend(self::parameters("query", &query));
    parameters.extend(header_parameters(operation));
    let mut described = json!({
        "operationId": operation.id,
        "summary": operation.summary,
        "tags": [tag(operation.path)],
    });
    let Some(fields) = described.as_object_mut() else { return described };
    if !parameters.is_empty() {
        fields.insert("parameters".into(), parameters.into());
    }
    if let Some(body) = body {
        let required = body.required;
        fields.insert("requestBody".into(), json!({ "required": required, "content": content(vec![body]) }));
    }
    let title = status.canonical_reason().unwrap_or("OK");
    fields.insert(
        "responses".into(),
        json!({
            status.as_str(): { "description": title, "content": content(answers) },
            "default": {
                "description": "What went wrong, and what to do about it",
                "content": { "application/problem+json": { "schema": problem } },
            },
        }),
    );
    if operation.public {
        fields.insert("security".into(), json!([]));
    }
    debug_assert!(status.is_success() && status != StatusCode::NO_CONTENT);
    described
}

fn parameters(place: &str, schema: &Schema) -> Vec<Value> {
    let schema = schema.as_value();
    let required = |name: &str| {
        let listed = schema.get("required").and_then(Value::as_array);
        listed.is_some_and(|names| names.iter().any(|known| known == name))
    };
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else { return Vec::new() };
    let parameter = |(name, schema): (&String, &Value)| {
        let mut schema = schema.clone();
        let description = schema.as_object_mut().and_then(|fields| fields.remove("description"));
        let mut parameter = json!({ "name": name, "in": place, "required": place == "path" || required(name) });
        if let Some(fields) = parameter.as_object_mut() {
            fields.extend(description.map(|text| ("description".to_owned(), text)));
            if schema.get("type").is_some_and(|kind| kind == "array") {
                // Written as one value with commas.
                fields.insert("style".into(), "form".into());
                fields.insert("explode".into(), false.into());
            }
            fields.insert("schema".into(), schema);
        }
        parameter
    };
    properties.iter().map(parameter).collect()
}

fn header_parameters(operation: &Operation) -> Vec<Value> {
    let header = |name: &str, description: &str| json!({ "name": name, "in": "header", "required": false, "description": description, "schema": { "type": "string" } });
    let mut headers = Vec::new();
    if operation.idempotent {
        headers.push(header(
            "Idempotency-Key",
            "A repetition with the same key and body gets the first answer for 24 hours, or until the server restarts",
        ));
    }
    match operation.id {
        "push_package" => headers.push(header("X-Content-SHA256", "Digest of the file, 64 hexadecimal digits")),
        "follow_task" | "follow_all" => headers.push(header("Last-Event-ID", "Number of the last event seen")),
        _ => {}
    }
    headers
}

fn content(contents: Vec<Content>) -> Value {
    let entry = |content: Content| {
        let media = content.schema.map_or_else(|| json!({}), |schema| json!({ "schema": schema }));
        (content.media.to_owned(), media)
    };
    Value::Object(contents.into_iter().map(entry).collect())
}

fn tag(path: &str) -> &str {
    let rest = path.strip_prefix("/api/v1/").unwrap_or(path).trim_start_matches('/');
    match rest.split('/').next() {
        Some("") | None | Some("openapi.json" | "health") => "server",
        Some("events" | "deployments" | "scripts") => "tasks",
        Some(first) => first,
    }
}
