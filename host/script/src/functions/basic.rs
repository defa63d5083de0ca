//! Log, clock, variables, results.

use std::sync::Arc;

use rhai::{Dynamic, Engine, ImmutableString, NativeCallContext};
use windlass_effects::{Effect, Failure, Outcome, SecretHandle};
use windlass_model::task::LogLevel;

use super::{answer, failure, host_fn, natural, number, tasks::Task};
use crate::{
    argument::Arguments,
    options::{invalid, ms, to_span},
    state::{Fallible, RunState},
};

/// A secret that the script can hand on but not see.
#[derive(Debug, Clone)]
pub(super) struct Secret {
    /// What comes before it, in an HTTP header.
    pub(super) prefix: String,
    pub(super) secret: SecretHandle,
}

pub(super) fn register(engine: &mut Engine, state: &Arc<RunState>) {
    register_log(engine, state);
    register_time(engine, state);
    register_variables(engine, state);
    register_results(engine, state);
    engine.register_type_with_name::<Arguments>("arguments");
    engine.register_indexer_get(|ctx: NativeCallContext, args: &mut Arguments, name: ImmutableString| {
        args.get(&name).map_err(|why| invalid(&ctx, why, "declare it in the head of the script"))
    });
}

fn register_log(engine: &mut Engine, state: &Arc<RunState>) {
    host_fn!(engine, state, "log", |ctx, text: Dynamic| state.log_call(ctx, LogLevel::Info, &show(&text)));
    host_fn!(engine, state, "info", |ctx, text: Dynamic| state.log_call(ctx, LogLevel::Info, &show(&text)));
    host_fn!(engine, state, "warn", |ctx, text: Dynamic| state.log_call(ctx, LogLevel::Warning, &show(&text)));
    host_fn!(engine, state, "error", |ctx, text: Dynamic| state.log_call(ctx, LogLevel::Error, &show(&text)));
}

fn register_time(engine: &mut Engine, state: &Arc<RunState>) {
    host_fn!(engine, state, "now", |ctx| {
        answer!(ctx, state.ask(ctx, Effect::Now)?, Outcome::Number(ms) => number(ms / 1_000))
    });
    // One for each type of argument: the language has a `sleep` of its own for numbers, which holds the thread.
    host_fn!(engine, state, "sleep", |ctx, seconds: i64| sleep(state.as_ref(), ctx, seconds.into()));
    host_fn!(engine, state, "sleep", |ctx, seconds: f64| sleep(state.as_ref(), ctx, seconds.into()));
    host_fn!(engine, state, "sleep", |ctx, span: ImmutableString| sleep(state.as_ref(), ctx, span.into()));
}

fn sleep(state: &RunState, ctx: &NativeCallContext, span: Dynamic) -> Fallible<()> {
    let ms = ms(to_span(ctx, span)?);
    answer!(ctx, state.ask(ctx, Effect::Sleep { ms })?, Outcome::Done => ())
}

fn register_variables(engine: &mut Engine, state: &Arc<RunState>) {
    host_fn!(engine, state, "variable", |ctx, name: ImmutableString| {
        let effect = Effect::Variable { name: name.into() };
        answer!(ctx, state.ask(ctx, effect)?, Outcome::MaybeText(text) => text.map_or(Dynamic::UNIT, Dynamic::from))
    });
    host_fn!(engine, state, "expand", |ctx, text: ImmutableString| {
        let effect = Effect::Expand { text: text.into() };
        answer!(ctx, state.ask(ctx, effect)?, Outcome::Text(text) => text)
    });
    engine
        .register_type_with_name::<Secret>("secret")
        .register_get("name", |secret: &mut Secret| secret.secret.0.clone())
        .register_fn("+", |prefix: ImmutableString, secret: Secret| Secret {
            prefix: format!("{prefix}{}", secret.prefix),
            ..secret
        });
    host_fn!(engine, state, "secret", |ctx, name: ImmutableString| {
        let name = name.to_string();
        let effect = Effect::HasSecret { name: name.clone() };
        let there = answer!(ctx, state.ask(ctx, effect)?, Outcome::Flag(there) => there)?;
        if there {
            return Ok(Secret { prefix: String::new(), secret: SecretHandle(name) });
        }
        let missing = Failure::new("not-found", format!("there is no secret {name}"));
        Err(failure(ctx, missing.fix("add it to the variables of the project")))
    });
}

fn register_results(engine: &mut Engine, state: &Arc<RunState>) {
    host_fn!(engine, state, "output", |ctx, name: ImmutableString, value: Dynamic| {
        let effect = Effect::Output { name: name.into(), value: show(&value), sensitive: false };
        answer!(ctx, state.ask(ctx, effect)?, Outcome::Done => ())
    });
    host_fn!(engine, state, "progress", |ctx, done: i64, total: i64| {
        progress(&state, ctx, done, total, String::new())
    });
    host_fn!(engine, state, "progress", |ctx, done: i64, total: i64, note: ImmutableString| {
        progress(&state, ctx, done, total, note.into())
    });
    engine.register_fn("fail", |ctx: NativeCallContext, message: ImmutableString| -> Fallible<()> {
        Err(failure(&ctx, Failure::new("failed", message)))
    });
}

fn progress(state: &RunState, ctx: &NativeCallContext, done: i64, total: i64, note: String) -> Fallible<()> {
    let (done, total) = (natural(ctx, "progress", done)?, natural(ctx, "a total", total)?);
    state.progress(ctx, done, total, note)
}

/// A value as a line of the log shows it.
fn show(value: &Dynamic) -> String {
    match value.read_lock::<Task>() {
        Some(task) => task.to_string(),
        None => value.to_string(),
    }
}
