//! Scenarios: what a script shall do in a given world, written in YAML beside the script.

use std::{collections::BTreeMap, fs, path::Path};

use serde::Deserialize;
use serde_json::Value;
use windlass_model::TaskState;
use windlass_script::parse_span;

use crate::{fake::FakeWorld, run::Run, task::FakeTask};

/// One scenario.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// What it shows.
    pub name: String,
    /// Arguments of the script.
    #[serde(default)]
    arguments: BTreeMap<String, Value>,
    /// The script's own task.
    #[serde(default)]
    own_task: Option<u64>,
    /// Other tasks.
    #[serde(default)]
    tasks: Vec<Task>,
    /// How deployments end that the script queues.
    #[serde(default)]
    deployments: Vec<Deployment>,
    /// Locks that others hold.
    #[serde(default)]
    locks: Vec<Lock>,
    /// Texts that lines of the transcript must hold, in this order.
    #[serde(default)]
    expect: Vec<String>,
    /// Texts that no line may hold.
    #[serde(default)]
    never: Vec<String>,
    /// Text that the ending must hold.
    ends: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Task {
    id: u64,
    project: String,
    version: String,
    environment: String,
    machines: Vec<String>,
    /// Span since the start; it never ends without.
    #[serde(default)]
    ends_after: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Deployment {
    project: String,
    takes: String,
    ends_as: TaskState,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Lock {
    name: String,
    holder: String,
    /// Span since the start; it is held for ever without.
    #[serde(default)]
    until: Option<String>,
}

/// Why a scenario did not hold.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// A file cannot be read.
    #[error("read {path}: {cause}")]
    File {
        /// The file.
        path: String,
        /// Why.
        cause: String,
    },
    /// It names a span that is none.
    #[error("scenario «{scenario}»: {cause}")]
    Span {
        /// The scenario.
        scenario: String,
        /// Why.
        cause: String,
    },
    /// The run went another way than it says, or than its own replay.
    #[error("scenario «{scenario}»: {fault}")]
    Broken {
        /// The scenario.
        scenario: String,
        /// What was missed, with the whole transcript.
        fault: String,
    },
}

/// The scenarios beside a script: `<name>.scenarios.yaml` for `<name>.rhai`.
///
/// # Errors
/// When the file cannot be read.
pub fn scenarios(script: &Path) -> Result<Vec<Scenario>, ScenarioError> {
    let path = script.with_extension("scenarios.yaml");
    let fault = |cause: String| ScenarioError::File { path: path.display().to_string(), cause };
    let text = fs::read_to_string(&path).map_err(|error| fault(error.to_string()))?;
    serde_saphyr::from_str(&text).map_err(|error| fault(error.to_string()))
}

impl Scenario {
    /// Runs the script in this scenario, straight and replayed from every index of its journal.
    ///
    /// # Errors
    /// When anything is not as the scenario says.
    pub async fn check(&self, source: &str) -> Result<Run, ScenarioError> {
        let broken = |fault: String| ScenarioError::Broken { scenario: self.name.clone(), fault };
        let world = self.world()?;
        let arguments = self.arguments.iter().map(|(name, value)| (name.as_str(), value.clone()));
        let run = world
            .replay_script_at_every_index(source, arguments)
            .await
            .map_err(|mismatch| broken(mismatch.to_string()))?;
        if let Some(missing) = run.transcript.first_missing(&self.expect) {
            return Err(broken(format!("no line holds «{missing}» in its place\n{run}")));
        }
        if let Some(text) = self.never.iter().find(|text| run.transcript.has(text)) {
            return Err(broken(format!("a line holds «{text}»\n{run}")));
        }
        if !run.ending.contains(&self.ends) {
            return Err(broken(format!("it does not end with «{}»\n{run}", self.ends)));
        }
        Ok(run)
    }

    fn world(&self) -> Result<FakeWorld, ScenarioError> {
        let ms = |span: &String| {
            let span = parse_span(span).map_err(|cause| ScenarioError::Span { scenario: self.name.clone(), cause })?;
            Ok(u64::try_from(span.as_millis()).unwrap_or(u64::MAX))
        };
        let mut world = FakeWorld::new().own_task(self.own_task.unwrap_or(1));
        for task in &self.tasks {
            let mut fake = FakeTask::deployment(task.id, &task.project, &task.version, &task.environment);
            for machine in &task.machines {
                fake = fake.on(machine);
            }
            if let Some(span) = &task.ends_after {
                fake = fake.ends_after_ms(ms(span)?);
            }
            world = world.task(fake);
        }
        for deployment in &self.deployments {
            world = world.deployments(&deployment.project, ms(&deployment.takes)?, deployment.ends_as);
        }
        for lock in &self.locks {
            let until = lock.until.as_ref().map(ms).transpose()?;
            world = world.busy_lock(&lock.name, &lock.holder, until);
        }
        Ok(world)
    }
}
