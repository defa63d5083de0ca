//! Tasks of the fake world: they start and end at given virtual times.

use windlass_model::{
    MachineName, TaskId, TaskKind, TaskState,
    task::{TaskQuery, TaskSummary},
};

/// A task that runs beside the guest.
#[derive(Debug, Clone)]
pub struct FakeTask {
    pub(crate) id: u64,
    pub(crate) project: String,
    pub(crate) version: String,
    pub(crate) environment: String,
    pub(crate) machines: Vec<String>,
    pub(crate) created_ms: u64,
    pub(crate) ends_ms: Option<u64>,
    pub(crate) ends_as: TaskState,
}

impl FakeTask {
    /// A deployment that is executing and never ends, unless told otherwise.
    #[must_use]
    pub fn deployment(id: u64, project: &str, version: &str, environment: &str) -> Self {
        Self {
            id,
            project: project.to_owned(),
            version: version.to_owned(),
            environment: environment.to_owned(),
            machines: Vec::new(),
            created_ms: 0,
            ends_ms: None,
            ends_as: TaskState::Succeeded,
        }
    }

    /// The same, with work on one more machine.
    #[must_use]
    pub fn on(mut self, machine: &str) -> Self {
        self.machines.push(machine.to_owned());
        self
    }

    /// The same, ending so long after the start of the test.
    #[must_use]
    pub fn ends_after_ms(mut self, ms: u64) -> Self {
        self.ends_ms = Some(ms);
        self
    }

    /// The same, ending in this state.
    #[must_use]
    pub fn ends_as(mut self, state: TaskState) -> Self {
        self.ends_as = state;
        self
    }

    /// Whether it still runs at a time, counted from the start of the test.
    pub(crate) fn runs_at(&self, now_ms: u64) -> bool {
        self.ends_ms.is_none_or(|end| end > now_ms)
    }

    fn state_at(&self, now_ms: u64) -> TaskState {
        match self.runs_at(now_ms) {
            true => TaskState::Executing,
            false => self.ends_as,
        }
    }

    pub(crate) fn matches(&self, query: &TaskQuery, now_ms: u64) -> bool {
        let same = |wanted: Option<&str>, is: &str| wanted.is_none_or(|name| name.eq_ignore_ascii_case(is));
        let machine = query.machine.as_ref().map(MachineName::as_str);
        same(query.project.as_ref().map(|name| name.as_str()), &self.project)
            && same(query.environment.as_ref().map(|name| name.as_str()), &self.environment)
            && machine.is_none_or(|name| self.machines.iter().any(|on| on.eq_ignore_ascii_case(name)))
            && (query.state.is_empty() || query.state.contains(&self.state_at(now_ms)))
            && query.exclude_task != Some(TaskId(self.id))
            && query.before.is_none_or(|before| self.id < before.0)
    }

    /// What a guest sees of it; none when its names are no names.
    pub(crate) fn summary(&self, start_ms: u64, now_ms: u64) -> Option<TaskSummary> {
        let what = TaskKind::Deployment {
            project: self.project.parse().ok()?,
            version: self.version.clone(),
            environment: self.environment.parse().ok()?,
            machines: self.machines.iter().filter_map(|name| name.parse().ok()).collect(),
            skip: Vec::new(),
        };
        let state = self.state_at(now_ms);
        Some(TaskSummary {
            id: TaskId(self.id),
            title: what.title(),
            what,
            state,
            reason: None,
            error: (state == TaskState::Failed).then(|| "it failed, as the test wants".to_owned()),
            created_ms: start_ms + self.created_ms,
            started_ms: Some(start_ms + self.created_ms),
            ended_ms: self.ends_ms.filter(|end| *end <= now_ms).map(|end| start_ms + end),
        })
    }
}
