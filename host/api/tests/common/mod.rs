//! A server over a real engine in a temporary folder, and requests to it.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::time::Duration;

use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};
use windlass_api::ServeError;
use windlass_engine::{Engine, EngineConfig};

/// Longer than anything here takes: a test that hangs fails.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub struct Server {
    pub engine: Engine,
    pub address: std::net::SocketAddr,
    pub token: String,
    http: reqwest::Client,
    stop: Option<oneshot::Sender<()>>,
    served: JoinHandle<Result<(), ServeError>>,
    pub data: TempDir,
}

impl Server {
    pub async fn start() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let data = tempfile::tempdir().unwrap();
        let engine = Engine::open(EngineConfig::new(data.path())).await.unwrap();
        let token = engine.first_token().await.unwrap().unwrap().expose().to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let stopped = async {
            let _ = stopped.await;
        };
        let served = tokio::spawn(windlass_api::serve(listener, engine.clone(), stopped, PATIENCE));
        let http = reqwest::Client::builder().timeout(PATIENCE).build().unwrap();
        Self { engine, address, token, http, stop: Some(stop), served, data }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn bare(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, self.url(path))
    }

    pub fn request(&self, method: &str, path: &str) -> RequestBuilder {
        self.bare(method.parse().unwrap(), path).bearer_auth(&self.token)
    }

    pub async fn get(&self, path: &str) -> Value {
        let response = self.request("GET", path).send().await.unwrap();
        assert_eq!(response.status(), 200, "GET {path}");
        response.json().await.unwrap()
    }

    pub async fn post(&self, path: &str, body: Value) -> (StatusCode, Value) {
        let response = self.request("POST", path).json(&body).send().await.unwrap();
        (response.status(), response.json().await.unwrap())
    }

    /// Queues a script, returns its task's number.
    pub async fn script(&self, text: &str) -> u64 {
        let (status, task) = self.post("/api/v1/scripts/run", json!({ "name": "test", "text": text })).await;
        assert_eq!(status, 201, "{task}");
        task["id"].as_u64().unwrap()
    }

    /// Reads a task's events to their end, from the beginning of what the server keeps or after `after`.
    pub async fn events(&self, task: u64, after: Option<u64>) -> Vec<Message> {
        let mut request = self.request("GET", &format!("/api/v1/tasks/{task}/events"));
        if let Some(after) = after {
            request = request.header("Last-Event-ID", after);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        messages(&response.text().await.unwrap())
    }

    /// Stops it in good order.
    pub async fn stop(mut self) {
        let _ = self.stop.take().unwrap().send(());
        let served = tokio::time::timeout(PATIENCE, &mut self.served).await.unwrap();
        served.unwrap().unwrap();
        self.engine.close().await;
    }
}

/// An event as it came.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    pub id: Option<u64>,
    pub event: String,
    pub data: Value,
}

/// Takes a whole stream apart.
pub fn messages(text: &str) -> Vec<Message> {
    let parse = |block: &str| {
        let field =
            |name: &str| block.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")).map(str::to_owned));
        let event = field("event")?;
        let data = serde_json::from_str(&field("data")?).unwrap();
        Some(Message { id: field("id").map(|id| id.parse().unwrap()), event, data })
    };
    text.split("\n\n").filter_map(parse).collect()
}

/// Numbers of the log lines that came, in the order in which they came.
pub fn line_numbers(messages: &[Message]) -> Vec<u64> {
    let logs = messages.iter().filter(|message| message.event == "log");
    let lines = logs.flat_map(|message| message.data["change"]["lines"].as_array().cloned().unwrap_or_default());
    lines.map(|line| line["n"].as_u64().unwrap()).collect()
}

/// Status, media type and body of an answer, for snapshots; random parts masked.
pub async fn shown(response: Response) -> String {
    let status = response.status();
    let media =
        response.headers().get("content-type").map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default();
    let text = response.text().await.unwrap();
    let body = serde_json::from_str::<Value>(&text).map_or(text, |json| format!("{json:#}"));
    format!("{} {media}\n{body}", status.as_u16())
}

/// A small tar archive with one file.
pub fn archive() -> Vec<u8> {
    let mut header = [0_u8; 512];
    header[..8].copy_from_slice(b"hello.md");
    header[100..108].copy_from_slice(b"0000644\0");
    header[108..116].copy_from_slice(b"0000000\0");
    header[116..124].copy_from_slice(b"0000000\0");
    header[124..136].copy_from_slice(b"00000000005\0");
    header[136..148].copy_from_slice(b"00000000000\0");
    header[148..156].copy_from_slice(b"        ");
    header[156] = b'0';
    header[257..265].copy_from_slice(b"ustar\x0000");
    let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
    let sum = format!("{sum:06o}\0 ");
    header[148..156].copy_from_slice(sum.as_bytes());
    let mut bytes = header.to_vec();
    bytes.extend_from_slice(b"hello");
    bytes.resize(512 * 4, 0);
    bytes
}
