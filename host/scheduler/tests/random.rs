//! Random plans under random events, watched by a referee that knows the plans and sees only decisions.
//!
//! The choices are drawn first and the events made from them, so a failing case shrinks to few tasks and few
//! events, and replays from its seed file.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod common;
mod referee;

use common::{StepWords, step};
use proptest::prelude::*;
use referee::Referee;
use windlass_model::{RunCondition, TaskId, manifest::LockMode};
use windlass_scheduler::{Decision, Event, Isolation, RunOutcome, Settings, Snapshot, State, StepPlan, TaskPlan};

/// One choice: what kind of event, about which thing, in which way.
type Choice = (u8, u8, u8);

#[derive(Debug, Clone)]
struct Case {
    settings: Settings,
    plans: Vec<TaskPlan>,
    choices: Vec<Choice>,
}

fn a_step() -> impl Strategy<Value = StepPlan> {
    let mode = prop_oneof![Just(LockMode::Exclusive), Just(LockMode::Shared)];
    let isolation = prop_oneof![
        4 => Just(None),
        1 => Just(Some(Isolation::Shared)),
        2 => (prop::sample::select(vec!["iis", "dir", "global:licence", "global:gate"]), mode).prop_map(|(name, mode)| {
            let StepPlan { isolation, .. } = step("x", "server").locks(name, mode);
            Some(isolation)
        }),
    ];
    let condition = prop_oneof![
        5 => Just(RunCondition::Success),
        1 => Just(RunCondition::Failure),
        1 => Just(RunCondition::Always),
    ];
    let places = prop::sample::subsequence(vec!["a", "b", "c", "d"], 0..=4);
    let rare = || prop::bool::weighted(0.15);
    let flags = (prop::bool::ANY, prop::bool::weighted(0.3), rare(), rare(), prop::bool::weighted(0.2));
    (places, isolation, condition, flags, prop::option::of(0u32..4)).prop_map(
        |(places, isolation, condition, (with, packages, skip, server, short), window)| {
            let places = if server { "server".to_owned() } else { places.join(" ") };
            let mut plan = step("s", &places).on(condition);
            plan.window = window;
            plan.needs_packages = packages;
            plan.skip = skip.then(|| "disabled".to_owned());
            plan.isolation = isolation.unwrap_or_default();
            plan.timeout_ms = if short { Some(40) } else { None };
            if with { plan.with_previous() } else { plan }
        },
    )
}

fn a_plan() -> impl Strategy<Value = TaskPlan> {
    let steps = prop::collection::vec(a_step(), 0..6);
    (steps, prop::option::weighted(0.8, 0u8..3), -1i32..2).prop_map(|(mut steps, project, priority)| {
        for (index, step) in steps.iter_mut().enumerate() {
            step.name = windlass_model::StepName::new(format!("s{index}")).unwrap();
        }
        let mut plan = match project {
            Some(project) => common::deploy(&format!("p{project}"), "1.0", steps),
            None => TaskPlan::script("script", windlass_model::StepName::new("script").unwrap()),
        };
        plan.priority = priority;
        plan
    })
}

fn a_case() -> impl Strategy<Value = Case> {
    let settings = (1u32..4, 1u32..3, 1u32..4, 1u32..4).prop_map(|(task_cap, script_cap, steps, targets)| Settings {
        task_cap,
        script_cap,
        steps_at_once: steps,
        targets_at_once: targets,
        lock_wait_ms: 100,
    });
    let plans = prop::collection::vec(a_plan(), 1..8);
    let choices = prop::collection::vec(any::<Choice>(), 0..120);
    (settings, plans, choices).prop_map(|(settings, plans, choices)| Case { settings, plans, choices })
}

/// The event that a choice means now. None: there is nothing of that kind to choose from.
fn event(choice: Choice, referee: &Referee, case: &Case, queued: &mut usize, now: &mut u64) -> Option<Event> {
    let (kind, which, way) = choice;
    let pick = |count: usize| (count > 0).then(|| which as usize % count);
    *now += u64::from(way % 3);
    match kind % 16 {
        0..=2 => {
            let plan = case.plans.get(*queued)?.clone();
            *queued += 1;
            Some(Event::TaskQueued { task: TaskId(*queued as u64), plan })
        }
        3..=7 => {
            let runs = referee.running();
            let run = *runs.get(pick(runs.len())?)?;
            let error = || "exit code 3".to_owned();
            let outcome = match way % 16 {
                0 => RunOutcome::Failed { error: error() },
                1 => RunOutcome::Unknown { error: error() },
                2 => RunOutcome::Cancelled,
                _ => RunOutcome::Succeeded,
            };
            Some(Event::RunFinished { run, outcome })
        }
        8 | 9 => {
            let places = referee.acquiring();
            let (task, machine) = places.get(pick(places.len())?)?.clone();
            Some(match way % 8 {
                0 => Event::PackagesFailed { task, machine, error: "disk full".to_owned() },
                _ => Event::PackagesAcquired { task, machine },
            })
        }
        10 => Some(Event::TaskCancelled { task: TaskId(1 + pick(case.plans.len())? as u64) }),
        11 | 12 => {
            let runs = referee.running();
            let run = *runs.get(pick(runs.len())?)?;
            let resource = ["global:x", "global:y", "here"][way as usize % 3].to_owned();
            let mode = if way & 64 == 0 { LockMode::Exclusive } else { LockMode::Shared };
            let number = referee.next_call(run, way & 128 != 0);
            let wait_limit_ms = (way & 32 == 0).then_some(20);
            let request = windlass_scheduler::LockRequest { run, number };
            Some(Event::LockAsked { request, resource, mode, wait_limit_ms })
        }
        13 => {
            let calls = referee.calls();
            Some(Event::LockReleased { request: *calls.get(pick(calls.len())?)? })
        }
        14 => {
            *now += u64::from(way);
            Some(Event::Tick)
        }
        _ => {
            let cap = u32::from(way % 4);
            let settings =
                Settings { task_cap: cap, targets_at_once: cap, steps_at_once: 4 - cap, ..case.settings.clone() };
            Some(Event::SettingsChanged { settings })
        }
    }
}

/// What brings everything to its end.
fn closing(referee: &Referee, case: &Case, queued: &mut usize) -> Option<Event> {
    if let Some(plan) = case.plans.get(*queued).cloned() {
        *queued += 1;
        return Some(Event::TaskQueued { task: TaskId(*queued as u64), plan });
    }
    if let Some((task, machine)) = referee.acquiring().into_iter().next() {
        return Some(Event::PackagesAcquired { task, machine });
    }
    let run = *referee.running().first()?;
    Some(Event::RunFinished { run, outcome: RunOutcome::Succeeded })
}

/// Plays a case to its end; `after` may replace the state after each event.
fn play(case: &Case, mut after: impl FnMut(State) -> State) -> Vec<Vec<Decision>> {
    let mut state = State::new(case.settings.clone());
    let mut referee = Referee::new(case.settings.clone());
    let (mut queued, mut now) = (0, 1000);
    let mut told = Vec::new();
    let mut choices = case.choices.iter();
    loop {
        let event = match choices.next() {
            Some(choice) => match event(*choice, &referee, case, &mut queued, &mut now) {
                Some(event) => event,
                None => continue,
            },
            None => match closing(&referee, case, &mut queued) {
                Some(event) => event,
                None => break,
            },
        };
        referee.event(&event);
        let decisions = state.next(now, event);
        for decision in &decisions {
            referee.decision(decision);
        }
        referee.settled(&state);
        told.push(decisions);
        state = after(state);
    }
    assert_eq!(state.tasks().count(), 0, "a task did not end");
    assert!(state.locks().is_empty(), "a lock outlived its holder");
    assert_eq!(state.next_wake(), None, "a timer outlived its run");
    told
}

fn reread(state: State) -> State {
    let before = state.snapshot();
    let text = serde_json::to_string(&state).unwrap();
    let snapshot: Snapshot = serde_json::from_str(&text).unwrap();
    assert_eq!(snapshot, before, "a snapshot does not survive being written and read");
    State::restore(snapshot)
}

/// 2,000 cases, or as many as `PROPTEST_CASES` says.
fn config() -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok());
    ProptestConfig { cases: cases.unwrap_or(2000), max_shrink_iters: 20_000, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    /// The referee sees no rule broken, and a scheduler that is stored and restored after every single
    /// event decides the same, byte for byte.
    #[test]
    fn no_rule_is_broken_and_restarts_change_nothing(case in a_case()) {
        let steady = play(&case, |state| state);
        let restarted = play(&case, reread);
        prop_assert_eq!(steady, restarted);
    }
}
