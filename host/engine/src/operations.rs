//! What the API and the CLI can ask of an engine: one method an operation.

use std::time::Duration;

use bytes::Bytes;
use tokio::io::AsyncRead;
use windlass_machines::{MachineError, scan_host_key};
use windlass_model::{
    Connection, Environment, Machine, MachineName, Project, ProjectName, Release, SecretText, TaskId, TokenName,
    replay::ReplayView,
    scheduling::{AnswerRequest, BreakRequest, BrokenLock, LockView, PlanView, QuestionView, WhyView},
    task::{LogLine, TaskDetail, TaskQuery, TaskSummary},
    views::{
        DeployRequest, DiskView, MachineReport, PackageView, PluginRecord, ProjectDetail, ReleaseRequest,
        ScriptRequest, TrustReport,
    },
    workspace::{ApplyReport, Workspace},
};
use windlass_packages::{
    name::PackageName,
    repository::{PackageRecord, PushOptions, Pushed},
};
use windlass_store::Batch;

use crate::{
    catalog,
    error::{EngineError, ErrorKind},
    events::Follower,
    logs, machines, once,
    open::Engine,
    packages, planning, plugins, releases, room, runs, scheduling, tasks, tokens,
};

/// Lines of a log in one answer, at most.
const MAX_LINES: usize = 2000;
/// How long a test of a machine may take.
const CHECK_LIMIT: Duration = Duration::from_secs(60);

/// A package version as lists show it.
#[must_use]
pub fn package_view(record: PackageRecord) -> PackageView {
    PackageView {
        id: record.name.id.to_string(),
        version: record.name.version.to_string(),
        size: record.original.size,
        sha256: record.original.sha256.to_string(),
        pushed_ms: record.pushed_at,
        warnings: record.warnings,
    }
}

// === the server itself ===

impl Engine {
    /// How full the disk of the data folder is, and what that means.
    #[must_use]
    pub fn disk(&self) -> DiskView {
        room::view(&self.services.shared.store.room())
    }

    fn admit_work(&self, what: &str, bytes: u64) -> Result<(), EngineError> {
        room::for_work(&*self.services.shared.store, what, bytes)
    }

    fn admit_change(&self, what: &str) -> Result<(), EngineError> {
        room::for_change(&*self.services.shared.store, what)
    }
}

// === catalog ===

impl Engine {
    /// Brings the catalog to what a workspace says.
    ///
    /// # Errors
    /// As the store's.
    pub async fn apply(&self, workspace: Workspace, dry_run: bool) -> Result<ApplyReport, EngineError> {
        if !dry_run {
            self.admit_change("apply files")?;
        }
        catalog::apply(&self.services, workspace, dry_run).await
    }

    /// All environments.
    ///
    /// # Errors
    /// As the store's.
    pub async fn environments(&self) -> Result<Vec<Environment>, EngineError> {
        catalog::environments(&self.services).await
    }

    /// All projects.
    ///
    /// # Errors
    /// As the store's.
    pub async fn projects(&self) -> Result<Vec<Project>, EngineError> {
        catalog::projects(&self.services).await
    }

    /// One project with its process.
    ///
    /// # Errors
    /// When there is none.
    pub async fn project(&self, name: &ProjectName) -> Result<ProjectDetail, EngineError> {
        let project = catalog::project(&self.services, name).await?;
        let process = catalog::process(&self.services, name).await?;
        let releases = releases::list(&self.services, name).await?.into_iter().map(|release| release.version).collect();
        Ok(ProjectDetail { project, process, releases })
    }

    /// All machines.
    ///
    /// # Errors
    /// As the store's.
    pub async fn machines(&self) -> Result<Vec<Machine>, EngineError> {
        catalog::machines(&self.services).await
    }

    /// One machine.
    ///
    /// # Errors
    /// When there is none.
    pub async fn machine(&self, name: &MachineName) -> Result<Machine, EngineError> {
        catalog::machine(&self.services, name).await
    }

    /// Creates or changes a machine.
    ///
    /// # Errors
    /// When it names an environment that does not exist.
    pub async fn put_machine(&self, machine: Machine) -> Result<Machine, EngineError> {
        self.admit_change("change a machine")?;
        for environment in &machine.environments {
            catalog::environment(&self.services, environment).await?;
        }
        catalog::put_machine(&self.services, &machine).await?;
        Ok(machine)
    }

    /// Looks at a machine's host key, and with `fingerprint` pins it if it is that one.
    ///
    /// # Errors
    /// When it cannot be reached, or shows another key than the one to be trusted.
    pub async fn trust_machine(
        &self,
        name: &MachineName,
        fingerprint: Option<&str>,
    ) -> Result<TrustReport, EngineError> {
        let mut machine = self.machine(name).await?;
        let Connection::Ssh { host, port, host_key, .. } = &mut machine.connection else {
            return Err(EngineError::invalid(
                "no-host-key",
                format!("{name} is the local machine: there is no host key to trust"),
            )
            .fix(format!("nothing is to be done; try it: windlass machine check {name}")));
        };
        let shown = scan_host_key(host, *port).await.map_err(|error| EngineError::from(runs::failure(error)))?;
        let before = host_key.clone();
        let mut trusted = before.as_deref() == Some(shown.fingerprint.as_str());
        if let Some(wanted) = fingerprint {
            if wanted != shown.fingerprint {
                return Err(EngineError::conflict(
                    "host-key",
                    format!("{name} shows the host key {}, not {wanted}", shown.fingerprint),
                )
                .fix("ask the machine's owner which key is right: ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub"));
            }
            *host_key = Some(shown.fingerprint.clone());
            trusted = true;
            catalog::put_machine(&self.services, &machine).await?;
            tracing::info!(machine = %name, fingerprint = %shown.fingerprint, before = before.as_deref(), "trusted a host key");
        }
        Ok(TrustReport {
            machine: machine.name,
            algorithm: shown.algorithm,
            fingerprint: shown.fingerprint,
            before,
            trusted,
        })
    }

    /// Reaches a machine, tests that commands can be run there, tells what is known of it.
    ///
    /// # Errors
    /// When it cannot be reached or cannot run commands.
    pub async fn check_machine(&self, name: &MachineName) -> Result<MachineReport, EngineError> {
        let record = self.machine(name).await?;
        let endpoint = machines::endpoint(&record.connection)?;
        let failed = |error| EngineError::from(runs::failure(error));
        let reach = async {
            let machine = self.services.machines.connect(&endpoint).await?;
            Ok((machine.self_test().await?, machine.facts().await?))
        };
        // A link that keeps breaking is tried again for minutes, which is not for a person to wait for.
        let late = |_| {
            let reason = format!("it did not hold for as long as this takes, within {} s", CHECK_LIMIT.as_secs());
            Err(MachineError::LinkLost { machine: endpoint.to_string(), reason })
        };
        let (tested, facts) = tokio::time::timeout(CHECK_LIMIT, reach).await.unwrap_or_else(late).map_err(failed)?;
        let mut known = std::collections::BTreeMap::from([
            ("os".to_owned(), facts.os.clone()),
            ("distribution".to_owned(), facts.distribution.clone()),
            ("arch".to_owned(), facts.arch.clone()),
            ("hostname".to_owned(), facts.hostname.clone()),
            ("user".to_owned(), facts.user.clone()),
            ("home".to_owned(), facts.home.clone()),
            ("tools".to_owned(), facts.tools.iter().cloned().collect::<Vec<_>>().join(" ")),
        ]);
        known.insert("survives_link_loss".to_owned(), tested.survives_link.to_string());
        if !tested.advice.is_empty() {
            known.insert("advice".to_owned(), tested.advice.join("; "));
        }
        if let Some(free) = facts.free_bytes {
            known.insert("free_bytes".to_owned(), free.to_string());
        }
        Ok(MachineReport { machine: record.name, facts: known })
    }
}

// === plugins, packages, releases ===

impl Engine {
    /// Installs a plugin.
    ///
    /// # Errors
    /// When it is none, or another one of that version is installed.
    pub async fn install_plugin(&self, component: Bytes) -> Result<PluginRecord, EngineError> {
        self.admit_work("install a plugin", component.len() as u64)?;
        plugins::install(&self.services, component).await
    }

    /// Installed plugins.
    ///
    /// # Errors
    /// As the store's.
    pub async fn plugins(&self) -> Result<Vec<PluginRecord>, EngineError> {
        plugins::list(&*self.services.shared.store).await
    }

    /// Takes in a package.
    ///
    /// # Errors
    /// When it is damaged, unsafe, incomplete, or its version exists.
    pub async fn push_package(
        &self,
        name: PackageName,
        upload: impl AsyncRead + Unpin + Send,
        mut options: PushOptions,
    ) -> Result<Pushed, EngineError> {
        self.admit_work(&format!("take in the package {name}"), options.expected_size.unwrap_or(0))?;
        options.pushed_at = self.services.shared.clock.now_ms();
        self.services.packages.push(name, upload, options).await.map_err(push_error)
    }

    /// Every version of every package, or of one.
    ///
    /// # Errors
    /// As the store's.
    pub async fn packages(&self, id: Option<&str>) -> Result<Vec<PackageView>, EngineError> {
        let mut records = self.services.feed.records().await?;
        if let Some(id) = id {
            records.retain(|record| record.name.id.as_str().eq_ignore_ascii_case(id));
        }
        records.sort_by(|a, b| (&a.name.id, &b.name.version).cmp(&(&b.name.id, &a.name.version)));
        Ok(records.into_iter().map(package_view).collect())
    }

    /// Creates a release.
    ///
    /// # Errors
    /// When something it needs is missing, or its version exists.
    pub async fn create_release(&self, project: &ProjectName, request: ReleaseRequest) -> Result<Release, EngineError> {
        self.admit_work("create a release", 0)?;
        let release = releases::create(&self.services, project, request, self.once.as_ref()).await?;
        packages::warm(&self.services, &release);
        Ok(release)
    }

    /// Releases of a project, newest first.
    ///
    /// # Errors
    /// When there is no such project.
    pub async fn releases(&self, project: &ProjectName) -> Result<Vec<Release>, EngineError> {
        catalog::project(&self.services, project).await?;
        releases::list(&self.services, project).await
    }

    /// One release; without a version the latest.
    ///
    /// # Errors
    /// When there is none.
    pub async fn release(&self, project: &ProjectName, version: Option<&str>) -> Result<Release, EngineError> {
        catalog::project(&self.services, project).await?;
        releases::get(&self.services, project, version).await
    }
}

fn push_error(error: windlass_packages::repository::PushError) -> EngineError {
    use windlass_packages::repository::PushError as P;
    let (kind, code) = match &error {
        P::Exists { .. } => (ErrorKind::Conflict, "package-exists"),
        P::Repository(_) => (ErrorKind::Unavailable, "package-storage"),
        P::TooLarge { .. } => (ErrorKind::TooLarge, "package-too-large"),
        P::Interrupted { .. } => (ErrorKind::Broken, "upload-broken"),
        P::Stalled { .. } => (ErrorKind::Stalled, "upload-stalled"),
        P::Length { .. } | P::Digest { .. } | P::Archive { .. } => (ErrorKind::Invalid, "package-refused"),
    };
    EngineError::new(kind, code, error.to_string()).fix(error.fix())
}

// === tasks ===

impl Engine {
    /// Queues a deployment.
    ///
    /// # Errors
    /// When something it names does not exist, or there is nothing to do.
    pub async fn deploy(&self, request: DeployRequest) -> Result<TaskSummary, EngineError> {
        self.admit_work("queue a deployment", 0)?;
        self.queue(tasks::prepare_deployment(&self.services, request).await?).await
    }

    async fn queue(&self, prepared: tasks::Prepared) -> Result<TaskSummary, EngineError> {
        let mut with = Batch::new();
        once::mark(&self.services, self.once.as_ref(), once::Made::Task(prepared.id()), &mut with)?;
        prepared.queue(&self.services, with).await
    }

    /// Queues the run of a script.
    ///
    /// # Errors
    /// When it does not compile.
    pub async fn run_script(&self, request: ScriptRequest) -> Result<TaskSummary, EngineError> {
        self.admit_work("queue a script", 0)?;
        self.queue(tasks::prepare_script(&self.services, request).await?).await
    }

    /// Tasks that match, newest first.
    ///
    /// # Errors
    /// As the store's.
    pub async fn tasks(&self, query: &TaskQuery) -> Result<Vec<TaskSummary>, EngineError> {
        tasks::list(&self.services, query).await
    }

    /// A task with its tree.
    ///
    /// # Errors
    /// When there is none.
    pub async fn task(&self, id: TaskId) -> Result<TaskDetail, EngineError> {
        tasks::detail(&self.services, id).await
    }

    /// Asks a task to stop.
    ///
    /// # Errors
    /// When there is none, or it is over.
    pub async fn cancel(&self, id: TaskId) -> Result<TaskSummary, EngineError> {
        tasks::cancel(&self.services, id).await
    }

    /// Lines of a node's log, from line number `from` on.
    ///
    /// # Errors
    /// When there is no such task.
    pub async fn log(&self, id: TaskId, node: &str, from: u64, limit: usize) -> Result<Vec<LogLine>, EngineError> {
        tasks::summary(&self.services, id).await?;
        Ok(logs::read(&*self.services.shared.store, id, node, from, limit.clamp(1, MAX_LINES)).await?)
    }

    /// Follows what happens, after event number `after` or from now on.
    #[must_use]
    pub fn events(&self, after: Option<u64>) -> Follower {
        self.services.shared.hub.follow(after)
    }
}

// === scheduling ===

impl Engine {
    /// Why a task waits.
    ///
    /// # Errors
    /// When there is none.
    pub async fn why(&self, id: TaskId) -> Result<WhyView, EngineError> {
        scheduling::why(&self.services, id).await
    }

    /// Executes a run again against its journal, touching nothing.
    ///
    /// # Errors
    /// When there is no such run, or what it needs is gone.
    pub async fn replay(&self, run: &str) -> Result<ReplayView, EngineError> {
        runs::replay(&self.services, run).await
    }

    /// Makes a queued task the next.
    ///
    /// # Errors
    /// When there is none, or it has started.
    pub async fn move_to_top(&self, id: TaskId) -> Result<TaskSummary, EngineError> {
        scheduling::move_to_top(&self.services, id).await
    }

    /// Every resource in use.
    ///
    /// # Errors
    /// When the server is stopping.
    pub async fn locks(&self) -> Result<Vec<LockView>, EngineError> {
        scheduling::locks(&self.services).await
    }

    /// Takes a lock away from those who hold it.
    ///
    /// # Errors
    /// When nobody holds it.
    pub async fn break_lock(&self, request: BreakRequest, by: &str) -> Result<BrokenLock, EngineError> {
        scheduling::break_lock(&self.services, request, by).await
    }

    /// Locks that were broken, oldest first.
    ///
    /// # Errors
    /// As the store's.
    pub async fn broken_locks(&self) -> Result<Vec<BrokenLock>, EngineError> {
        scheduling::broken_locks(&self.services).await
    }

    /// What people are asked.
    ///
    /// # Errors
    /// As the store's.
    pub async fn questions(&self) -> Result<Vec<QuestionView>, EngineError> {
        scheduling::questions(&self.services).await
    }

    /// Answers a question.
    ///
    /// # Errors
    /// When there is none, or the answer was not offered.
    pub async fn answer(&self, number: u64, request: AnswerRequest, by: &str) -> Result<QuestionView, EngineError> {
        scheduling::answer(&self.services, number, request, by).await
    }

    /// What a deployment would do, if it were queued now.
    ///
    /// # Errors
    /// When something it names does not exist.
    pub async fn plan(&self, request: DeployRequest) -> Result<PlanView, EngineError> {
        planning::plan(&self.services, request).await
    }
}

// === tokens ===

impl Engine {
    /// Makes the first token, if there is none yet.
    ///
    /// # Errors
    /// As the store's.
    pub async fn first_token(&self) -> Result<Option<SecretText>, EngineError> {
        let store = &*self.services.shared.store;
        if tokens::any(store).await? { Ok(None) } else { tokens::create(store, "admin").await.map(Some) }
    }

    /// Names of all tokens.
    ///
    /// # Errors
    /// As the store's.
    pub async fn tokens(&self) -> Result<Vec<String>, EngineError> {
        tokens::names(&*self.services.shared.store).await
    }

    /// Makes a token.
    ///
    /// # Errors
    /// When there is one of that name.
    pub async fn create_token(&self, name: &TokenName) -> Result<SecretText, EngineError> {
        self.admit_change("make a token")?;
        tokens::add(&*self.services.shared.store, name).await
    }

    /// Makes a token void.
    ///
    /// # Errors
    /// When there is none of that name, or it is the last one.
    pub async fn revoke_token(&self, name: &TokenName) -> Result<(), EngineError> {
        tokens::revoke(&*self.services.shared.store, name).await
    }

    /// The name of a token, if it is one.
    ///
    /// # Errors
    /// As the store's.
    pub async fn check_token(&self, token: &str) -> Result<Option<String>, EngineError> {
        tokens::check(&*self.services.shared.store, token).await
    }
}
