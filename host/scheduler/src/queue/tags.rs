//! The table of tags: who has each, and who waits for it.

use std::{collections::BTreeSet, sync::Arc};

use windlass_model::TaskId;

use super::{Place, Queue};

/// Place of a tag in the table of tags.
pub(super) type TagId = u32;

#[derive(Debug, Clone, Default)]
pub(super) struct Tag {
    name: Arc<str>,
    pub(super) holder: Option<TaskId>,
    pub(super) waiting: BTreeSet<Place>,
    /// Waiting tasks that others wait for, or that have started.
    pub(super) keen: u32,
    /// Tasks that have it in their plan: once there are none, it is forgotten.
    tasks: u32,
}

impl Queue {
    pub(super) fn tag(&self, id: TagId) -> Option<&Tag> {
        self.tags.get(id as usize)
    }

    pub(super) fn tag_mut(&mut self, id: TagId) -> Option<&mut Tag> {
        self.tags.get_mut(id as usize)
    }

    /// The tag of that name, for one task more.
    pub(super) fn tag_id(&mut self, name: &str) -> TagId {
        if let Some(id) = self.names.get(name).copied() {
            if let Some(tag) = self.tag_mut(id) {
                tag.tasks += 1;
            }
            return id;
        }
        let name: Arc<str> = Arc::from(name);
        let tag = Tag { name: Arc::clone(&name), tasks: 1, ..Tag::default() };
        let id = self.free.pop().unwrap_or(self.tags.len() as TagId);
        match self.tag_mut(id) {
            Some(place) => *place = tag,
            None => self.tags.push(tag),
        }
        self.names.insert(name, id);
        id
    }

    /// One task less has a tag in its plan.
    pub(super) fn one_less(&mut self, id: TagId) {
        let Some(tag) = self.tags.get_mut(id as usize) else {
            return;
        };
        tag.tasks -= 1;
        if tag.tasks == 0 {
            self.names.remove(&std::mem::take(tag).name);
            self.free.push(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{PlanKind, Settings};

    #[test]
    fn a_tag_is_forgotten_with_its_last_task_and_its_place_is_used_again() {
        let mut queue = Queue::default();
        let add = |queue: &mut Queue, task: u64, tag: &str| {
            queue.add(TaskId(task), PlanKind::Deployment, Some(tag));
            queue.wait(Place::queued(TaskId(task), 0, 0, task));
        };
        for (task, tag) in [(1, "a"), (2, "b"), (3, "a"), (4, "c")] {
            add(&mut queue, task, tag);
        }
        let settings = Settings::for_cores(1);
        assert_eq!([(); 3].map(|()| queue.admit(&settings)), [1, 2, 4].map(|task| Some(TaskId(task))));
        queue.remove(TaskId(1));
        assert_eq!((queue.holder("a"), queue.names.len()), (None, 3));
        assert_eq!(queue.admit(&settings), Some(TaskId(3)));
        queue.remove(TaskId(2));
        assert_eq!(queue.names.len(), 2);
        add(&mut queue, 5, "d");
        assert_eq!((queue.names.len(), queue.tags.len()), (3, 3));
        for task in [3, 4, 5] {
            queue.remove(TaskId(task));
        }
        assert!(queue.names.is_empty() && queue.entries.is_empty());
        assert_eq!(queue.free.len(), queue.tags.len());
    }
}
