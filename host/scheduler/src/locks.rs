//! The lock table: who holds which resource, who waits for it, and in which order.
//!
//! A *claim* wants one or more resources and gets all of them in one instant or none. Each resource keeps its
//! waiters in the order in which they asked; a claim is granted once no holder and no earlier waiter of any of
//! its resources is in its way. Two exceptions, both bounded: a claim of a task (or step) that already holds
//! as much of the resource as a whole goes to the front, since the others wait for that task anyway; and a claim may be
//! put [`before`](Locks::overtake) one that waits for it in a circle. So the order is first come, first
//! served, and nobody is overtaken by one it does not itself wait for.
//!
//! The table is an index: it is rebuilt from the progress of the tasks.

use std::{
    collections::BTreeMap,
    hash::{Hash, Hasher},
    sync::Arc,
};

use windlass_model::{TaskId, manifest::LockMode};

use crate::{
    cause::Part,
    event::{LockRequest, RunKey, Subject},
    hash::Map,
    resource::Resource,
    step::Want,
};

/// Who wants or holds locks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ClaimKey {
    /// The run. For a step its place is 0, for a task its step too.
    pub run: RunKey,
    pub part: Part,
}

/// In as few words as may be: claims are looked up at every turn.
impl Hash for ClaimKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let RunKey { task, step, place } = self.run;
        state.write_u64(task.0);
        state.write_u64((u64::from(step) << 32) | u64::from(place));
        match self.part {
            Part::Run => {}
            Part::Call(number) => state.write_u64(number),
            other => other.hash(state),
        }
    }
}

impl ClaimKey {
    pub fn run(run: RunKey) -> Self {
        Self { run, part: Part::Run }
    }

    pub fn call(request: LockRequest) -> Self {
        Self { run: request.run, part: Part::Call(request.number) }
    }

    /// The holder that outlives a run: its step, or its task.
    pub fn group(run: RunKey, step: bool) -> Self {
        let (at, part) = if step { (run.step, Part::Step) } else { (0, Part::Task) };
        Self { run: RunKey { task: run.task, step: at, place: 0 }, part }
    }

    /// What waits when the claim waits.
    pub fn subject(self) -> Subject {
        match self.part {
            Part::Call(number) => Subject::Lock(LockRequest { run: self.run, number }),
            _ => Subject::Run(self.run),
        }
    }

    /// Whether it holds on behalf of `run`, so that it is not in the way of that run.
    fn covers(self, run: RunKey) -> bool {
        match self.part {
            Part::Task => self.run.task == run.task,
            Part::Step => (self.run.task, self.run.step) == (run.task, run.step),
            _ => false,
        }
    }
}

/// Place in a resource's queue; the smallest comes first. Normally rank and ticket are one number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct Rank {
    rank: i64,
    passed: bool,
    ticket: u64,
}

impl Rank {
    fn normal(ticket: u64) -> Self {
        Self { rank: i64::try_from(ticket).unwrap_or(i64::MAX), passed: false, ticket }
    }
    fn front(ticket: u64) -> Self {
        Self { rank: 0, passed: false, ticket }
    }
}

/// What keeps a claim waiting.
#[derive(Debug, Clone)]
pub(crate) struct Blocker<'a> {
    /// Resource that is not free.
    pub resource: &'a Resource,
    /// Its holder, or the waiter just ahead.
    pub key: ClaimKey,
    /// Whether `key` waits too, and is only ahead in the queue.
    pub ahead: bool,
    /// How many others hold it as well.
    pub others: u32,
}

/// How much of a resource is wanted or held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Need {
    pub mode: LockMode,
    pub units: u32,
    /// 0: any number.
    pub of: u32,
}

impl Need {
    fn of(want: &Want) -> Self {
        Self { mode: want.mode, units: want.units, of: want.of }
    }

    /// Whether whoever waits with this need must not be passed by that one.
    fn bars(self, later: Self) -> bool {
        let exclusive = self.mode == LockMode::Exclusive || later.mode == LockMode::Exclusive;
        exclusive || self.of > 0 || later.of > 0
    }

    /// Whether whoever waits for what this excludes waits for what the other excludes too.
    fn includes(self, other: Self) -> bool {
        let mode = self.mode == LockMode::Exclusive || other.mode == LockMode::Shared;
        mode && self.units >= other.units && (self.mode == LockMode::Exclusive || other.of == 0 || self.of > 0)
    }

    fn excludes(self, other: Self) -> bool {
        self.mode == LockMode::Exclusive || other.mode == LockMode::Exclusive
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Hold {
    pub key: ClaimKey,
    pub need: Need,
    pub token: u64,
}

#[derive(Debug, Clone)]
struct Lock {
    name: Resource,
    /// In the order in which they took it.
    holders: Vec<Hold>,
    queue: BTreeMap<Rank, (ClaimKey, Need)>,
}

type LockId = u32;

#[derive(Debug, Clone)]
struct Piece {
    lock: LockId,
    need: Need,
    rank: Rank,
}

#[derive(Debug, Clone)]
struct Claim {
    first: Piece,
    rest: Vec<Piece>,
    ticket: u64,
    held: bool,
}

impl Claim {
    fn pieces(&self) -> impl Iterator<Item = &Piece> {
        std::iter::once(&self.first).chain(&self.rest)
    }
    fn pieces_mut(&mut self) -> impl Iterator<Item = &mut Piece> {
        std::iter::once(&mut self.first).chain(&mut self.rest)
    }
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Locks {
    names: Map<Arc<str>, LockId>,
    locks: Vec<Lock>,
    free: Vec<LockId>,
    claims: Map<ClaimKey, Claim>,
    /// Locks that nobody holds or wants; they are kept a while, since they mostly come back.
    idle: usize,
    /// Waiting claims whose blocker may be another one now.
    touched: Vec<ClaimKey>,
}

/// Idle locks that are kept whatever else there is.
const IDLE: usize = 4096;

impl Lock {
    fn is_idle(&self) -> bool {
        self.holders.is_empty() && self.queue.is_empty()
    }

    /// Units that are taken, and would be with a member more. A step uses what it holds or what its runs use,
    /// whichever is more; so does a task with its steps.
    fn taken(&self, more: Option<(ClaimKey, u32)>) -> u32 {
        /// What a task holds as a whole, and by step what the step and what its runs hold.
        type Share = (u32, BTreeMap<u32, (u32, u32)>);
        let mut tasks: BTreeMap<TaskId, Share> = BTreeMap::new();
        let mut fenced = 0;
        let held = self.holders.iter().map(|hold| (hold.key, hold.need.units));
        for (key, units) in held.chain(more) {
            if matches!(key.part, Part::Fence(_)) {
                fenced += units;
                continue;
            }
            let (whole, steps) = tasks.entry(key.run.task).or_default();
            match key.part {
                Part::Task => *whole += units,
                Part::Step => steps.entry(key.run.step).or_default().0 += units,
                _ => steps.entry(key.run.step).or_default().1 += units,
            }
        }
        let used =
            |(whole, steps): Share| whole.max(steps.into_values().map(|(step, members)| step.max(members)).sum());
        fenced + tasks.into_values().map(used).sum::<u32>()
    }

    /// Whether the holders leave room.
    fn has_room(&self, key: ClaimKey, need: Need) -> bool {
        if self.holders.is_empty() {
            return true;
        }
        let in_the_way = |hold: &Hold| hold.need.excludes(need) && !hold.key.covers(key.run);
        if self.holders.iter().any(in_the_way) {
            return false;
        }
        let limits = self.holders.iter().map(|hold| hold.need.of).chain([need.of]);
        let Some(limit) = limits.filter(|of| *of > 0).min() else {
            return true;
        };
        let after = self.taken(Some((key, need.units)));
        // What its own group holds already is there for it, even where another counts less in all; but what is
        // really used never exceeds any count.
        let single = |hold: &&Hold| !matches!(hold.key.part, Part::Step | Part::Task);
        let used: u32 = self.holders.iter().filter(single).map(|hold| hold.need.units).sum();
        after <= limit || (after == self.taken(None) && used + need.units <= limit)
    }

    fn admits(&self, rank: Rank, key: ClaimKey, need: Need) -> bool {
        self.has_room(key, need) && self.before(rank, need).is_none()
    }

    /// Whether nobody waits before a place.
    fn is_front(&self, rank: Rank) -> bool {
        self.queue.first_key_value().is_none_or(|(first, _)| *first >= rank)
    }

    /// The nearest earlier waiter that must not be passed.
    fn before(&self, rank: Rank, need: Need) -> Option<(Rank, ClaimKey)> {
        if self.is_front(rank) {
            return None;
        }
        let mut earlier = self.queue.range(..rank).rev();
        earlier.find(|(_, (_, other))| other.bars(need)).map(|(rank, (key, _))| (*rank, *key))
    }

    /// The earlier waiters that must not be passed, back to the first that stays and is itself barred by all before it.
    fn ahead(&self, rank: Rank, need: Need, leaves: impl Fn(ClaimKey) -> bool) -> Vec<ClaimKey> {
        let mut ahead = Vec::new();
        for (_, (key, other)) in self.queue.range(..rank).rev() {
            if other.bars(need) {
                ahead.push(*key);
                if (other.mode == LockMode::Exclusive || other.of > 0) && !leaves(*key) {
                    break;
                }
            }
        }
        ahead
    }

    /// Waiters that only holders can block: up to and with the first that bars others.
    fn front(&self) -> impl Iterator<Item = ClaimKey> {
        until_bar(self.queue.iter())
    }

    /// Those of the front that this lock would admit.
    fn admitted(&self) -> impl Iterator<Item = ClaimKey> {
        let queue = up_to_bar(self.queue.iter());
        queue.filter(|(rank, (key, need))| self.admits(**rank, *key, *need)).map(|(_, (key, _))| *key)
    }
}

fn until_bar<'a>(queue: impl Iterator<Item = Waiter<'a>>) -> impl Iterator<Item = ClaimKey> {
    up_to_bar(queue).map(|(_, (key, _))| *key)
}

fn up_to_bar<'a>(queue: impl Iterator<Item = Waiter<'a>>) -> impl Iterator<Item = Waiter<'a>> {
    let mut ended = false;
    queue.take_while(move |(_, (_, need))| {
        let bars = need.mode == LockMode::Exclusive || need.of > 0;
        !std::mem::replace(&mut ended, bars)
    })
}

/// A place in a queue, and who is there.
type Waiter<'a> = (&'a Rank, &'a (ClaimKey, Need));

mod ask;
mod look;

pub use look::{LockHolder, LockView};
