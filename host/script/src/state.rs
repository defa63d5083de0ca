//! The state of one run: its sticky stop, its limits, and the one way from the script's thread to the waist.
//!
//! A script can catch errors, and a closure inside a built-in method even those that Rhai means to be final. So
//! the first thing that ends a run is kept here for good: every operation and every host function refuses from
//! then on, and the run's ending is decided by what is kept here, never by what the script returned.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use rhai::{Dynamic, EvalAltResult, NativeCallContext, Position};
use tokio::runtime::Handle;
use windlass_effects::{CancelToken, Effect, Failure, Line, MAX_ENTRIES, Outcome, Stop, Waist, needed_capability};
use windlass_model::{Capability, task::LogLevel};

use crate::{functions::failure, memory};

/// How often the clock is read, in operations.
const CLOCK_EVERY: u64 = 512;

/// What a run may use. Limits on single values are fixed, see the README of `scripts/`.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Scripts that run at once; more wait for their turn.
    pub threads: usize,
    /// Operations a run may take, in closures too.
    pub operations: u64,
    /// Bytes the values of a run may take together.
    pub memory: usize,
    /// Time a run may compute. Waiting in a host function does not count.
    pub compute: Duration,
    /// Host functions a run may call.
    pub calls: u64,
    /// Lines a run may log.
    pub lines: u64,
    /// Longest line in bytes; the rest is cut off.
    pub line_bytes: usize,
    /// How long a host function that is told to stop may take to wind down.
    pub grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            threads: 32,
            operations: 2_000_000,
            memory: 16 << 20,
            compute: Duration::from_secs(30),
            calls: MAX_ENTRIES,
            lines: 10_000,
            line_bytes: 8 * 1024,
            grace: Duration::from_secs(5),
        }
    }
}

/// Why a run must end, whatever the script thinks of it.
#[derive(Debug, Clone)]
pub(crate) enum End {
    Cancelled,
    Stop(Stop),
    /// A limit was passed: what, and where.
    Limit(Limit, Position),
}

/// The limits that end a run.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Limit {
    Operations(u64),
    Memory(usize),
    Compute(Duration),
    Time(Duration),
    Calls(u64),
    Lines(u64),
}

/// A result inside the engine.
pub(crate) type Fallible<T> = Result<T, Box<EvalAltResult>>;

pub(crate) struct RunState {
    waist: Arc<dyn Waist>,
    runtime: Handle,
    /// Set when nobody waits for the run's ending any more.
    abandoned: CancelToken,
    needs: BTreeSet<Capability>,
    limits: Limits,
    time_limit: Option<Duration>,
    end: OnceLock<End>,
    started: Instant,
    /// What the script's thread held when the script began.
    baseline: OnceLock<isize>,
    waited_us: AtomicU64,
    operations: AtomicU64,
    calls: AtomicU64,
    lines: AtomicU64,
}

impl RunState {
    pub(crate) fn new(
        waist: Arc<dyn Waist>,
        needs: BTreeSet<Capability>,
        limits: Limits,
        time_limit: Option<Duration>,
        abandoned: CancelToken,
    ) -> Self {
        Self {
            waist,
            runtime: Handle::current(),
            abandoned,
            needs,
            limits,
            time_limit,
            end: OnceLock::new(),
            started: Instant::now(),
            baseline: OnceLock::new(),
            waited_us: AtomicU64::new(0),
            operations: AtomicU64::new(0),
            calls: AtomicU64::new(0),
            lines: AtomicU64::new(0),
        }
    }

    /// What ended the run, if anything did.
    pub(crate) fn end(&self) -> Option<&End> {
        self.end.get()
    }

    /// Called on every operation: says whether the script must stop here.
    pub(crate) fn tick(&self) -> bool {
        if self.end.get().is_some() {
            return true;
        }
        let operations = self.operations.fetch_add(1, Relaxed);
        if operations >= self.limits.operations {
            self.pass(Limit::Operations(self.limits.operations), Position::NONE);
        } else if self.memory() > self.limits.memory {
            self.pass(Limit::Memory(self.limits.memory), Position::NONE);
        } else if operations.is_multiple_of(CLOCK_EVERY) {
            self.read_clock();
        }
        if self.told_to_stop() {
            self.keep(End::Cancelled);
        }
        self.end.get().is_some()
    }

    /// Bytes the script has taken since its first operation. Only its own thread calls this.
    fn memory(&self) -> usize {
        let held = memory::held();
        usize::try_from(held.wrapping_sub(*self.baseline.get_or_init(|| held))).unwrap_or(0)
    }

    fn read_clock(&self) {
        let elapsed = self.started.elapsed();
        let waited = Duration::from_micros(self.waited_us.load(Relaxed));
        if elapsed.saturating_sub(waited) > self.limits.compute {
            self.pass(Limit::Compute(self.limits.compute), Position::NONE);
        }
        if let Some(limit) = self.time_limit
            && elapsed > limit
        {
            self.pass(Limit::Time(limit), Position::NONE);
        }
    }

    fn told_to_stop(&self) -> bool {
        self.waist.cancel().is_cancelled() || self.abandoned.is_cancelled()
    }

    fn pass(&self, limit: Limit, position: Position) {
        self.keep(End::Limit(limit, position));
    }

    fn keep(&self, end: End) {
        // The first one counts; a later one is its consequence.
        let _ = self.end.set(end);
    }

    /// Refuses when the run has ended already.
    fn alive(&self, ctx: &NativeCallContext) -> Fallible<()> {
        match self.tick() {
            true => Err(halt(ctx)),
            false => Ok(()),
        }
    }

    /// Asks the world for something and waits for the answer.
    pub(crate) fn ask(&self, ctx: &NativeCallContext, effect: Effect) -> Fallible<Outcome> {
        self.alive(ctx)?;
        if self.calls.fetch_add(1, Relaxed) >= self.limits.calls {
            self.pass(Limit::Calls(self.limits.calls), ctx.call_position());
            return Err(halt(ctx));
        }
        if let Some(needed) = needed_capability(&effect)
            && !self.needs.contains(&needed)
        {
            return Err(failure(ctx, undeclared(ctx.fn_name(), needed)));
        }
        let began = Instant::now();
        let answer = memory::uncounted(|| self.runtime.block_on(self.bounded_call(effect)));
        let waited = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.waited_us.fetch_add(waited, Relaxed);
        match answer {
            Some(Ok(Ok(outcome))) => Ok(outcome),
            Some(Ok(Err(answer))) if answer.code == "cancelled" => {
                self.keep(End::Cancelled);
                Err(halt(ctx))
            }
            Some(Ok(Err(answer))) => Err(failure(ctx, answer)),
            Some(Err(stop)) => {
                self.keep(End::Stop(stop));
                Err(halt(ctx))
            }
            None => Err(halt(ctx)),
        }
    }

    /// The answer, or none when the run ended first.
    async fn bounded_call(&self, effect: Effect) -> Option<Result<windlass_effects::Answer, Stop>> {
        let call = self.waist.call(effect);
        tokio::pin!(call);
        tokio::select! {
            biased;
            answer = &mut call => return Some(answer),
            () = self.waist.cancel().cancelled() => self.keep(End::Cancelled),
            () = self.abandoned.cancelled() => self.keep(End::Cancelled),
            limit = self.out_of_time() => self.pass(Limit::Time(limit), Position::NONE),
        }
        // What performs was told by the same token; it may bring things to an orderly end, but not for ever.
        let _ = tokio::time::timeout(self.limits.grace, call).await;
        None
    }

    async fn out_of_time(&self) -> Duration {
        match self.time_limit {
            Some(limit) => {
                tokio::time::sleep(limit.saturating_sub(self.started.elapsed())).await;
                limit
            }
            None => std::future::pending().await,
        }
    }

    /// Logs a line, cut to what a line may hold.
    pub(crate) fn log(&self, level: LogLevel, text: &str) {
        if self.end.get().is_some() {
            return;
        }
        if self.lines.fetch_add(1, Relaxed) >= self.limits.lines {
            self.pass(Limit::Lines(self.limits.lines), Position::NONE);
            return;
        }
        let max = self.limits.line_bytes;
        let text = if text.len() > max {
            let end = text.floor_char_boundary(max);
            let head = text.get(..end).unwrap_or_default();
            format!("{head}… ({} bytes more)", text.len() - end)
        } else {
            text.to_owned()
        };
        self.waist.log(Line { level, text });
    }

    /// Logs a line for a host function.
    pub(crate) fn log_call(&self, ctx: &NativeCallContext, level: LogLevel, text: &str) -> Fallible<()> {
        self.log(level, text);
        self.alive(ctx)
    }

    /// Reports how far the run is.
    pub(crate) fn progress(&self, ctx: &NativeCallContext, done: u64, total: u64, note: String) -> Fallible<()> {
        self.alive(ctx)?;
        self.waist.progress(done, total, note);
        Ok(())
    }
}

/// The error that unwinds a run that has ended. Catching it gains nothing: the run has ended.
fn halt(ctx: &NativeCallContext) -> Box<EvalAltResult> {
    Box::new(EvalAltResult::ErrorTerminated(Dynamic::UNIT, ctx.call_position()))
}

fn undeclared(function: &str, needed: Capability) -> Failure {
    Failure::denied(format!("{function} needs the capability {needed}, which the script does not declare"))
        .fix(format!("add `//! needs: {needed}` to the head of the script; it then {}", needed.meaning()))
}
