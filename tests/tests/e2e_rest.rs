//! The REST API of the real server: the typed client's whole way, and over plain HTTP what other programs rely on.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test ends at its first surprise"
)]

use std::collections::BTreeSet;

use futures::StreamExt;
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use windlass_client::{LogRange, TaskUpdate};
use windlass_model::{
    MachineName, TaskId, TaskState,
    task::TaskQuery,
    views::{DeployRequest, PushMode, PushResult, ReleaseRequest},
};
use windlass_tests::{
    events::{Event, Events},
    server::Server,
    shop,
    site::Site,
    sshd::Sshd,
};

type Tested = shop::Anything<()>;

/// Plain HTTP with the server's token.
struct Http<'a> {
    server: &'a Server,
    http: reqwest::Client,
}

impl<'a> Http<'a> {
    fn of(server: &'a Server) -> shop::Anything<Self> {
        // The typed client installs the cryptography that every client of this process needs.
        server.client()?;
        Ok(Self { server, http: reqwest::Client::new() })
    }

    fn ask(&self, method: Method, path: &str) -> RequestBuilder {
        self.anonymous(method, path).bearer_auth(self.server.token())
    }

    fn anonymous(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.server.url()))
    }

    async fn get(&self, path: &str) -> shop::Anything<Value> {
        Ok(self.ask(Method::GET, path).send().await?.error_for_status()?.json().await?)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_typed_client_deploys_and_follows_to_the_end() -> Tested {
    let target = Sshd::start()?;
    let server = Server::start().await?;
    let client = server.client()?;
    let steps = json!([
        { "name": "web", "uses": "deploy-package@1", "on": { "role": "web" }, "with": { "package": "shop-web" } },
        { "name": "count", "uses": "run-script@1", "on": { "role": "web" }, "with": { "script": "seq 1 1500" } },
    ]);
    let archive = shop::archive(&[("hello", "hello\n")])?;
    let size = archive.len() as u64;
    let pushed =
        client.push_package("shop-web.1.0.0.tar.gz", std::io::Cursor::new(archive), size, None, PushMode::Fail).await?;
    assert_eq!((pushed.outcome, pushed.package.size), (PushResult::Added, size));

    let workspace = shop::workspace(vec![shop::machine("web0", "web", &target)?], steps, json!([]))?;
    let predicted = client.apply(&workspace, true).await?.changes;
    assert!(client.machines().await?.is_empty(), "a dry run changes nothing");
    assert_eq!(client.apply(&workspace, false).await?.changes, predicted);
    assert_eq!(client.machines().await?.len(), 1);
    assert_eq!(client.apply(&workspace, false).await?.changes, []);

    let project = "shop".parse()?;
    assert_eq!(client.create_release(&project, &ReleaseRequest::default()).await?.version, "1.0.0");
    let request = DeployRequest::new(project, "test".parse()?);
    let task = client.deploy(&request).await?.id;
    let mut lines = Vec::new();
    let mut end = None;
    let mut follower = client.follow_task(task);
    while let Some(update) = follower.next().await {
        match update? {
            TaskUpdate::Lines { node, lines: new } if node == "count/web0" => lines.extend(new),
            TaskUpdate::Ended(detail) => end = Some(detail),
            _ => {}
        }
    }
    let end = end.ok_or("the follower did not see the end")?;
    assert_eq!(end.summary.state, TaskState::Succeeded, "{:?}", end.summary.error);
    assert!(lines.iter().map(|line| line.n).eq(0..lines.len() as u64), "every line once and in order");
    let counted: Vec<&str> =
        lines.iter().map(|line| line.text.as_str()).filter(|text| text.parse::<u32>().is_ok()).collect();
    assert!(counted.iter().map(|text| text.parse().unwrap_or(0)).eq(1..=1500_u32), "{} numbers", counted.len());
    assert_eq!(std::fs::read_to_string(target.home().join(".windlass/apps/shop/shop-web/current/hello"))?, "hello\n");

    let on =
        |machine: &str, state| TaskQuery { machine: MachineName::new(machine).ok(), state, ..TaskQuery::default() };
    let client = &client;
    let found = |query: TaskQuery| async move {
        client.tasks(&query).await.map(|page| page.items.into_iter().map(|task| task.id).collect::<Vec<_>>())
    };
    assert_eq!(found(on("web0", vec![TaskState::Succeeded])).await?, [task]);
    assert_eq!(found(on("web0", vec![TaskState::Failed])).await?, []);
    assert_eq!(found(on("other", vec![])).await?, []);
    Ok(())
}

const COUNT_TO_600: &str = r#"
  - { name: count, uses: run-script@1, on: { role: web }, with: { script: "seq 1 300; touch $HOME/half; while [ ! -e $HOME/go ]; do sleep 0.05; done; seq 301 600" } }
"#;

#[tokio::test(flavor = "multi_thread")]
async fn events_resume_by_number_and_logs_by_range() -> Tested {
    let site = Site::new(1, COUNT_TO_600).await?;
    site.release("1.0.0")?;
    let http = Http::of(&site.server)?;
    let deploy = json!({ "project": "shop", "environment": "test" });
    let created = http.ask(Method::POST, "/api/v1/deployments").json(&deploy).send().await?;
    assert_eq!(created.status(), StatusCode::CREATED);
    assert_eq!(created.headers()["location"], "/api/v1/tasks/1");

    let mut first = events(&site, 0).await?;
    let mut seen = BTreeSet::new();
    let mut last = 0;
    while seen.len() < 100 {
        let event = first.next().await?.ok_or("the events ended early")?;
        last = event.id;
        seen.extend(lines(&event));
    }
    drop(first);

    // While nobody listens, the rest is printed.
    std::fs::write(site.targets[0].home().join("go"), "")?;
    let mut second = events(&site, last).await?;
    let mut ended = None;
    while let Some(event) = second.next().await? {
        if event.name == "end" {
            ended = Some(event.data);
            continue;
        }
        assert!(event.id > last, "event {} came again after {last}", event.id);
        last = event.id;
        for line in lines(&event) {
            assert!(seen.insert(line), "line {line} came twice");
        }
    }
    assert_eq!(ended, Some(json!({ "task": 1, "state": "succeeded" })));
    let numbers = |page: &Value| -> Vec<u64> {
        page["items"].as_array().into_iter().flatten().filter_map(|line| line["n"].as_u64()).collect()
    };
    let path = "/api/v1/tasks/1/log?node=count/web0";
    let all = http.get(&format!("{path}&limit=2000")).await?;
    assert!(seen.iter().copied().eq(numbers(&all)), "the events told every line of the log, each once");

    let page = http.get(&format!("{path}&from=250&limit=100")).await?;
    assert!(numbers(&page).into_iter().eq(250..350));
    assert_eq!(page["next"], 350);
    let beyond = http.get(&format!("{path}&from=100000")).await?;
    assert_eq!(beyond, json!({ "items": [] }));
    let text = http.ask(Method::GET, path).header("accept", "text/plain").send().await?.text().await?;
    assert!(text.contains("\n599\n600\n"), "{text}");
    Ok(())
}

async fn events(site: &Site, after: u64) -> shop::Anything<Events> {
    Events::follow(&site.server, "/api/v1/tasks/1/events", Some(after)).await
}

/// Numbers of the lines of the script's log that an event brings.
fn lines(event: &Event) -> Vec<u64> {
    let change = &event.data["change"];
    if change["node"] != "count/web0" {
        return Vec::new();
    }
    change["lines"].as_array().into_iter().flatten().filter_map(|line| line["n"].as_u64()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_are_problems_with_code_and_fix() -> Tested {
    let server = Server::start().await?;
    let http = Http::of(&server)?;
    let ask = |method, path| http.ask(method, path);
    let empty = json!({});
    let requests = [
        (http.anonymous(Method::GET, "/api/v1/tasks"), 401),
        (http.anonymous(Method::GET, "/api/v1/tasks").bearer_auth("wl_wrong"), 401),
        (http.anonymous(Method::GET, "/api/v1/openapi.json"), 401),
        (ask(Method::GET, "/api/v1/tasks/99"), 404),
        (ask(Method::GET, "/api/v1/projects/shop"), 404),
        (ask(Method::GET, "/api/v1/nothing"), 404),
        (ask(Method::DELETE, "/api/v1/tasks"), 405),
        (ask(Method::GET, "/api/v1/tasks?state=happy"), 422),
        (ask(Method::GET, "/api/v1/tasks?colour=red"), 422),
        (ask(Method::POST, "/api/v1/deployments").json(&empty), 422),
        (ask(Method::POST, "/api/v1/deployments").json(&json!({ "project": "shop", "environment": "test" })), 404),
        (ask(Method::PUT, "/api/v1/packages/noversion.zip").body("x"), 422),
    ];
    let mut told = String::new();
    for (request, status) in requests {
        let request = request.build()?;
        let what = format!("{} {}", request.method(), request.url().as_str().trim_start_matches(server.url()));
        let answer = http.http.execute(request).await?;
        let (code, kind) = (answer.status(), answer.headers().get("content-type").cloned());
        let problem: Value = answer.json().await?;
        told.push_str(&format!("{what}\n  {} {}: {}\n", code.as_u16(), problem["code"], problem["detail"]));
        told.push_str(&format!("  fix: {}\n", problem["fix"]));
        assert_eq!(code, status, "{what}: {problem:#}");
        assert_eq!(kind.as_ref().map(|kind| kind.as_bytes()), Some(b"application/problem+json".as_slice()), "{what}");
        assert!(problem["fix"].as_str().is_some_and(|fix| !fix.is_empty()), "{what} names no fix: {problem:#}");
        assert_eq!(problem["status"], status);
    }
    insta::assert_snapshot!(told);
    assert_eq!(http.anonymous(Method::GET, "/health/ready").send().await?.status(), StatusCode::OK);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_with_a_key_is_done_once() -> Tested {
    let site =
        Site::new(1, "  - { name: s, uses: run-script@1, on: { role: web }, with: { script: \"true\" } }\n").await?;
    site.release("1.0.0")?;
    let http = Http::of(&site.server)?;
    let deploy = |key: &str, version: &str| {
        let body = json!({ "project": "shop", "environment": "test", "version": version });
        http.ask(Method::POST, "/api/v1/deployments").header("idempotency-key", key).json(&body).send()
    };
    let (one, two) = futures::future::try_join(deploy("a", "1.0.0"), deploy("a", "1.0.0")).await?;
    let replayed = [&one, &two].map(|answer| answer.headers().contains_key("idempotency-replayed"));
    assert_ne!(replayed[0], replayed[1], "one is the first, the other its repetition");
    let (one, two): (Value, Value) = (one.json().await?, two.json().await?);
    assert_eq!((&one["id"], &two["id"]), (&json!(1), &json!(1)));
    let other = deploy("b", "1.0.0").await?.json::<Value>().await?;
    assert_eq!(other["id"], 2);
    let reused = deploy("a", "1.0.1").await?;
    assert_eq!(reused.status(), StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(reused.json::<Value>().await?["code"], "idempotency-key-reused");
    let client = site.client()?;
    assert_eq!(client.tasks(&TaskQuery::default()).await?.items.len(), 2);
    assert!(client.log(TaskId(1), &LogRange::default()).await.is_ok());
    Ok(())
}
