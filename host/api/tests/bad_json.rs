//! Bodies that are no JSON, or not the JSON that is wanted: every operation that takes one, told where, nothing changed.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod common;

use common::Server;
use serde_json::{Value, json};

/// Everything that requests can change.
const CHANGED_BY_REQUESTS: [&str; 6] = [
    "/api/v1/environments",
    "/api/v1/machines",
    "/api/v1/projects",
    "/api/v1/packages",
    "/api/v1/plugins",
    "/api/v1/tasks",
];

/// A body, its status, and what the problem says of it.
const BODIES: [(&str, u16, &[&str]); 8] = [
    ("{", 400, &["ends too early", "line 1, column 1"]),
    ("{\n  \"name\": shop\n}", 400, &["line 2, column"]),
    ("{\"name\": \"shop\",}", 400, &["line 1, column 17"]),
    ("{} {}", 400, &["trailing characters", "line 1, column 4"]),
    ("\u{feff}{}", 400, &["line 1, column 1"]),
    ("<shop/>", 400, &["line 1, column 1"]),
    ("[1, 2]", 422, &["line 1, column"]),
    ("\n {\n  \"colour\": \"red\" }", 422, &["unknown field `colour`", "line 3, column"]),
];

async fn everything(server: &Server) -> Vec<Value> {
    let mut all = Vec::new();
    for path in CHANGED_BY_REQUESTS {
        all.push(server.get(path).await);
    }
    all
}

/// Operations that take JSON: method, path, and whether they must be sent some.
fn operations() -> Vec<(String, String, bool)> {
    let document = windlass_api::document();
    let mut found = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, described) in methods.as_object().unwrap() {
            let body = &described["requestBody"];
            if body["content"].get("application/json").is_some() {
                let path = path.replace("{machine}", "here").replace("{project}", "shop").replace("{question}", "1");
                found.push((method.to_uppercase(), path, body["required"] == true));
            }
        }
    }
    found
}

#[tokio::test]
async fn it_says_line_column_and_field_and_changes_nothing() {
    let server = Server::start().await;
    let workspace = json!({
        "environments": [{ "name": "test" }],
        "machines": [{ "name": "here", "environments": ["test"], "roles": ["web"], "connection": { "local": {} } }],
        "projects": [{ "project": { "name": "shop" }, "process": { "steps": [] } }],
    });
    assert_eq!(server.post("/api/v1/apply", workspace).await.0, 200);
    let before = everything(&server).await;
    let operations = operations();
    let paths: Vec<&str> = operations.iter().map(|(_, path, _)| path.as_str()).collect();
    for wanted in ["/api/v1/apply", "/api/v1/machines/here", "/api/v1/deployments", "/api/v1/scripts/run"] {
        assert!(paths.contains(&wanted), "{wanted} is not among {paths:?}");
    }
    for (method, path, required) in operations {
        let empty: (&str, u16, &[&str]) = (" \n", 400, &["it is empty"]);
        let bodies = BODIES.into_iter().chain(required.then_some(empty));
        for (body, status, said) in bodies {
            let what = format!("{method} {path} with {body:?}");
            let request = server.request(&method, &path).header("content-type", "application/json");
            let answer = request.body(body).send().await.unwrap();
            assert_eq!(answer.headers()["content-type"], "application/problem+json", "{what}");
            let problem: Value = answer.json().await.unwrap();
            assert_eq!(problem["status"], status, "{what}: {problem:#}");
            for part in said {
                assert!(
                    problem["detail"].as_str().unwrap().contains(part),
                    "{what} does not say {part:?}: {problem:#}"
                );
            }
            assert!(problem["fix"].as_str().unwrap().contains("openapi.json"), "{what}: {problem:#}");
            assert_eq!(problem["errors"].as_array().unwrap().len(), 1, "{what}: {problem:#}");
            assert_eq!(everything(&server).await, before, "{what} changed something");
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn a_wrong_value_is_named_by_its_path() {
    let server = Server::start().await;
    // Body, path of the mistake, what is said of it.
    let table = [
        (r#"{"machines":[{"name":"a","connection":{"local":{}}},{"name":7}]}"#, "machines[1].name", "column 61"),
        ("{\"environments\":\n[{\"name\":\n\"no good\"}]}", "environments[0].name", "line 3"),
        (
            r#"{"projects":[{"project":{"name":"shop"},"process":{"steps":[{"uses":"s@1"}]}}]}"#,
            "projects[0].process.steps[0]",
            "`name`",
        ),
        (r#"{"environments":[{"name":"test","colour":1}]}"#, "environments[0].colour", "unknown field `colour`"),
        (r#"{"machines":[{"name":"a","conn"#, "machines[0]", "ends too early (line 1, column 30)"),
    ];
    for (body, at, said) in table {
        let request = server.request("POST", "/api/v1/apply").header("content-type", "application/json");
        let problem: Value = request.body(body).send().await.unwrap().json().await.unwrap();
        assert_eq!(problem["errors"][0]["at"], at, "{problem:#}");
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains(at) && detail.contains(said), "{detail}");
    }
    assert_eq!(server.get("/api/v1/environments").await["items"], json!([]));
    server.stop().await;
}

#[tokio::test]
async fn every_mistake_in_a_workspace_is_told() {
    let server = Server::start().await;
    let workspace = json!({
        "environments": [{ "name": "test" }],
        "machines": [
            { "name": "a", "environments": ["tset"], "connection": { "local": {} } },
            { "name": "b", "environments": ["live"], "connection": { "local": {} } },
        ],
    });
    let (status, problem) = server.post("/api/v1/apply", workspace).await;
    assert_eq!(status, 422, "{problem:#}");
    let told: Vec<&str> =
        problem["errors"].as_array().unwrap().iter().map(|error| error["detail"].as_str().unwrap()).collect();
    assert_eq!(told.len(), 2, "{problem:#}");
    assert!(told[0].contains("tset") && told[1].contains("live"), "{told:?}");
    server.stop().await;
}
