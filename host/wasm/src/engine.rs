//! The wasmtime engine, set once for the whole server, and the thread that lets it interrupt guests.

use std::{io, thread, time::Duration};

use wasmtime::{Config, Engine, WasmBacktraceDetails};

/// How often a guest that computes is looked after.
pub(crate) const TICK: Duration = Duration::from_millis(10);

/// Stack of a guest, bytes.
pub(crate) const MAX_STACK: usize = 512 << 10;

/// An engine that can interrupt guests and tell where they were.
pub(crate) fn engine() -> wasmtime::Result<Engine> {
    let mut config = Config::new();
    config
        .epoch_interruption(true)
        .wasm_backtrace_details(WasmBacktraceDetails::Enable)
        .max_wasm_stack(MAX_STACK)
        .async_stack_size(MAX_STACK + (512 << 10))
        // What Rust, C, Go, Python and JavaScript guests do not need is not offered.
        .wasm_memory64(false)
        .wasm_relaxed_simd(false);
    Engine::new(&config)
}

/// Starts the thread that ticks the engine's epoch. It ends when the engine is gone.
pub(crate) fn start_ticking(engine: &Engine) -> io::Result<()> {
    let engine = engine.weak();
    thread::Builder::new().name("guest-epoch".to_owned()).spawn(move || {
        while let Some(engine) = engine.upgrade() {
            engine.increment_epoch();
            drop(engine);
            thread::sleep(TICK);
        }
    })?;
    Ok(())
}
