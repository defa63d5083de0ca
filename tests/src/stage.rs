//! A deployment that has everything, made to be disturbed: what it leaves must not depend on that.
//!
//! A script sleeps, queues a deployment and waits for it. The deployment moves a package to two targets, runs hooks,
//! runs steps beside each other, sets output variables and uses them. Every command appends its identity to a file on
//! its target before it does anything, so a second start is seen. [`Stage::picture`] is all that can be seen afterwards,
//! without times and numbers.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use windlass_client::{Client, LogRange};
use windlass_model::{
    TaskId,
    task::{PACKAGES_NODE, TaskDetail, TaskQuery},
    views::ScriptRequest,
};

use crate::{shop::Anything, site::Site};

/// Longest one deployment may take, disturbed or not.
pub const PATIENCE: Duration = Duration::from_secs(180);
/// Bytes in the package that no compression makes fewer: its transfer is worth a kill.
const BULK: usize = 3 << 20;
const TARGETS: usize = 2;

const STEPS: &str = r##"
  - name: prepare
    uses: run-script@1
    on: { role: web }
    with:
      script: |
        echo "prepare #{Release.Number}" >> "$HOME/starts"
        for n in 1 2 3 4 5; do echo "prepare line $n"; done
        echo "prepare complains" >&2
        set_output Token "token-of-#{Machine.Name}"
  - name: web
    uses: deploy-package@1
    on: { role: web }
    with: { package: shop-web, substitute: ["app.conf"], keep: 1 }
  - name: left
    uses: run-script@1
    on: { role: web }
    with:
      script: |
        echo "left #{Release.Number}" >> "$HOME/starts"
        for n in 1 2 3; do echo "left line $n"; sleep 0.1; done
  - name: right
    uses: run-script@1
    start: with-previous
    on: { role: web }
    with:
      script: |
        echo "right #{Release.Number}" >> "$HOME/starts"
        for n in 1 2 3; do echo "right line $n"; sleep 0.1; done
  - name: report
    uses: run-script@1
    on: { role: web }
    with:
      script: |
        echo "report #{Release.Number}" >> "$HOME/starts"
        echo "report knows #{Step[prepare].Output[web0].Token}, #{Step[prepare].Output[web1].Token} and #{Step[web].Output.Version}"
"##;

const SCRIPT: &str = r#"//! name: order
//! needs: tasks-read, tasks-deploy
//! arguments:
//!   - { name: version, required: true }
info("before the sleep");
sleep(0.7);
info("after the sleep");
let id = deploy(#{project: "shop", environment: "test", version: args.version});
let done = await_task(id, "10m");
info(`succeeded: ${done.succeeded}`);
sleep(0.6);
info("the end");
"#;

/// What every command of the deployment tells its target: by step, or hook.
const COMMANDS: [&str; 7] = ["prepare", "pre", "deploy", "post", "left", "right", "report"];

/// Where it is played.
#[derive(Debug)]
pub struct Stage {
    /// Server and targets.
    pub site: Site,
    /// Versions that were released, in the order in which they are deployed.
    released: Vec<String>,
}

impl Stage {
    /// A server with two targets and the project, nothing deployed yet.
    ///
    /// # Errors
    /// When any of that fails.
    pub async fn new() -> Anything<Self> {
        let targets = (0..TARGETS).map(|_| crate::sshd::Sshd::start()).collect::<Result<_, _>>()?;
        let site = Site::unapplied(targets, STEPS).await?;
        site.push("0.0.0", &[("app.conf", "")])?;
        site.apply()?.good()?;
        Ok(Self { site, released: Vec::new() })
    }

    /// Pushes the package of a version, and creates its release.
    ///
    /// # Errors
    /// When a command fails.
    pub fn release(&mut self, version: &str) -> Anything<()> {
        let mut bulk = vec![0_u8; BULK];
        rand::fill(bulk.as_mut_slice());
        let bulk = hex::encode(bulk);
        let hook = |name: &str| {
            format!("echo \"{name} $WINDLASS_VERSION\" >> \"$HOME/starts\"\necho {name} hook of $WINDLASS_VERSION\n")
        };
        let (pre, deploy, post) = (hook("pre"), hook("deploy"), hook("post"));
        let files = [
            ("app.conf", "release=#{Release.Number} on #{Machine.Name}\n"),
            ("bulk", bulk.as_str()),
            ("PreDeploy.sh", &pre),
            ("Deploy.sh", &deploy),
            ("PostDeploy.sh", &post),
        ];
        self.site.push(version, &files)?;
        self.site.release(version)?;
        self.released.push(version.to_owned());
        Ok(())
    }

    /// The request that begins it.
    #[must_use]
    pub fn request(version: &str) -> ScriptRequest {
        let arguments = BTreeMap::from([("version".to_owned(), json!(version))]);
        ScriptRequest { name: "order".into(), text: SCRIPT.into(), arguments }
    }

    /// Waits for the end of a task, and gives it.
    ///
    /// # Errors
    /// When it does not end in time, or the server does not answer.
    pub async fn ended(&self, task: TaskId) -> Anything<TaskDetail> {
        let (client, begin) = (self.site.client()?, Instant::now());
        loop {
            let detail = client.task(task).await?;
            if detail.summary.state.is_final() {
                return Ok(detail);
            }
            if begin.elapsed() > PATIENCE {
                return Err(format!("task {task} does not end: {detail:#?}\n{}", self.site.server.log()).into());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Everything that the script of that number and the deployment it queued have left.
    ///
    /// # Errors
    /// When the server does not answer, or a target's files cannot be read.
    pub async fn picture(&self, script: TaskId, version: &str) -> Anything<Picture> {
        let client = self.site.client()?;
        let query = TaskQuery { project: Some("shop".parse()?), limit: Some(200), ..TaskQuery::default() };
        let all = client.tasks(&query).await?.items;
        let deployments: Vec<_> = all.iter().filter(|task| task.title.contains(&format!(" {version} "))).collect();
        if deployments.len() != 1 {
            let numbers: Vec<_> = deployments.iter().map(|task| task.id).collect();
            return Err(format!("the script was to queue one deployment of {version}, not {numbers:?}").into());
        }
        let place = self.released.iter().position(|released| released == version).unwrap_or_default();
        let previous = self.released.get(place.wrapping_sub(1)).map_or("", String::as_str);
        let previous = format!("\"PreviousVersion\": \"{previous}\"");
        let mut picture = Picture::default();
        for id in [script].into_iter().chain(deployments.iter().map(|task| task.id)) {
            let detail = client.task(id).await?;
            logs(&client, &detail, version, &mut picture.logs).await?;
            let tree = serde_json::to_string_pretty(&timeless(serde_json::to_value(&detail)?))?;
            let tree = tree.replace(&previous, "\"PreviousVersion\": \"PREVIOUS\"");
            picture.trees.push(tree.replace(version, "VERSION"));
        }
        for (number, target) in self.site.targets.iter().enumerate() {
            let starts = fs::read_to_string(target.home().join("starts")).unwrap_or_default();
            let mut starts: Vec<_> =
                starts.lines().filter_map(|line| line.strip_suffix(&format!(" {version}"))).collect();
            starts.sort_unstable();
            picture.starts.push(starts.join(" "));
            let installed = self.site.installed(number);
            let mut files = BTreeMap::new();
            tree(&installed.join("releases").join(version), "", &mut files)?;
            let current = fs::read_link(installed.join("current")).unwrap_or_default();
            files.insert("current".to_owned(), current.display().to_string());
            files.remove("bulk");
            let clean = |(path, text): (String, String)| (path, text.replace(version, "VERSION"));
            picture.files.push(files.into_iter().map(clean).collect());
        }
        Ok(picture)
    }
}

/// What can be seen of a deployment once it is over, without times and numbers.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Picture {
    /// The trees of script and deployment.
    pub trees: Vec<String>,
    /// The logs by node, each line with its level.
    pub logs: BTreeMap<String, Vec<String>>,
    /// Every start of a command, by target, sorted.
    pub starts: Vec<String>,
    /// What is installed, by target.
    pub files: Vec<BTreeMap<String, String>>,
}

impl Picture {
    /// What is wrong with it as the picture of a deployment that succeeded.
    ///
    /// # Errors
    /// The first thing found.
    pub fn check(&self) -> Result<(), String> {
        if let Some(tree) = self
            .trees
            .iter()
            .find(|tree| !tree.contains("\"state\": \"succeeded\"") || tree.contains("\"state\": \"failed\""))
        {
            return Err(format!("it did not succeed: {tree}\n{:#?}", self.logs));
        }
        let mut expected = COMMANDS;
        expected.sort_unstable();
        let expected = expected.join(" ");
        if let Some(starts) = self.starts.iter().find(|starts| **starts != expected) {
            return Err(format!("not every command started once on a target: {starts}"));
        }
        Ok(())
    }

    /// Where it differs from another, in a few words; nothing when it does not.
    #[must_use]
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let mut found = Vec::new();
        let mut differ = |what: String, a: String, b: String| {
            if a != b {
                found.push(format!("{what}:\n--- undisturbed\n{a}\n--- disturbed\n{b}"));
            }
        };
        for (number, (a, b)) in self.trees.iter().zip(&other.trees).enumerate() {
            differ(format!("tree {number}"), a.clone(), b.clone());
        }
        let nodes: std::collections::BTreeSet<_> = self.logs.keys().chain(other.logs.keys()).collect();
        let log = |of: &Self, node: &str| of.logs.get(node).map(|lines| lines.join("\n")).unwrap_or_default();
        for node in nodes {
            differ(format!("log of {node}"), log(self, node), log(other, node));
        }
        differ("starts".into(), self.starts.join("\n"), other.starts.join("\n"));
        differ("files".into(), format!("{:#?}", self.files), format!("{:#?}", other.files));
        found
    }
}

/// The logs of a task's nodes. What the barrier says of transfers may differ: one that was cut off is made again, and
/// says so; it is kept as what every machine holds in the end.
async fn logs(
    client: &Client,
    detail: &TaskDetail,
    version: &str,
    logs: &mut BTreeMap<String, Vec<String>>,
) -> Anything<()> {
    let nodes =
        detail.steps.iter().flat_map(|step| [&step.node].into_iter().chain(step.runs.iter().map(|run| &run.node)));
    let nodes = nodes.map(String::as_str).chain(["", PACKAGES_NODE]);
    for node in nodes {
        let range = LogRange { node: node.to_owned(), from: 0, limit: Some(2000) };
        let mut lines: Vec<_> = client
            .log(detail.summary.id, &range)
            .await?
            .items
            .into_iter()
            .map(|line| format!("{:?} {}", line.level, line.text.replace(version, "VERSION")))
            .collect();
        // Which version has become one too many is another one each time.
        lines.retain(|line| !line.contains("[deploy-package] removed "));
        if node == PACKAGES_NODE {
            lines.retain(|line| line.contains(" holds ") || line.contains(" has "));
            lines = lines
                .iter()
                .map(|line| line.replace(" already", "").replace(", verified", "").replace(" holds ", " has "))
                .collect();
            lines.sort_unstable();
            lines.dedup();
        }
        logs.entry(format!("{}:{node}", detail.summary.what.title().replace(version, "VERSION")))
            .or_default()
            .extend(lines);
    }
    Ok(())
}

/// A tree without what is another one each time: times, numbers, how far a transfer was when it was last told.
fn timeless(value: Value) -> Value {
    match value {
        Value::Object(map) => map
            .into_iter()
            .filter(|(key, _)| !key.ends_with("_ms") && !["id", "seq", "run", "progress"].contains(&key.as_str()))
            .map(|(key, value)| (key, timeless(value)))
            .collect::<serde_json::Map<_, _>>()
            .into(),
        Value::Array(items) => items.into_iter().map(timeless).collect(),
        other => other,
    }
}

/// Every file below a folder, with its text; none when there is no such folder.
fn tree(folder: &Path, prefix: &str, files: &mut BTreeMap<String, String>) -> Anything<()> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.file_type()?.is_dir() {
            tree(&entry.path(), &format!("{name}/"), files)?;
        } else {
            files.insert(name, String::from_utf8_lossy(&fs::read(entry.path())?).into_owned());
        }
    }
    Ok(())
}
