//! The host functions of scripts: each turns its arguments into one effect and the answer into a value.
//!
//! Failures arrive in the script as errors that it can catch, with the fields `code`, `message`, `retryable` and,
//! where there is one, `fix`.

mod basic;
mod http;
mod locks;
mod machines;
mod tasks;

use std::sync::Arc;

use rhai::{Dynamic, Engine, EvalAltResult, Map, NativeCallContext};
use windlass_effects::{Failure, Outcome};

use crate::{
    engine::MAX_STRING,
    host::Request,
    state::{Fallible, RunState},
};

/// Wait of functions that are not told how long.
const DEFAULT_WAIT: &str = "2h";

/// Every host function with how to call it, for messages and documentation.
pub const FUNCTIONS: &[(&str, &str)] = &[
    ("await_quiet", "await_quiet(#{machine: \"web1\", timeout: \"2h\"})"),
    ("await_task", "await_task(task, \"2h\")"),
    ("deploy", "deploy(#{project: \"shop\", environment: \"test\", version: \"1.2.0\"})"),
    ("error", "error(\"text\")"),
    ("expand", "expand(\"#{Name}\")"),
    ("fail", "fail(\"message\")"),
    ("http", "http(#{url: \"https://…\"})"),
    ("info", "info(\"text\")"),
    ("lock", "lock(\"name\", \"shared\", \"10m\")"),
    ("log", "log(\"text\")"),
    ("machine", "machine(\"web1\")"),
    ("now", "now()"),
    ("output", "output(\"name\", value)"),
    ("progress", "progress(1, 10, \"note\")"),
    ("run", "run(machine(\"web1\"), \"uptime\")"),
    ("secret", "secret(\"name\")"),
    ("sleep", "sleep(\"10s\")"),
    ("tasks", "tasks(#{machine: \"web1\", state: [\"queued\", \"executing\"]})"),
    ("unlock", "unlock(held)"),
    ("variable", "variable(\"name\")"),
    ("warn", "warn(\"text\")"),
];

/// Registers a host function: a native function with the run's state at hand.
macro_rules! host_fn {
    ($engine:ident, $state:ident, $name:literal, |$ctx:ident $(, $arg:ident: $ty:ty)*| $body:expr) => {{
        let $state = std::sync::Arc::clone($state);
        $engine.register_fn(
            $name,
            move |$ctx: rhai::NativeCallContext $(, $arg: $ty)*| -> crate::state::Fallible<_> {
                let $ctx = &$ctx;
                $body
            },
        );
    }};
}
use host_fn;

/// Registers all host functions for one run.
pub(crate) fn register(engine: &mut Engine, state: &Arc<RunState>, request: &Request) {
    basic::register(engine, state);
    tasks::register(engine, state, request.task);
    locks::register(engine, state);
    http::register(engine, state);
    machines::register(engine, state, &request.sessions);
}

/// A failure as an error that the script can catch.
pub(crate) fn failure(ctx: &NativeCallContext, failure: Failure) -> Box<EvalAltResult> {
    let mut fields = Map::new();
    for (name, value) in failure.attributes {
        fields.insert(name.into(), value.into());
    }
    fields.insert("code".into(), failure.code.into());
    fields.insert("message".into(), failure.message.into());
    fields.insert("retryable".into(), failure.retryable.into());
    Box::new(EvalAltResult::ErrorRuntime(Dynamic::from(fields), ctx.call_position()))
}

/// The failure of an answer of another kind than the effect asked for: a fault of what performs.
fn unexpected(ctx: &NativeCallContext, outcome: &Outcome) -> Box<EvalAltResult> {
    // Its kind only: the content may be long or private.
    let text = format!("{outcome:?}");
    let kind = text.split(['(', ' ', '{']).next().unwrap_or_default();
    let message = format!("{} was answered with {kind}", ctx.fn_name());
    failure(ctx, Failure::new("io", message).fix("report this as a fault of Windlass"))
}

/// An outcome of the kind that was asked for.
macro_rules! answer {
    ($ctx:expr, $answer:expr, $pattern:pat => $value:expr) => {
        match $answer {
            $pattern => Ok($value),
            other => Err(super::unexpected($ctx, &other)),
        }
    };
}
use answer;

/// A number as scripts have it.
fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// A number of a script that must not be negative.
fn natural(ctx: &NativeCallContext, what: &str, value: i64) -> Fallible<u64> {
    u64::try_from(value).map_err(|_| {
        crate::options::invalid(ctx, format!("{what} cannot be {value}"), "give a number that is 0 or more")
    })
}

/// Bytes as a text that a script can hold.
fn text_of(bytes: &[u8]) -> String {
    let mut text = String::from_utf8_lossy(bytes).into_owned();
    text.truncate(text.floor_char_boundary(MAX_STRING));
    text
}
