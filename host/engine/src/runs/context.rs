//! What all runs of a task share: the release it deploys, its variables, its environment, its guests.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::{RwLock, RwLockReadGuard};
use windlass_effects::Masker;
use windlass_model::{
    EnvironmentName, Machine, MachineName, Release, SecretText, StepName, TaskId, TaskKind, VariableValue,
    process::Placed,
    variables::{Context, Outputs, Place, System, VariableSet},
};
use windlass_store::{Key, Seq};

use crate::{
    error::EngineError,
    records::{MACHINES, RELEASES, SCRIPTS, StoredOutput, StoredValue, outputs},
    releases,
    services::Services,
    tasks,
};

/// What a task is about.
pub enum Subject {
    /// A release that goes to an environment.
    Deployment {
        /// The release.
        release: Box<Release>,
        /// Where it goes.
        environment: EnvironmentName,
    },
    /// A coordination script.
    Script {
        /// Its name, for messages.
        name: String,
        /// Its text.
        text: String,
        /// Its arguments.
        arguments: BTreeMap<String, serde_json::Value>,
    },
}

/// What all runs of a task share.
pub struct TaskContext {
    /// The task.
    pub task: TaskId,
    /// What it is about.
    pub subject: Subject,
    /// Its variables, secrets in clear: kept only while the task is live.
    pub variables: Arc<VariableSet>,
    secrets: Vec<SecretText>,
    /// Outputs that were read or told of; none before the first question.
    known: tokio::sync::Mutex<Option<Known>>,
    /// Outputs that came since.
    news: Mutex<Vec<StoredOutput>>,
    /// Shared by outputs on their way into the store: while one is, nobody can tell by a commit what is there.
    under_way: RwLock<()>,
}

/// Gathers what the runs of a task share.
///
/// # Errors
/// When the store stopped, or something the task pinned is gone.
pub async fn load(services: &Services, task: TaskId) -> Result<TaskContext, EngineError> {
    let what = tasks::summary(services, task).await?.what;
    gather(services, task, what).await
}

/// The same for a task that need not exist yet.
///
/// # Errors
/// When the store stopped, or something it would pin is gone.
pub async fn gather(services: &Services, task: TaskId, what: TaskKind) -> Result<TaskContext, EngineError> {
    let store = &*services.shared.store;
    let (subject, variables) = match what {
        TaskKind::Deployment { project, version, environment, .. } => {
            let key = releases::key(&project, &version);
            let release = RELEASES
                .get(store, key)
                .await?
                .ok_or_else(|| EngineError::not_found("release", format!("{version} of {project}")))?;
            let variables = releases::variables(services, &project, &version).await?;
            (Subject::Deployment { release: Box::new(release), environment }, variables)
        }
        TaskKind::Script { name, sha256, arguments } => {
            let text = SCRIPTS
                .get(store, Key::of_text(&sha256))
                .await?
                .ok_or_else(|| EngineError::not_found("script", &name))?;
            (Subject::Script { name, text, arguments }, Vec::new())
        }
    };
    let secrets = variables
        .iter()
        .filter_map(|variable| match &variable.value {
            VariableValue::Secret(secret) => Some(secret.clone()),
            VariableValue::Text(_) => None,
        })
        .collect();
    let variables = Arc::new(VariableSet::new(variables));
    Ok(TaskContext {
        task,
        subject,
        variables,
        secrets,
        known: Default::default(),
        news: Mutex::default(),
        under_way: RwLock::default(),
    })
}

/// What the steps of a task have put out so far.
#[derive(Clone, Default)]
pub struct Known {
    outputs: Arc<Outputs>,
    secrets: Vec<SecretText>,
    /// Of all secrets, made once for all runs that know no more: making it costs more than a small step.
    masker: Masker,
    /// The last commit of which it holds the outputs.
    upto: Seq,
}

impl Known {
    /// The last commit of which it holds the outputs.
    pub(super) fn upto(&self) -> Seq {
        self.upto
    }
}

/// The variables of one run.
pub struct RunVariables {
    /// What its texts may name.
    pub context: Context,
    /// What must not show in its log.
    pub masker: Masker,
    /// The server's own variables, for a run that learns more of itself.
    pub system: System,
}

impl TaskContext {
    /// The variables as a run of a step sees them, with outputs of earlier steps, and what masks its log.
    #[must_use]
    pub fn seen_by(&self, known: &Known, step: Option<(Placed<'_>, usize)>, machine: Option<&Machine>) -> RunVariables {
        let mut system = System::new().task(self.task);
        let mut place = Place::default();
        if let Subject::Deployment { release, environment } = &self.subject {
            system =
                system.project(&release.project).environment(environment).release(&release.version, &release.notes);
            place.environment = Some(environment.clone());
        }
        if let Some((step, index)) = step {
            system = system.step(&step.name, index);
            place.step = Some(step.name.clone());
            if let Some(windlass_model::On::Role(role)) = step.on() {
                place.step_role = Some(role.clone());
            }
        }
        if let Some(machine) = machine {
            system = system.machine(machine);
            place.machine = Some(machine.name.clone());
            place.roles.clone_from(&machine.roles);
        }
        let outputs = Arc::clone(&known.outputs);
        let context = Context::new(Arc::clone(&self.variables), place).system(system.clone()).outputs(outputs);
        RunVariables { context, masker: known.masker.clone(), system }
    }

    /// The outputs of the task so far: read from the store once, kept up by [`TaskContext::note`].
    ///
    /// # Errors
    /// When the store stopped or a secret cannot be opened.
    pub(crate) async fn known(&self, services: &Services) -> Result<Known, EngineError> {
        let mut known = self.known.lock().await;
        let _none_is_under_way = self.under_way.write().await;
        let store = &*services.shared.store;
        let upto = store.last_seq();
        // Taken before the store is read: what is noted meanwhile is added next time, if need be again.
        let news = std::mem::take(&mut *self.news.lock().unwrap_or_else(PoisonError::into_inner));
        let (mut all_known, news) = match known.take() {
            Some(known) => (known, news),
            None => {
                let stored = outputs(store, self.task, upto).await?;
                (Known { masker: Masker::new(&self.secrets), ..Known::default() }, stored)
            }
        };
        let secrets = all_known.secrets.len();
        for output in news {
            self.add(services, &mut all_known, output)?;
        }
        if all_known.secrets.len() > secrets {
            all_known.masker = Masker::new(all_known.secrets.iter().chain(&self.secrets));
        }
        all_known.upto = upto;
        Ok(known.insert(all_known).clone())
    }

    /// Outputs that a run saw when it began, whatever came since.
    ///
    /// # Errors
    /// When the store stopped or a secret cannot be opened.
    pub(super) async fn pinned(&self, services: &Services, upto: Seq) -> Result<Known, EngineError> {
        let mut known = Known { upto, ..Known::default() };
        for output in outputs(&*services.shared.store, self.task, upto).await? {
            self.add(services, &mut known, output)?;
        }
        known.masker = Masker::new(known.secrets.iter().chain(&self.secrets));
        Ok(known)
    }

    /// Held from before an output is stored until it is noted.
    pub(super) async fn output_under_way(&self) -> RwLockReadGuard<'_, ()> {
        self.under_way.read().await
    }

    /// Takes in an output that is in the store now.
    pub fn note(&self, output: StoredOutput) {
        self.news.lock().unwrap_or_else(PoisonError::into_inner).push(output);
    }

    fn add(&self, services: &Services, known: &mut Known, output: StoredOutput) -> Result<(), EngineError> {
        let Ok(step) = StepName::new(output.step) else {
            return Ok(());
        };
        let machine = output.machine.and_then(|machine| MachineName::new(machine).ok());
        let outputs = Arc::make_mut(&mut known.outputs);
        match output.value {
            StoredValue::Text(text) => outputs.set(&step, machine.as_ref(), &output.name, text, false),
            StoredValue::Secret(sealed) => {
                let secret = services.vault.unseal(&output_place(self.task, &output.name), &sealed)?;
                outputs.set(&step, machine.as_ref(), &output.name, secret.expose(), true);
                known.secrets.push(secret);
            }
        }
        Ok(())
    }
}

/// Where a sensitive output belongs, for its seal.
pub fn output_place(task: TaskId, name: &str) -> String {
    format!("task/{task}/output/{name}")
}

/// A machine by its name.
///
/// # Errors
/// When there is none, or the store stopped.
pub async fn machine(services: &Services, name: &MachineName) -> Result<Machine, EngineError> {
    let found = MACHINES.get(&*services.shared.store, name.key().as_str()).await?;
    found.map(|stored| stored.value).ok_or_else(|| {
        EngineError::not_found("machine", name)
            .fix("add it again with windlass apply or windlass machine add, then deploy again")
    })
}
