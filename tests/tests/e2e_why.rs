//! `windlass why` and `windlass plan` of a real server, for each kind of wait, and that everybody is told the same.
//!
//! All waits stand beside each other on one server. Machines are this one, with folders of their own; work on them ends
//! when the test makes the file of its gate, or with the test.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test ends at its first surprise"
)]

use std::{
    fs,
    net::TcpListener,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use windlass_client::Client;
use windlass_model::{
    TaskId,
    scheduling::WhyView,
    task::TaskDetail,
    views::{PushMode, ReleaseRequest},
};
use windlass_tests::{events::Events, server::Server, shop::Anything, sshd::Sshd};

struct Waits {
    server: Server,
    client: Client,
    folder: tempfile::TempDir,
    events: Events,
}

impl Waits {
    async fn new(limits: &str) -> Anything<Self> {
        let mut server = Server::start().await?;
        let folder = tempfile::tempdir()?;
        fs::create_dir(folder.path().join("gates"))?;
        limit(&mut server, limits)?;
        let client = server.client()?;
        let events = Events::follow(&server, "/api/v1/events", None).await?;
        Ok(Self { server, client, folder, events })
    }

    /// A script that ends when its gate is opened, or with the test.
    fn gated(&self, gate: &str) -> String {
        let gates = self.folder.path().join("gates").display().to_string();
        format!("while [ ! -e {gates}/{gate} ]; do [ -d {gates} ] || exit 1; sleep 0.02; done")
    }

    fn open(&self, gate: &str) -> Anything<()> {
        Ok(fs::write(self.folder.path().join("gates").join(gate), "")?)
    }

    /// Machines of this host with these names, each in a role of the same name and in those given.
    fn machines(&self, names: &[(&str, &[&str])]) -> Vec<Value> {
        let machine = |(name, roles): &(&str, &[&str])| {
            let home = self.folder.path().join(name);
            fs::create_dir_all(&home).unwrap();
            let roles: Vec<_> = roles.iter().chain([name]).collect();
            json!({ "name": name, "environments": ["test"], "roles": roles, "connection": { "local": { "home": home } } })
        };
        names.iter().map(machine).collect()
    }

    /// Applies a project and makes its release.
    async fn project(&self, machines: &[Value], name: &str, process: Value) -> Anything<()> {
        let workspace = json!({
            "environments": [{ "name": "test" }], "machines": machines,
            "projects": [{ "project": { "name": name }, "process": process, "variables": [] }],
        });
        self.client.apply(&serde_json::from_value(workspace)?, false).await?;
        let request = ReleaseRequest { version: Some("1.0.0".into()), ..ReleaseRequest::default() };
        self.client.create_release(&name.parse()?, &request).await?;
        Ok(())
    }

    async fn deploy(&self, project: &str) -> Anything<TaskId> {
        let request = json!({ "project": project, "environment": "test" });
        Ok(self.client.deploy(&serde_json::from_value(request)?).await?.id)
    }

    async fn script(&self, name: &str, text: &str) -> Anything<TaskId> {
        let request = json!({ "name": name, "text": text });
        Ok(self.client.run_script(&serde_json::from_value(request)?).await?.id)
    }

    /// Waits until the server says what is wanted of a task's waits.
    async fn until(&mut self, task: TaskId, wanted: impl Fn(&WhyView) -> bool) -> Anything<WhyView> {
        let (limit, begin) = (Duration::from_secs(60), Instant::now());
        loop {
            let why = self.client.why(task).await?;
            if wanted(&why) {
                return Ok(why);
            }
            let late = || format!("task {task} does not get there: {why:#?}");
            // What is told is told by an event too: without one there is nothing new to look for.
            let left = limit.saturating_sub(begin.elapsed());
            tokio::time::timeout(left, self.events.next()).await.map_err(|_| late())??.ok_or_else(late)?;
        }
    }

    /// Waits until something of a task waits for that kind of reason.
    async fn waits(&mut self, task: TaskId, kind: &str) -> Anything<()> {
        self.until(task, |why| why.waits.iter().any(|wait| wait.reason.kind == kind)).await.map(drop)
    }

    /// Waits until the tree of a task is as wanted.
    async fn shows(&mut self, task: TaskId, wanted: impl Fn(&TaskDetail) -> bool) -> Anything<TaskDetail> {
        let (limit, begin) = (Duration::from_secs(60), Instant::now());
        loop {
            let detail = self.client.task(task).await?;
            if wanted(&detail) {
                return Ok(detail);
            }
            let late = || format!("task {task} does not get there: {detail:#?}");
            let left = limit.saturating_sub(begin.elapsed());
            tokio::time::timeout(left, self.events.next()).await.map_err(|_| late())??.ok_or_else(late)?;
        }
    }

    /// Waits until a run has started.
    async fn runs(&mut self, task: TaskId, node: &str) -> Anything<()> {
        let started = |detail: &TaskDetail| {
            let mut runs = detail.steps.iter().flat_map(|step| &step.runs);
            runs.any(|run| run.node == node && run.started_ms.is_some())
        };
        self.shows(task, started).await.map(drop)
    }

    fn said(&self, arguments: &[&str]) -> Anything<String> {
        let text = self.server.cli(arguments)?.good()?;
        Ok(format!("$ windlass {}\n{}\n", arguments.join(" "), timeless(&text)))
    }

    fn why(&self, task: TaskId) -> Anything<String> {
        self.said(&["why", &task.to_string()])
    }
}

fn limit(server: &mut Server, limits: &str) -> Anything<()> {
    let path = server.data().join("windlass.toml");
    fs::write(&path, format!("[limits]\n{limits}"))?;
    server.restart_with(&["--config", &path.display().to_string()])
}

/// Spans of time become `T`, and columns move together: what is left is the same every time.
fn timeless(text: &str) -> String {
    let line = |line: &str| {
        let indent = line.len() - line.trim_start().len();
        let mut words: Vec<String> = Vec::new();
        for word in line.split_whitespace() {
            let bare = word.trim_end_matches([')', ',', ':', ';']);
            let number = |word: &str| word.trim_start_matches(['(', '~']).parse::<f64>().is_ok();
            match words.last_mut() {
                Some(last) if ["ms", "s", "min", "h", "d"].contains(&bare) && number(last) => {
                    let open = if last.starts_with('(') { "(" } else { "" };
                    *last = format!("{open}T{}", &word[bare.len()..]);
                }
                _ => words.push(word.to_owned()),
            }
        }
        // `2 min 5 s` is one span.
        words.dedup_by(|second, first| {
            let same = first.trim_start_matches('(') == "T"
                && second.starts_with('T')
                && !second[1..].contains(char::is_alphanumeric);
            if same {
                let open = if first.starts_with('(') { "(" } else { "" };
                *first = format!("{open}{second}");
            }
            same
        });
        format!("{}{}", " ".repeat(indent), words.join(" "))
    };
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn spans_become_one_letter() {
    let before = "  web/a waits (for 0.3 s, number 2 in the line)\nend  after 2 min 5 s: 3 machines, ~ 30 s each\n (up to 1 h 2 min)";
    let after = "  web/a waits (for T, number 2 in the line)\nend after T: 3 machines, ~ T each\n (up to T)";
    assert_eq!(timeless(before), after);
}

fn step(name: &str, role: &str, script: &str) -> Value {
    json!({ "name": name, "uses": "run-script@1", "on": { "role": role }, "with": { "script": script } })
}

fn with(mut step: Value, more: Value) -> Value {
    for (key, value) in more.as_object().unwrap() {
        step[key] = value.clone();
    }
    step
}

/// Everything that is told, in order, for one snapshot.
struct Told(String);

impl Told {
    fn add(&mut self, title: &str, text: &str) {
        self.0.push_str(&format!("== {title}\n{text}\n"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_wait_on_machines_says_why_and_is_planned_for() -> Anything<()> {
    let mut waits = Waits::new("tasks = 50\nruns = 2\ngrace_seconds = 1\nkill_seconds = 1\n").await?;
    let silent = TcpListener::bind("127.0.0.1:0")?;
    let frozen = Sshd::start()?;
    let mut machines = waits.machines(&[
        ("box", &[]),
        ("left", &[]),
        ("right", &[]),
        ("p1", &["pair"]),
        ("p2", &["pair"]),
        ("t1", &["trio"]),
        ("t2", &["trio"]),
        ("t3", &["trio"]),
        ("u1", &["three"]),
        ("u2", &["three"]),
        ("u3", &["three"]),
        ("n1", &[]),
        ("n2", &[]),
        ("f1", &[]),
        ("g1", &[]),
        ("x", &[]),
        ("y", &[]),
        ("q1", &["quad"]),
        ("q2", &["quad"]),
    ]);
    machines.push(json!({ "name": "far", "environments": ["test"], "roles": ["far"], "connection": { "ssh": {
        "host": "127.0.0.1", "port": silent.local_addr()?.port(), "user": "nobody",
        "auth": { "key-file": { "path": frozen.login_key_path() } }, "host_key": frozen.host_key() } } }));
    machines.push(serde_json::to_value(windlass_tests::shop::machine("ice", "ice", &frozen)?)?);
    let archive = windlass_tests::shop::archive(&[("content", "x\n")])?;
    let size = archive.len() as u64;
    waits.client.push_package("parcel.1.0.0.tar.gz", std::io::Cursor::new(archive), size, None, PushMode::Fail).await?;

    let closed = waits.gated("never");
    let second_closed = format!("[ '#{{Machine.Name}}' = p1 ] || {{ {closed}; }}");
    let deadly = |one: &str, two: &str| {
        let hold = |step| with(step, json!({ "hold": "deployment" }));
        json!({ "steps": [hold(step("first", one, &waits.gated("dead"))), hold(step("second", two, "true"))] })
    };
    let projects = [
        ("holder", json!({ "steps": [step("work", "box", &closed)] })),
        ("busy", json!({ "steps": [step("web", "box", "true")] })),
        ("behind", json!({ "steps": [step("web", "box", "true")] })),
        (
            "keeper",
            json!({ "steps": [with(step("first", "left", "true"), json!({ "hold": "deployment" })), step("then", "right", &closed)] }),
        ),
        ("kept", json!({ "steps": [step("web", "left", "true")] })),
        (
            "step-keeper",
            json!({ "steps": [with(step("roll", "pair", &second_closed), json!({ "hold": "step", "rolling": { "window": 1 } }))] }),
        ),
        ("step-kept", json!({ "steps": [step("web", "p1", "true")] })),
        ("rolling", json!({ "steps": [with(step("web", "trio", &closed), json!({ "rolling": { "window": 1 } }))] })),
        ("runs", json!({ "steps": [step("web", "three", &closed)] })),
        (
            "narrow",
            json!({ "max_parallelism": 1, "steps": [step("one", "n1", &closed), with(step("two", "n2", "true"), json!({ "start": "with-previous" }))] }),
        ),
        (
            "parcels",
            json!({ "steps": [{ "name": "install", "uses": "deploy-package@1", "on": { "role": "far" }, "with": { "package": "parcel" } }] }),
        ),
        (
            "flaky",
            json!({ "steps": [with(step("try", "f1", "exit 3"), json!({ "retries": 1, "retry_after_seconds": 3600 }))] }),
        ),
        ("guided", json!({ "guided": true, "steps": [step("fails", "g1", "exit 3")] })),
        ("ice", json!({ "steps": [step("hang", "ice", "echo begun; sleep 600")] })),
        ("cold", json!({ "steps": [step("web", "ice", "true")] })),
        (
            "fresh",
            json!({ "steps": [
                step("web", "box", "true"),
                with(step("roll", "quad", "true"), json!({ "rolling": { "window": 1 } })),
                { "name": "install", "uses": "deploy-package@1", "on": { "role": "quad" }, "with": { "package": "parcel" } },
            ] }),
        ),
        ("dead-one", deadly("x", "y")),
        ("dead-two", deadly("y", "x")),
    ];
    for (name, process) in projects {
        waits.project(&machines, name, process).await?;
    }

    // Each kind: what stands there before, who waits, and for what kind of reason.
    let mut told = Told(String::new());
    let holder = waits.deploy("holder").await?;
    waits.runs(holder, "work/box").await?;
    for (project, runs, waiter, kind) in [
        ("", "", "holder", "concurrency"),
        ("", "", "holder", "concurrency"),
        ("", "", "busy", "target-busy"),
        ("", "", "behind", "target-busy"),
        ("keeper", "then/right", "kept", "target-busy"),
        ("step-keeper", "roll/p2", "step-kept", "target-busy"),
        ("", "", "rolling", "window"),
        ("", "", "runs", "run-window"),
        ("", "", "narrow", "step-window"),
        ("", "", "parcels", "packages"),
        ("", "", "flaky", "retry"),
        ("", "", "guided", "person"),
    ] {
        if !project.is_empty() {
            let keeper = waits.deploy(project).await?;
            waits.runs(keeper, runs).await?;
        }
        let task = waits.deploy(waiter).await?;
        waits.waits(task, kind).await?;
        told.add(&format!("{kind}: {waiter}"), &waits.why(task)?);
    }
    let ice = waits.deploy("ice").await?;
    waits.runs(ice, "hang/ice").await?;
    let begun = |line: &windlass_model::task::LogLine| line.text == "begun";
    let range = windlass_client::LogRange { node: "hang/ice".to_owned(), from: 0, limit: None };
    while !waits.client.log(ice, &range).await?.items.iter().any(begun) {
        waits.events.next().await?;
    }
    frozen.freeze();
    waits.client.cancel(ice).await?;
    let cold = waits.deploy("cold").await?;
    waits.waits(cold, "fenced").await?;
    told.add("fenced: cold", &waits.why(cold)?);
    insta::assert_snapshot!("why", told.0);

    // Plans over the same state: for those that would have to wait, and for a circle that would close.
    let mut told = Told(String::new());
    let dead = waits.deploy("dead-one").await?;
    waits.runs(dead, "first/x").await?;
    for project in ["fresh", "holder", "busy", "kept", "step-kept", "rolling", "narrow", "parcels", "dead-two"] {
        told.add(project, &waits.said(&["plan", project, "-e", "test"])?);
    }
    insta::assert_snapshot!("plan", told.0);
    let plan = waits.server.cli(&["plan", "dead-two", "-e", "test", "-o", "json"])?.json()?;
    assert!(plan["deadlocks"][0]["text"].as_str().unwrap().contains("machine y"), "{plan:#}");
    assert_eq!(plan["state"], "failed");
    for key in
        ["title", "runs", "waits", "deliveries", "bytes", "locks", "questions", "deadlocks", "skipped", "ends_in_ms"]
    {
        assert!(!plan[key].is_null(), "{key} is missing in {plan:#}");
    }
    drop(silent);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn scripts_and_places_say_why() -> Anything<()> {
    let mut waits = Waits::new("tasks = 1\nscripts = 12\n").await?;
    let machines = waits.machines(&[("one", &[]), ("two", &[])]);
    let closed = waits.gated("never");
    for (name, role) in [("first", "one"), ("second", "two"), ("third", "two")] {
        waits.project(&machines, name, json!({ "steps": [step("web", role, &closed)] })).await?;
    }
    let mut told = Told(String::new());
    let first = waits.deploy("first").await?;
    waits.runs(first, "web/one").await?;
    for project in ["second", "third"] {
        let task = waits.deploy(project).await?;
        waits.waits(task, "task-cap").await?;
        told.add(&format!("task-cap: {project}"), &waits.why(task)?);
    }
    let held = "//! needs: [lock]\nlet held = lock(\"licence\");\nsleep(3600);";
    let quiet = "//! needs: [tasks-read]\nawait_quiet(#{machine: \"one\"});";
    let task = "//! needs: [tasks-read]\nawait_task(1, \"1h\");";
    for (name, kind, text) in [
        ("holds", "sleep", held),
        ("waits", "lock", held),
        ("queues", "lock", held),
        ("awaits-a-task", "task", task),
        ("awaits-quiet", "task", quiet),
    ] {
        let task = waits.script(name, text).await?;
        waits.waits(task, kind).await?;
        told.add(&format!("{kind}: {name}"), &waits.why(task)?);
    }

    // Two locks in opposite order. Each asks for its second only when its gate is given up.
    let gate = |name: &str| format!("//! needs: [lock]\nlet held = lock(\"{name}\");\nsleep(3600);");
    let cross = |one: &str, gate: &str, two: &str| {
        format!(
            "//! needs: [lock]\nlet a = lock(\"{one}\");\nlet g = lock(\"{gate}\");\nlet b = lock(\"{two}\");\nsleep(3600);"
        )
    };
    let mut gates = Vec::new();
    for name in ["gate-one", "gate-two"] {
        let task = waits.script(name, &gate(name)).await?;
        waits.waits(task, "sleep").await?;
        gates.push(task);
    }
    let one = waits.script("one", &cross("north", "gate-one", "south")).await?;
    waits.waits(one, "lock").await?;
    let two = waits.script("two", &cross("south", "gate-two", "north")).await?;
    waits.waits(two, "lock").await?;
    waits.client.cancel(gates[0]).await?;
    waits.until(one, |why| why.waits.iter().any(|wait| wait.reason.holder == Some(two))).await?;
    waits.client.cancel(gates[1]).await?;
    let over = waits.shows(two, |detail| detail.summary.state.is_final()).await?;
    let error = over.steps[0].runs[0].error.clone().unwrap_or_default();
    told.add("deadlock: the youngest wait fails", &timeless(&error));
    // The other goes on with what the failed one gave back.
    waits.waits(one, "sleep").await?;
    told.add("and the other goes on", &waits.why(one)?);
    told.add("plan with no free place", &waits.said(&["plan", "second", "-e", "test"])?);
    insta::assert_snapshot!("why_scripts", told.0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn time_people_pools_and_turns_say_why() -> Anything<()> {
    let mut waits = Waits::new("tasks = 2\n").await?;
    let names: [(&str, &[&str]); 6] = [("x", &[]), ("y", &[]), ("one", &[]), ("two", &[]), ("late", &[]), ("out", &[])];
    let mut machines = waits.machines(&names);
    machines[5]["pools"] = json!(["builders"]);
    machines[5]["disabled"] = json!(true);
    let circle = |one: &str, two: &str| {
        let hold = |step| with(step, json!({ "hold": "deployment" }));
        let first = hold(step("first", one, &waits.gated("circle")));
        json!({ "on_deadlock": "ask", "steps": [first, hold(step("second", two, "true"))] })
    };
    let closed = waits.gated("never");
    let check =
        json!({ "name": "check", "approval": { "instructions": "Is it calm?", "responsible": ["anna", "admin"] } });
    let built =
        json!({ "name": "build", "uses": "run-script@1", "on": { "pool": "builders" }, "with": { "script": "true" } });
    for (name, process) in [
        ("circle-one", circle("x", "y")),
        ("circle-two", circle("y", "x")),
        ("later", json!({ "steps": [step("web", "late", "true")] })),
        ("pooled", json!({ "steps": [built] })),
        ("approved", json!({ "steps": [check, step("web", "late", "true")] })),
        ("seat-one", json!({ "steps": [step("web", "one", &closed)] })),
        ("seat-two", json!({ "steps": [step("web", "two", &closed)] })),
    ] {
        waits.project(&machines, name, process).await?;
    }
    let mut told = Told(String::new());
    let mut request: windlass_model::views::DeployRequest =
        serde_json::from_value(json!({ "project": "later", "environment": "test" }))?;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_millis();
    request.start_at_ms = Some(u64::try_from(now)? + 3_600_000);
    let later = waits.client.deploy(&request).await?.id;
    waits.waits(later, "scheduled").await?;
    told.add("scheduled", &waits.why(later)?);
    let pooled = waits.deploy("pooled").await?;
    waits.waits(pooled, "pool").await?;
    told.add("pool", &waits.why(pooled)?);
    waits.client.cancel(pooled).await?;
    waits.shows(pooled, |detail| detail.summary.state.is_final()).await?;

    // A circle that a person is asked about: both sides say so, and the plan tells it before.
    let one = waits.deploy("circle-one").await?;
    waits.runs(one, "first/x").await?;
    told.add("plan of what closes a circle", &waits.said(&["plan", "circle-two", "-e", "test"])?);
    let two = waits.deploy("circle-two").await?;
    waits.runs(two, "first/y").await?;
    waits.open("circle")?;
    let asked = |why: &WhyView| why.waits.iter().any(|wait| wait.reason.kind == "person");
    let mut both = Vec::new();
    while both.is_empty() {
        for task in [one, two] {
            if asked(&waits.client.why(task).await?) {
                both = vec![task, if task == one { two } else { one }];
            }
        }
        if both.is_empty() {
            waits.events.next().await?;
        }
    }
    // Which of them closed the circle is up to the machines.
    let plain = |text: String| {
        let name = |task: TaskId| if task == one { "circle-one" } else { "circle-two" };
        let (asked, other) = (both[0], both[1]);
        let places = |task: TaskId| if task == one { ("x", "y") } else { ("y", "x") };
        let (mine, theirs) = places(asked);
        text.replace(name(asked), "ASKED")
            .replace(name(other), "OTHER")
            .replace(&format!("task {asked}"), "task A")
            .replace(&format!("why {asked}"), "why A")
            .replace(&format!("task {other}"), "task B")
            .replace(&format!("why {other}"), "why B")
            .replace(&format!("second/{theirs}"), "second/THEIRS")
            .replace(&format!("second/{mine}"), "second/MINE")
            .replace(&format!("machine {mine}"), "machine MINE")
            .replace(&format!("machine {theirs}"), "machine THEIRS")
    };
    told.add("deadlock, a person is asked", &plain(waits.why(both[0])?));
    told.add("deadlock, the other side", &plain(waits.why(both[1])?));
    let number = waits.server.cli(&["interruption", "list", "-o", "id"])?.good()?;
    waits.server.cli(&["interruption", "answer", number.trim(), "fail"])?.good()?;
    for task in [one, two] {
        waits.shows(task, |detail| detail.summary.state.is_final()).await?;
    }

    let approved = waits.deploy("approved").await?;
    waits.waits(approved, "person").await?;
    told.add("approval", &waits.why(approved)?);
    // Whoever waits for a person gives its place to others, and has to wait for one once it was answered.
    for (project, run) in [("seat-one", "web/one"), ("seat-two", "web/two")] {
        let seat = waits.deploy(project).await?;
        waits.runs(seat, run).await?;
    }
    let number = waits.server.cli(&["interruption", "list", "-o", "id"])?.good()?;
    waits.server.cli(&["interruption", "answer", number.trim(), "proceed"])?.good()?;
    waits.waits(approved, "turn").await?;
    told.add("turn", &waits.why(approved)?);
    insta::assert_snapshot!("why_people", told.0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn everybody_is_told_the_same_sentence_and_it_follows_its_holder() -> Anything<()> {
    let mut waits = Waits::new("").await?;
    let machines = waits.machines(&[("box", &[])]);
    for name in ["first", "second", "third"] {
        let script = waits.gated(name);
        waits.project(&machines, name, json!({ "steps": [step("web", "box", &script)] })).await?;
    }
    let first = waits.deploy("first").await?;
    waits.runs(first, "web/box").await?;
    let second = waits.deploy("second").await?;
    waits.waits(second, "target-busy").await?;
    let third = waits.deploy("third").await?;
    waits.waits(third, "target-busy").await?;
    let number = third.to_string();
    let terminal = waits.server.on_terminal(&["task", "follow", &number], (200, 40))?;

    let mut sentences = Vec::new();
    for holder in [first, second] {
        let names =
            |why: &WhyView| why.waits.iter().any(|wait| wait.reason.holder == Some(holder) && wait.node == "web/box");
        let why = waits.until(third, names).await?;
        let wait = why.waits.iter().find(|wait| wait.node == "web/box").unwrap();
        let sentence = wait.reason.text.clone();
        let said = waits.server.cli(&["why", &number])?.good()?;
        assert!(said.contains(&sentence), "{sentence}\n{said}");
        terminal.until(|screen| screen.contains(&sentence))?;
        let detail = waits.client.task(third).await?;
        let reason = detail.steps[0].runs[0].reason.clone().unwrap();
        assert_eq!(reason.text, sentence, "the tree tells the same");
        sentences.push(sentence);
        waits.open(if holder == first { "first" } else { "second" })?;
    }
    assert_ne!(sentences[0], sentences[1]);
    assert_eq!(sentences[1], "waits for task 2 (deploy second 1.0.0 to test), which runs step web on machine box");
    waits.runs(third, "web/box").await?;
    let after = waits.client.why(third).await?;
    assert!(after.waits.is_empty(), "{after:#?}");
    waits.open("third")?;
    Ok(())
}
