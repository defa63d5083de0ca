//! Live events: nothing lost, nothing twice, whoever comes late, goes away or is slow.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod common;

use common::{Message, PATIENCE, Server, line_numbers, messages};
use futures::StreamExt;
use serde_json::json;

fn kinds(messages: &[Message]) -> Vec<&str> {
    messages.iter().map(|message| message.event.as_str()).collect()
}

#[tokio::test]
async fn a_stream_resumes_at_any_event_without_loss_or_repetition() {
    let server = Server::start().await;
    let before = server.script("1").await;
    let start = server.get(&format!("/api/v1/tasks/{before}")).await["seq"].as_u64().unwrap();
    let task = server.script(r#"for i in 0..40 { log(`line ${i}`); sleep(0.01); }"#).await;
    let all = server.events(task, Some(start)).await;
    assert_eq!(line_numbers(&all), (0..40).collect::<Vec<u64>>());
    assert_eq!(all.last().unwrap().data, json!({ "task": task, "state": "succeeded" }));
    let numbered: Vec<u64> = all.iter().filter_map(|message| message.id).collect();
    assert!(numbered.is_sorted_by(|a, b| a < b));
    for (place, id) in numbered.iter().enumerate() {
        assert_eq!(server.events(task, Some(*id)).await, all[place + 1..], "after {id}");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_broken_connection_is_taken_up_where_it_broke() {
    let server = Server::start().await;
    let first = server.script("1").await;
    let mut after = server.get(&format!("/api/v1/tasks/{first}")).await["seq"].as_u64().unwrap();
    let task = server.script(r#"for i in 0..30 { log(`line ${i}`); sleep(0.03); }"#).await;
    let mut seen = Vec::new();
    // Each connection is dropped after one event.
    loop {
        let path = format!("/api/v1/tasks/{task}/events?after={after}");
        let mut body = server.request("GET", &path).send().await.unwrap().bytes_stream();
        let mut text = String::new();
        while messages(&text).is_empty() || !text.ends_with("\n\n") {
            let piece = tokio::time::timeout(PATIENCE, body.next()).await.unwrap().unwrap().unwrap();
            text.push_str(std::str::from_utf8(&piece).unwrap());
        }
        seen.extend(messages(&text));
        after = seen.iter().rev().find_map(|message| message.id).unwrap_or(after);
        if seen.last().unwrap().event == "end" {
            break;
        }
    }
    assert_eq!(line_numbers(&seen), (0..30).collect::<Vec<u64>>());
    server.stop().await;
}

#[tokio::test]
async fn who_comes_after_the_end_is_told_so_and_who_missed_events_is_reset() {
    let server = Server::start().await;
    let task = server.script("log(\"one\")").await;
    let path = format!("/api/v1/tasks/{task}");
    while server.get(&path).await["state"] != "succeeded" {
        tokio::task::yield_now().await;
    }
    assert_eq!(kinds(&server.events(task, None).await), ["end"]);
    assert_eq!(kinds(&server.events(task, Some(1)).await), ["reset", "end"], "a number of an earlier process");
    let refused =
        server.request("GET", &format!("{path}/events")).header("Last-Event-ID", "yesterday").send().await.unwrap();
    assert_eq!(refused.status(), 422);
    let page = server.get(&format!("{path}/log?node=test/server")).await;
    let node = if page["items"].as_array().unwrap().is_empty() { "" } else { "test/server" };
    let text =
        server.request("GET", &format!("{path}/log?node={node}")).header("accept", "text/plain").send().await.unwrap();
    assert_eq!(text.text().await.unwrap(), "one\n");
    server.stop().await;
}

#[tokio::test]
async fn a_log_is_read_by_range_or_as_one_text() {
    let server = Server::start().await;
    let task = server.script(r#"for i in 0..2500 { log(`line ${i}`); }"#).await;
    let all = server.events(task, Some(0)).await;
    assert_eq!(all.last().unwrap().event, "end");
    let node = "test/server";
    let page = server.get(&format!("/api/v1/tasks/{task}/log?node={node}&from=10&limit=5")).await;
    let numbers: Vec<u64> = page["items"].as_array().unwrap().iter().map(|line| line["n"].as_u64().unwrap()).collect();
    assert_eq!((numbers, &page["next"]), ((10..15).collect(), &json!(15)));
    let last = server.get(&format!("/api/v1/tasks/{task}/log?node={node}&from=2499")).await;
    assert_eq!((last["items"].as_array().unwrap().len(), last.get("next")), (1, None));
    let text = server
        .request("GET", &format!("/api/v1/tasks/{task}/log?node={node}"))
        .header("accept", "text/plain")
        .send()
        .await
        .unwrap();
    let expected: String = (0..2500).map(|i| format!("line {i}\n")).collect();
    assert_eq!(text.text().await.unwrap(), expected);
    server.stop().await;
}

#[tokio::test]
async fn a_reader_that_lags_too_far_is_reset_and_sees_the_end() {
    let server = Server::start().await;
    let task = server.script(r#"let note = ""; for i in 0..40 { note += "0123456789"; } for i in 0..40000 { progress(i, 40000, note); }"#).await;
    // Answered, but not read while the events pile up.
    let stream = server.request("GET", &format!("/api/v1/tasks/{task}/events")).send().await.unwrap();
    let path = format!("/api/v1/tasks/{task}");
    while server.get(&path).await["ended_ms"].is_null() {
        tokio::task::yield_now().await;
    }
    let seen = messages(&stream.text().await.unwrap());
    let kinds = kinds(&seen);
    assert!(kinds.contains(&"reset"), "it lagged by more than the server keeps");
    assert_eq!(kinds.last(), Some(&"end"));
    server.stop().await;
}

#[tokio::test]
async fn a_stopping_server_ends_its_streams() {
    let server = Server::start().await;
    let stream = server.request("GET", "/api/v1/events").send().await.unwrap();
    let read = tokio::spawn(stream.text());
    server.stop().await;
    let text = tokio::time::timeout(PATIENCE, read).await.unwrap().unwrap().unwrap();
    assert!(text.contains(": windlass events\n"), "{text}");
}
