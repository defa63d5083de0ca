//! Uploads that do not arrive: cut off or gone silent. Whoever still reads is told why; nothing stays behind.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod common;

use std::path::{Path, PathBuf};

use common::{PATIENCE, Server, archive};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// Files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.path() {
            path if path.is_dir() => found.extend(files(&path)),
            path => found.push(path),
        }
    }
    found.sort();
    found
}

/// Sends the head of a request and a part of its body.
async fn begin(server: &Server, request: &str, media: &str, length: &str, body: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let head = format!(
        "{request} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-type: {media}\r\n{length}\r\n\r\n",
        server.token,
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(body).await.unwrap();
    stream
}

/// The answer up to the end of the connection: its status, and the problem in it.
async fn problem(mut stream: TcpStream) -> (u16, Value) {
    let mut answer = String::new();
    tokio::time::timeout(PATIENCE * 10, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer but {answer:?}"));
    assert!(head.contains("application/problem+json"), "{answer}");
    (head.split(' ').nth(1).unwrap().parse().unwrap(), serde_json::from_str(body).unwrap())
}

const PUSH: &str = "PUT /api/v1/packages/shop.1.0.0.tar";
const BINARY: &str = "application/octet-stream";

#[tokio::test]
async fn an_upload_that_breaks_off_is_answered_and_leaves_nothing() {
    let server = Server::start().await;
    let bytes = archive();
    let packages = server.data.path().join("packages");
    let before = files(&packages);
    let announced = format!("content-length: {}", bytes.len());
    let chunked = format!("{:x}\r\n{}", bytes.len(), "a".repeat(100));
    // Request, media type, how its length is told, what comes of its body; code and words of the answer.
    let table: [(&str, &str, &str, &[u8], &str, &str); 5] = [
        (PUSH, BINARY, &announced, &bytes[..100], "upload-broken", "broke off after 100 bytes"),
        (PUSH, BINARY, &announced, b"", "upload-broken", "broke off after 0 bytes"),
        (PUSH, BINARY, "transfer-encoding: chunked", chunked.as_bytes(), "upload-broken", "broke off"),
        ("POST /api/v1/plugins", BINARY, &announced, &bytes[..100], "body-broken", "broke off after 100 bytes"),
        ("POST /api/v1/apply", "application/json", "content-length: 50", b"{\"envi", "body-broken", "after 6 bytes"),
    ];
    for (request, media, length, body, code, said) in table {
        let mut stream = begin(&server, request, media, length, body).await;
        // The sending half ends; the answer can still be read.
        stream.shutdown().await.unwrap();
        let (status, problem) = problem(stream).await;
        assert_eq!((status, problem["code"].as_str()), (400, Some(code)), "{request}: {problem:#}");
        assert!(problem["detail"].as_str().unwrap().contains(said), "{request}: {problem:#}");
        assert!(problem["fix"].as_str().unwrap().contains("again"), "{request}: {problem:#}");
        assert_eq!(server.get("/api/v1/packages").await["items"], json!([]));
        assert_eq!(files(&packages), before, "{request} left files");
    }
    // The version is free still.
    let whole = server.request("PUT", "/api/v1/packages/shop.1.0.0.tar").body(bytes).send().await.unwrap();
    assert_eq!(whole.status(), 201);
    server.stop().await;
}

#[tokio::test]
async fn an_upload_that_stands_still_is_given_up() {
    let server = Server::start().await;
    let bytes = archive();
    let packages = server.data.path().join("packages");
    let before = files(&packages);
    let announced = format!("content-length: {}", bytes.len());
    let table: [(&str, &str, &[u8], &str, &str); 3] = [
        (PUSH, BINARY, &bytes[..100], "upload-stalled", "nothing came for 60 s after 100 bytes"),
        ("POST /api/v1/plugins", BINARY, &bytes[..100], "body-stalled", "nothing came for 20 s after 100 bytes"),
        ("POST /api/v1/apply", "application/json", b"{\"envi", "body-stalled", "nothing came for 20 s after 6 bytes"),
    ];
    for (request, media, body, code, said) in table {
        let stream = begin(&server, request, media, &announced, body).await;
        // From here on time passes as soon as nothing else happens.
        tokio::time::pause();
        let (status, problem) = problem(stream).await;
        tokio::time::resume();
        assert_eq!((status, problem["code"].as_str()), (408, Some(code)), "{request}: {problem:#}");
        assert!(problem["detail"].as_str().unwrap().contains(said), "{request}: {problem:#}");
        assert!(problem["fix"].as_str().unwrap().contains("check the link"), "{request}: {problem:#}");
        assert_eq!(server.get("/api/v1/packages").await["items"], json!([]));
        assert_eq!(files(&packages), before, "{request} left files");
    }
    server.stop().await;
}
