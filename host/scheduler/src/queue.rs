//! The queue of tasks: caps, concurrency tags and the order in which tasks start.
//!
//! A queued task is a *candidate* when its tag is free and nobody waits before it for that tag; only
//! candidates compete for the places under the cap. So a blocked task never blocks the head, and every
//! operation costs the logarithm of the queue's length. The queue is an index: it is rebuilt from the tasks.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use windlass_model::TaskId;

use crate::plan::{PlanKind, Settings};

/// Place of a task in the order: higher priority first, then in the order of queueing.
type Place = (Reverse<i32>, u64, TaskId);

/// What keeps a queued task from starting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum QueueBlocker<'a> {
    /// A task with the same tag executes.
    Tag { holder: TaskId },
    /// Another task with the same tag is before it.
    BehindTag { ahead: TaskId, tag: &'a str },
    /// Another task that could start is before it.
    Behind { ahead: TaskId },
    /// All places are taken; the oldest of those tasks is named.
    Cap { running: usize, oldest: TaskId },
}

#[derive(Debug, Default)]
struct Pool {
    candidates: BTreeSet<Place>,
    running: BTreeSet<TaskId>,
}

#[derive(Debug, Default)]
struct Tag {
    holder: Option<TaskId>,
    waiting: BTreeSet<Place>,
}

#[derive(Debug)]
struct Entry {
    place: Place,
    kind: PlanKind,
    tag: Option<String>,
}

#[derive(Debug, Default)]
pub(crate) struct Queue {
    pools: BTreeMap<PlanKind, Pool>,
    tags: BTreeMap<String, Tag>,
    entries: BTreeMap<TaskId, Entry>,
    /// Queued tasks whose blocker may be another one now.
    touched: BTreeSet<TaskId>,
}

impl Queue {
    /// Adds a queued task.
    pub fn push(&mut self, task: TaskId, kind: PlanKind, tag: Option<&str>, priority: i32, ticket: u64) {
        let place = (Reverse(priority), ticket, task);
        self.touched.insert(task);
        let entry = Entry { place, kind, tag: tag.map(str::to_owned) };
        match &entry.tag {
            None => self.offer(place, kind),
            Some(tag) => {
                self.withdraw_first(tag);
                self.tags.entry(tag.clone()).or_default().waiting.insert(place);
                self.touch_after(tag, place);
            }
        }
        let tag = entry.tag.clone();
        self.entries.insert(task, entry);
        if let Some(tag) = tag {
            self.offer_first(&tag);
        }
    }

    /// Puts an executing task back as it was stored.
    pub fn restore_running(&mut self, task: TaskId, kind: PlanKind, tag: Option<&str>, priority: i32, ticket: u64) {
        self.pools.entry(kind).or_default().running.insert(task);
        let place = (Reverse(priority), ticket, task);
        let entry = Entry { place, kind, tag: tag.map(str::to_owned) };
        if let Some(tag) = tag {
            self.withdraw_first(tag);
            self.tags.entry(tag.to_owned()).or_default().holder = Some(task);
        }
        self.entries.insert(task, entry);
    }

    /// Takes the next task that may start, if a place is free.
    pub fn admit(&mut self, settings: &Settings) -> Option<TaskId> {
        let (_, pool) = self
            .pools
            .iter_mut()
            .find(|(kind, pool)| pool.running.len() < settings.cap(**kind) && !pool.candidates.is_empty())?;
        let place = pool.candidates.pop_first()?;
        let (.., task) = place;
        pool.running.insert(task);
        self.touched.extend(pool.candidates.first().map(|(.., next)| *next));
        let tag = self.entries.get(&task).and_then(|entry| entry.tag.clone());
        if let Some(tag) = tag.and_then(|tag| self.tags.get_mut(&tag)) {
            tag.waiting.remove(&place);
            tag.holder = Some(task);
            self.touched.extend(tag.waiting.first().map(|(.., next)| *next));
        }
        Some(task)
    }

    /// Removes a task, queued or executing.
    pub fn remove(&mut self, task: TaskId) {
        let Some(entry) = self.entries.remove(&task) else {
            return;
        };
        let pool = self.pools.entry(entry.kind).or_default();
        if pool.running.remove(&task) {
            self.touched.extend(pool.candidates.first().map(|(.., next)| *next));
        }
        if pool.candidates.remove(&entry.place) {
            let next = pool.candidates.range(entry.place..).next();
            self.touched.extend(next.map(|(.., next)| *next));
        }
        self.touched.remove(&task);
        let Some(name) = entry.tag else {
            return;
        };
        self.touch_after(&name, entry.place);
        if let Some(tag) = self.tags.get_mut(&name) {
            tag.waiting.remove(&entry.place);
            if tag.holder == Some(task) {
                tag.holder = None;
            }
            if tag.holder.is_none() && tag.waiting.is_empty() {
                self.tags.remove(&name);
            }
        }
        self.offer_first(&name);
    }

    /// What keeps a queued task from starting.
    pub fn blocker(&self, task: TaskId) -> Option<QueueBlocker<'_>> {
        let entry = self.entries.get(&task)?;
        let pool = self.pools.get(&entry.kind)?;
        if let Some((name, tag)) = entry.tag.as_ref().and_then(|tag| self.tags.get_key_value(tag)) {
            if let Some((.., ahead)) = tag.waiting.range(..entry.place).next_back() {
                return Some(QueueBlocker::BehindTag { ahead: *ahead, tag: name });
            }
            if let Some(holder) = tag.holder {
                return Some(QueueBlocker::Tag { holder });
            }
        }
        if let Some((.., ahead)) = pool.candidates.range(..entry.place).next_back() {
            return Some(QueueBlocker::Behind { ahead: *ahead });
        }
        let oldest = *pool.running.first()?;
        Some(QueueBlocker::Cap { running: pool.running.len(), oldest })
    }

    /// The queued task that names `holder` as the one it waits for, because of a tag.
    pub fn waits_for_tag_of(&self, holder: TaskId) -> Option<TaskId> {
        let tag = self.entries.get(&holder)?.tag.as_ref()?;
        let tag = self.tags.get(tag).filter(|tag| tag.holder == Some(holder))?;
        tag.waiting.first().map(|(.., first)| *first)
    }

    /// Marks the heads of the queue as touched: the limits were changed.
    pub fn touch_heads(&mut self) {
        let heads = self.pools.values().filter_map(|pool| pool.candidates.first());
        self.touched.extend(heads.map(|(.., head)| *head));
    }

    /// Queued tasks whose blocker may be another one than at the last call.
    pub fn take_touched(&mut self) -> BTreeSet<TaskId> {
        std::mem::take(&mut self.touched)
    }

    fn offer(&mut self, place: Place, kind: PlanKind) {
        let pool = self.pools.entry(kind).or_default();
        pool.candidates.insert(place);
        self.touched.insert(place.2);
        let mut after = pool.candidates.range(place..);
        after.next();
        self.touched.extend(after.next().map(|(.., next)| *next));
    }

    /// Makes the first waiter of a free tag a candidate.
    fn offer_first(&mut self, tag: &str) {
        let Some(tag) = self.tags.get(tag).filter(|tag| tag.holder.is_none()) else {
            self.touch_first(tag);
            return;
        };
        let Some(place) = tag.waiting.first().copied() else {
            return;
        };
        if let Some(kind) = self.entries.get(&place.2).map(|entry| entry.kind) {
            self.offer(place, kind);
        }
    }

    /// Takes the first waiter of a tag out of the candidates: another may come before it.
    fn withdraw_first(&mut self, tag: &str) {
        let first = self.tags.get(tag).and_then(|tag| tag.waiting.first().copied());
        let kind = first.and_then(|(.., task)| self.entries.get(&task)).map(|entry| entry.kind);
        let (Some(place), Some(pool)) = (first, kind.and_then(|kind| self.pools.get_mut(&kind))) else {
            return;
        };
        if pool.candidates.remove(&place) {
            self.touched.insert(place.2);
            let next = pool.candidates.range(place..).next();
            self.touched.extend(next.map(|(.., next)| *next));
        }
    }

    fn touch_first(&mut self, tag: &str) {
        let first = self.tags.get(tag).and_then(|tag| tag.waiting.first());
        self.touched.extend(first.map(|(.., first)| *first));
    }

    fn touch_after(&mut self, tag: &str, place: Place) {
        let after = self.tags.get(tag).and_then(|tag| {
            let range = (std::ops::Bound::Excluded(place), std::ops::Bound::Unbounded);
            tag.waiting.range(range).next()
        });
        self.touched.extend(after.map(|(.., after)| *after));
    }
}
