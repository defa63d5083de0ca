//! The queue of tasks: caps, concurrency tags and the order in which tasks get their turn.
//!
//! A task has a *seat* while something of it works; seats of a kind are limited by its cap. A task that only
//! waits gives its seat back and asks for one again, before every task that has not started. A waiting task is a
//! *candidate* when its tag is free and nobody waits before it for that tag; only candidates compete for seats.
//! So a blocked task never blocks the head, those who hold a seat always work, and every operation costs the
//! logarithm of the queue's length. The queue is an index: it is rebuilt from the tasks.

mod look;
mod tags;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use windlass_model::TaskId;

use crate::{
    hash::{ByTask, Map},
    plan::{PlanKind, Settings},
};

pub(crate) use look::QueueBlocker;
use tags::{Tag, TagId};

/// Place of a task in the order: who wants to go on first, then who was moved to the top, then by priority,
/// then in the order of queueing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    fresh: bool,
    top: Reverse<u64>,
    priority: Reverse<i32>,
    ticket: u64,
    pub task: TaskId,
}

impl Place {
    pub fn queued(task: TaskId, top: u64, priority: i32, ticket: u64) -> Self {
        Self { fresh: true, top: Reverse(top), priority: Reverse(priority), ticket, task }
    }

    pub fn resuming(task: TaskId, ticket: u64) -> Self {
        Self { fresh: false, top: Reverse(0), priority: Reverse(0), ticket, task }
    }
}

#[derive(Debug, Clone, Default)]
struct Pool {
    candidates: BTreeSet<Place>,
    seated: BTreeSet<TaskId>,
}

#[derive(Debug, Clone)]
struct Entry {
    kind: PlanKind,
    tag: Option<TagId>,
    /// Set while it waits for its turn.
    place: Option<Place>,
    tagged: bool,
    awaited: bool,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Queue {
    pools: BTreeMap<PlanKind, Pool>,
    tags: Vec<Tag>,
    names: Map<Arc<str>, TagId>,
    /// Places in the table of tags that are free.
    free: Vec<TagId>,
    entries: ByTask<Entry>,
    /// Waiting tasks whose blocker may be another one now.
    touched: Vec<TaskId>,
}

impl Queue {
    /// Makes a task known.
    pub fn add(&mut self, task: TaskId, kind: PlanKind, tag: Option<&str>) {
        let tag = tag.map(|tag| self.tag_id(tag));
        self.entries.insert(task, Entry { kind, tag, place: None, tagged: false, awaited: false });
    }

    /// Puts what an executing task has back as it was stored.
    pub fn restore(&mut self, task: TaskId, seated: bool, tagged: bool) {
        let Some(entry) = self.entries.get_mut(&task) else {
            return;
        };
        entry.tagged = tagged;
        if seated {
            self.pools.entry(entry.kind).or_default().seated.insert(task);
        }
        if let Some(id) = entry.tag.filter(|_| tagged) {
            self.withdraw_first(id);
            if let Some(tag) = self.tag_mut(id) {
                tag.holder = Some(task);
            }
        }
    }

    /// Lets a task wait for its turn. One that has its tag competes for a seat only.
    pub fn wait(&mut self, place: Place) {
        let task = place.task;
        let Some(entry) = self.entries.get_mut(&task) else {
            return;
        };
        entry.place = Some(place);
        let (kind, keen) = (entry.kind, entry.awaited || !place.fresh);
        self.touched.push(task);
        match entry.tag.filter(|_| !entry.tagged) {
            None => self.offer(place, kind),
            Some(id) => {
                self.withdraw_first(id);
                if let Some(tag) = self.tag_mut(id) {
                    tag.waiting.insert(place);
                    tag.keen += u32::from(keen);
                }
                self.touch_after(id, place);
                self.offer_first(id);
            }
        }
    }

    /// Takes a task out of the waiting ones.
    pub fn leave(&mut self, task: TaskId) {
        let Some(entry) = self.entries.get_mut(&task) else {
            return;
        };
        let (kind, keen) = (entry.kind, entry.awaited);
        let Some(place) = entry.place.take() else {
            return;
        };
        let tag = entry.tag;
        self.withdraw(place, kind);
        if let Some(id) = tag {
            self.touch_after(id, place);
            if let Some(tag) = self.tag_mut(id)
                && tag.waiting.remove(&place)
            {
                tag.keen -= u32::from(keen || !place.fresh);
            }
            self.offer_first(id);
        }
    }

    /// Takes the next task that may have its turn, if a seat is free.
    pub fn admit(&mut self, settings: &Settings) -> Option<TaskId> {
        let may = |place: &Place| !settings.draining || !place.fresh;
        let (_, pool) = self.pools.iter_mut().find(|(kind, pool)| {
            pool.seated.len() < settings.cap(**kind) && pool.candidates.first().is_some_and(may)
        })?;
        let place = pool.candidates.pop_first()?;
        let task = place.task;
        pool.seated.insert(task);
        self.touched.extend(pool.candidates.first().map(|next| next.task));
        let entry = self.entries.get_mut(&task)?;
        entry.place = None;
        if let Some(tag) = entry.tag.and_then(|tag| self.tags.get_mut(tag as usize))
            && !entry.tagged
        {
            if tag.waiting.remove(&place) {
                tag.keen -= u32::from(entry.awaited || !place.fresh);
            }
            tag.holder = Some(task);
            self.touched.extend(tag.waiting.first().map(|next| next.task));
        }
        entry.tagged = true;
        Some(task)
    }

    /// A task only waits: others may work.
    pub fn unseat(&mut self, task: TaskId) {
        let kind = self.entries.get(&task).map(|entry| entry.kind);
        if let Some(pool) = kind.and_then(|kind| self.pools.get_mut(&kind))
            && pool.seated.remove(&task)
        {
            self.touched.extend(pool.candidates.first().map(|next| next.task));
        }
    }

    /// A task lets others of its tag start.
    pub fn free_tag(&mut self, task: TaskId) {
        let Some(entry) = self.entries.get_mut(&task).filter(|entry| entry.tagged) else {
            return;
        };
        entry.tagged = false;
        let Some(id) = entry.tag else {
            return;
        };
        if let Some(tag) = self.tag_mut(id) {
            tag.holder = tag.holder.filter(|holder| *holder != task);
        }
        self.offer_first(id);
    }

    /// Forgets a task.
    pub fn remove(&mut self, task: TaskId) {
        self.leave(task);
        self.unseat(task);
        self.free_tag(task);
        if let Some(id) = self.entries.remove(&task).and_then(|entry| entry.tag) {
            self.one_less(id);
        }
    }

    /// Notes whether somebody waits for the end of a task.
    pub fn set_awaited(&mut self, task: TaskId, awaited: bool) {
        let Some(entry) = self.entries.get_mut(&task).filter(|entry| entry.awaited != awaited) else {
            return;
        };
        entry.awaited = awaited;
        let Some(place) = entry.place.filter(|place| place.fresh && !entry.tagged) else {
            return;
        };
        if let Some(tag) = entry.tag.and_then(|tag| self.tags.get_mut(tag as usize))
            && tag.waiting.contains(&place)
        {
            tag.keen = if awaited { tag.keen + 1 } else { tag.keen - 1 };
        }
    }

    /// What a task does changed: whoever waits for its tag says so.
    pub fn activity_changed(&mut self, holder: TaskId) {
        let tag = self.entries.get(&holder).filter(|entry| entry.tagged).and_then(|entry| entry.tag);
        let first = tag.and_then(|tag| self.tag(tag)).and_then(|tag| tag.waiting.first());
        self.touched.extend(first.map(|first| first.task));
    }

    /// Marks the heads of the queue as touched: the limits were changed.
    pub fn touch_all(&mut self) {
        let waiting = self.pools.values().flat_map(|pool| &pool.candidates);
        self.touched.extend(waiting.map(|place| place.task));
    }

    /// Waiting tasks whose blocker may be another one than at the last call.
    pub fn take_touched(&mut self) -> impl Iterator<Item = TaskId> {
        self.touched.drain(..)
    }

    fn offer(&mut self, place: Place, kind: PlanKind) {
        let pool = self.pools.entry(kind).or_default();
        if pool.candidates.insert(place) {
            self.touched.push(place.task);
            let mut after = pool.candidates.range(place..);
            after.next();
            self.touched.extend(after.next().map(|next| next.task));
        }
    }

    fn withdraw(&mut self, place: Place, kind: PlanKind) {
        let Some(pool) = self.pools.get_mut(&kind) else {
            return;
        };
        if pool.candidates.remove(&place) {
            self.touched.push(place.task);
            let next = pool.candidates.range(place..).next();
            self.touched.extend(next.map(|next| next.task));
        }
    }

    /// Makes the first waiter of a free tag a candidate.
    fn offer_first(&mut self, id: TagId) {
        let Some(tag) = self.tag(id) else {
            return;
        };
        let Some(place) = tag.waiting.first().copied() else {
            return;
        };
        let free = tag.holder.is_none();
        self.touched.push(place.task);
        if let Some(kind) = self.entries.get(&place.task).map(|entry| entry.kind).filter(|_| free) {
            self.offer(place, kind);
        }
    }

    /// Takes the first waiter of a tag out of the candidates: another may come before it.
    fn withdraw_first(&mut self, id: TagId) {
        let first = self.tag(id).and_then(|tag| tag.waiting.first().copied());
        let Some(place) = first else {
            return;
        };
        if let Some(kind) = self.entries.get(&place.task).map(|entry| entry.kind) {
            self.withdraw(place, kind);
        }
    }

    fn touch_after(&mut self, id: TagId, place: Place) {
        let after = self.tag(id).and_then(|tag| {
            let range = (std::ops::Bound::Excluded(place), std::ops::Bound::Unbounded);
            tag.waiting.range(range).next()
        });
        self.touched.extend(after.map(|after| after.task));
    }
}
