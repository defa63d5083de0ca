//! What people ask of the scheduler: why, who holds what, and questions. What would happen is in `planning`.

use std::sync::PoisonError;

use windlass_model::{
    TaskId,
    scheduling::{AnswerRequest, BreakRequest, BrokenLock, LockUse, LockView, QuestionView, WaitView, WhyView},
    task::step_node,
};
use windlass_scheduler::{
    About, Answer, Choice, Event, LockHolder, Part, Question, Resource, State, Subject, TaskPlan,
};
use windlass_store::{Batch, Key};

use crate::{
    board::node_of,
    error::{EngineError, ErrorKind},
    logs,
    records::{BROKEN_LOCKS, LOG_ENDS, all},
    services::Services,
    tasks,
};

/// Lines of a run's log that are shown with a question about its outcome.
const LAST_LINES: usize = 10;
/// Waits of other tasks that are told along with one, at most.
const MAX_HOLDERS: usize = 20;

fn node(state: &State, subject: Subject) -> String {
    state.task(subject.task()).map(|(plan, _)| subject_node(plan, subject)).unwrap_or_default()
}

/// The node of something that waits, in the tree of its task; empty for the task itself.
pub fn subject_node(plan: &TaskPlan, subject: Subject) -> String {
    match subject {
        Subject::Task(_) => String::new(),
        Subject::Step(_, step) => plan.steps.get(step as usize).map(|step| step_node(&step.name)).unwrap_or_default(),
        Subject::Run(run) => node_of(plan, run).unwrap_or_default(),
        Subject::Lock(request) => node_of(plan, request.run).unwrap_or_default(),
    }
}

fn waits(state: &State, task: TaskId) -> Vec<WaitView> {
    let wait = |(subject, reason)| WaitView { task, node: node(state, subject), reason };
    state.why(task).into_iter().map(wait).collect()
}

/// A question as people see it.
#[must_use]
pub fn question(task: TaskId, plan: &TaskPlan, question: &Question) -> QuestionView {
    let node = match &question.about {
        About::Failure(run) | About::Run(run) => node_of(plan, *run).unwrap_or_default(),
        _ => String::new(),
    };
    QuestionView {
        number: question.number,
        task,
        title: plan.title.clone(),
        text: question.text.clone(),
        node,
        // Runs ask for nothing else (`runs::unknown`). Its choices do not tell: not every effect can be taken as done.
        unknown_outcome: matches!(question.about, About::Run(_)),
        last_lines: Vec::new(),
        choices: question.choices.iter().map(|choice| choice.as_str().to_owned()).collect(),
        responsible: question.responsible.clone(),
        asked_ms: question.asked_ms,
        expires_ms: question.expiry.map(|(at, _)| at),
    }
}

fn task_questions(state: &State, task: TaskId) -> Vec<QuestionView> {
    let found = state.task(task);
    let questions = found
        .into_iter()
        .flat_map(|(plan, progress)| progress.questions.values().map(move |asked| question(task, plan, asked)));
    questions.collect()
}

/// Why a task waits, and what those wait for that it waits for.
///
/// # Errors
/// When there is no such task.
pub async fn why(services: &Services, id: TaskId) -> Result<WhyView, EngineError> {
    let task = tasks::summary(services, id).await?;
    let (waits, questions, holders) = services
        .driver
        .look(move |state| {
            let own = waits(state, id);
            let mut seen = vec![id];
            let mut holders = Vec::new();
            let mut next: Vec<_> = own.iter().filter_map(|wait| wait.reason.holder).collect();
            while let Some(holder) = next.pop().filter(|_| holders.len() < MAX_HOLDERS) {
                if seen.contains(&holder) {
                    continue;
                }
                seen.push(holder);
                let theirs = waits(state, holder);
                next.extend(theirs.iter().filter_map(|wait| wait.reason.holder));
                holders.extend(theirs);
            }
            holders.truncate(MAX_HOLDERS);
            (own, task_questions(state, id), holders)
        })
        .await?;
    let questions = with_last_lines(services, questions).await?;
    Ok(WhyView { task, waits, questions, holders })
}

fn lock_use(state: &State, by: &LockHolder) -> LockUse {
    let known = state.task(by.run.task).map(|(plan, _)| plan);
    let fence = state.fences().find(|fence| fence.run == by.run);
    let title = known.map(|plan| plan.title.clone()).or_else(|| fence.map(|fence| fence.title.clone()));
    let step = || known.and_then(|plan| plan.steps.get(by.run.step as usize)).map(|step| step_node(&step.name));
    let run = || known.and_then(|plan| node_of(plan, by.run)).or_else(|| fence.map(|fence| fence.place.clone()));
    let (scope, node) = match by.part {
        Part::Run => ("run", run()),
        Part::Call(_) => ("call", run()),
        Part::Step => ("step", step()),
        Part::Task => ("deployment", None),
        Part::Fence(_) => ("fence", run()),
    };
    LockUse {
        task: by.run.task,
        title: title.unwrap_or_default(),
        node: node.unwrap_or_default(),
        scope: scope.to_owned(),
        mode: by.mode,
        units: by.units,
        of: (by.of > 0).then_some(by.of),
        token: (by.token > 0).then_some(by.token),
    }
}

/// Every resource in use.
///
/// # Errors
/// When the server is stopping.
pub async fn locks(services: &Services) -> Result<Vec<LockView>, EngineError> {
    let look = |state: &State| {
        let view = |lock: windlass_scheduler::LockView| LockView {
            title: lock.resource.to_string(),
            resource: lock.resource.as_str().to_owned(),
            holders: lock.holders.iter().map(|by| lock_use(state, by)).collect(),
            queue: lock.queue.iter().map(|by| lock_use(state, by)).collect(),
        };
        state.locks().into_iter().map(view).collect()
    };
    services.driver.look(look).await
}

/// Takes a lock away from those who hold it. That is kept, with the reason.
///
/// # Errors
/// When nobody holds it, or no reason is given.
pub async fn break_lock(services: &Services, request: BreakRequest, by: &str) -> Result<BrokenLock, EngineError> {
    if request.reason.trim().is_empty() {
        return Err(EngineError::invalid("no-reason", "a lock is broken for a reason, and none is given")
            .fix("say why: windlass lock break <resource> --reason <text>"));
    }
    let known = locks(services).await?.into_iter().find(|lock| lock.resource == request.resource);
    let mut holders = known.map(|lock| lock.holders).unwrap_or_default();
    holders.retain(|holder| request.task.is_none_or(|task| holder.task == task));
    if holders.is_empty() {
        return Err(EngineError::not_found("held lock", &request.resource).fix("windlass lock list"));
    }
    let at_ms = services.shared.clock.now_ms();
    let BreakRequest { resource, task, reason } = request;
    let broken = BrokenLock { at_ms, resource: resource.clone(), holders, by: by.to_owned(), reason: reason.clone() };
    let mut batch = Batch::new();
    BROKEN_LOCKS.put(&mut batch, Key::of_id(at_ms).text(&resource), &broken)?;
    let event = Event::LockBroken { resource: Resource::canonical(&resource), task, by: by.to_owned(), reason };
    services.driver.submit(event, None, batch).await?;
    Ok(broken)
}

/// Locks that were broken, oldest first.
///
/// # Errors
/// As the store's.
pub async fn broken_locks(services: &Services) -> Result<Vec<BrokenLock>, EngineError> {
    Ok(all(&*services.shared.store, &BROKEN_LOCKS, BROKEN_LOCKS.all()).await?)
}

/// What people are asked, oldest first.
///
/// # Errors
/// When the store stopped.
pub async fn questions(services: &Services) -> Result<Vec<QuestionView>, EngineError> {
    let open = services.shared.questions.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
    with_last_lines(services, open).await
}

/// The same, with what is known of unknown outcomes.
async fn with_last_lines(
    services: &Services,
    mut questions: Vec<QuestionView>,
) -> Result<Vec<QuestionView>, EngineError> {
    for question in questions.iter_mut().filter(|question| question.unknown_outcome) {
        question.last_lines = last_lines(services, question).await?;
    }
    Ok(questions)
}

/// The last lines of the run that a question is about.
async fn last_lines(services: &Services, question: &QuestionView) -> Result<Vec<String>, EngineError> {
    let end = LOG_ENDS.get(&*services.shared.store, Key::of_id(question.task.0).text(&question.node)).await?;
    let lines = end.map_or(0, |end| end.value.lines);
    let from = lines.saturating_sub(LAST_LINES as u64);
    let read = logs::read(&*services.shared.store, question.task, &question.node, from, LAST_LINES).await?;
    Ok(read.into_iter().map(|line| line.text).collect())
}

/// Answers a question.
///
/// # Errors
/// When there is none of that number, it is for others to answer, or the answer is none of its choices.
pub async fn answer(
    services: &Services,
    number: u64,
    request: AnswerRequest,
    by: &str,
) -> Result<QuestionView, EngineError> {
    let found = services.shared.questions.read().unwrap_or_else(PoisonError::into_inner).get(&number).cloned();
    let found = found.ok_or_else(|| EngineError::not_found("question", number).fix("windlass interruption list"))?;
    let named = |name: &String| name.eq_ignore_ascii_case(by);
    if !found.responsible.is_empty() && !found.responsible.iter().any(named) {
        let who = found.responsible.join(" or ");
        let text = format!("question {number} is for {who} to answer, and this token is that of {by}");
        return Err(EngineError::new(ErrorKind::Denied, "not-responsible", text)
            .fix(format!("ask {who} to answer, or use their token")));
    }
    let all = [
        Choice::Fail,
        Choice::Retry,
        Choice::Done,
        Choice::Ignore,
        Choice::Exclude,
        Choice::Proceed,
        Choice::Abort,
        Choice::Wait,
    ];
    let offered = |choice: &Choice| choice.as_str() == request.choice && found.choices.contains(&request.choice);
    let choice = all.into_iter().find(offered).ok_or_else(|| {
        let text = format!("{:?} is no answer to question {number}", request.choice);
        EngineError::invalid("no-such-choice", text).fix(format!("answer one of: {}", found.choices.join(", ")))
    })?;
    let answer = Answer { choice, by: by.to_owned(), notes: request.notes };
    services.driver.submit(Event::Answered { task: found.task, question: number, answer }, None, Batch::new()).await?;
    Ok(found)
}

/// Makes a queued task the next.
///
/// # Errors
/// When there is none.
pub async fn move_to_top(services: &Services, task: TaskId) -> Result<windlass_model::task::TaskSummary, EngineError> {
    let summary = tasks::summary(services, task).await?;
    if summary.state != windlass_model::TaskState::Queued {
        return Err(EngineError::conflict(
            "task-started",
            format!("task {task} is not queued: it is {}", summary.state),
        ));
    }
    services.driver.submit(Event::TaskMovedToTop { task }, None, Batch::new()).await?;
    tasks::summary(services, task).await
}

#[cfg(test)]
mod tests {
    use windlass_scheduler::RunKey;

    use super::*;

    /// Whoever is shown an unknown outcome is shown what is known of it, whatever the answers are.
    #[test]
    fn what_a_run_asks_is_an_unknown_outcome() {
        let plan = TaskPlan::script("script later", "later".parse().unwrap());
        let run = RunKey { task: TaskId(1), step: 0, place: 0 };
        let retry = vec![Choice::Retry, Choice::Fail];
        let cases = [
            (About::Run(run), retry.clone(), true),
            (About::Run(run), vec![Choice::Retry, Choice::Done, Choice::Fail], true),
            (About::Failure(run), retry, false),
            (About::Approval(0), vec![Choice::Proceed, Choice::Abort], false),
        ];
        for (about, choices, unknown) in cases {
            let (text, responsible) = (String::new(), Vec::new());
            let asked =
                Question { number: 1, about, text, choices, responsible, expiry: None, keeps_tag: true, asked_ms: 0 };
            assert_eq!(question(TaskId(1), &plan, &asked).unknown_outcome, unknown, "{asked:?}");
        }
    }
}
