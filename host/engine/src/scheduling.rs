//! What people ask of the scheduler: why, who holds what, questions, and what would happen.

use std::{collections::HashMap, sync::PoisonError};

use serde::{Deserialize, Serialize};
use windlass_model::{
    MachineName, PackageId, TaskId,
    scheduling::{
        AnswerRequest, BreakRequest, BrokenLock, LockUse, LockView, PlanView, PlannedPackage, PlannedRun, PlannedSkip,
        PlannedWait, QuestionView, WaitView, WhyView,
    },
    task::{run_node, step_node},
    views::DeployRequest,
};
use windlass_scheduler::{
    Answer, Choice, Event, LockHolder, Part, Question, Resource, RunKey, State, Subject, TaskPlan,
    forecast::{Durations, Forecast, HORIZON, forecast},
};
use windlass_store::{Batch, Key, Store, StoreError};

use crate::{
    board::node_of,
    error::{EngineError, ErrorKind},
    records::{BROKEN_LOCKS, DURATIONS, all},
    releases,
    services::Services,
    tasks,
};

/// A run that was never seen is taken to last so long.
const UNKNOWN_RUN_MS: u64 = 30_000;
/// Packages that were never brought are taken to need so long.
const UNKNOWN_PACKAGES_MS: u64 = 5_000;
/// Waits of other tasks that are told along with one, at most.
const MAX_HOLDERS: usize = 20;

/// How long a step takes on a machine, from its runs so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Learnt {
    /// Runs it was learnt from; later ones count more.
    pub runs: u64,
    /// Mean duration.
    pub mean_ms: u64,
}

impl Learnt {
    /// What is known after one more run.
    #[must_use]
    pub fn with(before: Option<Self>, took_ms: u64) -> Self {
        let Some(Self { runs, mean_ms }) = before else {
            return Self { runs: 1, mean_ms: took_ms };
        };
        // The mean of about the last five: a step may become another one over time.
        let weight = runs.min(4);
        Self { runs: runs.saturating_add(1), mean_ms: (mean_ms.saturating_mul(weight) + took_ms) / (weight + 1) }
    }
}

/// Key of what is learnt of a step of a project on a machine.
#[must_use]
pub fn learnt_key(project: &str, node: &str) -> Key {
    Key::of_text(&project.to_lowercase()).text(&node.to_lowercase())
}

fn node(state: &State, subject: Subject) -> String {
    let Some((plan, _)) = state.task(subject.task()) else {
        return String::new();
    };
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
pub fn question(task: TaskId, title: &str, question: &Question) -> QuestionView {
    QuestionView {
        number: question.number,
        task,
        title: title.to_owned(),
        text: question.text.clone(),
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
        .flat_map(|(plan, progress)| progress.questions.values().map(move |asked| question(task, &plan.title, asked)));
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
#[must_use]
pub fn questions(services: &Services) -> Vec<QuestionView> {
    services.shared.questions.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
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
    let all =
        [Choice::Fail, Choice::Retry, Choice::Ignore, Choice::Exclude, Choice::Proceed, Choice::Abort, Choice::Wait];
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

/// Durations of earlier runs, by project and node.
struct History {
    learnt: HashMap<(String, String), Learnt>,
}

impl History {
    /// What is known of a project's runs.
    fn of(&self, plan: &TaskPlan, node: &str) -> Option<u64> {
        let project = plan.concurrency_tag.as_ref()?.split('/').next()?.to_lowercase();
        self.learnt.get(&(project, node.to_lowercase())).map(|learnt| learnt.mean_ms)
    }
}

impl Durations for History {
    fn run(&self, run: RunKey, plan: &TaskPlan, machine: Option<&MachineName>) -> u64 {
        let step = plan.steps.get(run.step as usize);
        let node = step.map(|step| run_node(&step.name, machine));
        node.and_then(|node| self.of(plan, &node)).unwrap_or(UNKNOWN_RUN_MS)
    }

    fn packages(&self, _: TaskId, _: Option<&MachineName>) -> u64 {
        UNKNOWN_PACKAGES_MS
    }

    fn person(&self, _: &Question) -> u64 {
        0
    }
}

/// What is known of how long steps take, by project and node.
///
/// # Errors
/// When the store stopped or a record does not decode.
pub async fn learnt(store: &dyn Store) -> Result<HashMap<(String, String), Learnt>, StoreError> {
    let mut known = HashMap::new();
    let mut scan = DURATIONS.all();
    loop {
        let page = DURATIONS.scan(store, scan.clone()).await?;
        let last = page.records.last().map(|record| record.key.clone());
        for record in &page.records {
            let mut parts = Key::parts(&record.key);
            if let (Some(project), Some(node)) = (parts.text(), parts.text()) {
                known.insert((project.to_owned(), node.to_owned()), record.value);
            }
        }
        match last {
            Some(last) if page.more => scan = scan.after(last),
            _ => return Ok(known),
        }
    }
}

/// What a deployment would do, if it were queued now. Nothing is changed.
///
/// # Errors
/// When something it names does not exist, or there is nothing to do.
pub async fn plan(services: &Services, request: DeployRequest) -> Result<PlanView, EngineError> {
    let release = releases::get(services, &request.project, request.version.as_deref()).await?;
    let (id, plan) = tasks::prepare_deployment(services, request).await?.into_plan();
    let history = History { learnt: learnt(&*services.shared.store).await? };
    let now = services.shared.clock.now_ms();
    let state = services.driver.look(State::clone).await?;
    let own = plan.clone();
    let work = tokio::task::spawn_blocking(move || {
        let found = forecast(&state, now, id, Some(own), &history, HORIZON);
        (found, history)
    });
    let (found, history) = work.await.map_err(|error| EngineError::internal(error.to_string()))?;
    let mut packages = Vec::new();
    for (step, planned) in release.process.all_steps().zip(&plan.steps) {
        if !planned.needs_packages || planned.skip.is_some() {
            continue;
        }
        for value in step.with.values().filter_map(|value| value.as_str()) {
            let Some((package, pinned)) = release.package(value) else {
                continue;
            };
            let bytes = size(services, package, &pinned.version).await;
            for machine in (0..planned.runs()).filter_map(|place| planned.machine(place)) {
                let (package, version, machine) = (package.to_string(), pinned.version.clone(), machine.clone());
                let entry = PlannedPackage { machine, package, version, bytes };
                if !packages.contains(&entry) {
                    packages.push(entry);
                }
            }
        }
    }
    Ok(plan_view(&plan, now, found, packages, &history))
}

/// Size of a package, if the feed has it.
async fn size(services: &Services, package: &PackageId, version: &str) -> Option<u64> {
    let known = services.packages.list(&package.as_str().parse().ok()?).await.ok()?;
    known.into_iter().find(|record| record.name.version.to_string() == version).map(|record| record.original.size)
}

fn plan_view(plan: &TaskPlan, now: u64, found: Forecast, packages: Vec<PlannedPackage>, history: &History) -> PlanView {
    let after = |at: u64| at.saturating_sub(now);
    let subject = |subject: Subject| match subject {
        Subject::Task(_) => String::new(),
        Subject::Step(_, step) => plan.steps.get(step as usize).map(|step| step_node(&step.name)).unwrap_or_default(),
        Subject::Run(run) => node_of(plan, run).unwrap_or_default(),
        Subject::Lock(request) => node_of(plan, request.run).unwrap_or_default(),
    };
    let run = |run: &windlass_scheduler::forecast::RunForecast| {
        let step = plan.steps.get(run.run.step as usize);
        let node = step.map(|step| run_node(&step.name, run.machine.as_ref())).unwrap_or_default();
        let learnt = history.of(plan, &node).is_some();
        PlannedRun { node, starts_in_ms: after(run.starts_ms), ends_in_ms: run.ends_ms.map(after), learnt }
    };
    let wait = |wait: &windlass_scheduler::forecast::Wait| PlannedWait {
        node: subject(wait.subject),
        text: wait.reason.text.clone(),
        from_in_ms: after(wait.from_ms),
        for_ms: wait.until_ms.saturating_sub(wait.from_ms),
    };
    let skipped =
        plan.steps.iter().filter_map(|step| Some(PlannedSkip { step: step.name.to_string(), why: step.skip.clone()? }));
    PlanView {
        title: plan.title.clone(),
        starts_in_ms: found.starts_ms.map(after),
        ends_in_ms: found.ending.as_ref().map(|ending| after(ending.at_ms)),
        state: found.ending.as_ref().map(|ending| ending.state),
        error: found.ending.as_ref().and_then(|ending| ending.error.clone()),
        skipped: skipped.collect(),
        runs: found.runs.iter().map(run).collect(),
        waits: found.waits.iter().map(wait).collect(),
        packages,
        locks: found.locks.iter().map(|resource| resource.as_str().to_owned()).collect(),
        questions: found.questions.iter().map(|(_, question)| question.text.clone()).collect(),
        deadlocks: found.deadlocks.into_iter().map(|(_, text)| text).collect(),
    }
}
