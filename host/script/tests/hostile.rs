//! Scripts that misbehave on purpose: each ends with a clear error, and the host goes on.
//!
//! Covered: loops without end (also hidden in closures, in `catch`, in native iterators), recursion (direct and
//! through closures), huge values of every kind, many variables and functions, deep expressions, chains of closures
//! that exhaust the stack when dropped, floods of lines and calls, denied calls, cancel that is caught, sleeps that
//! never end, time limits, abandoned runs.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test ends at its first surprise"
)]

mod common;

use std::{
    fmt::Write as _,
    sync::Arc,
    time::{Duration, Instant},
};

use common::{Setup, run, told};
use windlass_effects::CancelToken;
use windlass_script::{Ending, Limits};

/// Limits small enough for a debug build to reach quickly.
fn small() -> Limits {
    Limits {
        operations: 300_000,
        // Far above what any of them needs before it meets another limit.
        compute: Duration::from_secs(300),
        grace: Duration::from_millis(200),
        lines: 1_000,
        ..Limits::default()
    }
}

const HOSTILE: &[(&str, &str)] = &[
    ("loop", "loop {}"),
    ("loop in catch", "try { throw 1 } catch { loop {} }"),
    ("closure hole", "loop { try { [1].map(|x| { loop {} }) } catch {} }"),
    ("closure hole that then finishes", "try { [1].filter(|x| { loop {} }) } catch {} \"finished\""),
    ("closure hole through recursion", "fn f() { try { [1].map(|x| { loop {} }) } catch { f() } } f()"),
    ("long range", "for i in 0..1000000000000 {}"),
    ("long range in native code", "(0..1000000000000).contains(5); for x in range(0, 1000000000000) {}"),
    ("recursion", "fn f(n) { f(n + 1) } f(0)"),
    ("recursion through closures", "fn f(n) { [1].map(|x| f(x)) } f(0)"),
    ("mutual recursion in expressions", "fn a(n) { (((1 + b(n)))) } fn b(n) { [#{x: [a(n)]}] } a(0)"),
    ("doubling text", "let s = \"x\"; loop { s += s; }"),
    ("padded text", "let s = \"\"; s.pad(1000000000, \"x\");"),
    ("interpolated text", "let s = \"x\"; loop { s = `${s}${s}`; }"),
    ("replaced text", "let s = \"x\"; loop { s.replace(\"x\", \"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\"); }"),
    ("growing array", "let a = []; loop { a.push(1); }"),
    ("padded array", "let a = []; a.pad(1000000000, 0);"),
    ("appended array", "let a = [1]; loop { a.append(a); }"),
    (
        "mapped array",
        "let s = \"\"; s.pad(60000, \"x\"); let a = []; a.pad(1000, 1); loop { let b = a.map(|x| s + x); }",
    ),
    ("nested array", "let a = []; loop { a = [a]; }"),
    ("growing map", "let m = #{}; let i = 0; loop { m[i.to_string()] = i; i += 1; }"),
    (
        "map of large texts",
        "let m = #{}; let i = 0; loop { let s = \"\"; s.pad(60000, \"x\"); m[i.to_string()] = s; i += 1; }",
    ),
    ("nested map", "let m = #{}; loop { m = #{m: m}; }"),
    ("parsed JSON", "let s = \"\"; s.pad(60000, \"[\"); parse_json(s)"),
    ("chain of closures", "let f = || 0; loop { let g = f; f = || g.call(); }"),
    ("chain of curried functions", "fn g(x) { 0 } let f = Fn(\"g\"); loop { f = Fn(\"g\").curry(f); }"),
    ("print flood", "loop { print(\"spam\"); }"),
    ("log flood with catch", "loop { try { [1].map(|x| info(x)); } catch {} }"),
    ("call flood", "loop { try { now() } catch {} }"),
    ("long line", "let s = \"\"; s.pad(60000, \"x\"); info(s); throw s.len()"),
    (
        "denied calls",
        "let n = 0; while n < 3 { try { deploy(#{project: \"a\", environment: \"b\"}) } catch (e) { n += 1; info(e.code) } } lock(\"x\")",
    ),
    ("eval", "eval(\"1\")"),
    ("import", "import \"/etc/hostname\" as x;"),
    ("clock", "timestamp()"),
    ("exit is an end", "exit(); loop {}"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_ends_with_a_clear_error() {
    let mut shown = String::new();
    for (what, source) in HOSTILE {
        let began = Instant::now();
        let (ending, world) = run(source, Setup { limits: small(), ..Setup::default() }).await;
        assert!(began.elapsed() < Duration::from_secs(120), "{what} took {:?}", began.elapsed());
        assert!(world.lines().iter().all(|line| line.len() < 9_000), "{what}");
        let _ = writeln!(shown, "-- {what}\n{}\n", told(&ending));
        eprintln!("{what}: {:?}", began.elapsed());
    }
    let (ending, _) = run("info(1)", Setup::default()).await;
    assert_eq!(ending, Ending::Finished, "the host goes on");
    insta::assert_snapshot!(shown);
}

/// The links of such a chain are dropped one inside the other, so the stack must be as deep as memory allows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chain_of_closures_as_long_as_memory_allows_is_dropped_safely() {
    let limits = Limits { operations: u64::MAX, compute: Duration::from_secs(300), ..Limits::default() };
    let mut shown = String::new();
    for source in [
        "let f = || 0; loop { let g = f; f = || g.call(); }",
        "let f = || 0; let a = 1; loop { let g = f; f = |x| { a + g.call(x) }; }",
    ] {
        let (ending, _) = run(source, Setup { limits: limits.clone(), ..Setup::default() }).await;
        let _ = writeln!(shown, "{}\n", told(&ending));
    }
    insta::assert_snapshot!(shown);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn generated_giants_are_refused() {
    let variables: String = (0..500).map(|i| format!("let v{i} = {i};\n")).collect();
    let functions: String = (0..500).map(|i| format!("fn f{i}() {{ {i} }}\n")).collect();
    let sum = format!("let x = {}1;", "1 + ".repeat(10_000));
    let brackets = format!("let x = {}1{};", "(".repeat(10_000), ")".repeat(10_000));
    let arrays = format!("let x = {}1{};", "[".repeat(10_000), "]".repeat(10_000));
    let blocks = format!("{}{}", "{".repeat(10_000), "}".repeat(10_000));
    let not = format!("let x = {}true;", "!".repeat(10_000));
    let ifs = format!("{}{{}}", "if true {} else ".repeat(10_000));
    let dots = format!("let x = 1; x{};", ".y".repeat(10_000));
    let text = format!("let x = \"{}\";", "x".repeat(100_000));
    let size = " ".repeat(300_000);
    let mut shown = String::new();
    for (what, source) in [
        ("variables", &variables),
        ("functions", &functions),
        ("sum", &sum),
        ("brackets", &brackets),
        ("arrays", &arrays),
        ("blocks", &blocks),
        ("negations", &not),
        ("else if", &ifs),
        ("properties", &dots),
        ("text", &text),
        ("size", &size),
    ] {
        let (ending, _) = run(source, Setup { limits: small(), ..Setup::default() }).await;
        let _ = writeln!(shown, "-- {what}\n{}\n", told(&ending));
    }
    insta::assert_snapshot!(shown);
}

/// Scripts that would rather not be cancelled.
const STUBBORN: &[&str] = &[
    "loop {}",
    "sleep(\"1h\"); loop {}",
    "loop { try { sleep(\"1h\") } catch { info(\"caught\") } }",
    "loop { try { [1].map(|x| sleep(\"1h\")) } catch { lock(\"x\") } }",
    "try { [1].map(|x| sleep(\"1h\")) } catch {} 1",
    // What performs this sleep does not listen to the cancel either.
    "try { sleep(\"1d\") } catch {} info(\"went on\");",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancel_ends_any_script_within_a_second() {
    for source in STUBBORN {
        let cancel = CancelToken::new();
        let setup =
            Setup { limits: Limits { operations: u64::MAX, ..small() }, cancel: cancel.clone(), ..Setup::default() };
        let source = format!("//! needs: lock\n{source}");
        let running = tokio::spawn(async move { run(&source, setup).await });
        tokio::time::sleep(Duration::from_millis(50)).await;
        let began = Instant::now();
        cancel.cancel();
        let (ending, world) = running.await.unwrap();
        assert_eq!(ending, Ending::Cancelled);
        assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
        assert_eq!(world.lines(), Vec::<String>::new(), "nothing is logged after a cancel");
        assert!(!world.performed().iter().any(|effect| effect.contains("acquire")));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_time_limit_counts_waits_and_computing_counts_none() {
    let mut shown = String::new();
    let limited = |source: &'static str, time: u64, compute: u64| async move {
        let mut setup = Setup { limits: Limits { operations: u64::MAX, ..small() }, ..Setup::default() };
        setup.limits.compute = Duration::from_millis(compute);
        setup.request.time_limit = Some(Duration::from_millis(time));
        told(&run(source, setup).await.0)
    };
    for (source, time, compute) in [
        ("sleep(\"1h\");", 100, 10_000),
        ("fn work() {\n    loop {}\n}\nwork();", 100, 10_000),
        ("loop {}", 20_000, 100),
    ] {
        let _ = writeln!(shown, "{}\n", limited(source, time, compute).await);
    }
    insta::assert_snapshot!(shown);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_abandoned_run_gives_its_thread_back() {
    let script = Arc::new(windlass_script::Script::compile("spin.rhai", "loop {}").unwrap());
    let host = windlass_script::ScriptHost::new(Limits { threads: 1, operations: u64::MAX, ..Limits::default() });
    let waist = || {
        let world = Arc::new(common::World::default());
        Arc::new(windlass_effects::Layers::new(
            windlass_effects::Grants::default(),
            Arc::clone(&world),
            [],
            windlass_effects::Masker::default(),
            Arc::clone(&world),
            world as Arc<dyn windlass_effects::LineSink>,
            CancelToken::new(),
        ))
    };
    let spinning = host.run(Arc::clone(&script), Default::default(), waist());
    assert!(tokio::time::timeout(Duration::from_millis(50), spinning).await.is_err());
    // There is one place only: this run starts when the other's thread has ended.
    let next = Arc::new(windlass_script::Script::compile("next.rhai", "1").unwrap());
    let ending = tokio::time::timeout(Duration::from_secs(10), host.run(next, Default::default(), waist()));
    assert_eq!(ending.await.unwrap(), Ending::Finished);
}
