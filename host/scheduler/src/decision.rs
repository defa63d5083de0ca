//! What comes out of the scheduler: decisions, as plain data.

use serde::{Deserialize, Serialize};
use windlass_model::{MachineName, RunState, TaskId, TaskState};

use crate::{
    cause::{Cause, Part},
    event::{LockRequest, RunKey, StopKind, Subject},
    question::{Answer, Question},
    resource::Resource,
};

/// Something to do, or to tell. Store the changed state first, then act on the decisions in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "decision")]
pub enum Decision {
    /// Do: bring all packages of a task's remaining steps to these places, and report each. A task may be
    /// told so several times, with other places each time.
    Acquire {
        /// The task.
        task: TaskId,
        /// Machines to bring them to.
        machines: Vec<MachineName>,
        /// Whether the server itself needs them too.
        server: bool,
    },
    /// Do: stop bringing packages; report every place that is still open as failed.
    StopAcquire {
        /// The task.
        task: TaskId,
    },
    /// Tell: bringing packages did not stop in time. What has not reported counts as failed.
    AbandonAcquire {
        /// The task.
        task: TaskId,
    },
    /// Do: tell whether the fact that a step asks for holds.
    AskFact {
        /// The task.
        task: TaskId,
        /// Index of the step.
        step: u32,
    },
    /// Do: start a run, or, on recovery, go on with it.
    StartRun {
        /// The run.
        run: RunKey,
        /// Its machine; none on the server.
        machine: Option<MachineName>,
        /// Which attempt it is, from 1.
        attempt: u32,
        /// Fencing token of the locks it holds, higher than that of any earlier holder.
        token: u64,
    },
    /// Do: let a run go on that waited.
    ResumeRun {
        /// The run.
        run: RunKey,
        /// What a person answered, if it asked one.
        answer: Option<Answer>,
        /// Why it does not get what it waited for.
        error: Option<String>,
    },
    /// Do: stop a run, and report how it ended.
    StopRun {
        /// The run.
        run: RunKey,
        /// Why, and with what force.
        kind: StopKind,
    },
    /// Tell: a run did not end in time although it was killed. It counts as over, and what it held stays
    /// fenced until it is proven that it does nothing more.
    AbandonRun {
        /// The run.
        run: RunKey,
        /// What is fenced.
        fenced: Vec<Resource>,
    },
    /// Do: tell a run that it has its lock.
    GrantLock {
        /// Its wish.
        request: LockRequest,
        /// Fencing token, higher than that of any earlier holder.
        token: u64,
    },
    /// Do: tell a run that it does not get its lock.
    RefuseLock {
        /// Its wish.
        request: LockRequest,
        /// Why, fit after "failed to take the lock: ".
        error: String,
    },
    /// Tell: a person took a lock away. What bears this token or a lower one is to be refused from now on.
    LockBroken {
        /// The resource.
        resource: Resource,
        /// The run that held it. For a step its place is 0, for a task its step too.
        run: RunKey,
        /// What of it.
        part: Part,
        /// Its token.
        token: u64,
        /// Who.
        by: String,
        /// Why.
        reason: String,
    },
    /// Do: show a question to people.
    Ask {
        /// The task.
        task: TaskId,
        /// The question.
        question: Box<Question>,
    },
    /// Tell: a question is over.
    QuestionOver {
        /// The task.
        task: TaskId,
        /// Its number.
        question: u64,
        /// How it was answered; none: it no longer matters.
        answer: Option<Answer>,
    },
    /// Tell: a task has a new state that is not final.
    TaskState {
        /// The task.
        task: TaskId,
        /// The new state.
        state: TaskState,
    },
    /// Tell: a step has a new state.
    StepState {
        /// The task.
        task: TaskId,
        /// Index of the step.
        step: u32,
        /// The new state.
        state: RunState,
        /// Why it is skipped, or what went wrong.
        why: Option<String>,
    },
    /// Tell: a run ended, or never will start.
    RunState {
        /// The run.
        run: RunKey,
        /// The final state.
        state: RunState,
        /// Why it is skipped, or what went wrong.
        why: Option<String>,
    },
    /// Tell: an attempt failed and will be repeated.
    Retry {
        /// The run.
        run: RunKey,
        /// The attempt that comes next.
        attempt: u32,
        /// What went wrong.
        error: String,
    },
    /// Tell: a machine takes part in nothing later of a task.
    Excluded {
        /// The task.
        task: TaskId,
        /// The machine.
        machine: MachineName,
        /// Why.
        why: String,
    },
    /// Tell: something waits, and this is why now. It holds until the thing's next state.
    Waiting {
        /// What waits.
        subject: Subject,
        /// Why.
        cause: Cause,
    },
    /// Tell: waits that can never end, named in full.
    Deadlock {
        /// The wait that fails, or that a person is asked about.
        victim: Subject,
        /// Every edge in words.
        text: String,
    },
    /// Tell: a task is over and forgotten by the scheduler.
    TaskFinished {
        /// The task.
        task: TaskId,
        /// How it ended.
        state: TaskState,
        /// What went wrong first.
        error: Option<String>,
    },
}

impl Decision {
    /// Task it is about.
    #[must_use]
    pub fn task(&self) -> TaskId {
        match self {
            Self::Acquire { task, .. }
            | Self::StopAcquire { task }
            | Self::AbandonAcquire { task }
            | Self::AskFact { task, .. }
            | Self::Ask { task, .. }
            | Self::QuestionOver { task, .. }
            | Self::TaskState { task, .. }
            | Self::StepState { task, .. }
            | Self::Excluded { task, .. }
            | Self::TaskFinished { task, .. } => *task,
            Self::StartRun { run, .. }
            | Self::ResumeRun { run, .. }
            | Self::StopRun { run, .. }
            | Self::AbandonRun { run, .. }
            | Self::LockBroken { run, .. }
            | Self::RunState { run, .. }
            | Self::Retry { run, .. } => run.task,
            Self::GrantLock { request, .. } | Self::RefuseLock { request, .. } => request.run.task,
            Self::Waiting { subject, .. } | Self::Deadlock { victim: subject, .. } => subject.task(),
        }
    }
}
