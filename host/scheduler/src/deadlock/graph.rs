//! The wait-for graph: what ends by itself, and what never will.

use std::collections::BTreeSet;

use windlass_model::{TaskId, TaskState};

use crate::{
    cause::Part,
    event::{LockRequest, RunKey, Subject, WaitOn},
    hash::Map,
    locks::ClaimKey,
    progress::Phase,
    question::About,
    resource::Resource,
    state::{State, Task},
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
    /// The place that it takes in a window.
    Place,
    /// It consists of it.
    Part,
}

/// Some of these must end.
#[derive(Debug)]
struct Group {
    members: Vec<Node>,
    enough: Enough,
    why: Why,
}

/// How many of a group must end.
#[derive(Debug)]
enum Enough {
    /// So many.
    Count(usize),
    /// As many as leave room for a claim.
    Room(ClaimKey),
}

impl Group {
    fn one(node: Node, why: Why) -> Self {
        Self { members: vec![node], enough: Enough::Count(1), why }
    }
}

pub(super) struct Graph<'a> {
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
    pub(super) fn from(state: &'a State, start: Node, spared: bool) -> Self {
        let mut graph = Self { state, nodes: vec![start], groups: Vec::new(), index: Map::default(), live: Vec::new() };
        graph.index.insert(start, 0);
        while let Some(node) = graph.nodes.get(graph.groups.len()).copied() {
            let groups = if spared && is_asked(state, node) { Vec::new() } else { waits(state, node, spared) };
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

    pub(super) fn is_live(&self, node: Node) -> bool {
        self.index.get(&node).and_then(|at| self.live.get(*at)).copied().unwrap_or(true)
    }

    fn is_met(&self, group: &Group) -> bool {
        match (&group.why, &group.enough) {
            (Why::Lock { resource, .. }, Enough::Room(claim)) => {
                self.state
                    .locks
                    .has_room_without(resource, *claim, |holder| owner(holder).is_none_or(|node| self.is_live(node)))
            }
            (_, Enough::Room(_)) => true,
            (_, Enough::Count(count)) => group.members.iter().filter(|node| self.is_live(**node)).count() >= *count,
        }
    }

    /// What keeps a node from ending: groups of which too few will end, with those that never will.
    fn stuck(&self, at: usize) -> impl Iterator<Item = (&Group, Node)> {
        let groups = self.groups.get(at).into_iter().flatten().filter(|group| !self.is_met(group));
        groups
            .flat_map(|group| group.members.iter().filter(|node| !self.is_live(**node)).map(move |node| (group, *node)))
    }

    /// Nodes that wait for each other and for nothing else that never ends: what `start` waits for in the end.
    pub(super) fn knot(&self, start: Node) -> Vec<Node> {
        let Some(mut at) = self.index.get(&start).copied() else {
            return Vec::new();
        };
        loop {
            let reached = self.reach(at);
            let mut back = BTreeSet::from([at]);
            let mut grows = true;
            // Each round finds one more that waits for `at`, or is the last.
            while grows {
                grows = false;
                for other in &reached {
                    let waits = |(_, node): (&Group, Node)| self.index.get(&node).is_some_and(|at| back.contains(at));
                    grows |= !back.contains(other) && self.stuck(*other).any(waits) && back.insert(*other);
                }
            }
            // Whoever does not wait for it is waited for by all of these: the knot is further on, and smaller.
            match reached.iter().find(|other| !back.contains(*other)) {
                Some(further) => at = *further,
                None => return reached.iter().filter_map(|at| self.nodes.get(*at)).copied().collect(),
            }
        }
    }

    fn reach(&self, start: usize) -> BTreeSet<usize> {
        let mut reached = BTreeSet::from([start]);
        let mut open = vec![start];
        while let Some(at) = open.pop() {
            let next = self.stuck(at).filter_map(|(_, node)| self.index.get(&node).copied());
            open.extend(next.filter(|next| reached.insert(*next)));
        }
        reached
    }

    /// A claim of the knot that is only behind others of it: it can go on before them, since they wait for it anyway.
    /// With each resource, and whom it is behind there.
    pub(super) fn polite(&self, knot: &[Node]) -> Option<(ClaimKey, Vec<(Resource, ClaimKey)>)> {
        knot.iter().find_map(|node| {
            let claim = claim_of(*node).filter(|claim| self.state.locks.waits(*claim))?;
            let behind = |(group, ahead): (&Group, Node)| match &group.why {
                Why::Lock { resource, behind: true } => Some((resource.clone(), claim_of(ahead)?)),
                _ => None,
            };
            let ahead: Option<Vec<_>> = self.stuck(*self.index.get(node)?).map(behind).collect();
            Some((claim, ahead.filter(|ahead| !ahead.is_empty())?))
        })
    }

    /// A circle of waits that never end, reached from a node.
    pub(super) fn circle(&self, start: Node) -> Vec<Edge> {
        let mut path: Vec<Edge> = Vec::new();
        let mut seen: Map<Node, usize> = Map::default();
        let mut node = start;
        while !seen.contains_key(&node) {
            seen.insert(node, path.len());
            let at = self.index.get(&node).copied();
            let Some((group, dead)) = at.and_then(|at| self.stuck(at).next()) else {
                return Vec::new();
            };
            path.push(Edge { from: node, why: group.why.clone(), to: dead });
            node = dead;
        }
        let start = seen.get(&node).copied().unwrap_or(0);
        path.split_off(start)
    }
}

/// What something waits for. Nothing: it ends by itself.
fn waits(state: &State, node: Node, spared: bool) -> Vec<Group> {
    match node {
        Node::Task(id) => state.tasks.get(&id).map(|task| task_waits(state, id, task)).unwrap_or_default(),
        Node::Step(id, step) => state.tasks.get(&id).map(|task| step_waits(state, id, task, step)).unwrap_or_default(),
        Node::Run(run) => run_waits(state, run, spared),
        Node::Call(request) => claim_waits(state, ClaimKey::call(request), spared),
    }
}

fn task_waits(state: &State, id: TaskId, task: &Task) -> Vec<Group> {
    // A cancel is bounded.
    if task.progress.state == TaskState::Cancelling {
        return Vec::new();
    }
    let tag = state.queue.tag_blockers(id).map(|other| Group::one(Node::Task(other), Why::Tag));
    let runs = open_runs(id, task).map(|run| Group::one(Node::Run(run), Why::Part));
    tag.chain(runs).collect()
}

fn open_runs(id: TaskId, task: &Task) -> impl Iterator<Item = RunKey> {
    task.open.iter().map(move |(step, place)| RunKey { task: id, step: *step, place: *place })
}

/// A step ends once every machine has been through it: those that are in its unit and not past it, and those that
/// still wait for a place in the windows.
fn step_waits(state: &State, id: TaskId, task: &Task, index: u32) -> Vec<Group> {
    let lead = task.plan.lead(index);
    let (Some(plan), Some(first)) = (task.step_plan(lead), task.step(lead)) else {
        return Vec::new();
    };
    if task.progress.state == TaskState::Cancelling {
        return Vec::new();
    }
    let due = open_runs(id, task).filter(|run| (lead..=index).contains(&run.step));
    let mut groups: Vec<_> = due.map(|run| Group::one(Node::Run(run), Why::Part)).collect();
    if (first.next_place as usize) < first.runs.len() {
        let unit = lead..task.plan.unit_end(lead);
        let lanes = open_runs(id, task).filter(|run| unit.contains(&run.step)).map(Node::Run).collect();
        groups.extend(place_among(lanes, first.open, plan.window(&state.settings, &task.plan)));
        let all = open_runs(id, task).map(Node::Run).collect();
        groups.extend(place_among(all, task.progress.lanes, task.plan.runs_at_once(&state.settings)));
    }
    groups
}

/// A place in a window of which so many are taken. None: one is free.
fn place_among(members: Vec<Node>, taken: u32, most: u32) -> Option<Group> {
    let count = (taken + 1).checked_sub(most).filter(|over| *over > 0)?;
    Some(Group { members, enough: Enough::Count(count as usize), why: Why::Place })
}

fn run_waits(state: &State, key: RunKey, spared: bool) -> Vec<Group> {
    let Some(run) = state.run(key) else {
        return Vec::new();
    };
    if matches!(run.phase, Phase::Locks(_)) {
        return claim_waits(state, ClaimKey::run(key), spared);
    }
    if run.phase != Phase::Running || run.stop.is_some() {
        return Vec::new();
    }
    let mut groups = Vec::new();
    // A limit does not count: hours may pass until it ends the wait, as with the limit of a lock.
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

/// Whoever is spared leaves the queue without having had its turn: then those before it are in the way themselves.
fn claim_waits(state: &State, key: ClaimKey, spared: bool) -> Vec<Group> {
    let mut groups = Vec::new();
    let leaves = |ahead: ClaimKey| spared && is_asked(state, waiter(ahead));
    for obstacle in state.locks.obstacles(key, leaves) {
        let why = |behind| Why::Lock { resource: obstacle.resource.clone(), behind };
        let holders = obstacle.each.iter().filter_map(|holder| owner(*holder));
        groups.extend(holders.map(|node| Group::one(node, why(false))));
        if !obstacle.units.is_empty() {
            let members = obstacle.units.iter().filter_map(|holder| owner(*holder)).collect();
            groups.push(Group { members, enough: Enough::Room(key), why: why(false) });
        }
        groups.extend(obstacle.behind.iter().map(|ahead| Group::one(waiter(*ahead), why(true))));
    }
    groups
}

/// What waits when a claim waits.
fn waiter(claim: ClaimKey) -> Node {
    match claim.part {
        Part::Call(number) => Node::Call(LockRequest { run: claim.run, number }),
        _ => Node::Run(claim.run),
    }
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

fn claim_of(node: Node) -> Option<ClaimKey> {
    match node {
        Node::Run(run) => Some(ClaimKey::run(run)),
        Node::Call(request) => Some(ClaimKey::call(request)),
        _ => None,
    }
}
