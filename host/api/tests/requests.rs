//! Requests and what they are answered: statuses, problems word for word, tokens, limits, uploads, idempotency.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod common;

use common::{Server, archive, shown};
use serde_json::{Value, json};

fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest;
    hex::encode(sha2::Sha256::digest(bytes))
}

#[tokio::test]
async fn every_request_gets_its_status_and_a_problem_says_what_to_do() {
    let server = Server::start().await;
    let workspace = json!({
        "environments": [{ "name": "test" }],
        "machines": [{ "name": "here", "environments": ["test"], "roles": ["web"], "connection": { "local": {} } }],
        "projects": [{ "project": { "name": "shop" }, "process": { "steps": [] } }],
    });
    let json = "application/json";
    // Method, path, content type, body.
    let table: &[(&str, &str, &str, &str)] = &[
        ("GET", "/nowhere", "", ""),
        ("DELETE", "/api/v1/tasks", "", ""),
        ("GET", "/api/v1/projects/none", "", ""),
        ("GET", "/api/v1/projects/shop/releases/latest", "", ""),
        ("GET", "/api/v1/machines/none", "", ""),
        ("GET", "/api/v1/packages/none", "", ""),
        ("GET", "/api/v1/plugins/none", "", ""),
        ("GET", "/api/v1/tasks/7", "", ""),
        ("GET", "/api/v1/tasks/seven", "", ""),
        ("GET", "/api/v1/tasks/7/log", "", ""),
        ("GET", "/api/v1/tasks/7/events", "", ""),
        ("POST", "/api/v1/tasks/7/cancel", "", ""),
        ("GET", "/api/v1/tasks?state=sleeping", "", ""),
        ("GET", "/api/v1/tasks?colour=red", "", ""),
        ("POST", "/api/v1/deployments", "text/plain", "{}"),
        ("POST", "/api/v1/deployments", json, "{"),
        ("POST", "/api/v1/deployments", json, r#"{"project":"shop"}"#),
        ("POST", "/api/v1/deployments", json, r#"{"project":"shop","environment":"none"}"#),
        ("POST", "/api/v1/apply", json, r#"{"machines":[{"name":"a","connection":{"carrier-pigeon":{}}}]}"#),
        ("PUT", "/api/v1/machines/one", json, r#"{"name":"two","connection":{"local":{}}}"#),
        ("POST", "/api/v1/machines/here/trust", "", ""),
        ("POST", "/api/v1/projects/shop/releases", "", ""),
        ("POST", "/api/v1/scripts/run", json, r#"{"name":"test","text":"let = 1"}"#),
        ("PUT", "/api/v1/packages/shop.tar", "application/octet-stream", "x"),
        ("PUT", "/api/v1/packages/shop.1.0.0.tar", "application/octet-stream", "this is no archive"),
        ("POST", "/api/v1/plugins", "application/octet-stream", "this is no plugin"),
    ];
    let (status, report) = server.post("/api/v1/apply?dry_run=false", workspace).await;
    assert_eq!(status, 200, "{report}");
    let mut seen = String::new();
    for (method, path, media, body) in table {
        let mut request = server.request(method, path).body((*body).to_owned());
        if !media.is_empty() {
            request = request.header("content-type", *media);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.headers()["content-type"], "application/problem+json", "{method} {path}");
        let answer = shown(response).await;
        let problem: Value = serde_json::from_str(answer.split_once('\n').unwrap().1).unwrap();
        let fix = problem["fix"].as_str().unwrap_or_default();
        assert!(!fix.is_empty(), "{method} {path} names no fix: {problem:#}");
        assert!(!problem["detail"].as_str().unwrap().contains(fix), "the fix has a place of its own: {problem:#}");
        seen.push_str(&format!("{method} {path} {body}\n{answer}\n\n"));
    }
    insta::assert_snapshot!("problems", seen);
    server.stop().await;
}

#[tokio::test]
async fn a_token_opens_everything_and_nothing_opens_without_one() {
    let server = Server::start().await;
    let document = server.get("/api/v1/openapi.json").await;
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, described) in methods.as_object().unwrap() {
            let public = described["security"] == json!([]);
            let path = path.replace("{task}", "1").replace(['{', '}'], "");
            let ask = |token: Option<&str>| {
                let request = server.bare(method.to_uppercase().parse().unwrap(), &path);
                match token {
                    Some(token) => request.header("authorization", token),
                    None => request,
                }
            };
            for token in
                [None, Some("Bearer wl_0000"), Some("Basic YTpi"), Some("Bearer "), Some(server.token.as_str())]
            {
                let status = ask(token).send().await.unwrap().status();
                assert_eq!(status == 401, !public, "{method} {path} with {token:?} says {status}");
            }
            let bearer = format!("bearer {}", server.token);
            let status = ask(Some(&bearer)).send().await.unwrap().status();
            assert_ne!(status, 401, "{method} {path} refuses a good token");
        }
    }
    let refused = server.bare(reqwest::Method::GET, "/api/v1/tasks").send().await.unwrap();
    assert_eq!(refused.headers()["www-authenticate"], "Bearer realm=\"windlass\"");
    insta::assert_snapshot!(shown(refused).await, @r#"
    401 application/problem+json
    {
      "type": "urn:windlass:problem:unauthorized",
      "title": "Unauthorized",
      "status": 401,
      "detail": "the request carries no token",
      "code": "unauthorized",
      "fix": "set WINDLASS_TOKEN, or name a file that holds one: --token-file FILE; a server writes its first token to DATA/token"
    }
    "#);
    server.stop().await;
}

#[tokio::test]
async fn a_package_is_taken_once_and_only_as_announced() {
    let server = Server::start().await;
    let bytes = archive();
    let push = |query: &str, digest: &str| {
        let path = format!("/api/v1/packages/shop.1.0.0.tar{query}");
        server.request("PUT", &path).header("X-Content-SHA256", digest).body(bytes.clone())
    };
    let wrong = push("", &"0".repeat(64)).send().await.unwrap();
    assert_eq!(wrong.status(), 422);
    let said: Value = wrong.json().await.unwrap();
    assert!(said["detail"].as_str().unwrap().contains("SHA-256"), "{said}");
    assert_eq!(push("", "abc").send().await.unwrap().status(), 422);
    assert_eq!(server.get("/api/v1/packages").await["items"], json!([]), "nothing came of it");

    let digest = sha256(&bytes);
    let added = push("", &digest).send().await.unwrap();
    assert_eq!(added.status(), 201);
    assert_eq!(added.headers()["location"], "/api/v1/packages/shop");
    assert_eq!(added.json::<Value>().await.unwrap()["outcome"], "added");
    for (query, expected) in [("", 409), ("?if_exists=ignore_same", 201), ("?if_exists=maybe", 422)] {
        assert_eq!(push(query, &digest).send().await.unwrap().status(), expected, "{query}");
    }
    let listed = server.get("/api/v1/packages/shop").await;
    assert_eq!((&listed["items"][0]["sha256"], &listed["items"][0]["size"]), (&json!(digest), &json!(bytes.len())));
    server.stop().await;
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused_announced_or_not() {
    let server = Server::start().await;
    let large = vec![b' '; 3 << 20];
    let announced =
        server.request("POST", "/api/v1/apply").header("content-type", "application/json").body(large.clone());
    assert_eq!(announced.send().await.unwrap().status(), 413);
    let pieces = futures::stream::iter(
        large.chunks(1 << 16).map(|piece| Ok::<_, std::io::Error>(piece.to_vec())).collect::<Vec<_>>(),
    );
    let streamed = server
        .request("POST", "/api/v1/apply")
        .header("content-type", "application/json")
        .body(reqwest::Body::wrap_stream(pieces));
    assert_eq!(streamed.send().await.unwrap().status(), 413);
    server.stop().await;
}

#[tokio::test]
async fn a_repeated_request_gets_the_first_answer() {
    let server = Server::start().await;
    let run = |key: &str, text: &str| {
        let body = json!({ "name": "test", "text": text });
        server.request("POST", "/api/v1/scripts/run").header("Idempotency-Key", key).json(&body)
    };
    // Both at once: one does the work, the other waits for its answer.
    let (first, second) = tokio::join!(run("a", "1").send(), run("a", "1").send());
    let (first, second) = (first.unwrap(), second.unwrap());
    let replayed = |response: &reqwest::Response| response.headers().contains_key("idempotency-replayed");
    assert!(replayed(&first) != replayed(&second));
    assert_eq!(first.headers()["location"], second.headers()["location"]);
    let (first, second): (Value, Value) = (first.json().await.unwrap(), second.json().await.unwrap());
    assert_eq!(first, second);
    let other = run("a", "2").send().await.unwrap();
    assert_eq!(other.status(), 422);
    assert_eq!(other.json::<Value>().await.unwrap()["code"], "idempotency-key-reused");
    assert_eq!(run("b", "1").send().await.unwrap().json::<Value>().await.unwrap()["id"], 2);
    let refused = run("c", "let = 1").send().await.unwrap();
    assert_eq!(refused.status(), 422);
    assert!(replayed(&run("c", "let = 1").send().await.unwrap()), "a refusal is an answer too");
    assert_eq!(run(&"k".repeat(201), "1").send().await.unwrap().status(), 422);
    server.stop().await;
}
