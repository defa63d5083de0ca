//! A scripted world, and decisions in words.

use std::collections::BTreeMap;

use windlass_model::{MachineName, TaskId, task::run_node};
use windlass_scheduler::{
    Answer, Choice, Decision, Event, LockRequest, RunKey, RunOutcome, State, Subject, TaskPlan, sim::World,
};

/// What a run does: how long it takes and how it ends.
#[derive(Debug, Clone)]
pub struct Deed {
    pub takes_ms: u64,
    pub outcome: RunOutcome,
}

/// A world in which runs take 10 ms and packages 5 ms a machine, but for what was said otherwise.
#[derive(Debug, Default)]
pub struct Stage {
    pub deeds: BTreeMap<String, Deed>,
    pub lost_packages: BTreeMap<String, String>,
    pub plans: BTreeMap<TaskId, TaskPlan>,
    pub open_packages: BTreeMap<TaskId, Vec<Option<MachineName>>>,
    /// Runs that do not stop when they are told to.
    pub deaf: Vec<String>,
    pub false_facts: Vec<String>,
    /// Answers to the questions in order; none: nobody answers.
    pub answers: Vec<Option<(u64, Choice)>>,
    /// Outcomes of the first attempts of a run, before what it does in the end.
    pub first: BTreeMap<String, Vec<Deed>>,
}

impl World for Stage {
    fn react(&mut self, _: u64, decision: &Decision) -> Vec<(u64, Event)> {
        match decision {
            Decision::Acquire { task, machines, server } => {
                let mut places: Vec<_> = machines.iter().cloned().map(Some).collect();
                places.extend(server.then_some(None));
                self.open_packages.insert(*task, places.clone());
                let report = |(nth, machine): (usize, Option<MachineName>)| {
                    let name = machine.as_ref().map_or("server", MachineName::as_str);
                    let event = match self.lost_packages.get(name) {
                        None => Event::PackagesAcquired { task: *task, machine },
                        Some(error) => {
                            Event::PackagesFailed { task: *task, machine, error: error.clone(), unavailable: false }
                        }
                    };
                    (5 * (nth as u64 + 1), event)
                };
                places.into_iter().enumerate().map(report).collect()
            }
            Decision::StopAcquire { task } => {
                let open = self.open_packages.remove(task).unwrap_or_default();
                let stopped = |machine| Event::PackagesFailed {
                    task: *task,
                    machine,
                    error: "stopped".into(),
                    unavailable: false,
                };
                open.into_iter().map(|machine| (1, stopped(machine))).collect()
            }
            Decision::StartRun { run, .. } => {
                let node = self.node(*run);
                let first = self.first.get_mut(&node).and_then(|deeds| (!deeds.is_empty()).then(|| deeds.remove(0)));
                let deed = first.or_else(|| self.deeds.get(&node).cloned());
                let Deed { takes_ms, outcome } = deed.unwrap_or(Deed { takes_ms: 10, outcome: RunOutcome::Succeeded });
                vec![(takes_ms, Event::RunFinished { run: *run, outcome })]
            }
            Decision::StopRun { run, .. } if self.deaf.contains(&self.node(*run)) => Vec::new(),
            Decision::StopRun { run, .. } => {
                vec![(2, Event::RunFinished { run: *run, outcome: RunOutcome::Cancelled })]
            }
            Decision::AskFact { task, step } => {
                let holds = !self.false_facts.contains(&self.plans[task].steps[*step as usize].name.to_string());
                vec![(1, Event::FactGiven { task: *task, step: *step, holds })]
            }
            Decision::Ask { task, question } => {
                let next = if self.answers.is_empty() { None } else { self.answers.remove(0) };
                let answer = |choice| Answer { choice, by: "ann".to_owned(), notes: String::new() };
                let event = |choice| Event::Answered { task: *task, question: question.number, answer: answer(choice) };
                next.map(|(after, choice)| (after, event(choice))).into_iter().collect()
            }
            _ => Vec::new(),
        }
    }
}

impl Stage {
    fn node(&self, run: RunKey) -> String {
        let step = &self.plans[&run.task].steps[run.step as usize];
        run_node(&step.name, step.machine(run.place as usize))
    }

    pub fn subject(&self, subject: Subject) -> String {
        match subject {
            Subject::Task(task) => format!("task {task}"),
            Subject::Step(task, step) => {
                format!("{task}: {}", self.plans[&task].steps[step as usize].name)
            }
            Subject::Run(run) => format!("{}: {}", run.task, self.node(run)),
            Subject::Lock(LockRequest { run, number }) => {
                format!("{}: {} call {number}", run.task, self.node(run))
            }
        }
    }

    pub fn words(&self, state: &State, decision: &Decision) -> String {
        let why = |why: &Option<String>| why.as_ref().map(|why| format!(" ({why})")).unwrap_or_default();
        match decision {
            Decision::Acquire { task, machines, server } => {
                let mut places: Vec<_> = machines.iter().map(MachineName::as_str).collect();
                places.extend(server.then_some("server"));
                format!("{task}: ACQUIRE on {}", places.join(" "))
            }
            Decision::StopAcquire { task } => format!("{task}: STOP ACQUIRE"),
            Decision::StartRun { run, token, .. } => {
                format!("{}: START {} #{token}", run.task, self.node(*run))
            }
            Decision::StopRun { run, kind } => {
                format!("{}: STOP {} {kind:?}", run.task, self.node(*run))
            }
            Decision::GrantLock { request, token } => {
                format!("{} GRANTED #{token}", self.subject(Subject::Lock(*request)))
            }
            Decision::RefuseLock { request, error } => {
                format!("{} REFUSED: {error}", self.subject(Subject::Lock(*request)))
            }
            Decision::TaskState { task, state } => format!("task {task} {state}"),
            Decision::StepState { task, step, state, why: text } => {
                format!("{} {state}{}", self.subject(Subject::Step(*task, *step)), why(text))
            }
            Decision::RunState { run, state, why: text } => {
                format!("{} {state}{}", self.subject(Subject::Run(*run)), why(text))
            }
            Decision::Waiting { subject, cause } => {
                let (kind, text) = state.sentence(*subject, cause);
                format!("{} {text} [{kind}]", self.subject(*subject))
            }
            Decision::AbandonAcquire { task } => format!("{task}: ABANDON ACQUIRE"),
            Decision::AskFact { task, step } => format!("{} ASK FACT", self.subject(Subject::Step(*task, *step))),
            Decision::ResumeRun { run, answer, error } => {
                let answer = answer.as_ref().map(|answer| format!(" ({} by {})", answer.choice.as_str(), answer.by));
                format!("{}: RESUME {}{}{}", run.task, self.node(*run), answer.unwrap_or_default(), why(error))
            }
            Decision::AbandonRun { run, fenced } => {
                let fenced: Vec<_> = fenced.iter().map(|resource| resource.as_str()).collect();
                format!("{}: ABANDON {} fenced {}", run.task, self.node(*run), fenced.join(" "))
            }
            Decision::LockBroken { resource, run, token, by, reason, .. } => {
                format!("{}: BROKEN {resource} #{token} by {by}: {reason}", run.task)
            }
            Decision::Ask { task, question } => {
                let choices: Vec<_> = question.choices.iter().map(|choice| choice.as_str()).collect();
                format!("{task}: ASK {} {} ({})", question.number, question.text, choices.join(", "))
            }
            Decision::QuestionOver { task, question, answer } => {
                let answer = answer
                    .as_ref()
                    .map_or("withdrawn".to_owned(), |answer| format!("{} by {}", answer.choice.as_str(), answer.by));
                format!("{task}: ANSWER {question} {answer}")
            }
            Decision::Retry { run, attempt, error } => {
                format!("{}: {} failed, attempt {attempt} follows ({error})", run.task, self.node(*run))
            }
            Decision::Excluded { task, machine, why } => format!("{task}: EXCLUDED {machine} ({why})"),
            Decision::Deadlock { victim, text } => format!("{} DEADLOCK {text}", self.subject(*victim)),
            Decision::TaskFinished { task, state, error } => {
                format!("task {task} {state}{}", why(error))
            }
        }
    }
}
