//! Questions to people, and what their answers do.

use windlass_model::{MachineName, RunState, TaskId, task::run_node};

use crate::{
    decision::Decision,
    event::{Ask, RunKey, Subject},
    progress::{Phase, Resume},
    question::{About, Answer, Choice, Question},
    timers::Timer,
    turn::Turn,
};

impl Turn<'_> {
    fn ask(&mut self, id: TaskId, about: About, ask: Ask) {
        self.state.counters.question += 1;
        let number = self.state.counters.question;
        let now = self.now;
        let expiry = ask.expiry.map(|(after, choice)| (now.saturating_add(after), choice));
        let Some(task) = self.task(id) else {
            return;
        };
        let question = Question {
            number,
            about,
            text: ask.text,
            choices: ask.choices,
            responsible: ask.responsible,
            expiry,
            keeps_tag: ask.keeps_tag,
            asked_ms: now,
        };
        task.progress.questions.insert(number, question.clone());
        if matches!(question.about, About::Deadlock(_)) {
            self.state.asked_deadlocks.insert((id, number));
        }
        if let Some((at, _)) = expiry {
            self.state.timers.set(at, Timer::Question(id, number));
        }
        self.touch_asked(id, &question.about);
        self.say(Decision::Ask { task: id, question: Box::new(question) });
        self.idles(id);
    }

    fn touch_asked(&mut self, id: TaskId, about: &About) {
        match about {
            About::Failure(run) | About::Run(run) => self.touch(Subject::Run(*run)),
            About::Approval(step) => self.touch_unit(id, *step),
            About::Deadlock(subject) => self.touch(*subject),
            About::Packages(_) => {}
        }
    }

    /// Asks what to do about a failed run.
    pub fn ask_failure(&mut self, key: RunKey, state: RunState, error: &str) {
        let Some(task) = self.state.tasks.get(&key.task) else {
            return;
        };
        let (Some(plan), Some(run)) = (task.step_plan(key.step), task.run(key)) else {
            return;
        };
        let mut choices = vec![Choice::Fail];
        if run.person_retries < self.state.settings.guided_retries {
            choices.push(Choice::Retry);
        }
        let machine = plan.machine(key.place as usize).or(run.worker.as_ref());
        if !plan.required {
            choices.push(Choice::Ignore);
            if plan.machine(key.place as usize).is_some() {
                choices.push(Choice::Exclude);
            }
        }
        let what = if state == RunState::Unknown { "has an unknown outcome" } else { "failed" };
        let text = format!("step {} {what}: {error}", run_node(&plan.name, machine));
        self.ask(key.task, About::Failure(key), guided(text, choices));
    }

    /// Asks what to do about a place that did not get its packages.
    pub fn ask_packages(&mut self, id: TaskId, machine: Option<MachineName>, error: &str) {
        let place = machine.as_ref().map_or_else(|| "the server".to_owned(), ToString::to_string);
        let mut choices = vec![Choice::Fail, Choice::Retry];
        choices.extend(machine.is_some().then_some(Choice::Exclude));
        let text = format!("packages did not reach {place}: {error}");
        self.ask(id, About::Packages(machine), guided(text, choices));
    }

    /// Asks for the agreement that a step wants before it starts.
    pub fn ask_approval(&mut self, id: TaskId, lead: u32) {
        let Some(approval) = self.state.tasks.get(&id).and_then(|task| task.step_plan(lead)?.approval.clone()) else {
            return;
        };
        let ask = Ask {
            text: approval.instructions,
            choices: vec![Choice::Proceed, Choice::Abort],
            responsible: approval.responsible,
            expiry: approval.expires_ms.map(|after| (after, approval.on_expiry)),
            keeps_tag: approval.keeps_tag,
        };
        self.ask(id, About::Approval(lead), ask);
    }

    /// Asks what a run wants to know.
    pub fn ask_for_run(&mut self, key: RunKey, ask: &Ask) {
        self.ask(key.task, About::Run(key), ask.clone());
    }

    /// Asks what to do about a deadlock.
    pub fn ask_deadlock(&mut self, victim: Subject, text: String) {
        let ask = guided(text, vec![Choice::Fail, Choice::Wait]);
        self.ask(victim.task(), About::Deadlock(victim), ask);
    }

    /// Takes questions away that no longer matter.
    pub fn drop_questions(&mut self, id: TaskId, which: impl Fn(&Question) -> bool) {
        let Some(task) = self.task(id) else {
            return;
        };
        if task.progress.questions.is_empty() {
            return;
        }
        let gone: Vec<_> = task
            .progress
            .questions
            .values()
            .filter(|question| which(question))
            .map(|question| question.number)
            .collect();
        for number in gone {
            let question = self.task(id).and_then(|task| task.progress.questions.remove(&number));
            if let Some(Question { about: about @ About::Deadlock(_), .. }) = question {
                self.state.asked_deadlocks.remove(&(id, number));
                // Whoever waits goes on waiting, for what it waited for before it was asked.
                self.touch_asked(id, &about);
                self.suspect_all();
            }
            self.say(Decision::QuestionOver { task: id, question: number, answer: None });
        }
    }

    /// A wait has ended: whether it was part of a deadlock no longer matters.
    pub fn wait_over(&mut self, subject: Subject) {
        self.drop_questions(subject.task(), |question| question.about == About::Deadlock(subject));
    }

    /// Takes away what was asked about a run.
    pub fn drop_run_questions(&mut self, key: RunKey) {
        let own = |subject: Subject| match subject {
            Subject::Run(run) => run == key,
            Subject::Lock(request) => request.run == key,
            _ => false,
        };
        self.drop_questions(key.task, |question| match &question.about {
            About::Failure(run) | About::Run(run) => *run == key,
            About::Deadlock(subject) => own(*subject),
            _ => false,
        });
    }

    pub fn question_expired(&mut self, id: TaskId, number: u64, at: u64) {
        let question = self.state.tasks.get(&id).and_then(|task| task.progress.questions.get(&number));
        if let Some((until, choice)) = question.and_then(|question| question.expiry)
            && until == at
        {
            let notes = "nobody answered in time".to_owned();
            self.answered(id, number, Answer { choice, by: "the time limit".to_owned(), notes });
        }
    }

    /// A person answered. An answer that was not offered is ignored.
    pub fn answered(&mut self, id: TaskId, number: u64, answer: Answer) {
        let Some(task) = self.task(id) else {
            return;
        };
        let question = task.progress.questions.get(&number);
        let Some(question) = question.filter(|question| question.choices.contains(&answer.choice)).cloned() else {
            return;
        };
        if let (About::Deadlock(subject), Choice::Wait) = (&question.about, answer.choice) {
            // The question stays: it is how everybody knows that this deadlock is meant to be.
            return self.touch(*subject);
        }
        task.progress.questions.remove(&number);
        self.state.asked_deadlocks.remove(&(id, number));
        self.say(Decision::QuestionOver { task: id, question: number, answer: Some(answer.clone()) });
        match question.about {
            About::Failure(run) => self.decided(run, answer.choice, &answer.by),
            About::Packages(machine) => self.packages_decided(id, machine, question.text, &answer),
            About::Approval(lead) => self.approved(id, lead, &answer),
            About::Run(run) => self.run_ready(run, Resume { answer: Some(answer), error: None }),
            About::Deadlock(subject) => {
                if self.is_stuck(subject) {
                    self.fail_wait(subject, question.text);
                }
                self.touch(subject);
                self.suspect_all();
            }
        }
        self.ready(id);
    }

    fn packages_decided(&mut self, id: TaskId, machine: Option<MachineName>, error: String, answer: &Answer) {
        match (answer.choice, &machine) {
            (Choice::Retry, _) => self.drop_place(id, &machine, true),
            (Choice::Exclude, Some(name)) => {
                self.exclude(id, &name.clone(), &format!("{} left it out: {error}", answer.by));
            }
            _ => self.lose_packages(id, error),
        }
    }

    fn approved(&mut self, id: TaskId, lead: u32, answer: &Answer) {
        let Some(task) = self.task(id) else {
            return;
        };
        if answer.choice == Choice::Proceed {
            if let Some(step) = task.progress.steps.get_mut(lead as usize) {
                step.approved = true;
            }
            return self.touch_unit(id, lead);
        }
        let name = task.step_plan(lead).map(|plan| plan.name.to_string()).unwrap_or_default();
        let notes = if answer.notes.is_empty() { String::new() } else { format!(": {}", answer.notes) };
        let why = format!("{} refused it{notes}", answer.by);
        task.progress.error.get_or_insert_with(|| format!("step {name} was not approved: {why}"));
        task.progress.todo.remove(&lead);
        let end = task.plan.unit_end(lead);
        self.end_step(id, lead, RunState::Failed, Some(why));
        for step in lead + 1..end {
            self.end_step(id, step, RunState::Skipped, Some("the step above was not approved".to_owned()));
        }
    }

    /// The wait that closed a deadlock fails.
    pub fn fail_wait(&mut self, subject: Subject, error: String) {
        match subject {
            Subject::Lock(request) => {
                if self.state.locks.waits(crate::locks::ClaimKey::call(request)) {
                    self.refuse(request, error);
                }
            }
            Subject::Run(run) => match self.state.run(run).map(|run| run.phase) {
                Some(Phase::Locks(_)) => self.never_started(run, error),
                Some(Phase::Running) => self.run_ready(run, Resume { answer: None, error: Some(error) }),
                _ => {}
            },
            Subject::Task(task) => {
                let queued = |task: &crate::state::Task| task.progress.state == windlass_model::TaskState::Queued;
                if self.state.tasks.get(&task).is_some_and(|task| queued(task)) {
                    self.end_queued(task, windlass_model::TaskState::Failed, error);
                }
            }
            Subject::Step(..) => {}
        }
    }
}

/// A question about something that went wrong: the task keeps its tag, since it is half done.
fn guided(text: String, choices: Vec<Choice>) -> Ask {
    Ask { text, choices, responsible: Vec::new(), expiry: None, keeps_tag: true }
}
