//! Looking at the lock table.

use serde::Serialize;
use windlass_model::manifest::LockMode;

use super::{Blocker, ClaimKey, Hold, Locks};
use crate::{
    cause::Part,
    event::{RunKey, Subject},
    resource::Resource,
    step::Want,
};

/// A resource in use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LockView {
    /// The resource.
    pub resource: Resource,
    /// Who holds it, in the order in which they took it.
    pub holders: Vec<LockHolder>,
    /// Who waits for it, in order.
    pub queue: Vec<LockHolder>,
}

/// Who holds or wants a resource.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LockHolder {
    /// The run. For a step its place is 0, for a task its step too.
    pub run: RunKey,
    /// What of it.
    pub part: Part,
    /// How.
    pub mode: LockMode,
    /// Units.
    pub units: u32,
    /// Units there are in all; 0: any number.
    pub of: u32,
    /// Fencing token; 0 while it waits.
    pub token: u64,
}

impl LockHolder {
    /// [`Subject::Run`] or [`Subject::Lock`].
    #[must_use]
    pub fn subject(&self) -> Subject {
        ClaimKey { run: self.run, part: self.part }.subject()
    }
}

/// One resource that a waiting claim is not given.
#[derive(Debug)]
pub(crate) struct Obstacle<'a> {
    pub resource: &'a Resource,
    /// Holders of which each must let go.
    pub each: Vec<ClaimKey>,
    /// Holders of which some must let go of units.
    pub units: Vec<ClaimKey>,
    /// Earlier waiters that must not be passed; those before them are named by them.
    pub behind: Vec<ClaimKey>,
}

impl Locks {
    /// What keeps a claim waiting. None: it holds all it wants, or is not known.
    pub fn blocker(&self, key: ClaimKey) -> Option<Blocker<'_>> {
        let claim = self.claims.get(&key).filter(|claim| !claim.held)?;
        claim.pieces().find_map(|piece| {
            let lock = self.lock(piece.lock)?;
            if let Some((_, ahead)) = lock.before(piece.rank, piece.need) {
                return Some(Blocker { resource: &lock.name, key: ahead, ahead: true, others: 0 });
            }
            if lock.has_room(key, piece.need) {
                return None;
            }
            // A count that anybody gives holds for all.
            let counted = piece.need.of > 0 || lock.holders.iter().any(|hold| hold.need.of > 0);
            let rival = |hold: &&Hold| counted || hold.need.excludes(piece.need);
            // Where nobody else is in the way, it is its own task or step that keeps what would be needed.
            let foreign = lock.holders.iter().any(|hold| rival(&hold) && !hold.key.covers(key.run));
            let in_the_way = |hold: &&Hold| rival(hold) && hold.key.covers(key.run) != foreign;
            let all = || lock.holders.iter().filter(in_the_way);
            // A group whose runs hold it too is named only once they are gone.
            let part = |hold: &Hold, other: &Hold| other.key.part != Part::Task && hold.key.covers(other.key.run);
            let known = |hold: &&Hold| all().any(|other| other.key != hold.key && part(hold, other));
            let mut holders = all().filter(|hold| !known(hold));
            let first = holders.next()?;
            Some(Blocker { resource: &lock.name, key: first.key, ahead: false, others: holders.count() as u32 })
        })
    }

    /// Everything that keeps a claim waiting. An earlier waiter that `leaves` its queue does not vouch for those
    /// before it.
    pub fn obstacles(&self, key: ClaimKey, leaves: impl Fn(ClaimKey) -> bool) -> Vec<Obstacle<'_>> {
        let claim = self.claims.get(&key).filter(|claim| !claim.held);
        let obstacle = |piece: &super::Piece| {
            let lock = self.lock(piece.lock)?;
            let behind = lock.ahead(piece.rank, piece.need, &leaves);
            let foreign = |hold: &&Hold| !hold.key.covers(key.run);
            let each: Vec<_> = lock
                .holders
                .iter()
                .filter(foreign)
                .filter(|hold| hold.need.excludes(piece.need))
                .map(|hold| hold.key)
                .collect();
            // Once those are gone, units may still be missing.
            let mut left = lock.clone();
            left.holders.retain(|hold| !each.contains(&hold.key));
            let short = !left.has_room(key, piece.need);
            // What its own task or step keeps counts too: that never ends before the claim is granted.
            let units: Vec<_> = left.holders.iter().filter(|_| short).map(|hold| hold.key).collect();
            (!behind.is_empty() || !each.is_empty() || short).then_some(Obstacle {
                resource: &lock.name,
                each,
                units,
                behind,
            })
        };
        claim.into_iter().flat_map(super::Claim::pieces).filter_map(obstacle).collect()
    }

    /// Whether the holders of a resource would leave room for a claim without some of them.
    pub fn has_room_without(&self, resource: &Resource, key: ClaimKey, gone: impl Fn(ClaimKey) -> bool) -> bool {
        let id = self.names.get(resource.as_str()).copied();
        let piece = self.claims.get(&key).and_then(|claim| claim.pieces().find(|piece| Some(piece.lock) == id));
        let (Some(piece), Some(lock)) = (piece, id.and_then(|id| self.lock(id))) else {
            return true;
        };
        let mut left = lock.clone();
        left.queue.clear();
        left.holders.retain(|hold| !gone(hold.key));
        left.has_room(key, piece.need)
    }

    /// Whether what `run` itself holds of a resource leaves no room for `want`, so that waiting for it would
    /// never end.
    pub fn own_conflict(&self, run: RunKey, want: &Want) -> bool {
        let Some(lock) = self.names.get(want.resource.as_str()).and_then(|id| self.lock(*id)) else {
            return false;
        };
        let own = |hold: &&Hold| hold.key.run == run && matches!(hold.key.part, Part::Run | Part::Call(_));
        let holders = lock.holders.iter().filter(own).cloned().collect();
        let own = super::Lock { name: want.resource.clone(), holders, queue: std::collections::BTreeMap::new() };
        !own.has_room(ClaimKey { run, part: Part::Call(u64::MAX) }, super::Need::of(want))
    }

    /// Whether somebody waits for anything that this claim holds.
    pub fn is_awaited(&self, key: ClaimKey) -> bool {
        let claim = self.claims.get(&key).filter(|claim| claim.held);
        claim.is_some_and(|claim| {
            claim.pieces().any(|piece| self.lock(piece.lock).is_some_and(|lock| !lock.queue.is_empty()))
        })
    }

    /// Whether a claim waits.
    pub fn waits(&self, key: ClaimKey) -> bool {
        self.claims.get(&key).is_some_and(|claim| !claim.held)
    }

    /// What a claim holds or wants.
    pub fn wants(&self, key: ClaimKey) -> Vec<(Resource, super::Need)> {
        let claim = self.claims.get(&key).into_iter();
        claim
            .flat_map(super::Claim::pieces)
            .filter_map(|piece| Some((self.lock(piece.lock)?.name.clone(), piece.need)))
            .collect()
    }

    /// Who holds a resource.
    pub fn holders(&self, resource: &Resource) -> &[Hold] {
        let lock = self.names.get(resource.as_str()).and_then(|id| self.lock(*id));
        lock.map_or(&[], |lock| &lock.holders)
    }

    /// Place of a waiting claim in the queue of a resource, from 1.
    pub fn position(&self, key: ClaimKey, resource: &Resource) -> Option<u32> {
        let id = *self.names.get(resource.as_str())?;
        let claim = self.claims.get(&key).filter(|claim| !claim.held)?;
        let piece = claim.pieces().find(|piece| piece.lock == id)?;
        Some(self.lock(id)?.queue.range(..=piece.rank).count() as u32)
    }

    /// Every resource in use, by name.
    pub fn views(&self) -> Vec<LockView> {
        let view = |key: ClaimKey, need: super::Need, token| {
            let ClaimKey { run, part } = key;
            LockHolder { run, part, mode: need.mode, units: need.units, of: need.of, token }
        };
        let ids = self.names.values().filter_map(|id| self.lock(*id)).filter(|lock| !lock.is_idle());
        let mut views: Vec<_> = ids
            .map(|lock| LockView {
                resource: lock.name.clone(),
                holders: lock.holders.iter().map(|hold| view(hold.key, hold.need, hold.token)).collect(),
                queue: lock.queue.values().map(|(key, need)| view(*key, *need, 0)).collect(),
            })
            .collect();
        views.sort_by(|a, b| a.resource.cmp(&b.resource));
        views
    }
}
