//! Which task has its turn: order, concurrency tags, superseding.

use std::cmp::Reverse;

use windlass_model::{TaskId, TaskState};
use windlass_scheduler::{About, Cause, Event, PlanKind, Subject, TaskPlan, WaitOn};

use super::{Books, Referee};

impl Referee {
    pub(super) fn queued(&mut self, id: TaskId, plan: &TaskPlan) {
        self.asked += 1;
        let mut books = Books { plan: Some(plan.clone()), ticket: self.asked, ..Books::default() };
        // It takes the earliest place of those that it supersedes.
        let queued = |(_, books): &(&TaskId, &Books)| books.state == Some(TaskState::Queued);
        let same =
            |(_, books): &(&TaskId, &Books)| plan.supersede.is_some() && books.plan().supersede == plan.supersede;
        for (_, older) in self.tasks.iter().filter(queued).filter(same) {
            books.ticket = books.ticket.min(older.ticket);
            books.top = books.top.max(older.top);
        }
        self.tasks.insert(id, books);
        let parent = plan.parent.filter(|parent| !parent.detached).and_then(|parent| self.tasks.get(&parent.run.task));
        if parent.is_some_and(|parent| parent.cancelled) {
            self.cancelled(id);
        }
    }

    pub(super) fn moved_to_top(&mut self, id: TaskId) {
        self.asked += 1;
        if let Some(books) = self.tasks.get_mut(&id).filter(|books| books.state == Some(TaskState::Queued)) {
            books.top = self.asked;
        }
    }

    /// Whether a task that has started waits for nothing but a free place.
    pub(super) fn wants_seat(&self, id: TaskId) -> bool {
        let seat = matches!(self.told.get(&Subject::Task(id)), Some(Cause::Cap { .. } | Cause::Behind { .. }));
        seat && self.tasks[&id].state == Some(TaskState::Executing)
    }

    /// A task has its turn: it is the first of those that could have it, and nobody else executes under its tag.
    pub(super) fn check_turn(&self, id: TaskId) {
        let books = &self.tasks[&id];
        assert!(!books.cancelled, "task {id} goes on after a cancel");
        for (other, books) in self.same_tag(id) {
            let executes = books.executes() && !books.paused && !self.pauses(other);
            assert!(!executes, "task {id} has its turn while task {other} executes under the same tag");
        }
        if books.state != Some(TaskState::Queued) {
            return;
        }
        assert!(!self.settings.draining, "task {id} starts on a server that starts nothing new");
        assert!(books.plan().start_at_ms.is_none_or(|at| at <= self.now), "task {id} starts before its time");
        // A late tick takes things in their order: it may start what expired a little later.
        let late = self.event == Some(Event::Tick);
        let expired = books.plan().expires_ms.is_some_and(|at| at < self.now);
        assert!(late || !expired, "task {id} starts after it has expired");
        for (other, theirs) in &self.tasks {
            if *other == id || theirs.plan().kind != books.plan().kind {
                continue;
            }
            let first = place(theirs) < place(books) && theirs.state == Some(TaskState::Queued);
            assert!(!first || self.is_blocked(*other), "task {id} starts before task {other}, which comes first");
            let resumes = self.resuming.contains(other) && theirs.state == Some(TaskState::Executing);
            let waits = resumes && !theirs.cancelled && self.told.contains_key(&Subject::Task(*other));
            assert!(!waits, "task {id} starts before task {other} goes on");
        }
    }

    fn same_tag(&self, id: TaskId) -> impl Iterator<Item = (TaskId, &Books)> {
        let tag = self.tasks[&id].plan().concurrency_tag.clone();
        let others = self.tasks.iter().filter(move |(other, _)| **other != id);
        others
            .map(|(other, books)| (*other, books))
            .filter(move |(_, books)| tag.is_some() && books.plan().concurrency_tag == tag)
    }

    /// Whether something else than places keeps a queued task from starting: its time, or its tag.
    fn is_blocked(&self, id: TaskId) -> bool {
        let scheduled = self.told.get(&Subject::Task(id)).is_none_or(|cause| matches!(cause, Cause::Scheduled { .. }));
        let taken = |(_, books): (TaskId, &Books)| {
            books.executes() || (books.state == Some(TaskState::Queued) && place(books) < place(&self.tasks[&id]))
        };
        scheduled || self.same_tag(id).any(taken)
    }

    /// Whether a task does nothing but wait for people who may take their time, and holds nothing.
    pub(super) fn pauses(&self, id: TaskId) -> bool {
        let books = &self.tasks[&id];
        // One that stands in line for a place keeps its tag until it has had its turn.
        if self.told.contains_key(&Subject::Task(id)) {
            return false;
        }
        let asks = |about: &About| matches!(about, About::Approval(_) | About::Run(_));
        let questions = books.questions.values();
        let people = questions.clone().all(|question| !question.keeps_tag && asks(&question.about));
        let busy = self.running.iter().any(|(run, running)| {
            run.task == id && (!matches!(running.waits, Some(WaitOn::Person(_))) || !running.needs.is_empty())
        });
        let waits = |subject: &Subject| matches!(subject, Subject::Run(run) if run.task == id && !self.running.contains_key(run));
        let open = self
            .told
            .iter()
            .any(|(subject, cause)| waits(subject) && !matches!(cause, Cause::Window { .. } | Cause::Runs { .. }));
        let calls = self.calls.keys().any(|request| request.run.task == id);
        questions.len() > 0
            && people
            && !busy
            && !open
            && !calls
            && books.open_places.is_empty()
            && books.holds.is_empty()
    }

    /// What must hold of tasks between two events.
    pub(super) fn check_tasks(&mut self) {
        for (id, books) in &self.tasks {
            let stopping = books.state == Some(TaskState::Cancelling);
            assert!(!books.cancelled || stopping, "task {id} was cancelled, and nothing follows");
            let Some(key) = &books.plan().supersede else {
                continue;
            };
            let same = |books: &Books| books.plan().supersede.as_ref() == Some(key);
            let younger = self.tasks.range(TaskId(id.0 + 1)..).find(|(_, books)| same(books));
            let queued = books.state == Some(TaskState::Queued);
            assert!(!queued || younger.is_none(), "task {id} is superseded, and still waits");
            let by = self.succeeded.iter().find(|(by, other)| by > id && other == key);
            let paused = books.paused && books.state == Some(TaskState::Executing);
            assert!(!paused || by.is_none(), "task {id} waits for people although {by:?} succeeded");
        }
        let paused: Vec<_> = self.tasks.keys().copied().filter(|id| self.pauses(*id)).collect();
        for id in paused {
            let books = self.tasks.get_mut(&id).unwrap();
            books.paused |= books.state == Some(TaskState::Executing);
        }
        self.check_places();
    }

    /// Whoever waits for a place does so because all of them are taken.
    fn check_places(&self) {
        for (subject, cause) in &self.told {
            let Subject::Task(id) = subject else {
                continue;
            };
            if matches!(cause, Cause::Cap { .. } | Cause::Behind { .. }) {
                let kind = self.tasks[id].plan().kind;
                let works = |other: &&TaskId| self.tasks[*other].plan().kind == kind && self.task_works(**other);
                let working = self.tasks.keys().filter(works).count();
                let cap = match kind {
                    PlanKind::Deployment => self.settings.task_cap,
                    PlanKind::Script => self.settings.script_cap,
                };
                assert!(working >= cap.max(1) as usize, "task {id} waits for a place, and one is free");
            }
            if let Cause::Scheduled { at_ms } = cause {
                assert!(*at_ms > self.now, "task {id} is still to be started later");
            }
        }
    }

    /// Whether a younger task of the same key is what ends this one.
    pub(super) fn is_superseded(&self, id: TaskId, books: &Books) -> bool {
        let Some(key) = &books.plan().supersede else {
            return false;
        };
        let queued = match &self.event {
            Some(Event::TaskQueued { task, plan }) => *task > id && plan.supersede.as_ref() == Some(key),
            _ => false,
        };
        let succeeded = self.succeeded.iter().any(|(by, other)| *by > id && other == key);
        match books.state {
            Some(TaskState::Queued) => queued,
            _ => succeeded && (books.paused || self.pauses(id)),
        }
    }
}

fn place(books: &Books) -> (Reverse<u64>, Reverse<i32>, u64) {
    (Reverse(books.top), Reverse(books.plan().priority), books.ticket)
}
