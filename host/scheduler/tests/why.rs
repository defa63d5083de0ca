//! Why each kind of thing waits: the sentence and the data, for every kind of wait.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod common;

use common::{Scene, StepWords, deploy, run, step};
use insta::assert_snapshot;
use windlass_model::{
    PoolName, TaskId,
    manifest::{LockMode, LockScope},
};
use windlass_scheduler::{Approval, Ask, Choice, Event, OnDeadlock, Parent, Settings, StepPlan, WaitOn, Where};

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
