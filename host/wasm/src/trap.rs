//! Turns what wasmtime says of a guest that ended badly into a [`RunError`] that its author understands.

use std::fmt;

use wasmtime::{FrameInfo, Trap, WasmBacktrace};

use crate::{
    calls::{Calls, Stopped},
    engine::MAX_STACK,
    error::{Frames, RunError},
    limits::Hit,
    text,
};

/// Most frames that are shown, and longest name in one.
const MAX_FRAMES: usize = 8;
const MAX_TEXT: usize = 300;

/// One place in a plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The function.
    pub function: String,
    /// File and line, if the plugin was built with line tables.
    pub place: Option<String>,
}

impl fmt::Display for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Some(place) => write!(f, "{place} in {}", self.function),
            None => f.write_str(&self.function),
        }
    }
}

/// Explains the end of a guest.
pub(crate) fn explain(error: &wasmtime::Error, calls: &Calls) -> RunError {
    if let Some(Stopped(stop)) = error.downcast_ref::<Stopped>() {
        return RunError::Stopped(stop.clone());
    }
    if let Some(failure) = error.downcast_ref::<windlass_effects::Failure>() {
        return RunError::Failed(failure.clone());
    }
    let frames = frames(error);
    if let Some(hit) = hit(error, calls) {
        return RunError::Limit { hit, frames };
    }
    match error.downcast_ref::<Trap>() {
        Some(Trap::UnreachableCodeReached) => match calls.log.panic() {
            Some(text) => panicked(text, frames),
            None => RunError::Trapped { what: "it reached code that it says cannot be reached".to_owned(), frames },
        },
        Some(trap) => RunError::Trapped { what: trap.to_string().trim_start_matches("wasm trap: ").to_owned(), frames },
        None if error.downcast_ref::<WasmBacktrace>().is_some() => {
            let what = text::one_line(&error.root_cause().to_string(), MAX_TEXT);
            RunError::Trapped { what, frames }
        }
        None => RunError::Host(text::one_line(&format!("{error:#}"), MAX_TEXT)),
    }
}

/// The bound that the guest ran into, if that is what ended it.
fn hit(error: &wasmtime::Error, calls: &Calls) -> Option<Hit> {
    if let Some(hit) = error.downcast_ref::<Hit>() {
        return Some(*hit);
    }
    if error.downcast_ref::<Trap>() == Some(&Trap::StackOverflow) {
        return Some(Hit::Stack { limit: MAX_STACK });
    }
    // Wasmtime has no types for these two; a test runs into each of them.
    let limits = calls.limiter.limits();
    let cause = error.root_cause().to_string();
    if cause.contains("fuel allocated for hostcalls has been exhausted") {
        Some(Hit::CallBytes { limit: limits.call_bytes })
    } else if cause.contains("store handle limit exceeded") {
        Some(Hit::Handles { limit: limits.handles })
    } else {
        None
    }
}

/// Takes apart what Rust's panic hook says: «panicked at src/lib.rs:3:5:», then the message.
fn panicked(text: &str, frames: Frames) -> RunError {
    let rest = text.strip_prefix("panicked at ").unwrap_or(text);
    let (place, message) = match rest.split_once(":\n") {
        Some((place, message)) => (Some(shorten(&text::one_line(place, MAX_TEXT))), message),
        None => (None, rest),
    };
    RunError::Panicked { message: text::one_line(message.trim(), MAX_TEXT * 4), place, frames }
}

pub(crate) fn frames(error: &wasmtime::Error) -> Frames {
    let all = error.downcast_ref::<WasmBacktrace>().map(WasmBacktrace::frames).unwrap_or_default();
    let mut own: Vec<Frame> = all.iter().flat_map(own_frames).collect();
    // Where lines are known, a frame without one is glue that the compiler made.
    if own.iter().any(|frame| frame.place.is_some()) {
        own.retain(|frame| frame.place.is_some());
    }
    // A recursion is one line, not a screen.
    own.dedup();
    own.truncate(MAX_FRAMES);
    Frames(own)
}

/// The frames of the plugin's own code that lie in one frame of WebAssembly: inlined functions have one too.
fn own_frames(frame: &FrameInfo) -> Vec<Frame> {
    if frame.symbols().is_empty() {
        return frame.func_name().filter(|name| is_own(name, "")).map(|name| named(name, None)).into_iter().collect();
    }
    frame
        .symbols()
        .iter()
        .filter_map(|symbol| {
            let function = symbol.name().or(frame.func_name()).unwrap_or("?");
            let file = symbol.file().unwrap_or_default();
            let place = symbol.line().map(|line| format!("{}:{line}", shorten(file)));
            is_own(function, file).then(|| named(function, place))
        })
        .collect()
}

fn named(function: &str, place: Option<String>) -> Frame {
    Frame { function: text::one_line(function, MAX_TEXT), place }
}

/// Whether a frame is the plugin's own and not of the standard library, the SDK or what glues them together.
fn is_own(function: &str, file: &str) -> bool {
    const FOREIGN_FILES: [&str; 6] =
        ["/rustc/", "/library/", "/.cargo/registry/", "/rust-src/", "/sdk/plugin/", "/rustlib/"];
    const FOREIGN_NAMES: [&str; 8] =
        ["core::", "std::", "alloc::", "__rust", "rust_", "windlass_plugin::", "windlass:", "cabi_"];
    // What `export_step!` expands to carries the place of the macro call.
    const MACRO: [&str; 3] = ["export_run", "export_describe", "export_check"];
    let bare = function.trim_start_matches(['<', '_']);
    !MACRO.contains(&function)
        && !FOREIGN_FILES.iter().any(|part| file.contains(part))
        && !FOREIGN_NAMES.iter().any(|name| bare.starts_with(name) || function.starts_with(name))
}

/// A path as its author knows it: from the folder of the crate on, not from the root of some build machine.
fn shorten(path: &str) -> String {
    let path = path.replace('\\', "/");
    match path.rfind("/src/") {
        Some(at) => {
            let start = path.get(..at).and_then(|before| before.rfind('/')).map_or(0, |slash| slash + 1);
            path.get(start..).unwrap_or(&path).to_owned()
        }
        None => path,
    }
}
