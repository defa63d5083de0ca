//! Waits with a limit: a suspended run is resumed when its time is over, also by a server that was started meanwhile.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use windlass_model::{StepName, TaskId};
use windlass_scheduler::{Decision, Event, RunKey, RunOutcome, Settings, State, TaskPlan, WaitOn};

fn run(task: u64) -> RunKey {
    RunKey { task: TaskId(task), step: 0, place: 0 }
}

/// Two scripts that run.
fn two() -> State {
    let mut state = State::new(Settings::for_cores(2));
    for task in [1, 2] {
        let plan = TaskPlan::script(format!("script {task}"), StepName::new("script").unwrap());
        state.next(0, Event::TaskQueued { task: TaskId(task), plan });
    }
    state
}

fn resumed(decisions: &[Decision]) -> bool {
    let own = |decision: &Decision| matches!(decision, Decision::ResumeRun { run: of, answer: None, error: None } if *of == run(1));
    decisions.iter().any(own)
}

#[test]
fn whatever_a_run_waits_for_it_is_resumed_at_its_limit() {
    let waits = [WaitOn::Tasks(vec![TaskId(2)]), WaitOn::Other("waits for the moon".to_owned()), WaitOn::Until(5_000)];
    for on in waits {
        for restarted in [false, true] {
            let mut state = two();
            state.next(10, Event::RunWaits { run: run(1), on: on.clone().until(1_000) });
            if restarted {
                state = State::restore(state.snapshot()).unwrap();
            }
            assert_eq!(state.next_wake(), Some(1_000), "{on:?}");
            assert!(!resumed(&state.next(999, Event::Tick)), "{on:?}");
            assert!(resumed(&state.next(1_000, Event::Tick)), "{on:?}");
            assert!(!resumed(&state.next(5_000, Event::Tick)), "{on:?}: it is resumed once");
        }
    }
}

#[test]
fn what_comes_before_the_limit_resumes_it_and_a_limit_that_has_passed_does_at_once() {
    let mut state = two();
    state.next(10, Event::RunWaits { run: run(1), on: WaitOn::Tasks(vec![TaskId(2)]).until(1_000) });
    let ended = Event::RunFinished { run: run(2), outcome: RunOutcome::Succeeded };
    assert!(resumed(&state.next(20, ended)));
    assert!(!resumed(&state.next(1_000, Event::Tick)));

    let mut state = two();
    let wait = Event::RunWaits { run: run(1), on: WaitOn::Other("waits".to_owned()).until(10) };
    assert!(resumed(&state.next(10, wait)));
}
