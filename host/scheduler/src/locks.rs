//! The lock table: who holds which resource, who waits for it, and in which order.
//!
//! A *claim* wants one or more resources and gets all of them in one instant or none, so claims of one
//! kind can never block each other in a circle. Each resource keeps its waiters in the order in which they
//! asked; a claim is granted once no holder and no earlier waiter of any of its resources conflicts with
//! it. Shared claims at the front are therefore granted together, and no claim is ever overtaken by one it
//! conflicts with. The table is an index: it is rebuilt from the progress of the tasks.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use windlass_model::manifest::LockMode;

use crate::{
    event::{LockRequest, RunKey, Subject},
    plan::Resource,
};

/// Who wants or holds locks: a run for as long as it runs, or one call of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Claim {
    /// The run.
    pub run: RunKey,
    /// Number of the call; none: what the step itself locks.
    pub call: Option<u64>,
}

impl Claim {
    /// What waits when the claim waits.
    pub fn subject(self) -> Subject {
        match self.call {
            None => Subject::Run(self.run),
            Some(number) => Subject::Lock(LockRequest { run: self.run, number }),
        }
    }
}

impl From<LockRequest> for Claim {
    fn from(request: LockRequest) -> Self {
        Self { run: request.run, call: Some(request.number) }
    }
}

/// What keeps a claim waiting.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Blocker<'a> {
    /// Resource that is not free.
    pub resource: &'a Resource,
    /// Its holder, or the waiter just ahead.
    pub claim: Claim,
    /// Whether `claim` waits too, and is only ahead in the queue.
    pub ahead: bool,
    /// How many others hold it as well.
    pub others: usize,
}

/// What giving something back led to.
#[derive(Debug, Default)]
pub(crate) struct Freed {
    /// Claims that now hold all they want, in order.
    pub granted: Vec<Claim>,
    /// Waiting claims whose blocker may be another one now.
    pub touched: BTreeSet<Claim>,
}

#[derive(Debug, Default)]
struct Lock {
    holders: BTreeMap<Claim, LockMode>,
    queue: BTreeMap<(u64, Claim), LockMode>,
}

#[derive(Debug)]
struct Entry {
    wants: Vec<(Resource, LockMode)>,
    ticket: u64,
    held: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Locks {
    locks: BTreeMap<Resource, Lock>,
    claims: BTreeMap<Claim, Entry>,
}

fn conflict(a: LockMode, b: LockMode) -> bool {
    a == LockMode::Exclusive || b == LockMode::Exclusive
}

impl Lock {
    fn admits(&self, place: (u64, Claim), mode: LockMode) -> bool {
        let held = self.holders.values().next().is_some_and(|held| conflict(*held, mode));
        !held && !self.queue.range(..place).any(|(_, earlier)| conflict(*earlier, mode))
    }

    /// Waiters that nobody but holders can block: up to and with the first exclusive one.
    fn front(&self) -> impl Iterator<Item = (u64, Claim)> {
        until_exclusive(self.queue.iter())
    }
}

fn until_exclusive<'a>(
    queue: impl Iterator<Item = (&'a (u64, Claim), &'a LockMode)>,
) -> impl Iterator<Item = (u64, Claim)> {
    let mut ended = false;
    queue
        .take_while(move |(_, mode)| !std::mem::replace(&mut ended, **mode == LockMode::Exclusive))
        .map(|(place, _)| *place)
}

impl Locks {
    /// Takes everything at once, or waits in every queue. Returns whether it was granted.
    pub fn ask(&mut self, claim: Claim, wants: Vec<(Resource, LockMode)>, ticket: u64) -> bool {
        self.insert(claim, wants, ticket, false);
        let granted = self.grantable(claim);
        if granted {
            self.grant(claim);
        }
        granted
    }

    /// Puts a claim back as it was stored.
    pub fn insert(&mut self, claim: Claim, wants: Vec<(Resource, LockMode)>, ticket: u64, held: bool) {
        for (resource, mode) in &wants {
            let lock = self.locks.entry(resource.clone()).or_default();
            if held {
                lock.holders.insert(claim, *mode);
            } else {
                lock.queue.insert((ticket, claim), *mode);
            }
        }
        self.claims.insert(claim, Entry { wants, ticket, held });
    }

    /// Whether the run of `claim` holds `resource` itself in a way that conflicts with `mode`,
    /// so that waiting for it would never end.
    pub fn own_conflict(&self, claim: Claim, resource: &Resource, mode: LockMode) -> bool {
        self.locks.get(resource).is_some_and(|lock| {
            let own = Claim { run: claim.run, call: None }..=Claim { run: claim.run, call: Some(u64::MAX) };
            lock.holders.range(own).any(|(holder, held)| *holder != claim && conflict(*held, mode))
        })
    }

    /// Gives a claim's locks back, or its places in the queues.
    pub fn release(&mut self, claim: Claim) -> Freed {
        let mut freed = Freed::default();
        let Some(entry) = self.claims.remove(&claim) else {
            return freed;
        };
        let place = (entry.ticket, claim);
        for (resource, _) in &entry.wants {
            let Some(lock) = self.locks.get_mut(resource) else {
                continue;
            };
            lock.holders.remove(&claim);
            if lock.queue.remove(&place).is_some() {
                let followers = until_exclusive(lock.queue.range(place..));
                freed.touched.extend(followers.map(|(_, claim)| claim));
            }
        }
        for (resource, _) in &entry.wants {
            self.wake(resource, &mut freed);
        }
        freed
    }

    fn wake(&mut self, resource: &Resource, freed: &mut Freed) {
        let Some(lock) = self.locks.get(resource) else {
            return;
        };
        for (_, claim) in lock.front().collect::<Vec<_>>() {
            if self.grantable(claim) {
                self.grant(claim);
                freed.granted.push(claim);
                freed.touched.remove(&claim);
                let elsewhere = self.claims.get(&claim).into_iter().flat_map(|entry| &entry.wants);
                for lock in elsewhere.filter_map(|(resource, _)| self.locks.get(resource)) {
                    freed.touched.extend(lock.front().map(|(_, claim)| claim));
                }
            }
        }
        if let Some(lock) = self.locks.get(resource) {
            freed.touched.extend(lock.front().map(|(_, claim)| claim));
            if lock.holders.is_empty() && lock.queue.is_empty() {
                self.locks.remove(resource);
            }
        }
    }

    fn grantable(&self, claim: Claim) -> bool {
        self.claims.get(&claim).is_some_and(|entry| {
            entry.wants.iter().all(|(resource, mode)| {
                self.locks.get(resource).is_none_or(|lock| lock.admits((entry.ticket, claim), *mode))
            })
        })
    }

    fn grant(&mut self, claim: Claim) {
        let Some(entry) = self.claims.get_mut(&claim) else {
            return;
        };
        entry.held = true;
        for (resource, mode) in &entry.wants {
            if let Some(lock) = self.locks.get_mut(resource) {
                lock.queue.remove(&(entry.ticket, claim));
                lock.holders.insert(claim, *mode);
            }
        }
    }

    /// What keeps a claim waiting. None: it holds all it wants, or is not known.
    pub fn blocker(&self, claim: Claim) -> Option<Blocker<'_>> {
        let entry = self.claims.get(&claim).filter(|entry| !entry.held)?;
        entry.wants.iter().find_map(|(resource, mode)| {
            let lock = self.locks.get(resource)?;
            let ahead = lock
                .queue
                .range(..(entry.ticket, claim))
                .rev()
                .find(|(_, earlier)| conflict(**earlier, *mode))
                .map(|((_, claim), _)| Blocker { resource, claim: *claim, ahead: true, others: 0 });
            ahead.or_else(|| {
                let mut holders = lock.holders.iter().filter(|(_, held)| conflict(**held, *mode));
                let (claim, _) = holders.next()?;
                Some(Blocker { resource, claim: *claim, ahead: false, others: holders.count() })
            })
        })
    }

    /// Every resource in use.
    pub fn views(&self) -> impl Iterator<Item = LockView> {
        let owner = |claim: Claim, mode: LockMode| LockOwner { subject: claim.subject(), mode };
        self.locks.iter().map(move |(resource, lock)| LockView {
            resource: resource.clone(),
            holders: lock.holders.iter().map(|(claim, mode)| owner(*claim, *mode)).collect(),
            queue: lock.queue.iter().map(|((_, claim), mode)| owner(*claim, *mode)).collect(),
        })
    }
}

/// A resource in use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LockView {
    /// The resource.
    pub resource: Resource,
    /// Who holds it.
    pub holders: Vec<LockOwner>,
    /// Who waits for it, in order.
    pub queue: Vec<LockOwner>,
}

/// A run, or a call of a run, that holds or wants a resource.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LockOwner {
    /// [`Subject::Run`] or [`Subject::Lock`].
    pub subject: Subject,
    /// How.
    pub mode: LockMode,
}
