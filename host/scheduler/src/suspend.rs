//! Runs that wait for something of their own: other tasks, a moment, a person.
//!
//! A suspended run does not work: its clock stands still, and its task may give its seat away. It goes on when
//! what it waited for has come and its task has its turn.

use windlass_model::TaskId;

use crate::{
    deadlock::Node,
    decision::Decision,
    event::{RunKey, Subject, WaitOn},
    progress::{Phase, Resume, Suspended},
    timers::Timer,
    turn::Turn,
};

impl Turn<'_> {
    pub fn run_waits(&mut self, key: RunKey, on: WaitOn) {
        let fit = |run: &&mut crate::progress::RunProgress| run.works() && run.stop.is_none();
        if self.running(key).filter(fit).is_none() {
            return;
        }
        let (on, until_ms) = match on {
            WaitOn::Limited { on, until_ms } => (*on, Some(until_ms)),
            on => (on, None),
        };
        let on = match on {
            WaitOn::Tasks(mut tasks) => {
                tasks.retain(|task| self.state.tasks.contains_key(task));
                tasks.sort_unstable();
                tasks.dedup();
                WaitOn::Tasks(tasks)
            }
            other => other,
        };
        let ticket = self.ticket();
        let ready = match &on {
            WaitOn::Tasks(tasks) => tasks.is_empty(),
            WaitOn::Until(until) => *until <= self.now,
            _ => false,
        };
        let ready = ready || until_ms.is_some_and(|until| until <= self.now);
        if let Some(until) = until_ms {
            self.state.timers.set(until, Timer::Run(key));
        }
        match &on {
            WaitOn::Tasks(tasks) => self.await_tasks(key, tasks),
            WaitOn::Until(until) => self.state.timers.set(*until, Timer::Run(key)),
            WaitOn::Person(ask) => self.ask_for_run(key, ask),
            // A limit within a limit: nobody asks for one, and the outer one counts.
            WaitOn::Other(_) | WaitOn::Limited { .. } => {}
        }
        self.change_run(key, |run| run.waits = Some(Suspended { on, until_ms, ticket, ready: None }));
        if ready {
            return self.run_ready(key, Resume::default());
        }
        self.touch(Subject::Run(key));
        self.suspect(Node::Run(key));
        self.idles(key.task);
    }

    fn await_tasks(&mut self, key: RunKey, tasks: &[TaskId]) {
        for task in tasks {
            self.state.awaiters.entry(*task).or_default().insert(key);
            self.state.queue.set_awaited(*task, true);
        }
    }

    /// A run no longer waits for what it waited for.
    pub fn forget_wait(&mut self, key: RunKey, on: &WaitOn) {
        let WaitOn::Tasks(tasks) = on else {
            return;
        };
        for task in tasks {
            if let Some(runs) = self.state.awaiters.get_mut(task) {
                runs.remove(&key);
                if runs.is_empty() {
                    self.state.awaiters.remove(task);
                    self.state.queue.set_awaited(*task, false);
                }
            }
        }
    }

    /// What a run waited for has come: it goes on once its task has its turn.
    pub fn run_ready(&mut self, key: RunKey, resume: Resume) {
        let Some(run) = self.state.run_mut(key).filter(|run| run.phase == Phase::Running) else {
            return;
        };
        let Some(waits) = run.waits.as_mut().filter(|waits| waits.ready.is_none()) else {
            return;
        };
        waits.ready = Some(Box::new(resume));
        let on = waits.on.clone();
        self.forget_wait(key, &on);
        self.drop_run_questions(key);
        if self.seat(key.task) {
            self.resume(key);
        } else {
            self.touch(Subject::Run(key));
        }
    }

    pub fn resume(&mut self, key: RunKey) {
        let mut told = None;
        self.change_run(key, |run| {
            told = run.waits.take().and_then(|waits| waits.ready);
            run.told = None;
        });
        if let Some(resume) = told {
            let Resume { answer, error } = *resume;
            self.say(Decision::ResumeRun { run: key, answer, error });
        }
    }
}
