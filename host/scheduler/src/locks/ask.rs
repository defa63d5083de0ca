//! Asking for locks, taking them, and giving them back.

use std::collections::VecDeque;

use super::{Claim, ClaimKey, Hold, IDLE, Lock, LockId, Locks, Need, Piece, Rank, until_bar};
use crate::{resource::Resource, step::Want};

impl Locks {
    /// Asks for all of `wants` at once. Returns whether they are free; then the claim holds them.
    pub fn ask(&mut self, key: ClaimKey, wants: &[Want], ticket: u64, token: u64) -> bool {
        let Some(claim) = self.claim(key, wants, ticket) else {
            return true;
        };
        let free = claim
            .pieces()
            .all(|piece| self.lock(piece.lock).is_none_or(|lock| lock.admits(piece.rank, key, piece.need)));
        // What is free at once, and mostly it is, never sees the queues.
        if !free {
            self.enqueue(key, &claim);
        }
        self.claims.insert(key, claim);
        if free {
            self.take(key, token);
        }
        free
    }

    /// Waiting claims whose blocker may be another one than at the last call.
    pub fn take_touched(&mut self) -> impl Iterator<Item = ClaimKey> {
        self.touched.drain(..)
    }

    /// A claim with its place in the order of each of its resources.
    fn claim(&mut self, key: ClaimKey, wants: &[Want], ticket: u64) -> Option<Claim> {
        let mut pieces = wants.iter().map(|want| {
            let (id, need) = (self.id(&want.resource), Need::of(want));
            let mut rank = Rank::normal(ticket);
            if let Some(lock) = self.locks.get(id as usize) {
                if lock.is_idle() {
                    self.idle = self.idle.saturating_sub(1);
                }
                if lock.holders.iter().any(|hold| hold.key.covers(key.run) && hold.need.includes(need)) {
                    rank = Rank::front(ticket);
                }
            }
            Piece { lock: id, need, rank }
        });
        let first = pieces.next()?;
        Some(Claim { first, rest: pieces.collect(), ticket, held: false })
    }

    /// Puts a claim into the queues of its resources.
    fn enqueue(&mut self, key: ClaimKey, claim: &Claim) {
        for piece in claim.pieces() {
            if let Some(lock) = self.locks.get_mut(piece.lock as usize) {
                self.touched.extend(until_bar(lock.queue.range(piece.rank..)));
                lock.queue.insert(piece.rank, (key, piece.need));
            }
        }
    }

    /// Puts a holder back as it was stored, or lets a group hold what one of its runs has taken.
    pub fn hold(&mut self, key: ClaimKey, want: &Want, token: u64) {
        let (id, need) = (self.id(&want.resource), Need::of(want));
        let Some(lock) = self.locks.get_mut(id as usize) else {
            return;
        };
        if lock.is_idle() {
            self.idle = self.idle.saturating_sub(1);
        }
        match lock.holders.iter_mut().find(|hold| hold.key == key) {
            Some(hold) => hold.need = stronger(hold.need, need),
            None => lock.holders.push(Hold { key, need, token }),
        }
        in_order(&mut lock.holders);
        let piece = Piece { lock: id, need, rank: Rank::normal(token) };
        let claim = self.claims.entry(key).or_insert_with(|| Claim {
            first: piece.clone(),
            rest: Vec::new(),
            ticket: token,
            held: true,
        });
        if claim.pieces().all(|piece| piece.lock != id) {
            claim.rest.reserve_exact(1);
            claim.rest.push(piece);
        }
    }

    /// Puts a waiting claim back as it was stored.
    pub fn wait(&mut self, key: ClaimKey, wants: &[Want], ticket: u64) {
        if let Some(claim) = self.claim(key, wants, ticket) {
            self.enqueue(key, &claim);
            self.claims.insert(key, claim);
        }
    }

    /// Places in queues that are not in the order of asking, to be stored.
    pub fn odd_ranks(&self) -> Vec<(ClaimKey, Resource, Rank)> {
        let mut odd: Vec<_> = self
            .claims
            .iter()
            .filter(|(_, claim)| !claim.held)
            .flat_map(|(key, claim)| {
                let normal = Rank::normal(claim.ticket);
                let changed = claim.pieces().filter(move |piece| piece.rank != normal);
                changed.filter_map(|piece| Some((*key, self.lock(piece.lock)?.name.clone(), piece.rank)))
            })
            .collect();
        odd.sort();
        odd
    }

    /// Moves a waiting claim to a place in one queue.
    pub fn set_rank(&mut self, key: ClaimKey, resource: &Resource, rank: Rank) {
        let Some(id) = self.names.get(resource.as_str()).copied() else {
            return;
        };
        let Some(claim) = self.claims.get_mut(&key).filter(|claim| !claim.held) else {
            return;
        };
        for piece in claim.pieces_mut().filter(|piece| piece.lock == id) {
            if let Some(lock) = self.locks.get_mut(id as usize) {
                lock.queue.remove(&piece.rank);
                lock.queue.insert(rank, (key, piece.need));
            }
            piece.rank = rank;
        }
    }

    /// Puts a waiting claim before others in the queues of resources, and grants what that allows.
    pub fn overtake(&mut self, key: ClaimKey, others: &[(Resource, ClaimKey)]) -> VecDeque<ClaimKey> {
        let mut granted = VecDeque::new();
        let Some(ticket) = self.claims.get(&key).map(|claim| claim.ticket) else {
            return granted;
        };
        for (resource, other) in others {
            let id = self.names.get(resource.as_str()).copied();
            let place = |claim: &Claim| claim.pieces().find(|piece| Some(piece.lock) == id).map(|piece| piece.rank);
            let (own, rank) = (
                self.claims.get(&key).and_then(place),
                self.claims.get(other).filter(|claim| !claim.held).and_then(place),
            );
            let (Some(id), Some(own), Some(rank)) = (id, own, rank) else {
                continue;
            };
            // Where it is before that one already, it was put before an earlier one.
            if own > rank {
                let rank = Rank { rank: rank.rank - 1, passed: true, ticket };
                self.set_rank(key, resource, rank);
                self.touched.extend([key, *other]);
                self.touch_behind(id, rank);
                self.touch_behind(id, own);
            }
        }
        let locks = others.iter().filter_map(|(resource, _)| self.names.get(resource.as_str()).copied());
        for id in locks.collect::<Vec<_>>() {
            self.wake(id, &mut granted);
        }
        granted
    }

    /// Those behind a place may have another one ahead now. Members of a group share one rank, so there may be several.
    fn touch_behind(&mut self, id: LockId, rank: Rank) {
        if let Some(lock) = self.locks.get(id as usize) {
            let behind = (std::ops::Bound::Excluded(rank), std::ops::Bound::Unbounded);
            self.touched.extend(until_bar(lock.queue.range(behind)));
        }
    }

    /// Moves the waiting claims that a new group holder covers to the front of a queue.
    pub fn prefer_members(&mut self, group: ClaimKey, resource: &Resource) -> VecDeque<ClaimKey> {
        let mut granted = VecDeque::new();
        let Some(id) = self.names.get(resource.as_str()).copied() else {
            return granted;
        };
        let lock = self.locks.get(id as usize);
        let held = lock.and_then(|lock| lock.holders.iter().find(|hold| hold.key == group)).map(|hold| hold.need);
        let queue = lock.map(|lock| &lock.queue);
        let members: Vec<_> = queue
            .into_iter()
            .flatten()
            .filter(|(rank, (key, need))| {
                let included = held.is_some_and(|held| held.includes(*need));
                included && group.covers(key.run) && rank.rank > 0
            })
            .map(|(rank, (key, _))| (*key, rank.ticket))
            .collect();
        for (key, ticket) in &members {
            self.set_rank(*key, resource, Rank::front(*ticket));
            self.touched.push(*key);
        }
        if !members.is_empty() {
            self.wake(id, &mut granted);
        }
        granted
    }

    /// Gives a claim's locks back, or its places in the queues.
    pub fn release(&mut self, key: ClaimKey, granted: &mut VecDeque<ClaimKey>) {
        let Some(claim) = self.claims.remove(&key) else {
            return;
        };
        for piece in claim.pieces() {
            let Some(lock) = self.locks.get_mut(piece.lock as usize) else {
                continue;
            };
            lock.holders.retain(|hold| hold.key != key);
            if !claim.held && lock.queue.remove(&piece.rank).is_some() {
                self.touched.extend(until_bar(lock.queue.range(piece.rank..)));
            }
        }
        if claim.rest.is_empty() {
            self.wake(claim.first.lock, granted);
            return self.retire(claim.first.lock);
        }
        let mut locks: Vec<_> = claim.pieces().map(|piece| piece.lock).collect();
        // By name: the numbers of locks are not the same after a restart.
        locks.sort_by(|a, b| self.lock(*a).map(|lock| &lock.name).cmp(&self.lock(*b).map(|lock| &lock.name)));
        for lock in locks {
            self.wake(lock, granted);
            self.retire(lock);
        }
    }

    /// Takes one resource away from a holder.
    pub fn take_away(&mut self, key: ClaimKey, resource: &Resource) -> VecDeque<ClaimKey> {
        let mut granted = VecDeque::new();
        let Some(id) = self.names.get(resource.as_str()).copied() else {
            return granted;
        };
        if let Some(lock) = self.locks.get_mut(id as usize) {
            lock.holders.retain(|hold| hold.key != key);
        }
        if let Some(claim) = self.claims.get_mut(&key) {
            claim.rest.retain(|piece| piece.lock != id);
            if claim.first.lock == id {
                match claim.rest.is_empty() {
                    true => drop(self.claims.remove(&key)),
                    false => claim.first = claim.rest.remove(0),
                }
            }
        }
        self.wake(id, &mut granted);
        self.retire(id);
        granted
    }

    /// Grants what can be granted on a lock, and on those that whoever was granted waited for too: it no longer
    /// bars anybody there.
    fn wake(&mut self, id: LockId, granted: &mut VecDeque<ClaimKey>) {
        let mut more: Vec<LockId> = Vec::new();
        // Each round grants one claim or finishes one lock; a claim adds its own locks once.
        loop {
            let at = more.last().copied().unwrap_or(id);
            let admitted = |lock: &Lock| lock.admitted().find(|key| self.grantable(*key));
            let Some(next) = self.lock(at).and_then(admitted) else {
                if let Some(lock) = self.locks.get(at as usize) {
                    self.touched.extend(lock.front());
                }
                match more.pop() {
                    Some(_) => continue,
                    None => return,
                }
            };
            self.take(next, 0);
            granted.push_back(next);
            let others = self.claims.get(&next).into_iter().flat_map(Claim::pieces).map(|piece| piece.lock);
            let before = more.len();
            more.extend(others.filter(|other| *other != at));
            if let Some(added) = more.get_mut(before..).filter(|added| added.len() > 1) {
                let names = &self.locks;
                added.sort_by_key(|id| names.get(*id as usize).map(|lock| &lock.name));
            }
        }
    }

    fn grantable(&self, key: ClaimKey) -> bool {
        self.claims.get(&key).is_some_and(|claim| {
            claim
                .pieces()
                .all(|piece| self.lock(piece.lock).is_none_or(|lock| lock.admits(piece.rank, key, piece.need)))
        })
    }

    fn take(&mut self, key: ClaimKey, token: u64) {
        let Some(claim) = self.claims.get_mut(&key) else {
            return;
        };
        claim.held = true;
        for piece in claim.pieces() {
            if let Some(lock) = self.locks.get_mut(piece.lock as usize) {
                // Not only the front goes first: those behind the one that leaves have another one ahead now.
                if lock.queue.remove(&piece.rank).is_some() && !lock.is_front(piece.rank) {
                    self.touched.extend(until_bar(lock.queue.range(piece.rank..)));
                }
                lock.holders.push(Hold { key, need: piece.need, token });
                self.touched.extend(lock.front());
            }
        }
    }

    /// Notes the token under which a claim holds.
    pub fn set_token(&mut self, key: ClaimKey, token: u64) {
        let Some(claim) = self.claims.get(&key) else {
            return;
        };
        for piece in claim.pieces() {
            if let Some(lock) = self.locks.get_mut(piece.lock as usize)
                && let Some(hold) = lock.holders.iter_mut().find(|hold| hold.key == key)
            {
                hold.token = token;
                in_order(&mut lock.holders);
            }
        }
    }

    pub(super) fn lock(&self, id: LockId) -> Option<&Lock> {
        self.locks.get(id as usize)
    }

    fn id(&mut self, resource: &Resource) -> LockId {
        if let Some(id) = self.names.get(resource.as_str()) {
            return *id;
        }
        let lock = Lock { name: resource.clone(), holders: Vec::new(), queue: std::collections::BTreeMap::new() };
        self.idle += 1;
        let id = match self.free.pop() {
            Some(id) => {
                if let Some(place) = self.locks.get_mut(id as usize) {
                    *place = lock;
                }
                id
            }
            None => {
                self.locks.push(lock);
                self.locks.len() as LockId - 1
            }
        };
        self.names.insert(resource.shared(), id);
        id
    }

    /// Notes that a lock may be idle, and forgets the idle ones when there are many.
    fn retire(&mut self, id: LockId) {
        if !self.lock(id).is_some_and(Lock::is_idle) {
            return;
        }
        self.idle += 1;
        if self.idle > IDLE + self.names.len() / 2 {
            let locks = &self.locks;
            let idle = |id: &LockId| locks.get(*id as usize).is_some_and(Lock::is_idle);
            let gone: Vec<_> = self.names.values().copied().filter(idle).collect();
            self.names.retain(|_, id| !locks.get(*id as usize).is_some_and(Lock::is_idle));
            self.free.extend(gone);
            self.idle = 0;
        }
    }
}

/// Holders in the order in which they took the lock; those whose token is not known yet come last.
fn in_order(holders: &mut [Hold]) {
    if holders.len() > 1 {
        holders.sort_by_key(|hold| (if hold.token == 0 { u64::MAX } else { hold.token }, hold.key));
    }
}

fn stronger(a: Need, b: Need) -> Need {
    let of = if a.of == 0 || b.of == 0 { a.of.max(b.of) } else { a.of.min(b.of) };
    Need { mode: a.mode.min(b.mode), units: a.units.max(b.units), of }
}
