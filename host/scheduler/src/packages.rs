//! The package barrier: bringing packages to every place that later steps need them in, a window at a time.

use std::collections::BTreeSet;

use windlass_model::{MachineName, TaskId, TaskState};

use crate::{
    decision::Decision,
    event::Subject,
    plan::Unavailable,
    progress::{Acquiring, Packages},
    question::About,
    state::Task,
    timers::Timer,
    turn::Turn,
};

impl Turn<'_> {
    /// Begins to bring all packages of this and later groups to all their places.
    pub fn acquire(&mut self, id: TaskId) {
        let Some(task) = self.task(id) else {
            return;
        };
        let places = places(task);
        task.progress.packages = if places.is_empty() {
            Packages::Acquired
        } else {
            let count = places.len() as u32;
            Packages::Acquiring(Acquiring { todo: places.into(), places: count, ..Acquiring::default() })
        };
        if count_is_zero(task) {
            self.ready(id);
            return;
        }
        self.fill_acquisitions(id);
        self.touch_waiting_steps(id);
        self.state.queue.activity_changed(id);
    }

    /// Gives the free places of the acquisition window to the machines whose turn it is.
    pub fn fill_acquisitions(&mut self, id: TaskId) {
        let wants = |task: &Task| matches!(&task.progress.packages, Packages::Acquiring(acquiring) if !acquiring.todo.is_empty() && acquiring.stopping.is_none());
        if !self.state.tasks.get(&id).is_some_and(|task| wants(task)) || !self.seat(id) {
            return;
        }
        let Some(task) = self.state.tasks.get_mut(&id) else {
            return;
        };
        let most = task.plan.acquisitions_at_once(&self.state.settings);
        let Packages::Acquiring(acquiring) = &mut task.progress.packages else {
            return;
        };
        let free = most.saturating_sub(acquiring.open.len()).min(acquiring.todo.len());
        let next: Vec<_> = acquiring.todo.drain(..free).collect();
        acquiring.open.extend(next.iter().cloned());
        if !next.is_empty() {
            let server = next.contains(&None);
            self.say(Decision::Acquire { task: id, machines: next.into_iter().flatten().collect(), server });
        }
    }

    /// What the steps of the open group wait for may be something else now.
    pub fn touch_waiting_steps(&mut self, id: TaskId) {
        let Some(task) = self.state.tasks.get(&id) else {
            return;
        };
        let waiting: Vec<_> = task.progress.todo.iter().flat_map(|lead| *lead..task.plan.unit_end(*lead)).collect();
        for step in waiting {
            self.touch(Subject::Step(id, step));
        }
    }

    /// Takes a place out of the open ones.
    fn settle_place(&mut self, id: TaskId, machine: &Option<MachineName>) -> bool {
        let Some(Packages::Acquiring(acquiring)) = self.task(id).map(|task| &mut task.progress.packages) else {
            return false;
        };
        let before = acquiring.open.len();
        acquiring.open.retain(|place| place != machine);
        acquiring.open.len() < before
    }

    /// A place has its packages.
    pub fn packages_acquired(&mut self, id: TaskId, machine: &Option<MachineName>) {
        if self.settle_place(id, machine) {
            self.go_on_acquiring(id);
        }
    }

    /// A place will not get its packages, or the transfer was stopped.
    pub fn packages_failed(&mut self, id: TaskId, machine: Option<MachineName>, error: String, unavailable: bool) {
        if !self.settle_place(id, &machine) {
            return;
        }
        let Some(task) = self.task(id) else {
            return;
        };
        let stopping =
            matches!(&task.progress.packages, Packages::Acquiring(acquiring) if acquiring.stopping.is_some());
        let policy = task.plan.unavailable;
        let (guided, excluded) =
            (task.plan.guided, machine.as_ref().is_some_and(|name| task.progress.excluded.contains_key(name)));
        if let Some(name) = machine.clone().filter(|_| unavailable && policy != Unavailable::Fail && !stopping) {
            self.exclude(id, &name, &format!("it could not be reached: {error}"));
        } else if guided && !stopping && !excluded {
            if let Packages::Acquiring(acquiring) = &mut task.progress.packages {
                acquiring.asking.push(machine.clone());
            }
            self.ask_packages(id, machine, &error);
        } else if !excluded {
            let place = machine.map_or_else(|| "the server".to_owned(), |name| name.to_string());
            self.lose_packages(id, format!("packages did not reach {place}: {error}"));
        }
        self.go_on_acquiring(id);
    }

    /// The packages will not get everywhere.
    pub fn lose_packages(&mut self, id: TaskId, error: String) {
        let Some(task) = self.task(id) else {
            return;
        };
        if let Packages::Acquiring(acquiring) = &mut task.progress.packages {
            acquiring.failed = true;
        }
        if task.progress.state == TaskState::Executing {
            task.progress.error.get_or_insert(error);
        }
        self.stop_packages(id);
    }

    /// Tells the transfer to stop. Whatever is still open after the time a kill takes counts as failed.
    pub fn stop_packages(&mut self, id: TaskId) {
        let until = self.now.saturating_add(self.state.settings.grace_ms).saturating_add(self.state.settings.kill_ms);
        let now = self.now;
        let Some(Packages::Acquiring(acquiring)) = self.task(id).map(|task| &mut task.progress.packages) else {
            return;
        };
        acquiring.failed = true;
        acquiring.todo.clear();
        acquiring.asking.clear();
        if acquiring.stopping.is_none() && !acquiring.open.is_empty() {
            acquiring.stopping = Some(now);
            self.state.timers.set(until, Timer::Packages(id));
            self.say(Decision::StopAcquire { task: id });
        }
        self.drop_questions(id, |question| matches!(question.about, About::Packages(_)));
        self.go_on_acquiring(id);
    }

    /// A transfer that was told to stop did not: it is given up.
    pub fn abandon_packages(&mut self, id: TaskId, at: u64) {
        let limit = self.state.settings.grace_ms.saturating_add(self.state.settings.kill_ms);
        let Some(Packages::Acquiring(acquiring)) = self.task(id).map(|task| &mut task.progress.packages) else {
            return;
        };
        if acquiring.stopping.is_some_and(|since| since.saturating_add(limit) <= at) {
            acquiring.open.clear();
            self.say(Decision::AbandonAcquire { task: id });
            self.go_on_acquiring(id);
        }
    }

    /// A place is left out, or tried again.
    pub fn drop_place(&mut self, id: TaskId, machine: &Option<MachineName>, again: bool) {
        if let Some(Packages::Acquiring(acquiring)) = self.task(id).map(|task| &mut task.progress.packages) {
            acquiring.asking.retain(|place| place != machine);
            acquiring.todo.retain(|place| place != machine);
            if again {
                acquiring.todo.push_back(machine.clone());
            }
            self.go_on_acquiring(id);
        }
    }

    fn go_on_acquiring(&mut self, id: TaskId) {
        self.fill_acquisitions(id);
        let Some(task) = self.task(id) else {
            return;
        };
        if let Packages::Acquiring(acquiring) = &task.progress.packages
            && acquiring.is_over()
        {
            task.progress.packages = if acquiring.failed { Packages::Failed } else { Packages::Acquired };
            self.ready(id);
            self.state.queue.activity_changed(id);
        }
        self.idles(id);
        self.touch_waiting_steps(id);
    }
}

fn count_is_zero(task: &Task) -> bool {
    task.progress.packages == Packages::Acquired
}

/// Everywhere that packages of steps that have not started go, each place once, in the order of the plan.
fn places(task: &Task) -> Vec<Option<MachineName>> {
    let mut seen = BTreeSet::new();
    let steps = task.plan.steps.iter().zip(&task.progress.steps);
    steps
        .filter(|(step, progress)| {
            let waits = matches!(progress.state, windlass_model::RunState::Pending | windlass_model::RunState::Waiting);
            waits && step.needs_packages && step.skip.is_none()
        })
        .flat_map(|(step, _)| (0..step.runs()).map(|place| step.machine(place).cloned()))
        .filter(|place| place.as_ref().is_none_or(|name| !task.progress.excluded.contains_key(name)))
        .filter(|place| seen.insert(place.clone()))
        .collect()
}
