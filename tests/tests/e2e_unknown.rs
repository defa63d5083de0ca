//! Outcomes that nobody can know: the run waits for a person, who is told what is known and whose word counts.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test ends at its first surprise"
)]

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::Notify,
};
use windlass_model::{RunState, TaskId, TaskState, scheduling::QuestionView, task::TaskDetail};
use windlass_tests::{shop::Anything, site::Site};

/// A stranger on the network: counts the requests it gets, and answers only when it is in the mood.
#[derive(Clone, Default)]
struct Stranger {
    got: Arc<AtomicUsize>,
    came: Arc<Notify>,
    answers: Arc<AtomicBool>,
}

impl Stranger {
    /// Listens; answers its URL.
    async fn listen(&self) -> Anything<String> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}/orders", listener.local_addr()?);
        let own = self.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let own = own.clone();
                tokio::spawn(async move {
                    let mut request = vec![0; 4096];
                    if stream.read(&mut request).await.unwrap_or(0) == 0 {
                        return;
                    }
                    own.got.fetch_add(1, SeqCst);
                    own.came.notify_one();
                    if own.answers.load(SeqCst) {
                        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";
                        let _ = stream.write_all(answer).await;
                    } else {
                        // Never answers; ends when the client does.
                        while stream.read(&mut request).await.unwrap_or(0) > 0 {}
                    }
                });
            }
        });
        Ok(url)
    }
}

/// A site whose one step posts to a stranger.
async fn site(stranger: &Stranger, timeout: u32) -> Anything<Site> {
    let url = stranger.listen().await?;
    let steps = format!(
        "  - name: order\n    uses: http-check@1\n    with: {{ url: \"{url}\", method: POST, attempts: 1, timeout_seconds: {timeout} }}\n"
    );
    let site = Site::new(0, &steps).await?;
    site.release("1.0.0")?;
    site.server.cli(&["deploy", "shop", "-e", "test", "--detach"])?.good()?;
    Ok(site)
}

/// The question that the task comes to ask.
async fn asked(site: &Site) -> Anything<QuestionView> {
    let wait = async {
        loop {
            if let Some(question) = site.client()?.interruptions().await?.into_iter().next() {
                return Ok(question);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(90), wait).await.map_err(|_| "nobody was asked")?
}

async fn ended(site: &Site) -> Anything<TaskDetail> {
    site.server.cli(&["task", "follow", "1"])?;
    Ok(site.client()?.task(TaskId(1)).await?)
}

fn answer(site: &Site, question: &QuestionView, choice: &str) -> Anything<()> {
    let number = question.number.to_string();
    let answer = ["interruption", "answer", &number, choice, "--notes", "looked at the receiver"];
    site.server.cli(&answer)?.good().map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_post_that_hangs_asks_and_is_taken_as_done() -> Anything<()> {
    let stranger = Stranger::default();
    let site = site(&stranger, 1).await?;
    let question = asked(&site).await?;
    assert!(question.unknown_outcome, "{question:#?}");
    assert_eq!(question.choices, ["retry", "done", "fail"]);
    assert_eq!(question.node, "order/server");
    assert!(
        question.text.contains("order/server has an unknown outcome") && question.text.contains("POST"),
        "{question:#?}"
    );
    // It is a state that people see: waiting for them, and for what.
    let waiting = site.client()?.task(TaskId(1)).await?;
    let run = &waiting.steps[0].runs[0];
    assert_eq!(run.reason.as_ref().map(|reason| reason.kind.as_str()), Some("person"), "{run:#?}");
    answer(&site, &question, "done")?;
    let task = ended(&site).await?;
    assert_eq!(task.summary.state, TaskState::Succeeded, "{task:#?}");
    assert_eq!(stranger.got.load(SeqCst), 1, "nobody sent it again");
    let log = site.log(TaskId(1), "order/server").await?;
    let words = "took it as done (looked at the receiver), with status 200 and an unknown body: http POST";
    assert_eq!(log.iter().filter(|line| line.contains(words)).count(), 1, "{log:#?}");
    assert!(log.last().is_some_and(|line| line.ends_with("by a person; its answer is not known")), "{log:#?}");
    assert_eq!(task.steps[0].runs[0].outputs.get("Status"), None, "nobody knows it");
    assert!(site.client()?.interruptions().await?.is_empty());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_post_under_way_when_the_server_dies_is_retried_on_a_persons_word() -> Anything<()> {
    let stranger = Stranger::default();
    let mut site = site(&stranger, 600).await?;
    tokio::time::timeout(Duration::from_secs(90), stranger.came.notified()).await?;
    site.server.kill9()?;
    site.server.restart()?;
    let question = asked(&site).await?;
    assert!(question.unknown_outcome, "{question:#?}");
    assert_eq!(stranger.got.load(SeqCst), 1, "it is not sent again without a word");
    // The question outlives another death.
    site.server.restart()?;
    assert_eq!(asked(&site).await?.number, question.number);
    stranger.answers.store(true, SeqCst);
    answer(&site, &question, "retry")?;
    let task = ended(&site).await?;
    assert_eq!(task.summary.state, TaskState::Succeeded, "{task:#?}");
    assert_eq!(stranger.got.load(SeqCst), 2);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outcome_taken_as_failed_fails_the_step_in_that_persons_name() -> Anything<()> {
    let stranger = Stranger::default();
    let site = site(&stranger, 1).await?;
    let question = asked(&site).await?;
    answer(&site, &question, "fail")?;
    let task = ended(&site).await?;
    assert_eq!(task.summary.state, TaskState::Failed);
    let log = site.log(TaskId(1), "order/server").await?.join("\n");
    assert!(log.contains("took it as failed (looked at the receiver)"), "{log}");
    Ok(())
}

/// Kills its own runner, so that nothing is left that could tell how it ended.
const ORPHAN: &str = r#"
  - name: orphan
    uses: run-script@1
    on: { role: web }
    with:
      script: |
        echo run >> "$HOME/runs"
        echo "last words"
        kill -KILL "$PPID"
  - { name: next, uses: run-script@1, on: { role: web }, with: { script: "echo ran next >> $HOME/runs" } }
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_command_asks_with_its_ticket_and_last_lines() -> Anything<()> {
    let site = Site::new(1, ORPHAN).await?;
    site.release("1.0.0")?;
    site.server.cli(&["deploy", "shop", "-e", "test", "--detach"])?.good()?;
    let question = asked(&site).await?;
    assert!(question.unknown_outcome && question.text.contains("ticket 1.0.m-web0.1.0"), "{question:#?}");
    assert_eq!(question.last_lines.last().map(String::as_str), Some("last words"), "{question:#?}");
    answer(&site, &question, "done")?;
    let task = ended(&site).await?;
    assert_eq!(task.summary.state, TaskState::Succeeded, "{task:#?}");
    assert_eq!(task.steps[0].runs[0].state, RunState::Succeeded);
    let log = site.log(TaskId(1), "orphan/web0").await?.join("\n");
    for words in [
        "took it as done (looked at the receiver), with exit code 0 and unknown output: run sh:",
        "of what the script printed at most the last 1 MiB is known",
    ] {
        assert!(log.contains(words), "{words:?} is missing: {log}");
    }
    assert_eq!(std::fs::read_to_string(site.targets[0].home().join("runs"))?, "run\nran next\n");
    Ok(())
}
