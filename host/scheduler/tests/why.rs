//! Why each kind of thing waits: the sentence and the data, for every kind of wait.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod common;

use std::{fs, path::Path};

use common::{Scene, StepWords, deploy, run, step};
use insta::assert_snapshot;
use windlass_model::{
    PoolName, TaskId,
    manifest::{LockMode, LockScope},
    task::Reason,
};
use windlass_scheduler::{
    Approval, Ask, Cause, Choice, Event, OnDeadlock, Parent, Part, Resource, Settings, State, StepPlan, Subject,
    WaitOn, Where,
};

fn web(project: &str, machine: &str) -> windlass_scheduler::TaskPlan {
    deploy(project, "1.0.0", vec![step("web", machine)])
}

#[test]
fn tasks_wait_for_time_for_tags_and_for_places() {
    let mut later = web("late", "m9");
    later.start_at_ms = Some(60_000);
    let settings = Settings { task_cap: 1, ..Settings::for_cores(2) };
    let scene = Scene::with(settings)
        .task(0, 1, web("shop", "m1"))
        .task(1, 2, web("shop", "m1"))
        .task(2, 3, web("shop", "m1"))
        .task(3, 4, web("blog", "m2"))
        .task(3, 5, web("wiki", "m3"))
        .task(4, 6, later);
    assert_snapshot!(scene.why(5));
    let draining = Settings { draining: true, ..Settings::for_cores(2) };
    assert_snapshot!("draining", Scene::with(draining).task(0, 1, web("shop", "m1")).why(5));
}

#[test]
fn steps_wait_for_packages_windows_facts_and_people() {
    let mut fact = step("fact", "m4").with_previous();
    fact.asks_fact = true;
    let mut approved = step("go", "m5").with_previous();
    approved.approval = Some(Approval {
        instructions: "look at the graphs".to_owned(),
        responsible: vec!["ops".to_owned()],
        expires_ms: None,
        on_expiry: Choice::Abort,
        keeps_tag: false,
    });
    let steps = vec![step("first", "m1"), step("second", "m2").with_previous(), fact, approved];
    let mut plan = deploy("shop", "1.0.0", steps);
    plan.max_parallelism = Some(1);
    let scene =
        Scene::new().task(0, 1, plan).task(0, 2, deploy("blog", "1.0.0", vec![step("web", "b1 b2").packages()]));
    assert_snapshot!(scene.why(0));
    let plan = deploy("shop", "1.0.0", vec![step("web", "m1 m2 m3").window(2)]);
    let mut few = deploy("blog", "1.0.0", vec![step("web", "b1 b2 b3")]);
    few.max_runs = Some(1);
    assert_snapshot!("windows", Scene::new().task(0, 1, plan).task(0, 2, few).why(0));
}

#[test]
fn runs_wait_for_locks_of_every_scope() {
    let scene = Scene::new()
        .task(0, 1, web("a", "box"))
        .task(1, 2, web("b", "box"))
        .task(2, 3, web("c", "box"))
        .task(0, 4, deploy("d", "1.0", vec![step("x", "d1").hold(LockScope::Deployment), step("y", "d2")]))
        .task(11, 5, web("e", "d1"))
        .task(0, 6, deploy("f", "1.0", vec![step("f", "f1").locks("iis", LockMode::Exclusive)]))
        .task(1, 7, deploy("g", "1.0", vec![step("g", "f1").locks("iis", LockMode::Exclusive)]))
        .takes("web/box", 40)
        .takes("y/d2", 40)
        .takes("f/f1", 40);
    assert_snapshot!(scene.why(12));
}

#[test]
fn runs_wait_for_tasks_time_people_workers_and_their_next_attempt() {
    let ask = Ask {
        text: "is the queue empty?".to_owned(),
        choices: vec![Choice::Proceed, Choice::Abort],
        responsible: Vec::new(),
        expiry: None,
        keeps_tag: false,
    };
    let pool =
        StepPlan::new(windlass_model::StepName::new("build").unwrap(), Where::Pool(PoolName::new("big").unwrap()));
    let mut child = web("c", "c1");
    child.parent = Some(Parent { run: run(1, 0, 0), detached: false });
    let scene = Scene::new()
        .task(0, 1, deploy("a", "1.0", vec![step("children", "server")]))
        .task(1, 2, child)
        .task(0, 3, deploy("b", "1.0", vec![step("nap", "server")]))
        .task(0, 4, deploy("d", "1.0", vec![step("asks", "server")]))
        .task(0, 5, deploy("e", "1.0", vec![step("hook", "server")]))
        .task(0, 6, deploy("f", "1.0", vec![pool]))
        .task(0, 7, deploy("g", "1.0", vec![step("flaky", "g1").tries(2, 5000)]))
        .takes("web/c1", 50)
        .takes("children/server", 500)
        .takes("nap/server", 500)
        .takes("asks/server", 500)
        .takes("hook/server", 500)
        .waits(2, run(1, 0, 0), WaitOn::Tasks(vec![TaskId(2)]))
        .waits(2, run(3, 0, 0), WaitOn::Until(90_002))
        .waits(2, run(4, 0, 0), WaitOn::Person(Box::new(ask)))
        .waits(2, run(5, 0, 0), WaitOn::Other("waits for the load balancer".to_owned()))
        .first_fails("flaky/g1");
    assert_snapshot!(scene.why(12));
}

#[test]
fn a_failure_asks_and_an_abandoned_run_leaves_a_fence() {
    let mut guided = web("shop", "m1");
    guided.guided = true;
    assert_snapshot!("guided", Scene::new().task(0, 1, guided).fails("web/m1").why(15));
    let scene = Scene::new()
        .task(0, 1, web("shop", "m1"))
        .task(1, 2, web("blog", "m1"))
        .takes("web/m1", 10_000_000)
        .deaf("web/m1")
        .cancel(5, 1);
    assert_snapshot!("fence", scene.why(30_005));
}

#[test]
fn a_deadlock_is_told_in_full() {
    let scene = |policy| {
        let mut plans = [("a", "x", "y"), ("b", "y", "x")].map(|(project, one, two)| {
            let hold = |name: &str, on: &str| step(name, on).hold(LockScope::Deployment);
            deploy(project, "1.0", vec![hold("first", one), hold("second", two)])
        });
        plans[1].on_deadlock = policy;
        let [a, b] = plans;
        Scene::new().task(0, 1, a).task(1, 2, b).takes("first/x", 30).takes("first/y", 30)
    };
    assert_snapshot!("deadlock_fails", scene(OnDeadlock::Fail).trace());
    assert_snapshot!("deadlock_asks", scene(OnDeadlock::Ask).answer(10, Choice::Fail).trace());
    assert_snapshot!("deadlock_why", scene(OnDeadlock::Ask).why(40));
}

#[test]
fn a_broken_lock_is_given_to_the_next() {
    let broken = Event::LockBroken {
        resource: windlass_scheduler::Resource::canonical("machine:m1"),
        task: None,
        by: "ann".to_owned(),
        reason: "the machine was rebuilt".to_owned(),
    };
    let scene = Scene::new()
        .task(0, 1, deploy("shop", "1.0.0", vec![step("hang", "m1")]))
        .task(1, 2, web("blog", "m1"))
        .takes("hang/m1", 40_000)
        .deaf("hang/m1")
        .cancel(5, 1)
        .at(30_010, broken);
    assert_snapshot!(scene.trace());
}

#[test]
fn whoever_waited_for_something_else_waits_for_its_turn_again() {
    let settings = Settings { task_cap: 1, ..Settings::for_cores(2) };
    let scene = Scene::with(settings)
        .task(0, 1, deploy("a", "1.0", vec![step("nap", "server")]))
        .task(1, 2, web("b", "b1"))
        .takes("nap/server", 500)
        .takes("web/b1", 100)
        .waits(2, run(1, 0, 0), WaitOn::Until(20));
    assert_snapshot!("turn", scene.why(30));
}

/// Every kind of wait, and words that tell it from others of the same name.
const KINDS: [(&str, &str); 22] = [
    ("scheduled", "is not to start before"),
    ("draining", "starts nothing new"),
    ("concurrency", "which runs"),
    ("concurrency", "waits behind"),
    ("task-cap", "waits for a free place"),
    ("task-cap", "waits behind"),
    ("turn", "has its turn again"),
    ("packages", "waits for its packages"),
    ("step-window", "one step"),
    ("window", "machines at once"),
    ("run-window", "one run at a time"),
    ("condition", "condition"),
    ("person", "to answer"),
    ("target-busy", "which runs"),
    ("target-busy", "behind"),
    ("lock", "held by"),
    ("pool", "waits for a worker"),
    ("task", "waits for task"),
    ("sleep", "sleeps"),
    ("retry", "attempt 2 follows"),
    ("other", "load balancer"),
    ("fenced", "may still run"),
];

/// The causes one after another, so that the compiler asks for the place of a new one.
fn after(cause: &Cause) -> Option<Cause> {
    let (task, place, most) = (TaskId(1), run(1, 0, 0), 1);
    let resource = |name| Resource::canonical(name);
    let lock = |name| Cause::Lock { resource: resource(name), by: place, part: Part::Run, ahead: false, others: 0 };
    Some(match cause {
        Cause::Scheduled { .. } => Cause::Draining,
        Cause::Draining => Cause::Tag { holder: task, runs: None, others: 0 },
        Cause::Tag { .. } => Cause::BehindTag { ahead: task },
        Cause::BehindTag { .. } => Cause::Cap { oldest: task },
        Cause::Cap { .. } => Cause::Behind { ahead: task },
        Cause::Behind { .. } => Cause::Turn,
        Cause::Turn => Cause::Packages { there: 0, places: 1 },
        Cause::Packages { .. } => Cause::Steps { most },
        Cause::Steps { .. } => Cause::Window { most },
        Cause::Window { .. } => Cause::Runs { most },
        Cause::Runs { .. } => Cause::Fact,
        Cause::Fact => Cause::Person { question: 1 },
        Cause::Person { .. } => lock("machine:a"),
        Cause::Lock { resource, .. } if resource.is_machine() => lock("global:a"),
        Cause::Lock { .. } => Cause::Pool { pool: PoolName::new("p").unwrap() },
        Cause::Pool { .. } => Cause::Tasks { first: task, others: 0 },
        Cause::Tasks { .. } => Cause::Sleep { until_ms: 1 },
        Cause::Sleep { .. } => Cause::Backoff { until_ms: 1, attempt: 2 },
        Cause::Backoff { .. } => Cause::Other { text: String::new() },
        Cause::Other { .. } => Cause::Fence { resource: resource("machine:a"), run: place, machine: None },
        Cause::Fence { .. } => return None,
    })
}

#[test]
fn every_kind_of_wait_has_a_snapshot() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/snapshots");
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let own = files.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("why__"));
    let text: String = own.map(|path| fs::read_to_string(path).unwrap()).collect();
    let lines = text.lines().filter(|line| line.trim_start().starts_with("{\"kind\""));
    let seen: Vec<Reason> = lines.map(|line| serde_json::from_str(line).unwrap()).collect();
    for (kind, words) in KINDS {
        let found = seen.iter().any(|reason| reason.kind == kind && reason.text.contains(words));
        assert!(found, "no snapshot shows a wait of kind {kind} with «{words}»");
    }
    let state = State::new(Settings::for_cores(2));
    let causes = std::iter::successors(Some(Cause::Scheduled { at_ms: 1 }), after);
    for cause in causes {
        let (kind, _) = state.sentence(Subject::Task(TaskId(1)), &cause);
        assert!(KINDS.iter().any(|(known, _)| *known == kind), "{cause:?} has no snapshot");
    }
}
