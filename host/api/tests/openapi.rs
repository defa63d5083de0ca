//! The OpenAPI document: committed, complete, and true.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod common;

use std::{collections::BTreeSet, path::Path};

use common::Server;
use serde_json::Value;

#[test]
fn the_committed_document_is_the_one_served() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi.json");
    let now = format!("{:#}\n", windlass_api::document());
    if std::env::var_os("UPDATE_OPENAPI").is_some() {
        std::fs::write(&path, &now).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap();
    assert!(
        committed == now,
        "the API changed: look at the change, then run UPDATE_OPENAPI=1 cargo test -p windlass-api --test openapi"
    );
}

#[test]
fn every_reference_leads_somewhere_and_ids_are_unique() {
    let document = windlass_api::document();
    let mut references = Vec::new();
    collect(&document, &mut references);
    assert!(references.len() > 50);
    for reference in references {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
    }
    let operations =
        document["paths"].as_object().unwrap().values().flat_map(|path| path.as_object().unwrap().values());
    let ids: Vec<&str> = operations.map(|operation| operation["operationId"].as_str().unwrap()).collect();
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len());
}

fn collect(value: &Value, references: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            references.extend(fields.get("$ref").and_then(Value::as_str).map(str::to_owned));
            fields.values().for_each(|value| collect(value, references));
        }
        Value::Array(items) => items.iter().for_each(|value| collect(value, references)),
        _ => {}
    }
}

#[tokio::test]
async fn whatever_is_documented_is_there() {
    let server = Server::start().await;
    let document = server.get("/api/v1/openapi.json").await;
    assert_eq!(document, windlass_api::document());
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, described) in methods.as_object().unwrap() {
            let names = described["parameters"].as_array().into_iter().flatten();
            let in_path: BTreeSet<&str> = names
                .filter(|parameter| parameter["in"] == "path")
                .map(|parameter| parameter["name"].as_str().unwrap())
                .collect();
            let wanted: BTreeSet<&str> = path.split('{').skip(1).map(|rest| rest.split('}').next().unwrap()).collect();
            assert_eq!(in_path, wanted, "{method} {path} documents its path parameters");
            let filled = path.replace("{task}", "1").replace(['{', '}'], "");
            if path == "/api/v1/events" {
                continue; // Endless; the tests of events follow it.
            }
            let answer = server.request(&method.to_uppercase(), &filled).send().await.unwrap();
            let text = answer.text().await.unwrap();
            assert!(!text.contains("no-such-route") && !text.contains("method-not-allowed"), "{method} {path}: {text}");
        }
    }
    server.stop().await;
}
