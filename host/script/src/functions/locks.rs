//! Named locks.

use std::sync::Arc;

use rhai::{Dynamic, Engine, ImmutableString, NativeCallContext};
use windlass_effects::{Effect, Outcome};
use windlass_model::manifest::LockMode;

use super::{DEFAULT_WAIT, answer, host_fn, number};
use crate::{
    options::{invalid, ms, to_span},
    state::{Fallible, RunState},
};

/// A lock that the run holds.
#[derive(Debug, Clone)]
struct Lock {
    name: ImmutableString,
    token: u64,
}

pub(super) fn register(engine: &mut Engine, state: &Arc<RunState>) {
    engine
        .register_type_with_name::<Lock>("lock")
        .register_get("name", |lock: &mut Lock| lock.name.clone())
        .register_get("token", |lock: &mut Lock| number(lock.token));
    host_fn!(engine, state, "lock", |ctx, name: ImmutableString| {
        take(&state, ctx, name, LockMode::Exclusive, DEFAULT_WAIT.into())
    });
    // The second of two arguments is how it is held, or how long to wait.
    host_fn!(engine, state, "lock", |ctx, name: ImmutableString, how: Dynamic| match mode(&how) {
        Some(mode) => take(&state, ctx, name, mode, DEFAULT_WAIT.into()),
        None => take(&state, ctx, name, LockMode::Exclusive, how),
    });
    host_fn!(engine, state, "lock", |ctx, name: ImmutableString, how: ImmutableString, timeout: Dynamic| {
        match mode(&how.clone().into()) {
            Some(mode) => take(&state, ctx, name, mode, timeout),
            None => Err(invalid(ctx, format!("a lock cannot be held {how:?}"), "write \"shared\" or \"exclusive\"")),
        }
    });
    host_fn!(engine, state, "unlock", |ctx, lock: Lock| {
        let effect = Effect::Release { token: lock.token };
        answer!(ctx, state.ask(ctx, effect)?, Outcome::Done => ())
    });
}

fn mode(how: &Dynamic) -> Option<LockMode> {
    match how.as_immutable_string_ref().ok()?.as_str() {
        "shared" => Some(LockMode::Shared),
        "exclusive" => Some(LockMode::Exclusive),
        _ => None,
    }
}

fn take(
    state: &RunState,
    ctx: &NativeCallContext,
    name: ImmutableString,
    mode: LockMode,
    timeout: Dynamic,
) -> Fallible<Lock> {
    let effect = Effect::Acquire { resource: name.to_string(), mode, wait_ms: ms(to_span(ctx, timeout)?) };
    let grant = answer!(ctx, state.ask(ctx, effect)?, Outcome::Lock(grant) => grant)?;
    Ok(Lock { name, token: grant.token })
}
