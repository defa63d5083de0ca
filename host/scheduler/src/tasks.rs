//! A task as a whole: queued, superseded, its turn, resting, cancelled, over.

use windlass_model::{RunState, TaskId, TaskState};

use crate::{
    deadlock::Node,
    decision::Decision,
    event::{RunKey, StopKind, Subject},
    locks::ClaimKey,
    plan::TaskPlan,
    progress::{Packages, Phase, Progress, Resume},
    question::About,
    queue::Place,
    state::Task,
    timers::Timer,
    turn::Turn,
};

const TOO_LATE: &str = "it did not start before it expired";

impl Turn<'_> {
    pub fn queue(&mut self, id: TaskId, plan: TaskPlan) {
        if self.state.tasks.contains_key(&id) {
            return;
        }
        self.say(Decision::TaskState { task: id, state: TaskState::Queued });
        if plan.expires_ms.is_some_and(|at| at <= self.now) {
            let error = Some(TOO_LATE.to_owned());
            return self.say(Decision::TaskFinished { task: id, state: TaskState::TimedOut, error });
        }
        let mut ticket = self.ticket();
        let mut progress = Progress::new(&plan, ticket, self.now);
        if plan.supersede.is_some() {
            (ticket, progress.top) = self.supersede(id, &plan, ticket);
            progress.ticket = ticket;
        }
        if let Some(at) = plan.start_at_ms.filter(|at| *at > self.now) {
            self.state.timers.set(at, Timer::Start(id));
        }
        if let Some(at) = plan.expires_ms {
            self.state.timers.set(at, Timer::Expiry(id));
        }
        let scheduled = plan.start_at_ms.is_some_and(|at| at > self.now);
        let place = Place::queued(id, progress.top, plan.priority, ticket);
        self.state.queue.add(id, plan.kind, plan.concurrency_tag.as_deref());
        let parent = plan.parent;
        self.state.tasks.insert(id, Box::new(Task::new(plan.into(), progress)));
        if scheduled {
            self.touch(Subject::Task(id));
        } else {
            self.state.queue.wait(place);
        }
        let Some(parent) = parent.filter(|parent| !parent.detached) else {
            return;
        };
        let Some(of) = self.task(parent.run.task) else {
            return;
        };
        of.children.insert(id);
        if of.progress.state == TaskState::Cancelling {
            self.cancel(id, Some(format!("task {}, which started it, was cancelled", parent.run.task)));
        }
    }

    /// Cancels older queued tasks of the same key. Returns the earliest place among them.
    fn supersede(&mut self, id: TaskId, plan: &TaskPlan, ticket: u64) -> (u64, u64) {
        let mut place = (ticket, 0);
        let Some(key) = plan.supersede.clone() else {
            return place;
        };
        let older: Vec<_> = self.state.superseding.get(&key).into_iter().flatten().copied().collect();
        for older in older {
            let Some(task) = self.task(older).filter(|task| task.progress.state == TaskState::Queued) else {
                continue;
            };
            place = (place.0.min(task.progress.ticket), place.1.max(task.progress.top));
            self.end_queued(older, TaskState::Cancelled, format!("superseded by task {id} ({})", plan.title));
        }
        self.state.superseding.entry(key).or_default().insert(id);
        place
    }

    pub fn start_time(&mut self, id: TaskId) {
        let Some(task) = self.state.tasks.get(&id).filter(|task| task.progress.state == TaskState::Queued) else {
            return;
        };
        let Progress { top, ticket, .. } = task.progress;
        let place = Place::queued(id, top, task.plan.priority, ticket);
        self.state.queue.wait(place);
        self.suspect_task(id);
    }

    pub fn expired(&mut self, id: TaskId, at: u64) {
        let queued = |task: &&mut Task| task.progress.state == TaskState::Queued && task.plan.expires_ms == Some(at);
        if self.task(id).filter(queued).is_some() {
            self.end_queued(id, TaskState::TimedOut, TOO_LATE.to_owned());
        }
    }

    pub fn move_to_top(&mut self, id: TaskId) {
        let ticket = self.ticket();
        let Some(task) = self.task(id).filter(|task| task.progress.state == TaskState::Queued) else {
            return;
        };
        task.progress.top = ticket;
        let place = Place::queued(id, ticket, task.plan.priority, task.progress.ticket);
        if self.state.queue.blocker(id, &self.state.settings).is_some() {
            self.state.queue.leave(id);
            self.state.queue.wait(place);
            self.suspect_task(id);
        }
    }

    fn suspect_task(&mut self, id: TaskId) {
        if self.state.awaiters.contains_key(&id) {
            self.suspect(Node::Task(id));
        }
    }

    /// A task was admitted: it starts, or goes on.
    pub fn has_turn(&mut self, id: TaskId) {
        let now = self.now;
        let Some(task) = self.task(id) else {
            return;
        };
        let progress = &mut task.progress;
        let paused = !progress.tagged && progress.state != TaskState::Queued;
        (progress.seated, progress.tagged, progress.told) = (true, true, None);
        if progress.state == TaskState::Queued {
            progress.state = TaskState::Executing;
            progress.started_ms = Some(now);
        }
        // Said again whenever it goes on: what it waited for is over.
        let state = progress.state;
        self.say(Decision::TaskState { task: id, state });
        self.touch_waiting_steps(id);
        if paused {
            self.touch_pending(id);
        }
        self.unpark(id);
        self.ready(id);
        self.idles(id);
    }

    /// Whether a task may work now. If not, it waits for its turn.
    pub fn seat(&mut self, id: TaskId) -> bool {
        let Some(task) = self.state.tasks.get(&id) else {
            return false;
        };
        if task.progress.seated {
            return true;
        }
        if task.progress.state == TaskState::Queued || task.progress.resume > 0 {
            return false;
        }
        let ticket = self.ticket();
        if let Some(task) = self.task(id) {
            task.progress.resume = ticket;
        }
        self.state.queue.wait(Place::resuming(id, ticket));
        if self.state.queue.tag_blockers(id).next().is_some() {
            self.suspect(Node::Task(id));
        }
        false
    }

    /// Everything of a task that waited for its turn goes on.
    fn unpark(&mut self, id: TaskId) {
        let Some(task) = self.task(id) else {
            return;
        };
        task.progress.resume = 0;
        let open: Vec<_> = task.open.iter().copied().collect();
        for (step, place) in open {
            let key = RunKey { task: id, step, place };
            let Some(run) = self.state.run(key) else {
                continue;
            };
            if run.phase == Phase::Seat {
                self.start_run(key);
                continue;
            }
            let held: Vec<_> =
                run.calls.iter().filter(|(_, call)| call.held && call.token.is_none()).map(|(n, _)| *n).collect();
            let refused: Vec<_> =
                run.calls.iter().filter(|(_, call)| call.refused.is_some()).map(|(n, _)| *n).collect();
            let ready = run.waits.as_ref().is_some_and(|waits| waits.ready.is_some());
            for number in held {
                self.tell_grant(key, number);
            }
            for number in refused {
                self.tell_refusal(crate::event::LockRequest { run: key, number });
            }
            if ready {
                self.resume(key);
            }
        }
        self.fill_acquisitions(id);
    }

    /// Gives back the seat of a task in which everything waits, and its tag if only people are waited for.
    pub fn rest(&mut self, id: TaskId) {
        let Some(task) = self.state.tasks.get(&id) else {
            return;
        };
        if task.works() || task.progress.state == TaskState::Queued {
            return;
        }
        // One that stands in line for a place keeps its tag until it has had its turn.
        let stays = task.progress.resume > 0 || task.progress.state != TaskState::Executing;
        let pauses = task.has_turn() && !stays && self.only_asks(task);
        if task.progress.seated {
            self.state.queue.unseat(id);
        }
        if pauses {
            self.state.queue.free_tag(id);
            self.touch_waiting_steps(id);
        }
        if let Some(task) = self.task(id) {
            task.progress.seated = false;
            task.progress.tagged &= !pauses;
        }
    }

    /// Whether a task does nothing but wait for people who may take their time, and holds no lock: then others
    /// of its tag may start, and it can never be in the way of what it waits for.
    fn only_asks(&self, task: &Task) -> bool {
        let progress = &task.progress;
        let asks = !progress.questions.is_empty() && progress.questions.values().all(|question| !question.keeps_tag);
        let transfers = matches!(progress.packages, Packages::Acquiring(_));
        let asking = |about: &About| match about {
            About::Approval(_) => true,
            About::Run(run) => {
                let holds = self.state.locks.wants(ClaimKey::run(*run)).is_empty();
                holds && task.run(*run).is_some_and(|run| run.calls.is_empty())
            }
            _ => false,
        };
        let runs = progress.questions.values().filter(|question| matches!(question.about, About::Run(_))).count();
        asks && !transfers
            && progress.holds.is_empty()
            && progress.questions.values().all(|question| asking(&question.about))
            && task.open.len() == runs
    }

    pub fn cancel(&mut self, id: TaskId, why: Option<String>) {
        let mut all = vec![(id, why)];
        // A task queues its children after itself, so this ends.
        while let Some((id, why)) = all.pop() {
            let Some(task) = self.state.tasks.get(&id) else {
                continue;
            };
            let children = task.children.iter().rev().copied();
            all.extend(children.map(|child| (child, Some(format!("task {id}, which started it, was cancelled")))));
            match task.progress.state {
                TaskState::Queued => self.finish_task(id, TaskState::Cancelled, why),
                TaskState::Executing => self.stop_task(id, why),
                _ => {}
            }
        }
    }

    fn stop_task(&mut self, id: TaskId, why: Option<String>) {
        let Some(task) = self.task(id) else {
            return;
        };
        task.progress.state = TaskState::Cancelling;
        if task.progress.error.is_none() {
            task.progress.error = why;
        }
        let open: Vec<_> = task.open.iter().copied().collect();
        let waits_for_turn = task.progress.resume > 0;
        task.progress.resume = 0;
        task.progress.told = None;
        self.say(Decision::TaskState { task: id, state: TaskState::Cancelling });
        if waits_for_turn {
            self.state.queue.leave(id);
        }
        self.stop_packages(id);
        self.drop_questions(id, |_| true);
        for (step, place) in open {
            let key = RunKey { task: id, step, place };
            match self.state.run(key).map(|run| run.phase) {
                Some(Phase::Running) => self.stop_run(key, StopKind::Cancel),
                Some(_) => self.drop_run(key, RunState::Cancelled, "the task was cancelled"),
                None => {}
            }
        }
        self.drop_steps(id);
        self.ready(id);
        self.idles(id);
    }

    /// Ends a task that has not started.
    pub fn end_queued(&mut self, id: TaskId, state: TaskState, why: String) {
        self.finish_task(id, state, Some(why));
    }

    /// Ends a task: nothing of it runs any more.
    pub fn finish_task(&mut self, id: TaskId, state: TaskState, why: Option<String>) {
        self.drop_questions(id, |_| true);
        self.fence_holds(id);
        self.release_group(id, None);
        self.state.queue.remove(id);
        let Some(task) = self.state.tasks.remove(&id) else {
            return;
        };
        if let Some(of) = task.plan.parent.and_then(|parent| self.task(parent.run.task)) {
            of.children.remove(&id);
        }
        self.say(Decision::TaskFinished { task: id, state, error: why.or(task.progress.error) });
        if let Some(key) = &task.plan.supersede {
            self.forget_key(key, id, state);
        }
        for run in self.state.awaiters.remove(&id).into_iter().flatten() {
            self.one_task_less(run, id);
        }
    }

    /// A success supersedes older tasks that wait for people only.
    fn forget_key(&mut self, key: &str, id: TaskId, state: TaskState) {
        let Some(tasks) = self.state.superseding.get_mut(key) else {
            return;
        };
        tasks.remove(&id);
        let older: Vec<_> = tasks.range(..id).copied().collect();
        if tasks.is_empty() {
            self.state.superseding.remove(key);
        }
        for older in older {
            let paused = |task: &&mut Task| task.progress.state == TaskState::Executing && !task.progress.tagged;
            if state == TaskState::Succeeded && self.task(older).filter(paused).is_some() {
                self.cancel(older, Some(format!("superseded by task {id}")));
            }
        }
    }

    fn one_task_less(&mut self, run: RunKey, task: TaskId) {
        let Some(waits) = self.state.run_mut(run).and_then(|run| run.waits.as_mut()) else {
            return;
        };
        let crate::event::WaitOn::Tasks(tasks) = &mut waits.on else {
            return;
        };
        tasks.retain(|awaited| *awaited != task);
        if tasks.is_empty() {
            self.run_ready(run, Resume::default());
        } else {
            self.touch(Subject::Run(run));
        }
    }
}
