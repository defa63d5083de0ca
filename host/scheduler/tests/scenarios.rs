//! Whole deployments in virtual time, each with the trace of what was decided when.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod common;

use common::{Scene, StepWords, deploy, run, step};
use insta::assert_snapshot;
use windlass_model::{RunCondition, TaskId, manifest::LockMode};
use windlass_scheduler::{Event, Isolation, RunOutcome, Settings, TaskPlan};

const WEBS: &str = "web1 web2 web3 web4";

fn shop() -> Vec<windlass_scheduler::StepPlan> {
    vec![step("database", "db").packages(), step("web", WEBS).packages()]
}

#[test]
fn four_web_servers_and_a_database() {
    assert_snapshot!(Scene::new().task(0, 1, deploy("shop", "1.0.0", shop())).trace());
}

#[test]
fn nothing_installs_when_packages_do_not_arrive() {
    let mut steps = shop();
    steps.insert(0, step("notice", "server"));
    steps.push(step("alarm", "server").on(RunCondition::Failure));
    steps.push(step("report", "web1").on(RunCondition::Always).packages());
    let scene = Scene::new().task(0, 1, deploy("shop", "1.0.0", steps)).loses_packages("web2");
    assert_snapshot!(scene.deeds());
}

#[test]
fn a_group_runs_in_parallel_each_step_with_its_own_window() {
    let steps = vec![
        step("first", "server"),
        step("app", "a b c").with_previous().window(2),
        step("files", "d").with_previous().packages(),
        step("last", "server"),
    ];
    let scene = Scene::new().task(0, 1, deploy("shop", "1.0.0", steps)).takes("app/a", 30);
    assert_snapshot!(scene.trace());
}

#[test]
fn only_so_many_steps_run_at_once() {
    let settings = Settings { steps_at_once: 2, ..Settings::for_cores(2) };
    let mut steps = vec![step("s1", "a")];
    steps.extend(["b", "c", "d"].map(|name| step(&format!("s-{name}"), name).with_previous()));
    let scene = Scene::with(settings).task(0, 1, deploy("shop", "1.0.0", steps)).takes("s1/a", 15);
    assert_snapshot!(scene.trace());
}

#[test]
fn a_rolling_step_stops_at_the_first_failure() {
    let steps = vec![step("web", "w1 w2 w3 w4 w5").window(2), step("after", "w1")];
    let scene = Scene::new().task(0, 1, deploy("shop", "1.0.0", steps)).takes("web/w1", 30).fails("web/w3");
    assert_snapshot!(scene.deeds());
}

#[test]
fn two_deployments_of_one_project_go_one_after_another() {
    let scene = (1..=3).fold(Scene::new(), |scene, n| scene.task(n, n, deploy("shop", &format!("1.{n}.0"), shop())));
    assert_snapshot!(scene.reasons());
}

#[test]
fn two_projects_share_a_machine_one_step_at_a_time() {
    let scene = Scene::new()
        .task(0, 1, deploy("shop", "1.0.0", vec![step("web", "box"), step("check", "box")]))
        .task(1, 2, deploy("blog", "2.0.0", vec![step("web", "box")]))
        .task(2, 3, deploy("wiki", "3.0.0", vec![step("web", "box")]));
    assert_snapshot!(scene.trace());
}

#[test]
fn steps_that_name_their_resources_share_the_machine() {
    let exclusive = LockMode::Exclusive;
    let scene = Scene::new()
        .task(0, 1, deploy("shop", "1.0.0", vec![step("iis", "box").locks("iis:metabase", exclusive)]))
        .task(1, 2, deploy("blog", "2.0.0", vec![step("iis", "box").locks("iis:metabase", exclusive)]))
        .task(2, 3, deploy("wiki", "3.0.0", vec![step("files", "box").locks("dir:/srv/wiki", exclusive)]))
        .task(3, 4, deploy("cron", "4.0.0", vec![step("peek", "box").isolation(Isolation::Shared)]))
        .task(4, 5, deploy("boot", "5.0.0", vec![step("whole", "box")]));
    assert_snapshot!(scene.trace());
}

#[test]
fn the_cap_is_kept_and_a_blocked_task_does_not_block_the_queue() {
    let settings = Settings { task_cap: 2, ..Settings::for_cores(2) };
    let plan = |project: &str, n: u32| deploy(project, &format!("{n}.0"), vec![step("web", &format!("m{n}"))]);
    let mut urgent = plan("pay", 5);
    urgent.priority = 1;
    let scene = Scene::with(settings)
        .task(0, 1, plan("shop", 1))
        .task(1, 2, plan("shop", 2))
        .task(2, 3, plan("blog", 3))
        .task(3, 4, plan("wiki", 4))
        .task(4, 5, urgent)
        .at(5, Event::SettingsChanged { settings: Settings { task_cap: 3, ..Settings::for_cores(2) } });
    assert_snapshot!(scene.trace());
}

#[test]
fn scripts_have_places_of_their_own() {
    let settings = Settings { task_cap: 1, ..Settings::for_cores(2) };
    let script = TaskPlan::script("script quiet", windlass_model::StepName::new("quiet").unwrap());
    let scene = Scene::with(settings)
        .task(0, 1, script.clone())
        .task(0, 2, deploy("shop", "1.0", vec![step("web", "box")]))
        .task(0, 3, script);
    assert_snapshot!(scene.deeds());
}

#[test]
fn failure_decides_what_still_runs() {
    let steps = vec![
        step("ok", "a"),
        step("off", "a").skipped("disabled"),
        step("bad", "a"),
        step("next", "a"),
        step("repair", "a").on(RunCondition::Failure),
        step("nobody", ""),
        step("notify", "server").on(RunCondition::Always),
    ];
    let plan = deploy("shop", "1.0.0", steps);
    assert_snapshot!("failed", Scene::new().task(0, 1, plan.clone()).fails("bad/a").deeds());
    assert_snapshot!("succeeded", Scene::new().task(0, 1, plan).deeds());
}

#[test]
fn an_unknown_outcome_fails_the_step_as_unknown() {
    let outcome = RunOutcome::Unknown { error: "the machine restarted".to_owned() };
    let steps = vec![step("web", "a b"), step("next", "a")];
    let scene = Scene::new().task(0, 1, deploy("shop", "1.0.0", steps)).ends("web/a", outcome);
    assert_snapshot!(scene.deeds());
}

#[test]
fn a_run_that_takes_too_long_is_stopped_and_fails() {
    let steps = vec![step("web", "a").timeout(5)];
    assert_snapshot!(Scene::new().task(0, 1, deploy("shop", "1.0.0", steps)).deeds());
}

#[test]
fn cancel_in_each_state() {
    let plan = |version: &str| {
        deploy("shop", version, [shop(), vec![step("end", "server").on(RunCondition::Always)]].concat())
    };
    let scene = || Scene::new().task(0, 1, plan("1.0.0"));
    assert_snapshot!("cancel_queued", scene().task(1, 2, plan("1.1.0")).cancel(2, 2).deeds());
    assert_snapshot!("cancel_acquiring", scene().cancel(6, 1).deeds());
    assert_snapshot!("cancel_running", scene().cancel(38, 1).cancel(38, 1).deeds());
    let other = deploy("blog", "1.0.0", vec![step("long", "web1 web3")]);
    let held = Scene::new().takes("long/web1", 90).takes("long/web3", 90).task(0, 2, other).task(0, 1, plan("1.0.0"));
    assert_snapshot!("cancel_waiting", held.cancel(38, 1).cancel(500, 99).deeds());
}

#[test]
fn named_locks_are_granted_in_order_and_given_back_with_the_run() {
    let plan = |project: &str| deploy(project, "1.0", vec![step("web", &format!("on-{project}"))]);
    let (a, b, c, d) = (run(1, 0, 0), run(2, 0, 0), run(3, 0, 0), run(4, 0, 0));
    let scene = Scene::new()
        .task(0, 1, plan("a"))
        .task(0, 2, plan("b"))
        .task(0, 3, plan("c"))
        .task(0, 4, plan("d"))
        .takes("web/on-b", 40)
        .takes("web/on-c", 40)
        .takes("web/on-d", 40)
        .ask(1, a, 0, "global:licence", LockMode::Exclusive)
        .ask(2, b, 0, "global:licence", LockMode::Shared)
        .ask(3, c, 0, "global:licence", LockMode::Shared)
        .ask(3, c, 0, "global:licence", LockMode::Shared)
        .ask(4, d, 7, "global:licence", LockMode::Exclusive)
        .ask(5, d, 8, "licence", LockMode::Exclusive)
        .release(20, b, 0)
        .release(22, c, 0)
        .ask(23, d, 7, "global:licence", LockMode::Exclusive);
    assert_snapshot!(scene.trace());
}

#[test]
fn a_lock_wait_ends_and_never_waits_for_itself() {
    let plan = |project: &str| deploy(project, "1.0", vec![step("web", &format!("on-{project}")).timeout(50)]);
    let (a, b) = (run(1, 0, 0), run(2, 0, 0));
    let scene = Scene::new()
        .task(0, 1, plan("a"))
        .task(0, 2, plan("b"))
        .takes("web/on-a", 45)
        .takes("web/on-b", 200)
        .ask(1, a, 0, "global:x", LockMode::Exclusive)
        .ask(2, a, 1, "global:x", LockMode::Shared)
        .ask_for(3, b, 0, "global:x", LockMode::Exclusive, Some(20))
        .ask_for(30, b, 1, "global:x", LockMode::Exclusive, None)
        .ask(400, b, 2, "global:x", LockMode::Exclusive);
    assert_snapshot!(scene.trace());
}

#[test]
fn events_about_what_is_over_change_nothing() {
    let mut state = windlass_scheduler::State::new(Settings::for_cores(2));
    let plan = deploy("shop", "1.0.0", vec![step("web", "a b")]);
    state.next(1, Event::TaskQueued { task: TaskId(1), plan: plan.clone() });
    let finished = Event::RunFinished { run: run(1, 0, 0), outcome: RunOutcome::Succeeded };
    assert!(!state.next(2, finished.clone()).is_empty());
    let before = state.snapshot();
    let repeats = [
        finished,
        Event::TaskQueued { task: TaskId(1), plan },
        Event::TaskCancelled { task: TaskId(7) },
        Event::PackagesAcquired { task: TaskId(1), machine: None },
        Event::RunFinished { run: run(1, 9, 9), outcome: RunOutcome::Succeeded },
        Event::LockReleased { request: windlass_scheduler::LockRequest { run: run(1, 0, 1), number: 3 } },
        Event::Tick,
    ];
    for event in repeats {
        assert_eq!(state.next(2, event.clone()), [], "{event:?}");
        assert_eq!(state.snapshot(), before, "{event:?}");
    }
}
