//! Looking at the queue: who keeps whom waiting.

use windlass_model::TaskId;

use super::Queue;
use crate::plan::{PlanKind, Settings};

/// What keeps a task from its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum QueueBlocker {
    /// A task with the same tag executes.
    Tag { holder: TaskId },
    /// Another task with the same tag is before it.
    BehindTag { ahead: TaskId },
    /// Another task that could start is before it.
    Behind { ahead: TaskId },
    /// All seats are taken; the oldest of those tasks is named.
    Cap { oldest: TaskId },
    /// Nothing new starts.
    Draining,
}

impl Queue {
    /// Whether somebody waits for a tag that this task holds, and is waited for.
    pub fn is_keen(&self, task: TaskId) -> bool {
        let tag = self.entries.get(&task).and_then(|entry| entry.tag);
        tag.and_then(|tag| self.tag(tag)).is_some_and(|tag| tag.keen > 0)
    }

    /// The tasks that must go out of the way of a waiting one for the tag: its holder, and who is just ahead.
    pub fn tag_blockers(&self, task: TaskId) -> impl Iterator<Item = TaskId> {
        let line = || {
            let entry = self.entries.get(&task)?;
            let place = entry.place.filter(|_| !entry.tagged)?;
            let tag = self.tag(entry.tag?)?;
            Some((tag.holder, tag.waiting.range(..place).next_back().map(|ahead| ahead.task)))
        };
        let (holder, ahead) = line().unwrap_or_default();
        holder.into_iter().chain(ahead)
    }

    /// What keeps a task from its turn. None: it does not wait for one.
    pub fn blocker(&self, task: TaskId, settings: &Settings) -> Option<QueueBlocker> {
        let entry = self.entries.get(&task)?;
        let place = entry.place?;
        if let Some(tag) = entry.tag.filter(|_| !entry.tagged).and_then(|tag| self.tag(tag)) {
            if let Some(ahead) = tag.waiting.range(..place).next_back() {
                return Some(QueueBlocker::BehindTag { ahead: ahead.task });
            }
            if let Some(holder) = tag.holder {
                return Some(QueueBlocker::Tag { holder });
            }
        }
        if settings.draining && place.fresh {
            return Some(QueueBlocker::Draining);
        }
        let pool = self.pools.get(&entry.kind)?;
        if let Some(ahead) = pool.candidates.range(..place).next_back() {
            return Some(QueueBlocker::Behind { ahead: ahead.task });
        }
        pool.seated.first().map(|oldest| QueueBlocker::Cap { oldest: *oldest })
    }

    /// Place of a waiting task among those that wait for the same: its tag, or a seat. From 1.
    pub fn position(&self, task: TaskId) -> Option<u32> {
        let entry = self.entries.get(&task)?;
        let place = entry.place?;
        let tag = entry.tag.filter(|_| !entry.tagged).and_then(|tag| self.tag(tag));
        let line = match tag.filter(|tag| tag.holder.is_some() || tag.waiting.first() != Some(&place)) {
            Some(tag) => &tag.waiting,
            None => &self.pools.get(&entry.kind)?.candidates,
        };
        Some(line.range(..=place).count() as u32)
    }

    /// Tasks of a kind that have a seat.
    pub fn seated(&self, kind: PlanKind) -> usize {
        self.pools.get(&kind).map_or(0, |pool| pool.seated.len())
    }

    /// The task that executes under a tag.
    pub fn holder(&self, tag: &str) -> Option<TaskId> {
        self.tag(*self.names.get(tag)?)?.holder
    }
}
