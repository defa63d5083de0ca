//! A server that is told to stop: it takes no more work, waits only for what nobody could take up later, leaves what runs
//! on machines running, and the next start goes on with everything.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test ends at its first surprise"
)]

use std::time::{Duration, Instant};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use windlass_model::{TaskId, TaskState, task::TaskDetail, views::ScriptRequest};
use windlass_tests::{server::Server, shop::Anything, site::Site};

/// Far longer than a stop takes that has nothing to wait for, and than one that is cut off after a second.
const PROMPT: Duration = Duration::from_secs(8);
const PATIENCE: Duration = Duration::from_secs(60);

/// Counts its own runs in a file on the target, and goes on only when told to.
const STEPS: &str = r#"
  - name: count
    uses: run-script@1
    on: { role: web }
    with:
      script: |
        echo run >> "$HOME/runs"
        echo begun
        while [ ! -e "$HOME/go" ]; do [ -d "$HOME" ] || exit 1; sleep 0.05; done
        echo "gone on" >> "$HOME/runs"
  - { name: next, uses: run-script@1, on: { role: web }, with: { script: "echo next >> $HOME/runs" } }
"#;

#[tokio::test(flavor = "multi_thread")]
async fn what_runs_on_a_machine_outlives_the_stop_and_is_taken_up() -> Anything<()> {
    let mut site = Site::new(1, STEPS).await?;
    site.release("1.0.0")?;
    let mut watching = site.server.spawn(&["deploy", "shop", "-e", "test"])?;
    watching.until_out(|out| out.contains("count/web0 | begun"))?;
    let begin = Instant::now();
    site.server.terminate();
    let ended = site.server.wait()?;
    assert_eq!(ended.code, 0, "{}", ended.err);
    assert!(begin.elapsed() < PROMPT, "there was nothing to wait for, and it took {:?}", begin.elapsed());
    assert!(ended.err.contains("stopped; what runs on machines goes on"), "{}", ended.err);

    // It goes on without any server.
    let home = site.targets[0].home();
    std::fs::write(home.join("go"), "")?;
    let begin = Instant::now();
    while std::fs::read_to_string(home.join("runs"))? != "run\ngone on\n" {
        assert!(begin.elapsed() < PATIENCE, "the command died with the server");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    site.server.restart()?;
    let watched = watching.end()?;
    assert_eq!(watched.code, 0, "{watched:#?}");
    assert_eq!(std::fs::read_to_string(home.join("runs"))?, "run\ngone on\nnext\n");
    Ok(())
}

/// A stranger that takes requests and answers when it is told to.
struct Stranger(TcpListener);

impl Stranger {
    async fn new() -> Anything<Self> {
        Ok(Self(TcpListener::bind("127.0.0.1:0").await?))
    }

    /// A script that sends it one request which nobody could repeat, queued at a server.
    async fn asked_by(&self, server: &Server) -> Anything<TaskId> {
        let port = self.0.local_addr()?.port();
        let text = format!(
            "//! needs: http\nlet answer = http(#{{url: \"http://127.0.0.1:{port}/\", method: \"post\", body: \"x\"}});\n\
             info(`answered ${{answer.status}}`);"
        );
        let request = ScriptRequest { name: "ask".into(), text, arguments: Default::default() };
        Ok(server.client()?.run_script(&request).await?.id)
    }

    /// The request that came.
    async fn request(&self) -> Anything<TcpStream> {
        let (mut stream, _) = tokio::time::timeout(PATIENCE, self.0.accept()).await??;
        let mut head = vec![0; 4096];
        let read = stream.read(&mut head).await?;
        assert!(head[..read].starts_with(b"POST / "), "{:?}", String::from_utf8_lossy(&head[..read]));
        Ok(stream)
    }
}

async fn until(server: &Server, task: TaskId, wanted: impl Fn(&TaskDetail) -> bool) -> Anything<TaskDetail> {
    let begin = Instant::now();
    loop {
        let detail = server.client()?.task(task).await?;
        if wanted(&detail) {
            return Ok(detail);
        }
        assert!(begin.elapsed() < PATIENCE, "{detail:#?}\n{}", server.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_waits_for_the_answer_of_a_stranger_and_starts_nothing_meanwhile() -> Anything<()> {
    let (mut server, stranger) = (Server::bare()?, Stranger::new().await?);
    let task = stranger.asked_by(&server).await?;
    let mut stream = stranger.request().await?;
    server.terminate();
    let begin = Instant::now();
    while server.client()?.tasks(&Default::default()).await.is_ok() {
        assert!(begin.elapsed() < PATIENCE, "it still takes requests");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(server.has_ended()?, None, "it waits for the answer");
    stream.write_all(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n").await?;
    drop(stream);
    let ended = server.wait()?;
    assert_eq!(ended.code, 0, "{}", ended.err);
    server.restart()?;
    let detail = until(&server, task, |detail| detail.summary.state.is_final()).await?;
    assert_eq!(detail.summary.state, TaskState::Succeeded, "{detail:#?}");
    let again = tokio::time::timeout(Duration::from_millis(200), stranger.0.accept()).await;
    assert!(again.is_err(), "the request was sent twice");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_waits_no_longer_than_it_may_and_a_second_signal_ends_it_at_once() -> Anything<()> {
    let (mut server, stranger) = (Server::bare()?, Stranger::new().await?);
    server.restart_with(&["--stop-within", "1"])?;
    let task = stranger.asked_by(&server).await?;
    let _silent = stranger.request().await?;
    let begin = Instant::now();
    server.terminate();
    let ended = server.wait()?;
    assert_eq!(ended.code, 0, "{}", ended.err);
    assert!(begin.elapsed() >= Duration::from_secs(1) && begin.elapsed() < PROMPT, "it took {:?}", begin.elapsed());
    assert!(ended.err.contains("a request to a stranger did not end in time"), "{}", ended.err);

    // Nobody can know what became of the request, so a person is asked, and it is not repeated.
    server.restart()?;
    let asks = |detail: &TaskDetail| {
        let reason = detail.steps[0].runs[0].reason.as_ref();
        reason.is_some_and(|reason| reason.kind == "person") || detail.summary.state.is_final()
    };
    let detail = until(&server, task, asks).await?;
    let told = format!("{detail:#?}");
    assert!(told.contains("nobody can know how it ended"), "{told}");

    let second = stranger.asked_by(&server).await?;
    let _silent = stranger.request().await?;
    until(&server, second, |detail| detail.summary.state == TaskState::Executing).await?;
    server.terminate();
    let begin = Instant::now();
    while !server.log().contains("\"stopping\"") {
        assert!(begin.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    server.terminate();
    let ended = server.wait()?;
    assert_eq!(ended.code, 130, "{}", ended.err);
    assert!(begin.elapsed() < Duration::from_secs(5), "the default would have been 10 s: {:?}", begin.elapsed());
    Ok(())
}
