//! What the referee thinks of each decision.

use windlass_model::{RunState, TaskId, TaskState};
use windlass_scheduler::{
    About, Cause, Choice, Decision, Event, LockRequest, Part, Question, Resource, RunKey, RunOutcome, Subject,
};

use super::{Need, Queued, Referee, unit};

impl Referee {
    pub fn decision(&mut self, decision: &Decision) {
        match decision {
            Decision::Acquire { task, machines, server } => self.acquire(*task, machines, *server),
            Decision::StopAcquire { task } => {
                let now = self.now;
                let books = self.tasks.get_mut(task).unwrap();
                assert!(books.stop_places && books.stopping_since.is_none());
                books.stopping_since = Some(now);
            }
            Decision::AbandonAcquire { task } => {
                let patience = self.settings.grace_ms + self.settings.kill_ms;
                let now = self.now;
                let books = self.tasks.get_mut(task).unwrap();
                assert!(books.stop_places && !std::mem::take(&mut books.open_places).is_empty());
                assert!(books.stopping_since.is_some_and(|since| since + patience <= now), "given up too early");
                books.failed |= !books.cancelled;
            }
            Decision::AskFact { task, step } => {
                let before = self.tasks.get_mut(task).unwrap().facts.insert(*step, None);
                assert_eq!(before, None, "a fact is asked for twice");
            }
            Decision::StartRun { run, machine, attempt, token } => self.start(*run, machine, *attempt, *token),
            Decision::ResumeRun { run, .. } => {
                let waits = self.running.get_mut(run).unwrap().waits.take();
                assert!(waits.is_some(), "{run:?} did not wait");
                self.check_seat(run.task);
            }
            Decision::StopRun { run, kind } => self.stopped(*run, *kind),
            Decision::AbandonRun { run, fenced } => self.abandon(*run, fenced),
            Decision::GrantLock { request, token } => self.granted(*request, *token),
            Decision::RefuseLock { request, .. } => {
                assert!(self.calls.remove(request).unwrap().token.is_none());
            }
            Decision::LockBroken { resource, run, part, .. } => self.broken(resource, *run, *part),
            Decision::Ask { task, question } => self.asks(*task, question),
            Decision::QuestionOver { task, question, answer } => {
                let lapsed = answer.as_ref().filter(|answer| answer.by == "the time limit");
                if let Some(answer) = lapsed {
                    self.check_lapsed(self.tasks[task].questions[question].expiry, answer);
                    self.answered(*task, *question, answer.choice);
                }
                assert!(self.tasks.get_mut(task).unwrap().questions.remove(question).is_some());
            }
            Decision::TaskState { task, state } => self.task_state(*task, *state),
            Decision::StepState { task, step, state, .. } => self.step_state(*task, *step, *state),
            Decision::RunState { run, state, .. } => self.run_state(*run, *state),
            Decision::Retry { run, attempt, .. } => {
                self.check_gave_up(*run);
                self.retried(*run, *attempt);
                self.no_longer_waits(*run);
            }
            Decision::Excluded { task, machine, .. } => {
                assert!(self.tasks[task].excluded.contains(machine), "{machine} is left out for no reason");
            }
            Decision::Waiting { subject, cause } => self.waits(*subject, cause),
            Decision::Deadlock { victim, .. } => self.deadlocks.push(*victim),
            Decision::TaskFinished { task, state, .. } => self.task_finished(*task, *state),
        }
    }

    fn asks(&mut self, task: TaskId, question: &Question) {
        let choices = &question.choices;
        if let About::Failure(run) = &question.about {
            let required = self.tasks[&task].step(*run).required;
            let hidden = choices.contains(&Choice::Ignore) || choices.contains(&Choice::Exclude);
            assert!(!required || !hidden, "a required step can be ignored");
            let asked = self.retries.get(run).map_or(0, |retry| retry.person);
            assert_eq!(choices.contains(&Choice::Retry), asked < self.settings.guided_retries, "{run:?}: retries");
            self.check_gave_up(*run);
            self.no_longer_waits(*run);
        }
        self.tasks.get_mut(&task).unwrap().questions.insert(question.number, question.clone());
    }

    fn waits(&mut self, subject: Subject, cause: &Cause) {
        let before = self.told.insert(subject, cause.clone());
        assert_ne!(before.as_ref(), Some(cause), "told twice");
        let Subject::Run(run) = subject else {
            return;
        };
        // One that runs and is to go on wants no lock.
        if self.running.contains_key(&run) {
            return;
        }
        // One that closes a deadlock at once is told what is asked, and waits for locks all the same.
        let deadlock = |number: &u64| {
            let asked = self.tasks[&run.task].questions.get(number);
            asked.is_some_and(|question| question.about == About::Deadlock(subject))
        };
        let closes = matches!(cause, Cause::Person { question } if deadlock(question));
        if closes || matches!(cause, Cause::Lock { .. } | Cause::Fence { .. } | Cause::Turn) {
            self.asked += 1;
            let queued = Queued { order: self.asked, since_ms: self.now };
            self.queued_runs.entry(run).or_insert(queued);
            self.worker_waits.remove(&run);
        }
        // One whose turn in its window has not come stands in no queue of a lock.
        if matches!(cause, Cause::Window { .. } | Cause::Runs { .. }) {
            self.queued_runs.remove(&run);
        }
        if matches!(cause, Cause::Pool { .. }) {
            self.worker_waits.entry(run).or_insert(self.now);
        }
    }

    fn no_longer_waits(&mut self, run: RunKey) {
        self.queued_runs.remove(&run);
        self.worker_waits.remove(&run);
        self.told.remove(&Subject::Run(run));
    }

    fn broken(&mut self, resource: &Resource, run: RunKey, part: Part) {
        let gone = |need: &Need| need.name == resource.as_str();
        match part {
            Part::Fence(_) => self.fences.entry(run).or_default().retain(|need| !gone(need)),
            Part::Run => match self.running.get_mut(&run) {
                Some(running) => running.needs.retain(|need| !gone(need)),
                // Whoever had it and had not begun waits anew.
                None => self.no_longer_waits(run),
            },
            Part::Call(number) => {
                if let Some(call) = self.calls.get_mut(&LockRequest { run, number }) {
                    call.need.name = format!("broken:{resource}");
                }
            }
            Part::Step | Part::Task => {
                let step = (part == Part::Step).then_some(run.step);
                let holds = self.tasks.get_mut(&run.task).map(|books| &mut books.holds);
                holds.into_iter().for_each(|holds| holds.retain(|held| held.step != step || !gone(&held.need)));
            }
        }
    }

    fn task_finished(&mut self, id: TaskId, state: TaskState) {
        let books = self.tasks.remove(&id).unwrap();
        self.ended.insert(id);
        assert!(!self.running.keys().any(|run| run.task == id), "a run outlives its task");
        assert!(books.questions.is_empty(), "a question outlives its task");
        let queued = books.state == Some(TaskState::Queued);
        match state {
            TaskState::Cancelled => {
                assert!(books.cancelled || self.is_superseded(id, &books), "task {id} is cancelled by nobody");
            }
            TaskState::TimedOut => {
                assert!(queued, "task {id} had started");
                self.check_expired(books.plan());
            }
            TaskState::Failed => assert!(
                books.failed
                    || (queued && self.deadlocks.contains(&Subject::Task(id)))
                    || (queued && books.plan().on_deadlock == windlass_scheduler::OnDeadlock::Ask),
                "task {id} failed without a failure"
            ),
            TaskState::Succeeded => {
                assert!(!books.failed && !books.cancelled, "task {id} succeeded in spite of all");
                let over = |step: u32| books.steps.get(&step).is_some_and(|state| state.is_final());
                assert!((0..books.plan().steps.len() as u32).all(over), "task {id} succeeded before its steps");
                self.succeeded.extend(books.plan().supersede.clone().map(|key| (id, key)));
            }
            other => panic!("task {id} ended as {other}"),
        }
        self.fence_holds(id, &books);
        self.told.retain(|subject, _| subject.task() != id);
        self.queued_runs.retain(|run, _| run.task != id);
        self.worker_waits.retain(|run, _| run.task != id);
        self.over.retain(|run, _| run.task != id);
        self.pardoned.retain(|run| run.task != id);
        self.unreached.retain(|run| run.task != id);
        self.retries.retain(|run, _| run.task != id);
        self.late.retain(|run| run.task != id);
    }

    fn run_state(&mut self, run: RunKey, state: RunState) {
        assert!(state.is_final() && !self.running.contains_key(&run), "{run:?} ended while it runs");
        self.note_pardon(run, state);
        self.check_outcome(run, state);
        if state == RunState::Failed {
            self.check_gave_up(run);
        }
        self.no_longer_waits(run);
        assert_eq!(self.over.insert(run, state), None, "{run:?} ends twice");
        let books = self.tasks.get_mut(&run.task).unwrap();
        let range = unit(books.plan(), run.step);
        let off = |step: u32| books.steps.get(&step) == Some(&RunState::Skipped);
        let last = (run.step + 1..range.end).all(off);
        if last && let Some(lanes) = books.lanes.get_mut(&range.start) {
            lanes.remove(&run.place);
        }
        let pardoned = |question: &Question| question.about == About::Failure(run);
        assert!(!books.questions.values().any(pardoned), "{run:?} ended before its question");
    }

    /// What becomes of a machine that was left out no longer matters.
    fn note_pardon(&mut self, run: RunKey, state: RunState) {
        let books = &self.tasks[&run.task];
        let machine = books.step(run).machine(run.place as usize);
        let out = machine.is_some_and(|name| books.excluded.contains(name));
        if out && state == RunState::Failed && !books.cancelled {
            self.pardoned.insert(run);
        }
    }

    /// A run that was reported ends as it was reported, unless it was told to stop.
    fn check_outcome(&self, run: RunKey, state: RunState) {
        let reported = match &self.event {
            Some(Event::RunFinished { run: over, outcome }) if *over == run => Some(outcome),
            _ => None,
        };
        let begun = self.attempts.get(&run).is_some_and(|attempt| *attempt > 0);
        match (state, reported) {
            (RunState::Cancelled, _) => {
                let late = self.late.contains(&run) && !self.tasks[&run.task].cancelled;
                assert!(!late, "{run:?} took too long, and counts as cancelled");
            }
            (RunState::Succeeded, Some(RunOutcome::Succeeded)) => {}
            (RunState::Succeeded, _) => panic!("{run:?} succeeded, and nobody said so"),
            (_, Some(RunOutcome::Succeeded)) => panic!("{run:?} succeeded, and counts as {state}"),
            (RunState::Skipped, Some(_)) => {
                assert!(self.pardoned.contains(&run), "{run:?} ran, and counts as skipped");
            }
            (RunState::Skipped, None) => {
                let books = &self.tasks[&run.task];
                let tried = begun && !books.cancelled && books.step(run).skip.is_none();
                let machine = books.step(run).machine(run.place as usize);
                let out = machine.is_some_and(|name| books.excluded.contains(name));
                assert!(!tried || out || self.is_pool(run), "{run:?} was tried, and counts as skipped");
            }
            (RunState::Failed, Some(RunOutcome::Unavailable { .. })) => {
                assert!(!self.unreached.contains(&run), "{run:?} could not be reached, and counts as failed");
            }
            _ => {}
        }
    }

    fn is_pool(&self, run: RunKey) -> bool {
        matches!(self.tasks[&run.task].step(run).place, windlass_scheduler::Where::Pool(_))
    }
}
