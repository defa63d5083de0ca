//! Executes a run again against its journal and touches nothing: the debugger of who writes plugins and scripts.
//!
//! The real layers answer from the record; where the record ends, so does the replay.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use windlass_effects::{
    Answer, Attempt, Call, CancelToken, Effect, Entry, Failure, JournalStore, Layers, Line, LineSink, Masker,
    Performer, Promise, Stop, Waist, answer_in_words,
};
use windlass_model::{
    TaskId,
    replay::{ReplayFault, ReplayStep, ReplayView},
    task::{LogLevel, RunView, TaskDetail},
};
use windlass_scheduler::RunKey;
use windlass_store::StoreError;

use super::{
    begin::{self, Parts, Purpose},
    context,
    execute::Execution,
    guest,
    journal::recorded,
    pinned::Pinned,
};
use crate::{
    error::{EngineError, ErrorKind},
    services::Services,
    tasks,
};

/// How the replay is told that the record ends.
const END: &str = "the journal ends here";
/// Steps that are shown, at most.
const MAX_STEPS: usize = 20_000;

/// Replays a run, named by its id or, where a task has only one, by its task.
///
/// # Errors
/// When there is no such run, or what it needs is gone.
pub async fn replay(services: &Services, name: &str) -> Result<ReplayView, EngineError> {
    let (execution, node, id) = find(services, name).await?;
    if let Some(fault) = damage(services, &id).await? {
        let view =
            ReplayView { run: id, node, guest: String::new(), steps: Vec::new(), ending: None, fault: Some(fault) };
        return Ok(view);
    }
    let task = Arc::new(context::load(services, execution.run.task).await?);
    let gathered = begin::gather(services, &task, &execution, Purpose::Replay).await;
    let mut parts = gathered.map_err(|failure| cannot(&id, &failure))?;
    let pinned = Pinned {
        context: parts.context.clone(),
        secrets: std::mem::take(&mut parts.secret_values),
        packages: std::mem::take(&mut parts.packages),
    };
    let record = Arc::new(Record { pinned, replayed: Mutex::default() });
    let layers = Layers::new(
        guest::grants(&parts),
        Arc::clone(&record),
        parts.entries.clone(),
        parts.masker.clone(),
        Arc::clone(&record),
        Arc::clone(&record) as Arc<dyn LineSink>,
        CancelToken::new(),
    );
    let told = Arc::new(Told { layers, record, masker: parts.masker.clone(), steps: Mutex::default() });
    let ended = guest::run(services, &parts, Arc::clone(&told) as Arc<dyn Waist>).await;
    let steps = std::mem::take(&mut *told.steps.lock().unwrap_or_else(PoisonError::into_inner));
    let (ending, fault) = judge(ended, &parts, &steps);
    Ok(ReplayView { run: id, node, guest: guest_in_words(&parts), steps, ending, fault })
}

fn cannot(id: &windlass_model::RunId, failure: &Failure) -> EngineError {
    let message = format!("run {id} cannot be replayed: {}", failure.message);
    let error = EngineError::new(ErrorKind::Conflict, "cannot-replay", message);
    match failure.attribute("fix") {
        Some(fix) => error.fix(fix),
        None => error,
    }
}

/// What is told of how it ended, and what is wrong.
fn judge(
    ended: Result<Result<(), Failure>, Stop>,
    parts: &Parts,
    steps: &[ReplayStep],
) -> (Option<String>, Option<ReplayFault>) {
    let masked = |text: &str| parts.masker.mask(text).into_owned();
    let ending = match ended {
        Err(Stop::Diverged(other)) => {
            return (
                None,
                Some(ReplayFault::Differs { index: other.index, recorded: other.recorded, asked: other.asked }),
            );
        }
        Err(Stop::Suspended(why) | Stop::Host(why)) if why == END => return (Some(END.to_owned()), None),
        Err(stop) => return (Some(masked(&stop.to_string())), None),
        Ok(Ok(())) => "succeeded".to_owned(),
        Ok(Err(failure)) => format!("failed: {}", masked(&failure.message)),
    };
    let reached = steps.iter().filter_map(|step| match step {
        ReplayStep::Effect { index, .. } => *index,
        ReplayStep::Line { .. } => None,
    });
    let next = reached.max().map_or(0, |index| index + 1);
    let left = parts.entries.iter().find(|entry| entry.index >= next);
    let fault = left.map(|entry| ReplayFault::TooShort { index: entry.index, recorded: entry.in_words() });
    (Some(ending), fault)
}

fn guest_in_words(parts: &Parts) -> String {
    match (&parts.plugin, &parts.task.subject) {
        (Some(plugin), _) => {
            let manifest = plugin.manifest();
            format!("plugin {} {}, SHA-256 {}", manifest.id, manifest.version, plugin.digest())
        }
        (None, context::Subject::Script { name, .. }) => format!("script {name}"),
        (None, context::Subject::Deployment { .. }) => String::new(),
    }
}

/// What is wrong with the record itself.
async fn damage(services: &Services, id: &windlass_model::RunId) -> Result<Option<ReplayFault>, EngineError> {
    let entries = match recorded(services, id).await {
        Ok(entries) => entries,
        Err(StoreError::Undecodable { key, cause, .. }) => {
            return Ok(Some(ReplayFault::Damaged {
                what: format!("an entry of it does not decode: {cause} (key {key})"),
            }));
        }
        Err(error) => return Err(error.into()),
    };
    let gap = entries.iter().zip(0..).find(|(entry, expected)| entry.index != *expected);
    Ok(gap.map(|(entry, expected)| ReplayFault::Damaged {
        what: format!("entry {expected} is missing; the next one is {}: {}", entry.index, entry.in_words()),
    }))
}

/// The run of that name.
async fn find(services: &Services, name: &str) -> Result<(Execution, String, windlass_model::RunId), EngineError> {
    let unknown = || EngineError::not_found("run", name).fix("windlass task show TASK -o json names its runs");
    let (task, rest) = name.split_once('.').unwrap_or((name, ""));
    let task = TaskId(task.parse().map_err(|_| unknown())?);
    let detail = tasks::detail(services, task).await?;
    let of_step = |(step, view): (usize, &windlass_model::task::StepView)| {
        let runs = view.runs.iter().enumerate().map(move |(place, run)| (step, place, run.clone()));
        runs.collect::<Vec<_>>()
    };
    let runs: Vec<_> = detail.steps.iter().enumerate().flat_map(of_step).collect();
    let (step, place, view, attempt) = match rest {
        "" => match runs.as_slice() {
            [(step, place, run)] => (*step, *place, run.clone(), 1),
            _ => return Err(which(task, &runs)),
        },
        "script.1" => runs.into_iter().next().map(|(step, place, run)| (step, place, run, 1)).ok_or_else(unknown)?,
        _ => {
            let (of, attempt) = name.rsplit_once('.').ok_or_else(unknown)?;
            let attempt = attempt.parse().map_err(|_| unknown())?;
            let own = |(_, _, run): &(usize, usize, RunView)| {
                run.run.as_str().rsplit_once('.').is_some_and(|(known, _)| known == of)
            };
            let (step, place, run) = runs.into_iter().find(own).ok_or_else(unknown)?;
            (step, place, run, attempt)
        }
    };
    let number = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
    let run = RunKey { task, step: number(step), place: number(place) };
    let cancel = CancelToken::new();
    let execution = Execution { run, machine: view.machine.clone(), attempt, cancel, error: None, lock: None };
    let id = begin::run_id(&execution, is_step(&detail));
    Ok((execution, view.node, id))
}

fn is_step(detail: &TaskDetail) -> bool {
    matches!(detail.summary.what, windlass_model::TaskKind::Deployment { .. })
}

fn which(task: TaskId, runs: &[(usize, usize, RunView)]) -> EngineError {
    let names: Vec<_> = runs.iter().take(20).map(|(_, _, run)| format!("{} ({})", run.run, run.node)).collect();
    let first = runs.first().map_or_else(|| "RUN".to_owned(), |(_, _, run)| run.run.to_string());
    EngineError::invalid("which-run", format!("task {task} has {} runs: {}", runs.len(), names.join(", ")))
        .fix(format!("name one of them: windlass task replay {first}"))
}

/// The record, and nothing behind it.
struct Record {
    pinned: Pinned,
    /// The entry that was given last.
    replayed: Mutex<Option<u64>>,
}

#[async_trait]
impl Performer for Record {
    async fn perform(&self, _: u64, effect: &Effect, _: &CancelToken) -> Answer {
        self.pinned.answer(effect).unwrap_or_else(|| Err(Failure::new("unavailable", END)))
    }

    async fn attempt(&self, _: Call<'_>, _: &CancelToken) -> Attempt {
        Attempt::Suspended(END.to_owned())
    }

    fn replayed(&self, index: u64, _: &Effect, _: &Answer) {
        *self.replayed.lock().unwrap_or_else(PoisonError::into_inner) = Some(index);
    }
}

#[async_trait]
impl JournalStore for Record {
    async fn record(&self, _: &Entry, _: Promise) -> Result<(), String> {
        Err(END.to_owned())
    }

    async fn local(&self, _: Entry, _: &Effect) -> Result<Answer, String> {
        Err(END.to_owned())
    }
}

impl LineSink for Record {
    fn line(&self, _: Line) {}
    fn progress(&self, _: u64, _: u64, _: String) {}
}

/// Writes down what passes.
struct Told {
    layers: Layers<Arc<Record>, Arc<Record>>,
    record: Arc<Record>,
    masker: Masker,
    steps: Mutex<Vec<ReplayStep>>,
}

impl Told {
    fn push(&self, step: ReplayStep) {
        let mut steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
        if steps.len() < MAX_STEPS {
            steps.push(step);
        }
    }
}

#[async_trait]
impl Waist for Told {
    async fn call(&self, effect: Effect) -> Result<Answer, Stop> {
        let masked = |text: String| self.masker.mask(&text).into_owned();
        let asked = masked(effect.in_words());
        let answer = self.layers.call(effect).await;
        let index = self.record.replayed.lock().unwrap_or_else(PoisonError::into_inner).take();
        let answered = match &answer {
            Ok(answer) => Some(masked(answer_in_words(answer))),
            Err(_) => None,
        };
        self.push(ReplayStep::Effect { index, asked, answered });
        answer
    }

    fn log(&self, line: Line) {
        self.push(ReplayStep::Line { level: line.level, text: self.masker.mask(&line.text).into_owned() });
    }

    fn progress(&self, done: u64, total: u64, note: String) {
        let text = format!("progress {done}/{total} {}", self.masker.mask(&note));
        self.push(ReplayStep::Line { level: LogLevel::Debug, text: text.trim_end().to_owned() });
    }

    fn cancel(&self) -> &CancelToken {
        self.layers.cancel()
    }
}
