//! The client against a real server: over a good link, over one that breaks all the time, and with no server at all.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::{net::SocketAddr, time::Duration};

use futures::StreamExt;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::oneshot,
    task::JoinHandle,
};
use windlass_client::{Client, ClientError, LogRange, TaskUpdate};
use windlass_engine::{Engine, EngineConfig};
use windlass_model::{
    TaskId, TaskState,
    task::TaskQuery,
    views::{PushMode, ScriptRequest},
};

/// Longer than anything here takes: a test that hangs fails.
const PATIENCE: Duration = Duration::from_secs(120);

struct Server {
    engine: Engine,
    address: SocketAddr,
    token: String,
    stop: oneshot::Sender<()>,
    served: JoinHandle<Result<(), windlass_api::ServeError>>,
    _data: TempDir,
}

impl Server {
    async fn start() -> Self {
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
        Self { engine, address, token, stop, served, _data: data }
    }

    fn client(&self) -> Client {
        Client::new(&format!("http://{}", self.address), &self.token).unwrap()
    }

    async fn stop(self) {
        let _ = self.stop.send(());
        tokio::time::timeout(PATIENCE, self.served).await.unwrap().unwrap().unwrap();
        self.engine.close().await;
    }
}

async fn script(client: &Client, text: &str) -> TaskId {
    let request = ScriptRequest { name: "test".into(), text: text.into(), arguments: Default::default() };
    client.run_script(&request).await.unwrap().id
}

/// Follows a task to its end. Returns its lines, its last state, and how often the link broke.
async fn follow(client: &Client, task: TaskId) -> (Vec<String>, TaskState, usize) {
    let (mut lines, mut state, mut breaks) = (Vec::new(), None, 0);
    let mut updates = client.follow_task(task);
    while let Some(update) = tokio::time::timeout(PATIENCE, updates.next()).await.unwrap() {
        assert!(state.is_none(), "nothing comes after the end");
        match update.unwrap() {
            TaskUpdate::Lines { lines: new, .. } => lines.extend(new.into_iter().map(|line| line.text)),
            TaskUpdate::Ended(detail) => state = Some(detail.summary.state),
            TaskUpdate::Reconnecting { .. } => breaks += 1,
            TaskUpdate::State(_) | TaskUpdate::Changed { .. } => {}
        }
    }
    (lines, state.unwrap(), breaks)
}

fn numbered(count: usize) -> Vec<String> {
    (0..count).map(|i| format!("line {i}")).collect()
}

#[tokio::test]
async fn every_line_comes_once_and_in_order() {
    let server = Server::start().await;
    let client = server.client();
    let live = script(&client, "for i in 0..3000 { log(`line ${i}`); if i % 500 == 0 { sleep(0.05); } }").await;
    assert_eq!(follow(&client, live).await, (numbered(3000), TaskState::Succeeded, 0));
    assert_eq!(follow(&client, live).await, (numbered(3000), TaskState::Succeeded, 0), "and again afterwards");
    let failing = script(&client, "log(\"line 0\"); fail(\"no luck\")").await;
    let (lines, state, _) = follow(&client, failing).await;
    assert_eq!((lines.first().map(String::as_str), state), (Some("line 0"), TaskState::Failed));
    server.stop().await;
}

#[tokio::test]
async fn every_line_comes_once_over_a_link_that_keeps_breaking() {
    let server = Server::start().await;
    let direct = server.client();
    let address = breaking_link(server.address, 6000).await;
    let client = Client::new(&format!("http://{address}"), &server.token).unwrap();
    let task = script(&direct, "for i in 0..400 { log(`line ${i}`); sleep(0.005); }").await;
    let (lines, state, breaks) = follow(&client, task).await;
    assert_eq!((lines, state), (numbered(400), TaskState::Succeeded));
    assert!(breaks > 0, "the link broke at least once");
    server.stop().await;
}

/// A link that breaks each connection after so many bytes from the server, every other one a little later.
async fn breaking_link(server: SocketAddr, bytes: u64) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        for turn in 0_u64.. {
            let (near, _) = listener.accept().await.unwrap();
            let far = TcpStream::connect(server).await.unwrap();
            tokio::spawn(async move {
                let (mut near_read, mut near_write) = near.into_split();
                let (far_read, mut far_write) = far.into_split();
                let mut limited = far_read.take(bytes + (turn % 7) * 997);
                tokio::select! {
                    _ = tokio::io::copy(&mut limited, &mut near_write) => {}
                    _ = async {
                        let _ = tokio::io::copy(&mut near_read, &mut far_write).await;
                        std::future::pending::<()>().await
                    } => {}
                }
                let _ = near_write.shutdown().await;
            });
        }
    });
    address
}

#[tokio::test]
async fn problems_keep_their_words_and_a_missing_server_is_named() {
    let server = Server::start().await;
    let client = server.client();
    assert_eq!(client.info().await.unwrap().name, "windlass");
    let missing = client.task(TaskId(7)).await.unwrap_err();
    assert_eq!(
        (missing.code(), missing.to_string().as_str(), missing.fix()),
        ("not-found", "there is no task 7", Some("windlass task list"))
    );
    let stranger = Client::new(client.server(), "wl_wrong").unwrap();
    assert_eq!(stranger.tasks(&TaskQuery::default()).await.unwrap_err().status(), Some(401));
    assert!(stranger.follow_task(TaskId(1)).next().await.unwrap().is_err());
    let address = server.address;
    server.stop().await;
    let gone = client.projects().await.unwrap_err();
    assert!(
        matches!(&gone, ClientError::Unreachable { server, .. } if server.contains(&address.to_string())),
        "{gone:?}"
    );
    assert!(gone.fix().unwrap().contains("windlass serve"));
    for odd in ["", "shop", "ftp://host", "http://"] {
        assert!(Client::new(odd, "t").is_err(), "{odd}");
    }
    assert!(!format!("{:?}", Client::new("http://host", "hush").unwrap()).contains("hush"));
}

#[tokio::test]
async fn lists_filters_logs_and_uploads_reach_the_server() {
    let server = Server::start().await;
    let client = server.client();
    let task = script(&client, "log(\"one\"); log(\"two\")").await;
    let (lines, _, _) = follow(&client, task).await;
    assert_eq!(lines, ["one", "two"]);
    let query =
        TaskQuery { state: vec![TaskState::Succeeded, TaskState::Failed], limit: Some(1), ..TaskQuery::default() };
    let found = client.tasks(&query).await.unwrap();
    assert_eq!((found.items.len(), found.next), (1, Some(task.0)));
    let node = client.task(task).await.unwrap().steps[0].runs[0].node.clone();
    let page = client.log(task, &LogRange { node, from: 1, limit: None }).await.unwrap();
    assert_eq!(page.items.iter().map(|line| line.text.as_str()).collect::<Vec<_>>(), ["two"]);
    let refused =
        client.push_package("shop.1.0.0.tar", &b"no archive"[..], 10, None, PushMode::Fail).await.unwrap_err();
    assert_eq!(refused.status(), Some(422), "{refused}");
    let short = client.push_package("shop.1.0.0.tar", &b"no"[..], 10, None, PushMode::Fail).await.unwrap_err();
    assert!(short.problem().is_some() || matches!(short, ClientError::Broken { .. }), "{short:?}");
    assert_eq!(client.packages().await.unwrap(), []);
    server.stop().await;
}
