//! How fast the scheduler is, as figures and ratios.
//!
//! `cargo bench -p windlass-scheduler` prints events a second with 1,000 running tasks of 20 steps on 20 machines
//! each, what one event costs beside 100, 10,000 and 100,000 queued tasks, how long a forecast of 50 steps on 200
//! machines takes, and what is left in memory of 100,000 finished tasks, each beside its goal. Words choose parts of it:
//! `own`, `shared`, `beside`, `plan`, `left`.

#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::print_stdout, reason = "a bench fails by panicking")]

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use windlass_model::{MachineName, StepName, TaskId};
use windlass_scheduler::{
    Decision, Event, Question, RunKey, RunOutcome, Settings, State, StepPlan, TaskPlan, Where,
    forecast::{Durations, HORIZON, forecast},
};

/// Time that this thread was on a core: others may use the machine meanwhile. It moves on in steps of some
/// milliseconds, so it is of use for what takes much longer.
fn cpu() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let on_core = text.split_whitespace().next().and_then(|ns| ns.parse().ok());
    static START: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);
    on_core.map_or_else(|| START.elapsed(), Duration::from_nanos)
}

fn plan(tag: &str, prefix: &str, steps: usize, machines: usize) -> TaskPlan {
    let machine = |n| MachineName::new(format!("{prefix}m{n}")).expect("a name");
    let step = |n| {
        let place = Where::Machines((0..machines).map(machine).collect());
        StepPlan::new(StepName::new(format!("step{n}")).expect("a name"), place)
    };
    TaskPlan::deployment(format!("deploy {tag} 1.0.0 to test"), tag, (0..steps).map(step).collect())
}

fn started(decisions: &[Decision], runs: &mut Vec<RunKey>) {
    runs.extend(decisions.iter().filter_map(|decision| match decision {
        Decision::StartRun { run, .. } => Some(*run),
        _ => None,
    }));
}

/// Plays 1,000 tasks to their end, oldest run first. Returns events and time.
fn throughput(shared: bool) -> (usize, Duration) {
    let tasks = 1000;
    let mut state = State::new(Settings { task_cap: tasks, ..Settings::for_cores(2) });
    let mut runs = Vec::with_capacity(400 * tasks as usize);
    for task in 1..=u64::from(tasks) {
        // Shared: 50 tasks want the same machines, and wait for each other.
        let prefix = if shared { format!("s{}", task % 20) } else { format!("t{task}") };
        let plan = plan(&format!("p{task}/test"), &prefix, 20, 20);
        started(&state.next(1, Event::TaskQueued { task: TaskId(task), plan }), &mut runs);
    }
    let start = cpu();
    let mut at = 0;
    while let Some(run) = runs.get(at).copied() {
        at += 1;
        let decisions = state.next(at as u64, Event::RunFinished { run, outcome: RunOutcome::Succeeded });
        started(&decisions, &mut runs);
        black_box(decisions);
    }
    let took = cpu() - start;
    assert_eq!(at, 400 * tasks as usize);
    assert_eq!(state.tasks().count(), 0);
    (at, took)
}

/// What queueing a task and cancelling it cost beside so many queued ones: the middle one of many short spans, since
/// only few of them are broken by others that use the machine.
fn beside(waiting: u64) -> Duration {
    let mut state = State::new(Settings::for_cores(2));
    let mut runs = Vec::new();
    for task in 1..=waiting {
        // Half of them wait for a tag, half for a free place.
        let tag = if task % 2 == 0 { "p0/test".to_owned() } else { format!("p{task}/test") };
        started(&state.next(1, Event::TaskQueued { task: TaskId(task), plan: plan(&tag, "q", 1, 1) }), &mut runs);
    }
    let (spans, rounds) = (101, 200);
    let mut took = Vec::with_capacity(spans);
    let mut plans = (0..spans * rounds).map(|n| plan(&format!("u{n}/test"), &format!("u{}", n % 100), 1, 1));
    let mut task = TaskId(waiting);
    for _ in 0..spans {
        let plans: Vec<_> = plans.by_ref().take(rounds).collect();
        let start = Instant::now();
        for mut plan in plans {
            plan.priority = 1;
            task = TaskId(task.0 + 1);
            black_box(state.next(1, Event::TaskQueued { task, plan }));
            black_box(state.next(1, Event::TaskCancelled { task }));
        }
        took.push(start.elapsed());
    }
    took.sort_unstable();
    took[spans / 2] / (2 * rounds as u32)
}

struct Fixed;

impl Durations for Fixed {
    fn run(&self, _: RunKey, _: &TaskPlan, _: Option<&MachineName>) -> u64 {
        1000
    }
    fn packages(&self, _: TaskId, _: &TaskPlan, _: Option<&MachineName>) -> u64 {
        500
    }
    fn person(&self, _: &Question) -> u64 {
        0
    }
}

fn planning() -> Duration {
    let state = State::new(Settings::for_cores(2));
    let mut plan = plan("shop/test", "m", 50, 200);
    plan.steps[0].needs_packages = true;
    let start = cpu();
    let forecast = forecast(&state, 0, TaskId(1), Some(plan), &Fixed, HORIZON);
    let took = cpu() - start;
    assert_eq!(forecast.runs.len(), 10_000);
    assert!(forecast.ending.is_some());
    took
}

/// Tasks and locks that are left of 100,000 finished tasks.
fn leftovers() -> (usize, usize) {
    let mut state = State::new(Settings::for_cores(2));
    let mut runs = Vec::new();
    for task in 1..=100_000 {
        let plan = plan(&format!("p{task}/test"), &format!("t{task}"), 1, 1);
        runs.clear();
        started(&state.next(task, Event::TaskQueued { task: TaskId(task), plan }), &mut runs);
        for run in runs.drain(..) {
            state.next(task, Event::RunFinished { run, outcome: RunOutcome::Succeeded });
        }
    }
    (state.tasks().count(), state.locks().len())
}

/// What is within its limit, and what is not, said beside each figure: a bench measures and never judges by failing.
fn verdict(keeps: bool) -> &'static str {
    if keeps { "kept" } else { "MISSED" }
}

fn rates(shared: bool) {
    let best = (0..3).map(|_| throughput(shared)).min_by_key(|(_, took)| *took).expect("three tries");
    let rate = best.0 as f64 / best.1.as_secs_f64();
    let what = if shared { "50 tasks on each machine" } else { "machines of their own" };
    let goal = verdict(rate >= 500_000.0);
    println!("1,000 running tasks, 20 steps x 20 machines, {what}: {rate:.0} events/s (goal 500,000: {goal})");
}

fn queues() {
    let waiting = [100, 10_000, 100_000];
    let mut costs = [Duration::MAX; 3];
    // Round by round, so that a noisy moment meets all alike.
    for _ in 0..3 {
        for (cost, waiting) in costs.iter_mut().zip(waiting) {
            *cost = beside(waiting).min(*cost);
        }
    }
    for (waiting, cost) in waiting.iter().zip(costs) {
        println!("one event beside {waiting} queued tasks: {} ns", cost.as_nanos());
    }
    for (pair, waiting) in costs.windows(2).zip(waiting.windows(2)) {
        let ratio = pair[1].as_secs_f64() / pair[0].as_secs_f64();
        let goal = verdict(ratio <= 1.5);
        println!("ratio of {} to {} queued tasks: {ratio:.2} (goal 1.5: {goal})", waiting[1], waiting[0]);
    }
}

fn plans() {
    let took = (0..3).map(|_| planning()).min().expect("three tries");
    let goal = verdict(took < Duration::from_millis(200));
    println!("plan of 50 steps x 200 machines: {} ms (goal 200 ms: {goal})", took.as_millis());
}

fn remains() {
    let (tasks, locks) = leftovers();
    let goal = verdict((tasks, locks) == (0, 0));
    println!("left of 100,000 finished tasks: {tasks} tasks, {locks} locks (goal none: {goal})");
}

/// A part of the bench, with the word that chooses it.
type Section = (&'static str, fn());

fn main() {
    let sections: [Section; 5] =
        [("own", || rates(false)), ("shared", || rates(true)), ("beside", queues), ("plan", plans), ("left", remains)];
    let words: Vec<_> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let chosen = |name: &str| words.is_empty() || words.iter().any(|word| word == name);
    for (_, section) in sections.iter().filter(|(name, _)| chosen(name)) {
        section();
    }
}
