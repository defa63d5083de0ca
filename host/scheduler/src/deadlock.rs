//! Waits that can never end: the wait-for graph, finding a circle in it, and breaking it.
//!
//! A task ends once its runs end; a step once all its machines have been through it, for which some may need the
//! places that others take in a window; a run ends unless it waits for locks, for calls or for tasks; a lock is free
//! once those who hold it end. Whoever works, and whoever waits for a person, a moment or a seat, goes on by itself:
//! only tasks that work have a seat, so no circle leads through the cap. A circle can only be closed by a new wait,
//! by a lock that passes from a run to its step or task, or by narrower windows, and only when somebody waits for
//! what the waiter itself holds. So the graph is walked then and there, and nearly always not at all.
//!
//! A circle through the order of a queue alone is undone by changing that order. Any other is broken by its
//! youngest wait, which fails with the whole circle in words, unless its project has a person decide.

mod graph;

use windlass_model::TaskState;

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
        let circle = graph.circle();
        let polite = circle.iter().find_map(|edge| match &edge.why {
            Why::Lock { resource, behind: true } => Some((claim_of(edge.from)?, resource.clone(), claim_of(edge.to)?)),
            _ => None,
        });
        if let Some((from, resource, to)) = polite {
            let granted = self.state.locks.overtake(from, &resource, to);
            self.granted(granted);
            return self.suspect(node);
        }
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
            self.drop_dissolved();
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

    /// Takes back what people are asked about deadlocks that are none any more.
    pub fn drop_dissolved(&mut self) {
        for id in self.state.task_ids() {
            let questions = self.state.tasks.get(&id).map(|task| &task.progress.questions);
            let asked = questions.into_iter().flatten().filter_map(|(_, question)| match question.about {
                About::Deadlock(subject) => Some(subject),
                _ => None,
            });
            let dissolved: Vec<_> = asked.filter(|subject| !self.is_stuck(*subject)).collect();
            for subject in dissolved {
                self.wait_over(subject);
            }
        }
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

fn claim_of(node: Node) -> Option<ClaimKey> {
    match node {
        Node::Run(run) => Some(ClaimKey::run(run)),
        Node::Call(request) => Some(ClaimKey::call(request)),
        _ => None,
    }
}
