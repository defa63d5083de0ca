//! A place where a team deploys: a server, `sshd` targets, and the folder of files that they apply.
//!
//! Everything is done as a person would, through the commands of the binary; nothing reaches into the server.

use std::{
    fs,
    path::{Path, PathBuf},
};

use futures::StreamExt;
use serde_json::{Value, json};
use tempfile::TempDir;
use windlass_client::Client;
use windlass_model::{TaskId, task::TaskDetail};

use crate::{
    server::{Ended, Server},
    shop::Anything,
    sshd::Sshd,
};

/// How long a task may take to get somewhere.
const WAIT: std::time::Duration = std::time::Duration::from_secs(120);

/// A server, its targets `web0`, `web1` … with the role `web`, and a folder of files.
#[derive(Debug)]
pub struct Site {
    /// The server.
    pub server: Server,
    /// The targets, by number.
    pub targets: Vec<Sshd>,
    folder: TempDir,
}

impl Site {
    /// A site of so many targets, with a project `shop` of these steps (YAML), applied.
    ///
    /// # Errors
    /// When anything of it fails.
    pub async fn new(targets: usize, steps: &str) -> Anything<Self> {
        let targets = (0..targets).map(|_| Sshd::start()).collect::<Result<_, _>>()?;
        Self::with(targets, steps).await
    }

    /// The same with targets of one's own.
    ///
    /// # Errors
    /// When anything of it fails.
    pub async fn with(targets: Vec<Sshd>, steps: &str) -> Anything<Self> {
        let site = Self::unapplied(targets, steps).await?;
        site.apply()?.good()?;
        Ok(site)
    }

    /// The same, its files written but not applied.
    ///
    /// # Errors
    /// When anything of it fails.
    pub async fn unapplied(targets: Vec<Sshd>, steps: &str) -> Anything<Self> {
        let server = Server::start().await?;
        let site = Self { server, targets, folder: tempfile::tempdir()? };
        site.write("site/environments.yaml", "environments:\n  - name: test\n")?;
        site.machines(|_, machine| machine)?;
        site.write("site/shop/project.yaml", "name: shop\n")?;
        site.write("site/shop/process.yaml", &format!("steps:\n{steps}"))?;
        Ok(site)
    }

    /// Writes a file below the folder.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, path: &str, text: &str) -> Anything<PathBuf> {
        let path = self.folder.path().join(path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&path, text)?;
        Ok(path)
    }

    /// Writes `machines.yaml`, each machine as `change` makes it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn machines(&self, change: impl Fn(usize, Value) -> Value) -> Anything<()> {
        let machines = self.targets.iter().enumerate().map(|(number, target)| {
            let ssh = json!({
                "host": "127.0.0.1",
                "port": target.port(),
                "user": target.user(),
                "auth": { "key-file": { "path": target.login_key_path() } },
                "host_key": target.host_key(),
            });
            let machine = json!({ "name": format!("web{number}"), "environments": ["test"], "roles": ["web"], "connection": { "ssh": ssh } });
            change(number, machine)
        });
        // JSON is YAML.
        let text = serde_json::to_string_pretty(&json!({ "machines": machines.collect::<Vec<_>>() }))?;
        self.write("site/machines.yaml", &text).map(drop)
    }

    /// The folder that is applied.
    #[must_use]
    pub fn files(&self) -> PathBuf {
        self.folder.path().join("site")
    }

    /// `windlass apply`.
    ///
    /// # Errors
    /// When the command cannot be run.
    pub fn apply(&self) -> Anything<Ended> {
        self.server.cli(&["apply", &show(&self.files())])
    }

    /// Packs files into a package of the project, `shop-web` of this version, and pushes it.
    ///
    /// # Errors
    /// When a command fails.
    pub fn push(&self, version: &str, files: &[(&str, &str)]) -> Anything<()> {
        let content = tempfile::tempdir_in(self.folder.path())?;
        for (path, text) in files {
            let path = content.path().join(path);
            fs::create_dir_all(path.parent().unwrap_or(content.path()))?;
            fs::write(path, text)?;
        }
        let (folder, to) = (show(content.path()), show(self.folder.path()));
        let pack = ["package", "pack", &folder, "--id", "shop-web", "--version", version, "--to", &to, "--push"];
        self.server.cli(&pack)?.good().map(drop)
    }

    /// `windlass release create`.
    ///
    /// # Errors
    /// When it fails.
    pub fn release(&self, version: &str) -> Anything<()> {
        self.server.cli(&["release", "create", "shop", "--version", version])?.good().map(drop)
    }

    /// Creates a release and deploys it to the end.
    ///
    /// # Errors
    /// When a command cannot be run; a failed deployment is told by its exit code.
    pub fn deploy(&self, version: &str) -> Anything<Ended> {
        self.release(version)?;
        self.server.cli(&["deploy", "shop", "-e", "test", "--version", version])
    }

    /// The newest task, as the server tells it.
    ///
    /// # Errors
    /// When there is none.
    pub async fn last_task(&self) -> Anything<TaskDetail> {
        let client = self.client()?;
        let tasks = client.tasks(&Default::default()).await?.items;
        Ok(client.task(tasks.first().ok_or("there is no task")?.id).await?)
    }

    /// A task as soon as it is as wanted.
    ///
    /// # Errors
    /// When it ends, or too much time passes, before it is.
    pub async fn until(&self, task: TaskId, reached: impl Fn(&TaskDetail) -> bool) -> Anything<TaskDetail> {
        let client = self.client()?;
        let mut follower = client.follow_task(task);
        let wait = async {
            loop {
                let detail = client.task(task).await?;
                if reached(&detail) {
                    return Ok(detail);
                }
                if detail.summary.state.is_final() {
                    return Err(format!("it ended before it got there: {detail:#?}").into());
                }
                if let Some(update) = follower.next().await {
                    update?;
                }
            }
        };
        let waited = tokio::time::timeout(WAIT, wait).await;
        waited.map_err(|_| format!("task {task} did not get there in {WAIT:?}"))?
    }

    /// The log of a node, one line a line.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn log(&self, task: TaskId, node: &str) -> Anything<Vec<String>> {
        let range = windlass_client::LogRange { node: node.to_owned(), from: 0, limit: Some(2000) };
        Ok(self.client()?.log(task, &range).await?.items.into_iter().map(|line| line.text).collect())
    }

    /// A client of the server.
    ///
    /// # Errors
    /// Never, but for a harness that is broken.
    pub fn client(&self) -> Anything<Client> {
        self.server.client()
    }

    /// Where `shop-web` is installed on a target: the folder with `releases` and `current`.
    #[must_use]
    pub fn installed(&self, target: usize) -> PathBuf {
        self.targets.get(target).map(Sshd::home).unwrap_or_default().join(".windlass/apps/shop/shop-web")
    }

    /// A file of the version in use on a target; none if there is no such.
    #[must_use]
    pub fn current(&self, target: usize, file: &str) -> Option<String> {
        fs::read_to_string(self.installed(target).join("current").join(file)).ok()
    }
}

fn show(path: &Path) -> String {
    path.display().to_string()
}
