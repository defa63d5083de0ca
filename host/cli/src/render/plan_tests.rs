#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use insta::assert_snapshot;
use serde_json::{Value, json};
use windlass_model::scheduling::PlanView;

use super::shown;

/// A plan from what matters of it.
fn plan(change: Value) -> PlanView {
    let mut whole = json!({
        "title": "deploy shop 1.1.0 to test", "skipped": [], "runs": [], "waits": [], "deliveries": [], "bytes": 0,
        "locks": [], "questions": [], "deadlocks": [], "guessed": false,
    });
    for (key, value) in change.as_object().expect("an object") {
        whole[key] = value.clone();
    }
    serde_json::from_value(whole).unwrap()
}

fn run(step: &str, machine: &str, starts: u64, ends: u64, learnt: bool) -> Value {
    json!({
        "node": format!("{step}/{machine}"), "step": step, "machine": machine,
        "starts_in_ms": starts, "ends_in_ms": ends, "learnt": learnt,
    })
}

fn delivery(machine: &str, packages: &[(&str, u64)], there: u64) -> Value {
    let bytes: u64 = packages.iter().map(|(_, bytes)| bytes).sum();
    let packages: Vec<_> =
        packages.iter().map(|(id, bytes)| json!({ "package": id, "version": "1.1.0", "bytes": bytes })).collect();
    json!({
        "machine": machine, "packages": packages, "bytes": bytes, "held": 1, "takes_ms": there, "learnt": there > 400,
        "there_in_ms": there,
    })
}

#[test]
fn packages_steps_and_the_end() {
    let view = plan(json!({
        "starts_in_ms": 0, "ends_in_ms": 3400, "state": "succeeded", "bytes": 21504, "guessed": true,
        "deliveries": [
            delivery("shop-1", &[("shop-db", 5120), ("shop-web", 8192)], 300),
            delivery("shop-2", &[("shop-web", 8192)], 500),
            delivery("shop-3", &[("shop-web", 8192)], 600),
            delivery("shop-4", &[], 200),
        ],
        "runs": [
            run("schema", "shop-1", 600, 800, true),
            run("web", "shop-1", 800, 2000, true),
            run("web", "shop-2", 800, 2000, true),
            run("web", "shop-3", 2000, 3200, false),
            run("smoke", "shop-1", 3200, 3400, true),
        ],
        "skipped": [{ "step": "notify", "why": "it is disabled" }],
        "waits": [
            { "node": "schema", "kind": "packages", "text": "waits for its packages, which are on 0 of 3 machines",
              "from_in_ms": 0, "for_ms": 600 },
            { "node": "web/shop-3", "kind": "window",
              "text": "waits for its turn: step web runs on at most 2 machines at once",
              "from_in_ms": 800, "for_ms": 1200 },
        ],
        "locks": [{ "resource": "machine:shop-1", "title": "machine shop-1" }, { "resource": "iis", "title": "lock iis" }],
    }));
    assert_snapshot!(shown(&view));
}

#[test]
fn many_machines_stay_readable() {
    let name = |n: u64| format!("web{n:03}");
    let runs: Vec<_> = (0..200).map(|n| run("web", &name(n), n / 10 * 1000, n / 10 * 1000 + 1000, true)).collect();
    let waits: Vec<_> = (10..200)
        .map(|n| {
            json!({ "node": format!("web/{}", name(n)), "kind": "window", "from_in_ms": 0, "for_ms": n / 10 * 1000,
                    "text": "waits for its turn: step web runs on at most 10 machines at once" })
        })
        .collect();
    let deliveries: Vec<_> = (0..200).map(|n| delivery(&name(n), &[("shop-web", 8192)], 500)).collect();
    let view = plan(json!({
        "starts_in_ms": 0, "ends_in_ms": 20000, "state": "succeeded", "runs": runs, "waits": waits,
        "deliveries": deliveries, "bytes": 1638400,
    }));
    assert_snapshot!(shown(&view));
}

#[test]
fn waits_for_others_questions_deadlocks_and_no_end() {
    let view = plan(json!({
        "waits": [{ "node": "", "kind": "concurrency", "text": "waits for task 12 (deploy shop 1.0.0 to test)",
                    "holder": 12, "from_in_ms": 0, "for_ms": 90000 }],
        "questions": [{ "text": "look at the graphs", "choices": ["proceed", "abort"], "responsible": ["ops"], "in_ms": 90000 }],
        "deadlocks": [{ "text": "deadlock: task 12 waits for lock x, held by task 13; task 13 waits for task 12 to end",
                        "in_ms": 95000 }],
    }));
    assert_snapshot!("no_end", shown(&view));
    let view = plan(json!({ "starts_in_ms": 0, "ends_in_ms": 95000, "state": "failed", "error": "deadlock: …" }));
    assert_snapshot!("fails", shown(&view));
}

/// What a server sends cannot steer the terminal.
#[test]
fn nothing_in_a_plan_moves_the_cursor() {
    let bad = "a\u{1b}[2Jb\rc";
    let view = plan(json!({
        "title": bad,
        "runs": [{ "node": bad, "step": bad, "starts_in_ms": 0, "learnt": false }],
        "skipped": [{ "step": bad, "why": bad }],
        "waits": [{ "node": bad, "kind": bad, "text": bad, "from_in_ms": 0, "for_ms": 1 }],
        "deliveries": [{ "machine": "m", "packages": [{ "package": bad, "version": bad, "bytes": 1 }], "bytes": 1,
                         "held": 0, "takes_ms": 1, "learnt": false }],
        "locks": [{ "resource": bad, "title": bad }],
        "questions": [{ "text": bad, "choices": [bad], "responsible": [bad], "in_ms": 1 }],
        "deadlocks": [{ "text": bad, "in_ms": 1 }],
    }));
    let text = shown(&view);
    assert!(!text.contains('\u{1b}') && !text.contains('\r'), "{text:?}");
}
