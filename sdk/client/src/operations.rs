//! One typed method for each operation of the API.

use std::time::Duration;

use reqwest::{Body, Method, Url};
use tokio::io::AsyncRead;
use tokio_util::io::ReaderStream;
use windlass_model::{
    Environment, Machine, MachineName, Project, ProjectName, Release, TaskId, TaskState, TokenName,
    replay::ReplayView,
    scheduling::{AnswerRequest, BreakRequest, BrokenLock, LockView, PlanView, QuestionView, WhyView},
    task::{TaskDetail, TaskQuery, TaskSummary},
    views::{
        DeployRequest, Items, LogPage, MachineReport, NewToken, PackageView, PluginRecord, ProjectDetail, PushMode,
        PushReport, ReleaseRequest, ScriptRequest, ServerInfo, TokenRequest, TokenView, TrustReport, TrustRequest,
    },
    workspace::{ApplyReport, Workspace},
};

use crate::{
    client::{Ask, Client},
    error::Result,
};

/// Bytes read from a package at a time.
const PIECE: usize = 256 << 10;
/// How long a backup may take.
const BACKUP: Duration = Duration::from_secs(24 * 3600);
/// No body.
const EMPTY: Option<&()> = None;

/// Which lines of a node's log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogRange {
    /// Node of the task's tree; empty for the task itself.
    pub node: String,
    /// Number of the first line.
    pub from: u64,
    /// At most so many lines; the server's default when none.
    pub limit: Option<u32>,
}

/// # Server and catalog
/// Each fails as [`ClientError`](crate::ClientError) says: the server's problem, or none reached.
impl Client {
    /// Version of the server, and links.
    pub async fn info(&self) -> Result<ServerInfo> {
        self.get(self.url(&[""])).await
    }

    /// The OpenAPI document.
    pub async fn openapi(&self) -> Result<serde_json::Value> {
        self.get(self.url(&["openapi.json"])).await
    }

    /// A backup of everything the server keeps, as it is made: a tar file, whole only if the stream ends without an
    /// error.
    pub async fn backup(&self) -> Result<impl futures::Stream<Item = Result<bytes::Bytes>> + use<>> {
        let request = self.request(Method::POST, self.url(&["backup"])).timeout(BACKUP);
        let response = self.check(request).await?;
        let client = self.clone();
        let pieces =
            futures::StreamExt::map(response.bytes_stream(), move |piece| piece.map_err(|error| client.failed(&error)));
        Ok(pieces)
    }

    /// Brings the server to what a workspace says, or only tells what would change.
    pub async fn apply(&self, workspace: &Workspace, dry_run: bool) -> Result<ApplyReport> {
        let mut url = self.url(&["apply"]);
        url.query_pairs_mut().append_pair("dry_run", if dry_run { "true" } else { "false" });
        self.send(Method::POST, url, Some(workspace)).await
    }

    /// All environments.
    pub async fn environments(&self) -> Result<Vec<Environment>> {
        self.list(&["environments"]).await
    }

    /// All machines.
    pub async fn machines(&self) -> Result<Vec<Machine>> {
        self.list(&["machines"]).await
    }

    /// One machine.
    pub async fn machine(&self, name: &MachineName) -> Result<Machine> {
        self.get(self.url(&["machines", name.as_str()])).await
    }

    /// Creates or changes a machine.
    pub async fn put_machine(&self, machine: &Machine) -> Result<Machine> {
        self.send(Method::PUT, self.url(&["machines", machine.name.as_str()]), Some(machine)).await
    }

    /// Looks at a machine's host key, and with `fingerprint` pins it if it is that one.
    pub async fn trust_machine(&self, name: &MachineName, fingerprint: Option<&str>) -> Result<TrustReport> {
        let request = TrustRequest { fingerprint: fingerprint.map(str::to_owned) };
        self.send(Method::POST, self.url(&["machines", name.as_str(), "trust"]), Some(&request)).await
    }

    /// Reaches a machine and tells what is known of it.
    pub async fn check_machine(&self, name: &MachineName) -> Result<MachineReport> {
        self.send(Method::POST, self.url(&["machines", name.as_str(), "check"]), EMPTY).await
    }

    /// All projects.
    pub async fn projects(&self) -> Result<Vec<Project>> {
        self.list(&["projects"]).await
    }

    /// One project with its process.
    pub async fn project(&self, name: &ProjectName) -> Result<ProjectDetail> {
        self.get(self.url(&["projects", name.as_str()])).await
    }

    /// Releases of a project, newest first.
    pub async fn releases(&self, project: &ProjectName) -> Result<Vec<Release>> {
        self.list(&["projects", project.as_str(), "releases"]).await
    }

    /// One release; without a version the latest.
    pub async fn release(&self, project: &ProjectName, version: Option<&str>) -> Result<Release> {
        self.get(self.url(&["projects", project.as_str(), "releases", version.unwrap_or("latest")])).await
    }

    /// Creates a release.
    pub async fn create_release(&self, project: &ProjectName, request: &ReleaseRequest) -> Result<Release> {
        self.send(Method::POST, self.url(&["projects", project.as_str(), "releases"]), Some(request)).await
    }

    async fn list<T: serde::de::DeserializeOwned>(&self, segments: &[&str]) -> Result<Vec<T>> {
        self.get::<Items<T>>(self.url(segments)).await.map(|list| list.items)
    }
}

/// # Packages and plugins
impl Client {
    /// Every version of every package.
    pub async fn packages(&self) -> Result<Vec<PackageView>> {
        self.list(&["packages"]).await
    }

    /// Every version of one package.
    pub async fn package_versions(&self, id: &str) -> Result<Vec<PackageView>> {
        self.list(&["packages", id]).await
    }

    /// Uploads a package as it is read. With its digest the server checks what arrived.
    pub async fn push_package(
        &self,
        file_name: &str,
        content: impl AsyncRead + Send + 'static,
        size: u64,
        sha256: Option<&str>,
        if_exists: PushMode,
    ) -> Result<PushReport> {
        let mut url = self.url(&["packages", file_name]);
        let mode = match if_exists {
            PushMode::Fail => "fail",
            PushMode::IgnoreSame => "ignore_same",
            PushMode::Replace => "replace",
        };
        url.query_pairs_mut().append_pair("if_exists", mode);
        let mut request = self.request(Method::PUT, url);
        if let Some(digest) = sha256 {
            request = request.header("X-Content-SHA256", digest);
        }
        self.upload(request, size, Body::wrap_stream(ReaderStream::with_capacity(content, PIECE))).await
    }

    /// Installed plugins.
    pub async fn plugins(&self) -> Result<Vec<PluginRecord>> {
        self.list(&["plugins"]).await
    }

    /// One plugin; without a version the newest.
    pub async fn plugin(&self, id: &str, version: Option<&str>) -> Result<PluginRecord> {
        let mut url = self.url(&["plugins", id]);
        if let Some(version) = version {
            url.query_pairs_mut().append_pair("version", version);
        }
        self.get(url).await
    }

    /// Installs a plugin.
    pub async fn install_plugin(&self, component: impl Into<bytes::Bytes>) -> Result<PluginRecord> {
        let component = component.into();
        self.upload(self.request(Method::POST, self.url(&["plugins"])), component.len() as u64, Body::from(component))
            .await
    }
}

/// # Tasks
impl Client {
    /// Queues a deployment.
    pub async fn deploy(&self, request: &DeployRequest) -> Result<TaskSummary> {
        self.send(Method::POST, self.url(&["deployments"]), Some(request)).await
    }

    /// Queues the run of a script.
    pub async fn run_script(&self, request: &ScriptRequest) -> Result<TaskSummary> {
        self.send(Method::POST, self.url(&["scripts", "run"]), Some(request)).await
    }

    /// Tasks that match, newest first; `next` is the `before` of the next page.
    pub async fn tasks(&self, query: &TaskQuery) -> Result<Items<TaskSummary>> {
        let mut url = self.url(&["tasks"]);
        add_filters(&mut url, query);
        self.get(url).await
    }

    /// A task with its tree.
    pub async fn task(&self, id: TaskId) -> Result<TaskDetail> {
        self.get(self.url(&["tasks", &id.to_string()])).await
    }

    /// Asks a task to stop.
    pub async fn cancel(&self, id: TaskId) -> Result<TaskSummary> {
        self.send(Method::POST, self.url(&["tasks", &id.to_string(), "cancel"]), EMPTY).await
    }

    /// Why a task waits.
    pub async fn why(&self, id: TaskId) -> Result<WhyView> {
        self.get(self.url(&["tasks", &id.to_string(), "why"])).await
    }

    /// Executes a run again against its journal, touching nothing. It is named by its id, or by its task if that has
    /// only one.
    pub async fn replay(&self, run: &str) -> Result<ReplayView> {
        self.get(self.url(&["runs", run, "replay"])).await
    }

    /// Makes a queued task the next.
    pub async fn move_to_top(&self, id: TaskId) -> Result<TaskSummary> {
        self.send(Method::POST, self.url(&["tasks", &id.to_string(), "top"]), EMPTY).await
    }

    /// Every resource in use.
    pub async fn locks(&self) -> Result<Vec<LockView>> {
        let page: Items<LockView> = self.get(self.url(&["locks"])).await?;
        Ok(page.items)
    }

    /// Locks that were broken, oldest first.
    pub async fn broken_locks(&self) -> Result<Vec<BrokenLock>> {
        let page: Items<BrokenLock> = self.get(self.url(&["locks", "broken"])).await?;
        Ok(page.items)
    }

    /// Takes a lock away from those who hold it.
    pub async fn break_lock(&self, request: &BreakRequest) -> Result<BrokenLock> {
        self.send(Method::POST, self.url(&["locks", "break"]), Some(request)).await
    }

    /// What people are asked.
    pub async fn interruptions(&self) -> Result<Vec<QuestionView>> {
        let page: Items<QuestionView> = self.get(self.url(&["interruptions"])).await?;
        Ok(page.items)
    }

    /// Answers a question.
    pub async fn answer(&self, question: u64, request: &AnswerRequest) -> Result<QuestionView> {
        self.send(Method::POST, self.url(&["interruptions", &question.to_string(), "answer"]), Some(request)).await
    }

    /// What a deployment would do, if it were queued now.
    pub async fn plan(&self, request: &DeployRequest) -> Result<PlanView> {
        self.send(Method::POST, self.url(&["plan"]), Some(request)).await
    }

    /// Names of all tokens.
    pub async fn tokens(&self) -> Result<Vec<TokenView>> {
        self.list(&["tokens"]).await
    }

    /// Makes a token.
    pub async fn create_token(&self, name: &TokenName) -> Result<NewToken> {
        self.send(Method::POST, self.url(&["tokens"]), Some(&TokenRequest { name: name.clone() })).await
    }

    /// Makes a token void.
    pub async fn revoke_token(&self, name: &TokenName) -> Result<TokenView> {
        self.send(Method::DELETE, self.url(&["tokens", name.as_str()]), EMPTY).await
    }

    /// A range of a node's log.
    pub async fn log(&self, id: TaskId, range: &LogRange) -> Result<LogPage> {
        self.get(self.log_url(id, range)).await
    }

    /// A node's log as text, from the range's first line on, as it is read.
    pub async fn log_text(
        &self,
        id: TaskId,
        range: &LogRange,
    ) -> Result<impl futures::Stream<Item = Result<bytes::Bytes>> + use<>> {
        let ask = Ask { method: Method::GET, url: self.log_url(id, range), body: None, accept: "text/plain" };
        let response = self.ask(ask).await?;
        let client = self.clone();
        let pieces =
            futures::StreamExt::map(response.bytes_stream(), move |piece| piece.map_err(|error| client.failed(&error)));
        Ok(pieces)
    }

    fn log_url(&self, id: TaskId, range: &LogRange) -> Url {
        let mut url = self.url(&["tasks", &id.to_string(), "log"]);
        url.query_pairs_mut().append_pair("node", &range.node).append_pair("from", &range.from.to_string());
        if let Some(limit) = range.limit {
            url.query_pairs_mut().append_pair("limit", &limit.to_string());
        }
        url
    }
}

fn add_filters(url: &mut Url, query: &TaskQuery) {
    let TaskQuery { machine, state, project, environment, exclude_task, limit, before } = query;
    let states = state.iter().map(|state: &TaskState| state.as_str()).collect::<Vec<_>>().join(",");
    let filters = [
        ("machine", machine.as_ref().map(ToString::to_string)),
        ("state", Some(states).filter(|states| !states.is_empty())),
        ("project", project.as_ref().map(ToString::to_string)),
        ("environment", environment.as_ref().map(ToString::to_string)),
        ("exclude_task", exclude_task.map(|task| task.to_string())),
        ("limit", limit.map(|limit| limit.to_string())),
        ("before", before.map(|task| task.to_string())),
    ];
    for (name, value) in filters {
        if let Some(value) = value {
            url.query_pairs_mut().append_pair(name, &value);
        }
    }
}
