//! The fold, however its events arrive: in other pieces, after a lost link, or told as history.

use std::collections::BTreeMap;

use proptest::{prelude::*, sample::Index};

use super::*;
use crate::scene::{START, Scene};

/// Nodes of the task that the streams are about.
const STEPS: [&str; 2] = ["web", "smoke"];
const RUNS: [&str; 3] = ["web/web1", "web/web2", "smoke/server"];
const RUN_STATES: [RunState; 6] = [
    RunState::Waiting,
    RunState::Running,
    RunState::Succeeded,
    RunState::Failed,
    RunState::Cancelled,
    RunState::Unknown,
];

fn task() -> TaskDetail {
    let (_, scene) = Scene::all().into_iter().find(|(name, _)| name == "failing-step").unwrap();
    scene.task
}

/// One change, as yet without the numbers of its lines.
#[derive(Debug, Clone)]
enum Deed {
    Line(Index),
    Run(Index, Index, bool),
    Progress(Index, u64),
    Step(Index, Index),
    Task(bool),
}

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        4 => any::<Index>().prop_map(Deed::Line),
        3 => any::<(Index, Index, bool)>().prop_map(|(run, state, reason)| Deed::Run(run, state, reason)),
        1 => (any::<Index>(), 0..9_u64).prop_map(|(run, done)| Deed::Progress(run, done)),
        1 => any::<(Index, Index)>().prop_map(|(step, state)| Deed::Step(step, state)),
        1 => any::<bool>().prop_map(Deed::Task),
    ]
}

fn stream() -> impl Strategy<Value = Vec<Event>> {
    prop::collection::vec(deed(), 0..60).prop_map(|deeds| {
        let mut lines = BTreeMap::new();
        let event = |(number, deed)| {
            let at_ms = START + number as u64;
            Event { task: TaskId(13), at_ms, change: change(deed, at_ms, &mut lines) }
        };
        deeds.iter().enumerate().map(event).collect()
    })
}

fn change(deed: &Deed, at_ms: u64, lines: &mut BTreeMap<String, u64>) -> TaskChange {
    let why = || Reason::new("lock", format!("waits since {at_ms}"), at_ms);
    match deed {
        Deed::Line(node) => {
            let node = ["", RUNS[0], RUNS[1], RUNS[2]][node.index(4)].to_owned();
            let n = lines.entry(node.clone()).or_default();
            let level = windlass_model::task::LogLevel::Info;
            let line = LogLine { n: *n, at_ms, level, text: format!("{node} {n}") };
            *n += 1;
            TaskChange::Log { node, lines: vec![line] }
        }
        Deed::Run(run, state, waits) => {
            let (node, state) = (RUNS[run.index(3)].to_owned(), RUN_STATES[state.index(RUN_STATES.len())]);
            let error = (state == RunState::Failed).then(|| format!("{node} broke at {at_ms}"));
            let reason = (*waits && !state.is_final()).then(why);
            TaskChange::Run { node, state, reason, error, progress: None }
        }
        Deed::Progress(run, done) => {
            let progress = Some(Progress { done: *done, total: 8, note: String::new() });
            let node = RUNS[run.index(3)].to_owned();
            TaskChange::Run { node, state: RunState::Running, reason: None, error: None, progress }
        }
        Deed::Step(step, state) => {
            let state = RUN_STATES[state.index(RUN_STATES.len())];
            let reason = (state == RunState::Waiting).then(why);
            TaskChange::Step { node: STEPS[step.index(2)].to_owned(), state, reason }
        }
        Deed::Task(waits) => {
            let state = if *waits { TaskState::Queued } else { TaskState::Executing };
            TaskChange::Task { state, reason: waits.then(why), error: None }
        }
    }
}

fn apply_all(view: &mut View, events: &[Event]) -> Vec<News> {
    events.iter().flat_map(|event| view.apply(event)).collect()
}

/// Brings a view to what the server says now, as a follower does when it reads the state with the logs of these events.
fn catch_up(view: &mut View, now: &TaskDetail, events: &[Event]) -> Vec<News> {
    view.grow(now);
    let past = view.events_to(now, logs(events));
    let told = apply_all(view, &past);
    view.settle(now.clone());
    told
}

/// What was told of logs: every line with its node.
fn lines_told(news: &[News]) -> BTreeMap<String, Vec<u64>> {
    let mut told: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for news in news {
        if let What::Line(line) = &news.what {
            told.entry(news.node.clone()).or_default().push(line.n);
        }
    }
    told
}

/// The lines of these events, by node, as reading the logs gives them.
fn logs(events: &[Event]) -> Vec<(String, Vec<LogLine>)> {
    let mut logs: BTreeMap<String, Vec<LogLine>> = BTreeMap::new();
    for event in events {
        if let TaskChange::Log { node, lines } = &event.change {
            logs.entry(node.clone()).or_default().extend(lines.iter().cloned());
        }
    }
    logs.into_iter().collect()
}

/// The same stream with neighbouring lines of a node put together where `joined` says so.
fn regrouped(events: &[Event], joined: &[bool]) -> Vec<Event> {
    let mut out: Vec<Event> = Vec::new();
    for (event, joined) in events.iter().zip(joined.iter().cycle()) {
        if let TaskChange::Log { node, lines } = &event.change
            && *joined
            && let Some(TaskChange::Log { node: last, lines: before }) = out.last_mut().map(|event| &mut event.change)
            && last == node
        {
            before.extend(lines.iter().cloned());
            continue;
        }
        out.push(event.clone());
    }
    out
}

proptest! {
    #[test]
    fn lines_may_come_in_any_pieces(events in stream(), joined in prop::collection::vec(any::<bool>(), 1..8)) {
        let (mut one, mut other) = (View::blank(&task()), View::blank(&task()));
        let told = apply_all(&mut one, &events);
        prop_assert_eq!(told, apply_all(&mut other, &regrouped(&events, &joined)));
        prop_assert_eq!(one, other);
    }

    #[test]
    fn whoever_comes_late_sees_the_same(events in stream(), cut in any::<Index>()) {
        let cut = cut.index(events.len() + 1);
        let (past, rest) = events.split_at(cut);
        let mut there = View::blank(&task());
        let mut told_there = apply_all(&mut there, past);
        let mut late = View::blank(there.task());
        let mut told_late = catch_up(&mut late, there.task(), past);
        prop_assert_eq!(&late, &there);
        told_there.extend(apply_all(&mut there, rest));
        told_late.extend(apply_all(&mut late, rest));
        prop_assert_eq!(lines_told(&told_late), lines_told(&told_there));
        prop_assert_eq!(late, there);
    }

    #[test]
    fn after_a_lost_link_nothing_is_told_twice(events in stream(), cuts in any::<[Index; 3]>()) {
        // Seen up to `lost`; read again at `back`, with the logs from `from` on; then events follow from there.
        let mut cuts = cuts.map(|cut| cut.index(events.len() + 1));
        cuts.sort_unstable();
        let [from, lost, back] = cuts;
        let mut truth = View::blank(&task());
        let told_truth = apply_all(&mut truth, &events);
        let mut now = View::blank(&task());
        apply_all(&mut now, &events[..back]);

        let mut view = View::blank(&task());
        let mut told = apply_all(&mut view, &events[..lost]);
        told.extend(catch_up(&mut view, now.task(), &events[from..back]));
        told.extend(apply_all(&mut view, &events[back..]));
        prop_assert_eq!(lines_told(&told), lines_told(&told_truth));
        prop_assert_eq!(view, truth);
    }

    #[test]
    fn reading_the_same_again_tells_nothing(events in stream()) {
        let mut view = View::blank(&task());
        apply_all(&mut view, &events);
        let before = view.clone();
        prop_assert_eq!(catch_up(&mut view, before.task(), &events), Vec::<News>::new());
        prop_assert_eq!(view, before);
    }

    #[test]
    fn a_screen_is_never_taller_than_its_room(events in stream(), room in 2..30_usize) {
        let mut view = View::blank(&task());
        for event in &events {
            view.apply(event);
            prop_assert!(view.rows(event.at_ms, room).len() <= room);
        }
    }
}

#[test]
fn scenes_told_as_history_end_alike() {
    for (name, scene) in Scene::all() {
        let events = scene.events();
        let mut live = View::blank(&scene.task);
        let told = apply_all(&mut live, &events);
        let mut late = View::blank(live.task());
        let told_late = catch_up(&mut late, live.task(), &events);
        assert_eq!(late, live, "{name}");
        assert_eq!(lines_told(&told_late), lines_told(&told), "{name}");
        let end = |news: &[News]| news.last().cloned().map(|news| news.what);
        assert_eq!(end(&told_late), end(&told), "{name}: the end is told last, in the same words");
    }
}
