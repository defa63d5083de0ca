//! Waits that can never end: the wait-for graph, finding a circle in it, and breaking it.
//!
//! A task ends once its runs end; a step once all its machines have been through it, for which some may need the
//! places that others take in a window; a run ends unless it waits for locks, for calls or for tasks; a lock is free
//! once those who hold it end. Whoever works, and whoever waits for a person, a moment or a seat, goes on by itself:
//! only tasks that work have a seat, so no circle leads through the cap. A circle can only be closed by a new wait,
//! by a lock that passes from a run to its step or task, or by narrower windows, and only when somebody waits for
//! what the waiter itself holds. So the graph is walked then and there, and nearly always not at all.
//!
//! Whoever in a circle is only behind others of it in queues is put before them: they wait for it anyway, and it ends.
//! A circle without such a one is broken by its youngest wait, which fails with the whole circle in words, unless its
//! project has a person decide.

mod graph;

use windlass_model::{TaskId, TaskState};

use crate::{
    decision::Decision,
    event::{LockRequest, RunKey, Subject},
    locks::ClaimKey,
    plan::OnDeadlock,
    question::About,
    state::State,
    turn::Turn,
    words,
};
use graph::Graph;
pub(crate) use graph::{Edge, Node, Why};

impl Turn<'_> {
    /// Breaks the circle that a new wait has closed, if it has.
    pub fn break_deadlock(&mut self, node: Node) {
        if !self.is_awaited(node) {
            return;
        }
        let graph = Graph::from(self.state, node, true);
        if graph.is_live(node) {
            return;
        }
        let knot = graph.knot(node);
        if let Some((claim, ahead)) = graph.polite(&knot) {
            let granted = self.state.locks.overtake(claim, &ahead);
            self.granted(granted);
            return self.suspect(node);
        }
        let circle = knot.first().map(|first| graph.circle(*first)).unwrap_or_default();
        let subjects = circle.iter().filter_map(|edge| wait_of(self.state, edge));
        let Some((_, victim)) = subjects.max() else {
            return;
        };
        let text = words::circle(self.state, &circle);
        let policy = self.state.tasks.get(&victim.task()).map(|task| task.plan.on_deadlock);
        self.say(Decision::Deadlock { victim, text: text.clone() });
        if policy == Some(OnDeadlock::Ask) {
            self.ask_deadlock(victim, text);
        } else {
            self.fail_wait(victim, text);
        }
        // Other circles may lead through the same wait.
        self.suspect(node);
    }

    /// Looks at every wait again: while a person was asked about one circle, others could hide behind it.
    pub fn suspect_all(&mut self) {
        for id in self.state.task_ids() {
            for subject in self.state.subjects(id) {
                self.suspect(node_of(subject));
            }
        }
    }

    /// Takes back one question about a deadlock that is none any more. Returns whether there was one.
    pub fn drop_dissolved(&mut self) -> bool {
        let about = |(id, number): &(TaskId, u64)| {
            let question = self.state.tasks.get(id)?.progress.questions.get(number)?;
            match question.about {
                About::Deadlock(subject) => Some(subject),
                _ => None,
            }
        };
        let found = self.state.asked_deadlocks.iter().filter_map(about).find(|subject| !self.is_stuck(*subject));
        if let Some(subject) = found {
            self.wait_over(subject);
        }
        found.is_some()
    }

    /// Whether a wait can never end.
    pub fn is_stuck(&self, subject: Subject) -> bool {
        let node = node_of(subject);
        !Graph::from(self.state, node, false).is_live(node)
    }

    /// Whether somebody may wait for the end of this, so that a circle can lead through it.
    fn is_awaited(&self, node: Node) -> bool {
        let (id, run) = match node {
            Node::Task(id) | Node::Step(id, _) => (id, None),
            Node::Run(run) | Node::Call(LockRequest { run, .. }) => (run.task, Some(run)),
        };
        let Some(task) = self.state.tasks.get(&id) else {
            return false;
        };
        let held = |run: RunKey| {
            let calls = task.run(run).into_iter().flat_map(|run| run.calls.keys());
            let mut calls = calls.map(|number| ClaimKey::call(LockRequest { run, number: *number }));
            self.state.locks.is_awaited(ClaimKey::run(run)) || calls.any(|key| self.state.locks.is_awaited(key))
        };
        let group = |hold: &crate::progress::GroupHold| {
            let run = RunKey { task: id, step: hold.step.unwrap_or(0), place: 0 };
            self.state.locks.is_awaited(ClaimKey::group(run, hold.step.is_some()))
        };
        self.state.awaiters.contains_key(&id)
            || self.state.queue.is_keen(id)
            || task.progress.holds.iter().any(group)
            || run.is_some_and(held)
    }
}

/// The wait behind an edge, with its age: the higher, the younger. None: it cannot be made to fail.
fn wait_of(state: &State, edge: &Edge) -> Option<(u64, Subject)> {
    match edge.from {
        Node::Call(request) => {
            let call = state.run(request.run)?.calls.get(&request.number)?;
            Some((call.ticket, Subject::Lock(request)))
        }
        Node::Run(key) => {
            let run = state.run(key)?;
            match (&edge.why, &run.waits) {
                (Why::Lock { .. }, _) => Some((run.ticket, Subject::Run(key))),
                (Why::End, Some(waits)) => Some((waits.ticket, Subject::Run(key))),
                _ => None,
            }
        }
        Node::Task(id) => {
            let progress = &state.tasks.get(&id)?.progress;
            let queued = progress.state == TaskState::Queued && edge.why == Why::Tag;
            queued.then_some((progress.ticket, Subject::Task(id)))
        }
        Node::Step(..) => None,
    }
}

fn node_of(subject: Subject) -> Node {
    match subject {
        Subject::Lock(request) => Node::Call(request),
        Subject::Run(run) => Node::Run(run),
        Subject::Task(task) | Subject::Step(task, _) => Node::Task(task),
    }
}
