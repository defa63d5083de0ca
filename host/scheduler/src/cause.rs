//! Why something waits, as data. The sentence made from it is in `words`.

use serde::{Deserialize, Serialize};
use windlass_model::{MachineName, PoolName, TaskId};

use crate::{event::RunKey, resource::Resource};

/// Why something waits.
///
/// Whoever is first in a queue names the holder; everybody behind names the one just ahead. So a change
/// concerns few waiters however long the queue is, and following the holders leads to the one that works.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Cause {
    /// A task is not to start before a time.
    Scheduled {
        /// When.
        at_ms: u64,
    },
    /// Nothing new starts on this server.
    Draining,
    /// A task with the same tag executes.
    Tag {
        /// That task.
        holder: TaskId,
        /// What it runs first of all, if it runs something.
        runs: Option<RunKey>,
        /// How many other runs it has.
        others: u32,
    },
    /// Another task waits before it for the same tag.
    BehindTag {
        /// That task.
        ahead: TaskId,
    },
    /// All places are taken.
    Cap {
        /// The oldest task that has one.
        oldest: TaskId,
    },
    /// Another task is before it for a free place.
    Behind {
        /// That task.
        ahead: TaskId,
    },
    /// All of its task waits for its turn to go on.
    Turn,
    /// Packages are on their way.
    Packages {
        /// Places that have them.
        there: u32,
        /// Places in all.
        places: u32,
    },
    /// As many steps run as may.
    Steps {
        /// How many that is.
        most: u32,
    },
    /// As many machines of the step are worked on as may be.
    Window {
        /// How many that is.
        most: u32,
    },
    /// The task has as many runs as it may have.
    Runs {
        /// How many that is.
        most: u32,
    },
    /// It is not known yet whether the step's fact holds.
    Fact,
    /// A person is asked.
    Person {
        /// Number of the question.
        question: u64,
    },
    /// A lock is not free.
    Lock {
        /// The resource.
        resource: Resource,
        /// Run that holds it or is ahead. For a step or a task that holds it: any run of it.
        by: RunKey,
        /// What of it holds it.
        part: Part,
        /// Whether it waits too, and is only ahead in the queue.
        ahead: bool,
        /// How many others hold it as well.
        others: u32,
    },
    /// The pool has no worker.
    Pool {
        /// The pool.
        pool: PoolName,
    },
    /// Other tasks are not over.
    Tasks {
        /// One of them.
        first: TaskId,
        /// How many others.
        others: u32,
    },
    /// A moment has not come.
    Sleep {
        /// When.
        until_ms: u64,
    },
    /// A failed attempt is repeated later.
    Backoff {
        /// When.
        until_ms: u64,
        /// Which attempt follows.
        attempt: u32,
    },
    /// Something that only the run knows of.
    Other {
        /// In words.
        text: String,
    },
    /// A machine is not given to anyone: what an abandoned run may still do there is not known.
    Fence {
        /// The resource.
        resource: Resource,
        /// The abandoned run.
        run: RunKey,
        /// Its machine.
        machine: Option<MachineName>,
    },
}

/// What of a task holds or wants a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// A run, as its step declares.
    Run,
    /// A call of a run.
    Call(u64),
    /// A step, for all its runs.
    Step,
    /// The whole task.
    Task,
    /// What is left of an abandoned run.
    Fence(u32),
}
