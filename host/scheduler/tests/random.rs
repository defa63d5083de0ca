//! Random plans under random events, watched by a referee that knows the plans and sees only decisions.
//!
//! A seed gives a case; the case holds every choice, and the events are made from the choices as the play goes. So a
//! failing case shrinks to few tasks and few choices, and is printed as a line of JSON that replays:
//! `WINDLASS_CASE='…' cargo test -p windlass-scheduler --test random`. `WINDLASS_LONG=1` plays 100,000 seeds.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod case;
mod common;
mod referee;

use std::panic::{AssertUnwindSafe, catch_unwind};

use case::{Case, Play};
use windlass_scheduler::{Decision, Snapshot, State, StepPlan};

/// Plays a case to its end; `after` may replace the state after each event.
fn play(case: &Case, mut after: impl FnMut(u64, State) -> State) -> Vec<Vec<Decision>> {
    let mut play = Play::new(case);
    let mut told = Vec::new();
    while let Some(event) = play.next_event() {
        play.referee.event(play.now, &event);
        let decisions = play.state.next(play.now, event.clone());
        for decision in &decisions {
            play.referee.decision(decision);
        }
        play.referee.settled(&play.state, &event);
        play.referee.check_open(&play.state);
        told.push(decisions);
        let count = told.len() as u64;
        play.state = after(count, std::mem::replace(&mut play.state, State::new(case.settings.clone())));
    }
    assert_eq!(play.state.tasks().count(), 0, "a task did not end");
    let fenced: usize = play.state.fences().count();
    let held: usize = play.state.locks().iter().map(|lock| lock.holders.len() + lock.queue.len()).sum();
    assert_eq!(held, fenced, "a lock outlived its holder: {:?}", play.state.locks());
    assert_eq!(play.state.next_wake(), None, "a timer outlived its run");
    told
}

fn reread(state: State) -> State {
    let before = state.snapshot();
    let text = serde_json::to_string(&before).unwrap();
    let snapshot: Snapshot = serde_json::from_str(&text).unwrap();
    assert_eq!(snapshot, before, "a snapshot does not survive being written and read");
    let restored = State::restore(snapshot).unwrap();
    assert_eq!(restored.snapshot(), before, "a restored state is another one");
    assert_eq!(restored.locks(), state.locks(), "restored locks are other ones");
    assert_eq!(restored.next_wake(), state.next_wake(), "restored timers are other ones");
    assert_eq!(restored.waiting(), state.waiting(), "restored reasons are other ones");
    restored
}

/// No rule is broken, equal cases give equal traces, and a state that is stored and read back at any point goes on
/// in the same way, byte for byte.
fn check(case: &Case) {
    let steady = play(case, |_, state| state);
    let every = 1 + case.salt % 7;
    let restarted = play(case, |count, state| if count % every == 0 { reread(state) } else { state });
    assert_eq!(steady.len(), restarted.len());
    for (at, (one, other)) in steady.iter().zip(&restarted).enumerate() {
        assert_eq!(one, other, "after a restart event {at} has other consequences");
    }
}

thread_local! {
    /// Set while a play is expected to fail: what it says is of no interest until it is the smallest.
    static QUIET: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// Lets panics of this thread pass in silence when they are expected.
fn hush() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let loud = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if !QUIET.get() {
                loud(panic);
            }
        }));
    });
    QUIET.set(true);
}

fn fails(case: &Case) -> Option<String> {
    let caught = catch_unwind(AssertUnwindSafe(|| check(case)));
    caught.err().map(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
    })
}

/// Leaves out choices, tasks and steps as long as it still fails.
fn shrink(mut case: Case) -> Case {
    let mut size = case.choices.len().max(1);
    while size > 0 {
        let mut at = 0;
        while at < case.choices.len() {
            let mut smaller = case.clone();
            smaller.choices.drain(at..(at + size).min(case.choices.len()));
            if fails(&smaller).is_some() { case = smaller } else { at += size }
        }
        size /= 2;
    }
    for task in (0..case.plans.len()).rev() {
        let mut smaller = case.clone();
        smaller.plans.remove(task);
        if fails(&smaller).is_some() {
            case = smaller;
            continue;
        }
        for step in (0..case.plans[task].steps.len()).rev() {
            let mut smaller = case.clone();
            smaller.plans[task].steps.remove(step);
            mend(&mut smaller.plans[task].steps);
            if fails(&smaller).is_some() {
                case = smaller;
            }
        }
    }
    case
}

/// A child step has the places of the step above; without one it is no child.
fn mend(steps: &mut [StepPlan]) {
    for at in 0..steps.len() {
        match at.checked_sub(1).and_then(|above| steps.get(above)).map(|above| above.place.clone()) {
            Some(place) if steps[at].child => steps[at].place = place,
            Some(_) => {}
            None => steps[at].child = false,
        }
    }
}

fn try_case(name: &str, case: &Case) {
    hush();
    let small = fails(case).map(|_| shrink(case.clone()));
    let why = small.as_ref().and_then(fails).unwrap_or_default();
    let trace = small.as_ref().map(|small| Play::new(small).trace()).unwrap_or_default();
    QUIET.set(false);
    let Some(small) = small else {
        return;
    };
    println!("{trace}");
    let line = serde_json::to_string(&small).unwrap();
    panic!("{name} fails: {why}\nreplay: WINDLASS_CASE='{line}' cargo test -p windlass-scheduler --test random");
}

#[test]
fn no_rule_is_broken_and_restarts_change_nothing() {
    if let Ok(line) = std::env::var("WINDLASS_CASE") {
        let case: Case = serde_json::from_str(&line).unwrap();
        println!("{}", Play::new(&case).trace());
        return check(&case);
    }
    let count = match std::env::var("WINDLASS_SEEDS").ok().and_then(|seeds| seeds.parse().ok()) {
        Some(count) => count,
        None if std::env::var_os("WINDLASS_LONG").is_some() => 100_000,
        None => 2000,
    };
    let first = std::env::var("WINDLASS_FIRST").ok().and_then(|first| first.parse().ok()).unwrap_or(0);
    for seed in first..first + count {
        try_case(&format!("seed {seed}"), &Case::of_seed(seed));
    }
}

/// A referee that finds nothing is of no use: choices of every kind do happen in the ordinary seeds.
#[test]
fn the_seeds_reach_every_kind_of_decision() {
    let mut seen = std::collections::BTreeMap::new();
    let mut why = std::collections::BTreeMap::new();
    for seed in 0..600 {
        for decision in play(&Case::of_seed(seed), |_, state| state).into_iter().flatten() {
            if let Decision::Waiting { cause, .. } = &decision {
                let kind = serde_json::to_value(cause).unwrap()["kind"].as_str().unwrap().to_owned();
                *why.entry(kind).or_insert(0) += 1;
            }
            let kind = serde_json::to_value(&decision).unwrap()["decision"].as_str().unwrap().to_owned();
            *seen.entry(kind).or_insert(0) += 1;
        }
    }
    assert_eq!(seen.len(), 21, "{seen:?}");
    assert_eq!(why.len(), 20, "{why:?}");
}
