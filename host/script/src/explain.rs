//! Turns what Rhai says of a fault into what a person can act on.

use rhai::{Dynamic, EvalAltResult, Map, ParseError, ParseErrorType, Position};
use windlass_model::nearest;

use crate::{
    diagnostic::Diagnostic,
    engine::{MAX_ARRAY, MAX_CALLS, MAX_FUNCTIONS, MAX_MAP, MAX_STRING, MAX_VARIABLES},
    functions::FUNCTIONS,
    script::CONSTANTS,
    state::Limit,
};

/// Most calls that are listed under a fault.
const MAX_INSIDE: usize = 8;

/// A script that does not compile.
pub(crate) fn parse(script: &str, source: &str, error: &ParseError) -> Box<Diagnostic> {
    let (code, message, fix) = match error.err_type() {
        // Rhai does not say that the word is switched off, only that none was expected.
        ParseErrorType::PropertyExpected if stands_at(source, error.position(), "curry") => (
            "denied",
            "functions cannot be given arguments in advance: curry is off".to_owned(),
            "write a closure: |x| f(1, x)".to_owned(),
        ),
        kind => parse_words(kind),
    };
    Diagnostic::new(script, code, message, fix).at(source, error.position())
}

fn stands_at(source: &str, place: Position, word: &str) -> bool {
    let line = place.line().and_then(|line| source.lines().nth(line.saturating_sub(1))).unwrap_or_default();
    let before = place.position().unwrap_or(1).saturating_sub(1);
    line.chars().skip(before).take(word.chars().count()).eq(word.chars())
}

fn parse_words(kind: &ParseErrorType) -> (&'static str, String, String) {
    use ParseErrorType as P;
    match kind {
        P::VariableUndefined(name) => {
            let fix = match nearest(name, CONSTANTS) {
                Some(near) => format!("did you mean {near}?"),
                None => {
                    format!("define it first: let {name} = …; (a function sees its parameters, args and task only)")
                }
            };
            ("undefined", format!("there is no variable {name}"), fix)
        }
        P::Reserved(word) if word == "import" || word == "export" => (
            "denied",
            format!("scripts are single files: {word} is off"),
            "copy the function into this script".to_owned(),
        ),
        P::BadInput(error) if error.to_string().contains("'eval'") => (
            "denied",
            "scripts cannot build and run other scripts: eval is off".to_owned(),
            "write the code where it is needed, or a function".to_owned(),
        ),
        P::ExprTooDeep => {
            ("limit", "the expression is nested too deep".to_owned(), "name its parts with let".to_owned())
        }
        P::TooManyFunctions => (
            "limit",
            format!("the script defines more than {MAX_FUNCTIONS} functions"),
            "split it into several scripts".to_owned(),
        ),
        P::LiteralTooLarge(..) => {
            ("limit", sentence(&kind.to_string()), "read large data from a variable or a package".to_owned())
        }
        P::UnexpectedEOF => (
            "syntax",
            "the script ends in the middle of something".to_owned(),
            "look for a missing }, ) or \"".to_owned(),
        ),
        P::MissingToken(token, _) => {
            ("syntax", sentence(&kind.to_string()), format!("write {token} here, or look at what stands just before"))
        }
        _ => ("syntax", sentence(&kind.to_string()), "correct the text at the caret".to_owned()),
    }
}

/// A run that passed a limit. `error` is what unwound it, if the script did not hide that.
pub(crate) fn limit(
    script: &str,
    source: &str,
    limit: Limit,
    place: Position,
    error: Option<&EvalAltResult>,
) -> Box<Diagnostic> {
    let (message, fix) = match limit {
        Limit::Operations(most) => (
            format!("the script took more than {most} operations"),
            "look for a loop without end; to wait, use sleep, await_task or await_quiet".to_owned(),
        ),
        Limit::Memory(most) => (
            format!("the values of the script take more than {} MiB", most >> 20),
            "keep less at once: let a finished value go with x = (), or ask for less".to_owned(),
        ),
        Limit::Compute(most) => (
            format!("the script computed for more than {} s", most.as_secs_f64()),
            "look for a loop without end; to wait, use sleep, await_task or await_quiet".to_owned(),
        ),
        Limit::Time(most) => (
            format!("the run took longer than its {} s", most.as_secs_f64()),
            "give it more time, or wait for less".to_owned(),
        ),
        Limit::Calls(most) => (
            format!("the script called the host more than {most} times"),
            "let one await_quiet, await_task or lock wait instead of asking again and again".to_owned(),
        ),
        Limit::Lines(most) => (
            format!("the script logged more than {most} lines"),
            "log what changes, not every round of a loop".to_owned(),
        ),
    };
    let innermost = error.map_or(Position::NONE, |error| innermost(error).position());
    let place = if place.is_none() { innermost } else { place };
    let mut fault = Diagnostic::new(script, "limit", message, fix).at(source, place);
    fault.inside = error.map(calls).unwrap_or_default();
    fault
}

/// A run that ended with an error that the script did not catch.
pub(crate) fn failure(script: &str, source: &str, error: &EvalAltResult) -> Box<Diagnostic> {
    let root = innermost(error);
    let mut fault = match root {
        EvalAltResult::ErrorRuntime(thrown, _) => thrown_words(script, thrown),
        other => {
            let (code, message, fix) = words(other);
            Diagnostic::new(script, code, message, fix)
        }
    };
    fault.inside = calls(error);
    fault.at(source, root.position())
}

/// What the script, or a host function, threw.
fn thrown_words(script: &str, thrown: &Dynamic) -> Box<Diagnostic> {
    const FIX: &str = "catch it in the script, or remove its cause";
    let Some(fields) = thrown.read_lock::<Map>() else {
        let message = match thrown.is_unit() {
            true => "the script gave up".to_owned(),
            false => thrown.to_string(),
        };
        return Diagnostic::new(script, "failed", message, FIX);
    };
    let field = |name: &str| {
        let text = fields.get(name).filter(|value| !value.is_unit());
        text.map(ToString::to_string)
    };
    let code = field("code").unwrap_or_else(|| "failed".to_owned());
    let message = field("message").unwrap_or_else(|| "the script gave up".to_owned());
    let fix = field("fix").unwrap_or_else(|| FIX.to_owned());
    let fault = Diagnostic::new(script, &code, message, fix);
    match field("cause") {
        Some(cause) => fault.cause(cause),
        None => fault,
    }
}

fn words(error: &EvalAltResult) -> (&'static str, String, String) {
    use EvalAltResult as E;
    match error {
        E::ErrorParsing(kind, _) => parse_words(kind),
        E::ErrorFunctionNotFound(signature, _) => no_function(signature),
        E::ErrorVariableNotFound(name, _) => {
            ("undefined", format!("there is no variable {name}"), format!("define it first: let {name} = …;"))
        }
        E::ErrorStackOverflow(_) => (
            "limit",
            format!("functions call each other deeper than {MAX_CALLS} levels"),
            "use a loop instead of recursion".to_owned(),
        ),
        E::ErrorTooManyVariables(_) => (
            "limit",
            format!("the script holds more than {MAX_VARIABLES} variables at once"),
            "keep values that belong together in a map".to_owned(),
        ),
        E::ErrorDataTooLarge(what, _) => (
            "limit",
            format!("{} passes its limit", what.to_lowercase()),
            format!("keep less in one value: {MAX_STRING} bytes of text, {MAX_ARRAY} elements, {MAX_MAP} entries"),
        ),
        E::ErrorDotExpr(text, _) => ("undefined", sentence(text), "look at what this value has".to_owned()),
        E::ErrorMismatchDataType(..) | E::ErrorMismatchOutputType(..) => (
            "type",
            sentence(&text_of(error)),
            "convert the value first, for example with to_string() or parse_int()".to_owned(),
        ),
        other => ("failed", sentence(&text_of(other)), "correct the script at the caret".to_owned()),
    }
}

/// Rhai names the call with its types: `lock (i64, map)`.
fn no_function(signature: &str) -> (&'static str, String, String) {
    let name = signature.split(" (").next().unwrap_or(signature).trim();
    let readable = signature
        .replace("&str | ImmutableString | String", "text")
        .replace("&str | rhai::ImmutableString | alloc::string::String", "text");
    if let Some((_, usage)) = FUNCTIONS.iter().find(|(known, _)| *known == name) {
        return (
            "undefined",
            format!("{name} cannot be called like this: {readable}"),
            format!("call it like this: {usage}"),
        );
    }
    let fix = match nearest(name, FUNCTIONS.iter().map(|(known, _)| *known)) {
        Some(near) => format!("did you mean {near}?"),
        None => {
            format!("define it: fn {name}(…) {{ … }}; the README of scripts/ lists what there is")
        }
    };
    ("undefined", format!("there is no function {readable}"), fix)
}

/// The error under the calls that it came through.
fn innermost(error: &EvalAltResult) -> &EvalAltResult {
    match error {
        EvalAltResult::ErrorInFunctionCall(_, _, inner, _) | EvalAltResult::ErrorInModule(_, inner, _) => {
            innermost(inner)
        }
        other => other,
    }
}

/// The calls that an error came through, innermost first.
fn calls(error: &EvalAltResult) -> Vec<String> {
    let mut calls = Vec::new();
    let mut error = error;
    while let EvalAltResult::ErrorInFunctionCall(name, _, inner, place) = error {
        let what = match name.starts_with("anon$") {
            true => "a closure".to_owned(),
            false => name.clone(),
        };
        calls.push(match (place.line(), place.position()) {
            (Some(line), Some(column)) => format!("{what}, called at {line}:{column}"),
            _ => what,
        });
        error = inner;
    }
    calls.reverse();
    if calls.len() > MAX_INSIDE {
        let more = calls.len() - MAX_INSIDE;
        calls.truncate(MAX_INSIDE);
        calls.push(format!("{more} more calls"));
    }
    calls
}

/// The text of an error without its place, which is shown apart.
fn text_of(error: &EvalAltResult) -> String {
    let text = error.to_string();
    match text.rfind(" (line ") {
        Some(at) => text.get(..at).unwrap_or_default().to_owned(),
        None => text,
    }
}

/// A sentence of Rhai as a fragment: it starts in lower case.
fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    match letters.next() {
        Some(first) => first.to_lowercase().chain(letters).collect(),
        None => String::new(),
    }
}
