//! Runs scripts: a bounded number at once, each on a thread of its own with a known stack.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread,
    time::Duration,
};

use rhai::{Dynamic, Module, Scope};
use serde_json::Value;
use tokio::sync::{Semaphore, oneshot};
use windlass_effects::{CancelToken, SessionHandle, Stop, Waist};
use windlass_model::{TaskId, task::LogLevel};

use crate::{
    argument::Arguments,
    diagnostic::Diagnostic,
    engine::{self, STACK},
    explain, functions,
    script::Script,
    state::{End, Limits, RunState},
};

/// What a run is given.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// Arguments by name.
    pub arguments: BTreeMap<String, Value>,
    /// The task that the run is part of: queries leave it out.
    pub task: Option<TaskId>,
    /// Machines lent to the run, by name.
    pub sessions: BTreeMap<String, SessionHandle>,
    /// Ends the run after so long, waits included.
    pub time_limit: Option<Duration>,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Ending {
    /// The script came to its end.
    Finished,
    /// It failed, or passed a limit.
    Failed(Box<Diagnostic>),
    /// It was told to stop, and stopped.
    Cancelled,
    /// The waist ended it: it is suspended, no longer matches its journal, or the host cannot go on.
    Stopped(Stop),
}

/// Runs scripts.
#[derive(Debug, Clone)]
pub struct ScriptHost {
    limits: Limits,
    places: Arc<Semaphore>,
}

impl Default for ScriptHost {
    fn default() -> Self {
        Self::new(Limits::default())
    }
}

impl ScriptHost {
    /// A host with these limits.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        let places = Arc::new(Semaphore::new(limits.threads.max(1)));
        Self { limits, places }
    }

    /// Runs a script to its end, or until the waist stops it. Dropping the future stops the script too.
    ///
    /// Needs a tokio runtime with time enabled: host functions wait on it.
    pub async fn run(&self, script: Arc<Script>, request: Request, waist: Arc<dyn Waist>) -> Ending {
        let arguments = Arguments::take(script.name(), script.manifest(), &request.arguments);
        let arguments = match arguments {
            Ok(arguments) => arguments,
            Err(fault) => return Ending::Failed(fault),
        };
        let place = tokio::select! {
            biased;
            () = waist.cancel().cancelled() => return Ending::Cancelled,
            place = Arc::clone(&self.places).acquire_owned() => place,
        };
        let abandoned = CancelToken::new();
        let _guard = AbandonOnDrop(abandoned.clone());
        let state = Arc::new(RunState::new(
            waist,
            script.manifest().needs.clone(),
            self.limits.clone(),
            request.time_limit,
            abandoned,
        ));
        let (tell, told) = oneshot::channel();
        let thread = thread::Builder::new().name("script".to_owned()).stack_size(STACK).spawn(move || {
            let run = || evaluate(&script, &request, arguments, &state);
            let ending = catch_unwind(AssertUnwindSafe(run));
            // Nothing of a run that is suspended may outlive the word that it is.
            drop((script, request, state, place));
            // Nobody listens when the run was abandoned.
            let _ = tell.send(ending.unwrap_or_else(|_| broken()));
        });
        match thread {
            Ok(_detached) => told.await.unwrap_or_else(|_| broken()),
            Err(error) => Ending::Stopped(Stop::Host(format!("no thread could be started for the script: {error}"))),
        }
    }
}

fn broken() -> Ending {
    Ending::Stopped(Stop::Host("the script host itself failed, which is a fault of Windlass".to_owned()))
}

struct AbandonOnDrop(CancelToken);

impl Drop for AbandonOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

fn evaluate(script: &Script, request: &Request, arguments: Arguments, state: &Arc<RunState>) -> Ending {
    let mut engine = engine::bare();
    let ticking = Arc::clone(state);
    engine.on_progress(move |_| ticking.tick().then_some(Dynamic::UNIT));
    let printing = Arc::clone(state);
    engine.on_print(move |text| printing.log(LogLevel::Info, text));
    let debugging = Arc::clone(state);
    engine.on_debug(move |text, _, _| debugging.log(LogLevel::Debug, text));
    functions::register(&mut engine, state, request);

    let task = request.task.and_then(|task| i64::try_from(task.0).ok()).map_or(Dynamic::UNIT, Dynamic::from);
    let mut constants = Module::new();
    constants.set_var("args", Dynamic::from(arguments));
    constants.set_var("task", task);
    engine.register_global_module(constants.into());

    let result = engine.eval_ast_with_scope::<Dynamic>(&mut Scope::new(), &script.ast);
    let (name, source) = (script.name(), script.source());
    match (state.end(), result) {
        (Some(End::Cancelled), _) => Ending::Cancelled,
        (Some(End::Stop(stop)), _) => Ending::Stopped(stop.clone()),
        (Some(End::Limit(limit, place)), result) => {
            let fault = explain::limit(name, source, *limit, *place, result.err().as_deref());
            Ending::Failed(fault)
        }
        (None, Err(error)) => Ending::Failed(explain::failure(name, source, &error)),
        (None, Ok(_)) => Ending::Finished,
    }
}
