//! Events a second: many running tasks, and one event with ever more queued tasks.
//!
//! `cargo bench -p windlass-scheduler` prints the throughput of 1,000 running tasks of 20 steps on
//! 20 machines each, and the cost of one task's life beside 100, 10,000 and 100,000 queued ones.

#![allow(clippy::expect_used, reason = "fixed names are names")]

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use windlass_model::{MachineName, StepName, TaskId};
use windlass_scheduler::{Decision, Event, RunKey, RunOutcome, Settings, State, StepPlan, TaskPlan, Where};

fn plan(tag: u64, steps: usize, machines: usize) -> TaskPlan {
    let machine = |n| MachineName::new(format!("t{tag}-m{n}")).expect("a name");
    let step = |n| {
        let place = Where::Machines((0..machines).map(machine).collect());
        StepPlan::new(StepName::new(format!("step{n}")).expect("a name"), place)
    };
    TaskPlan::deployment(format!("deploy p{tag} 1.0.0 to test"), format!("p{tag}/test"), (0..steps).map(step).collect())
}

fn started(decisions: &[Decision], runs: &mut Vec<RunKey>) {
    runs.extend(decisions.iter().filter_map(|decision| match decision {
        Decision::StartRun { run, .. } => Some(*run),
        _ => None,
    }));
}

/// Finishes whatever runs, oldest first, `events` times.
fn drive(state: &mut State, runs: &mut Vec<RunKey>, events: usize) {
    for nth in 0..events {
        let Some(run) = runs.get(nth).copied() else {
            return;
        };
        let decisions = state.next(1, Event::RunFinished { run, outcome: RunOutcome::Succeeded });
        started(&decisions, runs);
        black_box(decisions);
    }
}

fn running(c: &mut Criterion) {
    let mut group = c.benchmark_group("running");
    group.sample_size(10);
    for tasks in [10, 1000] {
        let events = 100 * tasks as usize;
        let settings = Settings { task_cap: tasks, ..Settings::for_cores(2) };
        group.throughput(Throughput::Elements(events as u64));
        let name = format!("{tasks} tasks of 20 steps on 20 machines");
        group.bench_function(name, |bench| {
            let fresh = || {
                let mut state = State::new(settings.clone());
                let mut runs = Vec::with_capacity(2 * events);
                for task in 1..=u64::from(tasks) {
                    let plan = plan(task, 20, 20);
                    let task = TaskId(task);
                    started(&state.next(1, Event::TaskQueued { task, plan }), &mut runs);
                }
                (state, runs)
            };
            let play = |(mut state, mut runs): (State, Vec<RunKey>)| {
                drive(&mut state, &mut runs, events);
                (state, runs)
            };
            bench.iter_batched(fresh, play, BatchSize::PerIteration);
        });
    }
    group.finish();
}

fn queued(c: &mut Criterion) {
    let mut group = c.benchmark_group("one task beside queued ones");
    for waiting in [100_u64, 10_000, 100_000] {
        let mut state = State::new(Settings::for_cores(2));
        for task in 1..=waiting {
            // Half of them wait for a tag, half for a free place.
            let tag = if task % 2 == 0 { 0 } else { task };
            state.next(1, Event::TaskQueued { task: TaskId(task), plan: plan(tag, 1, 1) });
        }
        let mut next = waiting;
        group.bench_function(format!("{waiting} queued"), |bench| {
            bench.iter(|| {
                next += 1;
                let mut urgent = plan(next, 1, 1);
                urgent.priority = 1;
                black_box(state.next(1, Event::TaskQueued { task: TaskId(next), plan: urgent }));
                black_box(state.next(1, Event::TaskCancelled { task: TaskId(next) }))
            });
        });
    }
    group.finish();
}

criterion_group!(benches, running, queued);
criterion_main!(benches);
