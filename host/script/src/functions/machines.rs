//! Commands on the machines that were lent to the run.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use rhai::{Array, Dynamic, Engine, ImmutableString, Map, NativeCallContext};
use windlass_effects::{Command, Effect, EnvValue, Exit, Failure, Outcome, Program, SessionHandle, Stdin};
use windlass_model::nearest;

use super::{answer, basic::Secret, failure, host_fn, text_of};
use crate::{
    engine::MAX_STRING,
    options::{Options, invalid, ms},
    state::{Fallible, RunState},
};

/// A machine lent to the run.
#[derive(Debug, Clone)]
struct Machine {
    name: ImmutableString,
    session: SessionHandle,
}

/// How a command ended.
#[derive(Debug, Clone)]
struct Ended(Arc<Exit>);

const OPTIONS: [&str; 8] = ["argv", "script", "interpreter", "args", "env", "stdin", "cwd", "timeout"];

pub(super) fn register(engine: &mut Engine, state: &Arc<RunState>, sessions: &BTreeMap<String, SessionHandle>) {
    engine
        .register_type_with_name::<Machine>("machine")
        .register_get("name", |machine: &mut Machine| machine.name.clone())
        .register_type_with_name::<Ended>("exit")
        .register_get("code", |ended: &mut Ended| i64::from(ended.0.code))
        .register_get("ok", |ended: &mut Ended| ended.0.code == 0)
        .register_get("stdout", |ended: &mut Ended| text_of(&ended.0.stdout))
        .register_get("stderr", |ended: &mut Ended| text_of(&ended.0.stderr))
        .register_get("truncated", |ended: &mut Ended| ended.0.truncated);
    let sessions = Arc::new(sessions.clone());
    engine.register_fn("machine", move |ctx: NativeCallContext, name: ImmutableString| find(&ctx, &sessions, name));
    host_fn!(engine, state, "run", |ctx, machine: Machine, script: ImmutableString| {
        let command = sh(script.into());
        run(&state, ctx, &machine, command)
    });
    host_fn!(engine, state, "run", |ctx, machine: Machine, options: Map| {
        let command = command(ctx, options)?;
        run(&state, ctx, &machine, command)
    });
}

fn find(
    ctx: &NativeCallContext,
    sessions: &BTreeMap<String, SessionHandle>,
    name: ImmutableString,
) -> Fallible<Machine> {
    let found = sessions.iter().find(|(known, _)| known.eq_ignore_ascii_case(&name));
    if let Some((known, session)) = found {
        return Ok(Machine { name: known.into(), session: *session });
    }
    let names: BTreeSet<_> = sessions.keys().map(String::as_str).collect();
    let fix = match nearest(&name, names.iter().copied()) {
        Some(near) => format!("did you mean {near}?"),
        None if names.is_empty() => "run the script on machines: it was lent none".to_owned(),
        None => format!("it was lent {}", Vec::from_iter(names).join(", ")),
    };
    let name: String = name.chars().take(64).collect();
    let missing = Failure::denied(format!("the machine {name} was not lent to this run"));
    Err(failure(ctx, missing.fix(fix)))
}

fn run(state: &RunState, ctx: &NativeCallContext, machine: &Machine, command: Command) -> Fallible<Ended> {
    let effect = Effect::Run { session: machine.session, command };
    answer!(ctx, state.ask(ctx, effect)?, Outcome::Exit(exit) => Ended(exit.into()))
}

fn plain(program: Program) -> Command {
    Command {
        program,
        env: BTreeMap::new(),
        stdin: Stdin::Empty,
        cwd: None,
        timeout_ms: None,
        capture: u32::try_from(MAX_STRING).unwrap_or(u32::MAX),
        quiet: false,
    }
}

fn sh(text: String) -> Command {
    plain(Program::Script { interpreter: "sh".to_owned(), text, args: Vec::new() })
}

fn command(ctx: &NativeCallContext, options: Map) -> Fallible<Command> {
    let mut options = Options::new(ctx, options, &OPTIONS)?;
    let program = match (options.texts("argv")?, options.text("script")?) {
        (argv, None) if !argv.is_empty() => Program::Argv(argv),
        (argv, Some(text)) if argv.is_empty() => Program::Script {
            interpreter: options.text("interpreter")?.unwrap_or_else(|| "sh".to_owned()),
            text,
            args: options.texts("args")?,
        },
        _ => {
            return Err(invalid(ctx, "run needs either argv or script", "write run(m, #{argv: [\"uname\", \"-a\"]})"));
        }
    };
    let mut command = plain(program);
    for (name, value) in options.pairs("env")? {
        let value = secret_or_text(ctx, &name, value, EnvValue::Secret, EnvValue::Text)?;
        command.env.insert(name, value);
    }
    if let Some(stdin) = options.take("stdin") {
        let bytes = |text: String| Stdin::Bytes(text.into_bytes());
        command.stdin = secret_or_text(ctx, "stdin", stdin, Stdin::Secret, bytes)?;
    }
    command.cwd = options.text("cwd")?;
    command.timeout_ms = options.span("timeout")?.map(ms);
    Ok(command)
}

fn secret_or_text<T>(
    ctx: &NativeCallContext,
    name: &str,
    value: Dynamic,
    secret: impl Fn(windlass_effects::SecretHandle) -> T,
    text: impl Fn(String) -> T,
) -> Fallible<T> {
    match value.try_cast_result::<Secret>() {
        Ok(given) if given.prefix.is_empty() => Ok(secret(given.secret)),
        Ok(_) => Err(invalid(
            ctx,
            format!("{name} is a secret with a text before it"),
            "give the secret alone; a text goes before it in HTTP headers only",
        )),
        Err(value) if value.is::<Map>() || value.is::<Array>() || value.is_unit() => {
            Err(invalid(ctx, format!("{name} is {}", value.type_name()), "give a text or a secret"))
        }
        Err(value) => Ok(text(value.to_string())),
    }
}
