//! Every host function does what it says, runs replay at every index, and refusals say what to do.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test ends at its first surprise"
)]

mod common;

use common::{Setup, run, told};
use windlass_effects::{Effect, EffectClass, EntryState, Stop};
use windlass_script::{Ending, FUNCTIONS};

const HEAD: &str = "//! needs: tasks-read, tasks-deploy, lock, http, machine\n";

/// Scripts that use all host functions between them.
const SCRIPTS: [&str; 6] = [
    r#"log("a"); info(1); warn([1, 2]); error(#{a: 1}); print("p"); debug("d"); progress(1, 2); progress(2, 2, "both");
       let t = now(); sleep(1); sleep(0.5); sleep("1h"); output("at", t);"#,
    r#"info(variable("Name")); info(variable("none") == ()); info(expand("to #{Name}"));"#,
    r#"for t in tasks() { info(t); info(`${t.id} ${t.title} ${t.state} ${t.project} ${t.environment} ${t.version} ${t.created} ${t.started}`); }
       info(tasks(#{machine: "web1", state: ["queued"], project: "shop", environment: "test", limit: 2, include_self: true}).len());
       info(tasks(#{state: "executing"}).filter(|t| t.state == "queued").len());
       await_quiet(#{machine: "web1", timeout: "10m"});
       await_quiet(#{project: "shop"});"#,
    r#"let id = deploy(#{project: "shop", environment: "test", version: "1.2.0"});
       let t = await_task(id, "1h");
       if !t.succeeded || !t.has_ended { fail("it did not work"); }
       await_task(t); deploy(#{project: "shop", environment: "test"});
       try { await_task(9) } catch (err) { warn(`${err.code}: ${err.message} (${err.fix})`); }
       try { await_task(404) } catch (err) { warn(err.code); }"#,
    r#"let a = lock("a"); let b = lock("b", "shared"); let c = lock("c", 5); let d = lock("d", "shared", "5m");
       info(`${a.name} ${b.token} ${c.token} ${d.token}`); unlock(b); unlock(a);"#,
    r#"let answer = http(#{url: "http://ci/state", headers: #{authorization: "Bearer " + secret("Api.Token")}, body: #{a: [1]}, method: "post", idempotency_key: "k"});
       info(`${answer.status} ${answer.ok} ${answer.headers["content-type"]} ${answer.json().slots.len()} ${answer.body.len()}`);
       let m = machine("WEB1"); let e = run(m, "uname");
       info(`${e.code} ${e.ok} ${e.stdout.trim()}`);
       run(m, #{argv: ["env"], env: #{TOKEN: secret("Api.Token"), N: 1}, stdin: "x", cwd: "/", timeout: "1m"});"#,
];

#[tokio::test]
async fn every_function_does_what_it_says() {
    let mut shown = String::new();
    for script in SCRIPTS {
        let short = script.replace("sleep(\"1h\");", "sleep(\"59m\");");
        let (ending, world) = run(&format!("{HEAD}{short}"), Setup::default()).await;
        shown += &format!("== {}\n", told(&ending));
        for line in world.performed().into_iter().chain(world.lines()) {
            shown += &format!("{line}\n");
        }
    }
    insta::assert_snapshot!(shown);
}

#[test]
fn every_function_is_used_in_these_tests() {
    for (name, usage) in FUNCTIONS {
        assert!(SCRIPTS.iter().any(|script| script.contains(&format!("{name}("))), "{name}");
        assert!(usage.starts_with(&format!("{name}(")), "{usage}");
    }
}

/// Without what a task pins before it starts: that is never recorded, and asked again by every replay.
fn recordable(performed: Vec<String>) -> Vec<String> {
    let pinned = |json: &String| {
        let effect: Effect = serde_json::from_str(json).unwrap();
        effect.class() == EffectClass::Pinned
    };
    performed.into_iter().filter(|json| !pinned(json)).collect()
}

#[tokio::test]
async fn a_run_replays_the_same_from_every_index() {
    for script in SCRIPTS {
        let source = format!("{HEAD}{}", script.replace("sleep(\"1h\");", ""));
        let (ending, straight) = run(&source, Setup::default()).await;
        assert_eq!(ending, Ending::Finished, "{}", told(&ending));
        let entries = straight.entries();
        for kept in 0..=entries.len() {
            // What was recorded up to here; the last one as it is when the server dies in the middle of it.
            for half_done in [false, true] {
                let mut recorded = entries[..kept].to_vec();
                match recorded.last_mut() {
                    Some(last) if half_done && last.class != EffectClass::Local => {
                        last.state = EntryState::Started;
                    }
                    _ => {}
                }
                let open = recorded.iter().filter(|entry| entry.state == EntryState::Started).count();
                let (ending, replayed) = run(&source, Setup { recorded, ..Setup::default() }).await;
                assert_eq!(ending, Ending::Finished, "{kept}: {}", told(&ending));
                assert_eq!(replayed.lines(), straight.lines(), "{kept}");
                // Only what was not answered yet is performed, and it is the same.
                let rest = &recordable(straight.performed())[kept - open..];
                assert_eq!(recordable(replayed.performed()), rest, "{kept}");
            }
        }
    }
}

#[tokio::test]
async fn a_script_that_changed_is_told_apart_from_its_journal() {
    let before = format!("{HEAD}now(); try {{ lock(\"a\") }} catch {{ lock(\"b\") }}");
    let (_, world) = run(&before, Setup::default()).await;
    let after = before.replace("\"a\"", "\"x\"");
    let setup = Setup { recorded: world.entries(), ..Setup::default() };
    let (ending, world) = run(&after, setup).await;
    let Ending::Stopped(Stop::Diverged(diverged)) = &ending else {
        panic!("{}", told(&ending));
    };
    assert_eq!(diverged.index, 1);
    assert_eq!(world.performed(), Vec::<String>::new(), "nothing is done after a divergence");
}
