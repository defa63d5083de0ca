//! What is to happen when its time has come, and not before.

use windlass_model::TaskState;
use windlass_scheduler::{Answer, Cause, RunKey, StopKind, Subject, TaskPlan, WaitOn};

use super::{Referee, Retry};

impl Referee {
    /// Time passes: whoever works has worked so much longer.
    pub(super) fn pass(&mut self, now: u64) {
        let passed = now - self.now;
        self.now = now;
        for run in self.working() {
            self.running.get_mut(&run).unwrap().worked_ms += passed;
        }
    }

    /// Nothing is overdue once an event was taken in.
    pub(super) fn check_clock(&self) {
        for (id, books) in &self.tasks {
            let queued = books.state == Some(TaskState::Queued);
            let expires = books.plan().expires_ms.unwrap_or(u64::MAX);
            assert!(!queued || expires > self.now, "task {id} is queued although it has expired");
            for question in books.questions.values() {
                let expiry = question.expiry.map_or(u64::MAX, |(at, _)| at);
                assert!(expiry > self.now, "question {} of task {id} is too old", question.number);
            }
            let patience = self.settings.grace_ms + self.settings.kill_ms;
            let late = books.stopping_since.is_some_and(|since| since + patience <= self.now);
            assert!(!late || books.open_places.is_empty(), "the transfer of task {id} is to be given up");
        }
        for (request, call) in &self.calls {
            let turn = self.told.get(&Subject::Lock(*request)) == Some(&Cause::Turn);
            let waits = call.token.is_none() && !turn;
            assert!(!waits || call.until_ms > self.now, "{request:?} waits longer than it is ready to");
        }
        for (run, queued) in &self.queued_runs {
            let turn = self.told.get(&Subject::Run(*run)) == Some(&Cause::Turn);
            assert!(turn || queued.since_ms + self.lock_patience(*run) > self.now, "{run:?} waits too long for locks");
        }
        for (run, since) in &self.worker_waits {
            assert!(since + self.settings.pool_wait_ms > self.now, "{run:?} waits too long for a worker");
        }
        for (run, running) in &self.running {
            let patience = match running.stop {
                None => u64::MAX - self.now,
                Some(StopKind::Kill) => self.settings.kill_ms,
                Some(_) => self.settings.grace_ms,
            };
            assert!(running.stopped_ms + patience > self.now, "{run:?} was not stopped with more force");
            let limit = self.time_limit(*run);
            let late = running.stop.is_none() && running.worked_ms >= limit && self.works(*run);
            assert!(!late, "{run:?} works longer than its limit");
            let told = self.told.get(&Subject::Run(*run));
            let overdue = running.waits.is_some() && running.wakes_ms.is_some_and(|at| at <= self.now);
            assert!(!overdue || running.stop.is_some() || told == Some(&Cause::Turn), "{run:?} waits beyond its limit");
            if let Some(WaitOn::Until(until)) = &running.waits {
                let sleeps = matches!(told, Some(Cause::Sleep { .. }));
                assert!(!sleeps || running.stop.is_some() || *until > self.now, "{run:?} sleeps too long");
            }
        }
        for (subject, cause) in &self.told {
            if let (Subject::Run(run), Cause::Backoff { until_ms, .. }) = (subject, cause) {
                assert_eq!(*until_ms, self.retries[run].due_ms, "{run:?} is tried again at another time");
                assert!(*until_ms > self.now, "{run:?} is due for its next attempt");
            }
        }
    }

    fn lock_patience(&self, run: RunKey) -> u64 {
        self.tasks[&run.task].plan().lock_wait_ms.unwrap_or(self.settings.lock_wait_ms)
    }

    fn time_limit(&self, run: RunKey) -> u64 {
        self.tasks[&run.task].step(run).timeout_ms.unwrap_or(u64::MAX)
    }

    /// More force is used only after the time that less of it was given.
    pub(super) fn stopped(&mut self, run: RunKey, kind: StopKind) {
        let (now, limit) = (self.now, self.time_limit(run));
        let cancelled = self.tasks[&run.task].cancelled;
        let grace = self.settings.grace_ms;
        let running = self.running.get_mut(&run).unwrap();
        match kind {
            StopKind::Kill => {
                assert!(running.stop.is_some_and(|stop| stop != StopKind::Kill), "{run:?} is killed at once");
                assert!(running.stopped_ms + grace <= now, "{run:?} is killed before its grace is over");
            }
            StopKind::Cancel => assert!(cancelled && running.stop.is_none(), "{run:?} is cancelled by nobody"),
            StopKind::Timeout => {
                assert!(running.stop.is_none() && running.worked_ms >= limit, "{run:?} is stopped before its time");
            }
        }
        (running.stop, running.stopped_ms) = (Some(kind), now);
        running.late |= kind == StopKind::Timeout;
    }

    /// A failed run is tried again by itself as often as its step says, each time twice as late.
    pub(super) fn retried(&mut self, run: RunKey, attempt: u32) {
        let step = self.tasks[&run.task].step(run);
        let (most, backoff) = (step.retries.min(10), step.backoff_ms);
        let retry = self.retries.entry(run).or_default();
        retry.own += 1;
        assert!(retry.own <= most, "{run:?} is tried again unasked");
        assert_eq!(attempt, 1 + retry.own + retry.person, "{run:?}: attempts are counted");
        retry.due_ms = self.now + backoff * (1 << (retry.own - 1));
        let unknown = matches!(&self.event, Some(windlass_scheduler::Event::RunFinished { run: over, outcome })
            if *over == run && matches!(outcome, windlass_scheduler::RunOutcome::Unknown { .. }));
        assert!(!unknown, "{run:?} is tried again although nobody knows what it did");
    }

    pub(super) fn check_due(&self, run: RunKey) {
        let Retry { due_ms, .. } = self.retries.get(&run).copied().unwrap_or_default();
        assert!(due_ms <= self.now, "{run:?} is tried again too early");
    }

    /// One that fails and never ran has waited as long as it may, or closed a deadlock.
    pub(super) fn check_gave_up(&self, run: RunKey) {
        let subject = Subject::Run(run);
        let answered =
            matches!(&self.event, Some(windlass_scheduler::Event::Answered { task, .. }) if *task == run.task);
        let locks =
            self.queued_runs.get(&run).is_some_and(|queued| queued.since_ms + self.lock_patience(run) <= self.now);
        let worker = self.worker_waits.get(&run).is_some_and(|since| since + self.settings.pool_wait_ms <= self.now);
        let waited = self.queued_runs.contains_key(&run) || self.worker_waits.contains_key(&run);
        assert!(
            !waited || locks || worker || answered || self.deadlocks.contains(&subject),
            "{run:?} gives up before its time"
        );
    }

    pub(super) fn check_expired(&self, plan: &TaskPlan) {
        assert!(plan.expires_ms.is_some_and(|at| at <= self.now), "timed out before its time");
    }

    /// Nobody answered in time.
    pub(super) fn check_lapsed(&self, expiry: Option<(u64, windlass_scheduler::Choice)>, answer: &Answer) {
        let (at, choice) = expiry.expect("a question with a time limit");
        assert!(at <= self.now && choice == answer.choice, "a question answers itself wrongly or too early");
    }
}
