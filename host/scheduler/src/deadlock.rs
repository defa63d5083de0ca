//! Waits that can never end: the wait-for graph, finding a circle in it, and breaking it.
//!
//! A task ends once its runs end; a run ends unless it waits for locks, for calls or for tasks; a lock is free once
//! those who hold it end. Whoever works, and whoever waits for a person, a moment, a window or a seat, goes on by
//! itself: only tasks that work have a seat, so no circle leads through the cap. A circle can only be closed by a
//! new wait, or by a lock that passes from a run to its task, and only when somebody waits for what the waiter
//! itself holds. So the graph is walked then and there, and nearly always not at all.
//!
//! A circle through the order of a queue alone is undone by changing that order. Any other is broken by its
//! youngest wait, which fails with the whole circle in words, unless its project has a person decide.

use windlass_model::{TaskId, TaskState};

use crate::{
    cause::Part,
    decision::Decision,
    event::{LockRequest, RunKey, Subject, WaitOn},
    hash::Map,
    locks::ClaimKey,
    plan::OnDeadlock,
    progress::Phase,
    question::About,
    resource::Resource,
    state::{State, Task},
    turn::Turn,
    words,
};

/// Something that ends, or never does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Node {
    Task(TaskId),
    Step(TaskId, u32),
    Run(RunKey),
    Call(LockRequest),
}

/// Why one thing waits for another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Why {
    /// It is held by it, or it is ahead in the queue.
    Lock { resource: Resource, behind: bool },
    /// Its tag.
    Tag,
    /// Its end.
    End,
    /// It consists of it.
    Part,
}

/// What must end: this one, or as many of these holders as leave room for a claim.
#[derive(Debug)]
struct Group {
    members: Vec<Node>,
    room_for: Option<ClaimKey>,
    why: Why,
}

impl Group {
    fn one(node: Node, why: Why) -> Self {
        Self { members: vec![node], room_for: None, why }
    }
}

struct Graph<'a> {
    state: &'a State,
    nodes: Vec<Node>,
    /// What each waits for.
    groups: Vec<Vec<Group>>,
    index: Map<Node, usize>,
    live: Vec<bool>,
}

/// One wait of a circle.
#[derive(Debug, Clone)]
pub(crate) struct Edge {
    pub from: Node,
    pub why: Why,
    pub to: Node,
}

impl<'a> Graph<'a> {
    /// Everything that `start` waits for, however indirectly. Waits about which a person is asked already are taken
    /// to end, if they are to be `spared`.
    fn from(state: &'a State, start: Node, spared: bool) -> Self {
        let mut graph = Self { state, nodes: vec![start], groups: Vec::new(), index: Map::default(), live: Vec::new() };
        graph.index.insert(start, 0);
        while let Some(node) = graph.nodes.get(graph.groups.len()).copied() {
            let groups = if spared && is_asked(state, node) { Vec::new() } else { waits(state, node) };
            for member in groups.iter().flat_map(|group| &group.members) {
                let next = graph.nodes.len();
                if *graph.index.entry(*member).or_insert(next) == next {
                    graph.nodes.push(*member);
                }
            }
            graph.groups.push(groups);
        }
        graph.live = vec![false; graph.nodes.len()];
        graph.reduce();
        graph
    }

    /// Marks all that will end.
    fn reduce(&mut self) {
        let mut changed = true;
        // Each round marks one more node or is the last.
        while changed {
            changed = false;
            for at in (0..self.nodes.len()).rev() {
                let ends = self.groups.get(at).is_some_and(|groups| groups.iter().all(|group| self.is_met(group)));
                if let Some(live) = self.live.get_mut(at).filter(|live| !**live && ends) {
                    *live = true;
                    changed = true;
                }
            }
        }
    }

    fn is_live(&self, node: Node) -> bool {
        self.index.get(&node).and_then(|at| self.live.get(*at)).copied().unwrap_or(true)
    }

    fn is_met(&self, group: &Group) -> bool {
        match (&group.why, group.room_for) {
            (Why::Lock { resource, .. }, Some(claim)) => self
                .state
                .locks
                .has_room_without(resource, claim, |holder| owner(holder).is_none_or(|node| self.is_live(node))),
            _ => group.members.iter().all(|node| self.is_live(*node)),
        }
    }

    /// A circle of waits that never end, reached from the first node.
    fn circle(&self) -> Vec<Edge> {
        let mut path: Vec<Edge> = Vec::new();
        let mut seen: Map<Node, usize> = Map::default();
        let mut node = match self.nodes.first() {
            Some(first) => *first,
            None => return path,
        };
        while !seen.contains_key(&node) {
            seen.insert(node, path.len());
            let groups = self.index.get(&node).and_then(|at| self.groups.get(*at)).into_iter().flatten();
            let mut stuck = groups.filter(|group| !self.is_met(group));
            let edge = stuck.find_map(|group| {
                let dead = group.members.iter().find(|member| !self.is_live(**member))?;
                Some(Edge { from: node, why: group.why.clone(), to: *dead })
            });
            let Some(edge) = edge else {
                return Vec::new();
            };
            node = edge.to;
            path.push(edge);
        }
        let start = seen.get(&node).copied().unwrap_or(0);
        path.split_off(start)
    }
}

/// What something waits for. Nothing: it ends by itself.
fn waits(state: &State, node: Node) -> Vec<Group> {
    match node {
        Node::Task(id) => state.tasks.get(&id).map(|task| task_waits(state, id, task, None)).unwrap_or_default(),
        Node::Step(id, step) => {
            state.tasks.get(&id).map(|task| task_waits(state, id, task, Some(step))).unwrap_or_default()
        }
        Node::Run(run) => run_waits(state, run),
        Node::Call(request) => claim_waits(state, ClaimKey::call(request)),
    }
}

fn task_waits(state: &State, id: TaskId, task: &Task, only: Option<u32>) -> Vec<Group> {
    // A cancel is bounded.
    if task.progress.state == TaskState::Cancelling {
        return Vec::new();
    }
    let tag = state.queue.tag_blocker(id).map(|other| Group::one(Node::Task(other), Why::Tag));
    let runs = task.open.iter().filter(|(step, _)| only.is_none_or(|only| only == *step));
    let runs =
        runs.map(|(step, place)| Group::one(Node::Run(RunKey { task: id, step: *step, place: *place }), Why::Part));
    tag.into_iter().chain(runs).collect()
}

fn run_waits(state: &State, key: RunKey) -> Vec<Group> {
    let Some(run) = state.run(key) else {
        return Vec::new();
    };
    if matches!(run.phase, Phase::Locks(_)) {
        return claim_waits(state, ClaimKey::run(key));
    }
    if run.phase != Phase::Running || run.stop.is_some() {
        return Vec::new();
    }
    let mut groups = Vec::new();
    if let Some(waits) = run.waits.as_ref().filter(|waits| waits.ready.is_none())
        && let WaitOn::Tasks(tasks) = &waits.on
    {
        groups.extend(tasks.iter().map(|task| Group::one(Node::Task(*task), Why::End)));
    }
    let calls = run.calls.iter().filter(|(_, call)| call.waits());
    groups
        .extend(calls.map(|(number, _)| Group::one(Node::Call(LockRequest { run: key, number: *number }), Why::Part)));
    groups
}

fn claim_waits(state: &State, key: ClaimKey) -> Vec<Group> {
    let mut groups = Vec::new();
    for obstacle in state.locks.obstacles(key) {
        let why = |behind| Why::Lock { resource: obstacle.resource.clone(), behind };
        let holders = obstacle.each.iter().filter_map(|holder| owner(*holder));
        groups.extend(holders.map(|node| Group::one(node, why(false))));
        if !obstacle.units.is_empty() {
            let members = obstacle.units.iter().filter_map(|holder| owner(*holder)).collect();
            groups.push(Group { members, room_for: Some(key), why: why(false) });
        }
        let ahead = obstacle.behind.iter().map(|ahead| match ahead.part {
            Part::Call(number) => Node::Call(LockRequest { run: ahead.run, number }),
            _ => Node::Run(ahead.run),
        });
        groups.extend(ahead.map(|node| Group::one(node, why(true))));
    }
    groups
}

/// Whose end gives back what a claim holds. None: no end does.
fn owner(holder: ClaimKey) -> Option<Node> {
    match holder.part {
        Part::Run | Part::Call(_) => Some(Node::Run(holder.run)),
        Part::Step => Some(Node::Step(holder.run.task, holder.run.step)),
        Part::Task => Some(Node::Task(holder.run.task)),
        Part::Fence(_) => None,
    }
}

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

/// Whether a person is asked about this wait as part of a deadlock.
fn is_asked(state: &State, node: Node) -> bool {
    let subject = match node {
        Node::Call(request) => Subject::Lock(request),
        Node::Run(run) => Subject::Run(run),
        Node::Task(task) => Subject::Task(task),
        Node::Step(..) => return false,
    };
    let questions = state.tasks.get(&subject.task()).map(|task| &task.progress.questions);
    questions.into_iter().flatten().any(|(_, question)| question.about == About::Deadlock(subject))
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
