//! The engine under measurement, its machines and its two projects.

use std::{
    collections::BTreeMap,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use windlass_engine::{Engine, EngineConfig, Followed};
use windlass_model::{
    Connection, Environment, Machine, MachineName, Process, Project, ProjectFiles, ProjectName, SshAuth, Step,
    TaskState, Workspace,
    process::On,
    task::TaskChange,
    views::{DeployRequest, ReleaseRequest},
};
use windlass_packages::{name::PackageName, repository::PushOptions};
use windlass_tests::sshd::Sshd;

use crate::Anything;

/// An engine that is ready to deploy.
pub struct Bench {
    pub engine: Engine,
    archive: PathBuf,
}

impl Bench {
    /// With plugins installed, machines known and their connections open.
    /// `home` is the folder that it has for itself on each target.
    pub async fn open(
        config: EngineConfig,
        (targets, home): (&[Sshd], &str),
        archive: &Path,
        steps: usize,
    ) -> Anything<Self> {
        let engine = Engine::open(config).await?;
        for plugin in windlass_tests::guests::plugins().await? {
            engine.install_plugin(std::fs::read(plugin)?.into()).await?;
        }
        let big = step("install", "deploy-package@1", [("package", "big".into())])?;
        let small = (0..steps)
            .map(|number| step(&format!("step-{number}"), "run-script@1", [("script", "true".into())]))
            .collect::<Result<_, _>>()?;
        let workspace = Workspace {
            environments: vec![Environment { name: "bench".parse()?, description: String::new() }],
            machines: targets
                .iter()
                .enumerate()
                .map(|(number, target)| machine(number, target, home))
                .collect::<Result<_, _>>()?,
            projects: vec![project("big", vec![big])?, project("small", small)?],
        };
        engine.apply(workspace, false).await?;
        let bench = Self { engine, archive: archive.to_owned() };
        // Connections are open before anything is measured, as they are for the floor of small steps.
        for number in 0..targets.len() {
            bench.engine.check_machine(&MachineName::new(format!("web{number}"))?).await?;
        }
        Ok(bench)
    }

    /// Deploys a new release and tells how long the deployment took.
    pub async fn deploy(&self, project: &str, round: usize) -> Anything<Duration> {
        let project = ProjectName::new(project)?;
        let version = format!("1.0.{round}");
        if project.as_str() == "big" {
            self.push(&version).await?;
        }
        let request =
            ReleaseRequest { version: Some(version.clone()), packages: BTreeMap::new(), notes: String::new() };
        self.engine.create_release(&project, request).await?;
        let mut follower = self.engine.events(None);
        let started = Instant::now();
        let environment = "bench".parse()?;
        let task = self
            .engine
            .deploy(DeployRequest { version: Some(version), ..DeployRequest::new(project, environment) })
            .await?;
        loop {
            let Followed::Event(event) = follower.next().await else { continue };
            match &event.change {
                TaskChange::Task { state: TaskState::Succeeded, .. } if event.task == task.id => {
                    return Ok(started.elapsed());
                }
                TaskChange::Task { state, error, .. } if event.task == task.id && state.is_final() => {
                    return Err(
                        format!("the deployment ended as {state}: {}", error.clone().unwrap_or_default()).into()
                    );
                }
                _ => {}
            }
        }
    }

    /// The same content under a new version and, by one more file, with a new digest.
    async fn push(&self, version: &str) -> Anything<()> {
        let folder = self.archive.with_file_name("content");
        std::fs::File::create(folder.join("version.txt"))?.write_all(version.as_bytes())?;
        let archive = self.archive.with_file_name("next.tar.gz");
        Command::new("tar").arg("-czf").arg(&archive).arg("-C").arg(&folder).arg(".").status()?;
        let name: PackageName = format!("big.{version}.tar.gz").parse()?;
        self.engine.push_package(name, tokio::fs::File::open(&archive).await?, PushOptions::default()).await?;
        Ok(())
    }
}

fn step<const N: usize>(name: &str, uses: &str, with: [(&str, serde_json::Value); N]) -> Anything<Step> {
    let json = serde_json::json!({ "name": name, "uses": uses });
    let mut step: Step = serde_json::from_value(json)?;
    step.on = Some(On::Role("web".parse()?));
    step.with = with.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    Ok(step)
}

fn project(name: &str, steps: Vec<Step>) -> Anything<ProjectFiles> {
    let project = Project { name: name.parse()?, description: String::new() };
    Ok(ProjectFiles { project, process: Process { steps, ..Process::default() }, variables: vec![] })
}

fn machine(number: usize, target: &Sshd, home: &str) -> Anything<Machine> {
    Ok(Machine {
        name: format!("web{number}").parse()?,
        environments: vec!["bench".parse()?],
        roles: vec!["web".parse()?],
        pools: vec![],
        connection: Connection::Ssh {
            host: "127.0.0.1".into(),
            port: target.port(),
            user: target.user().into(),
            auth: SshAuth::KeyFile { path: target.login_key_path().display().to_string(), passphrase_env: None },
            host_key: Some(target.host_key().into()),
            home: Some(target.home().join(home).display().to_string()),
            reconnect_seconds: None,
        },
        disabled: false,
    })
}

/// A tar.gz of about that size whose content compresses like a web application: little.
pub fn archive(folder: &Path, mebibytes: usize) -> Anything<PathBuf> {
    let content = folder.join("content");
    std::fs::create_dir_all(&content)?;
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    for file in 0..mebibytes {
        let mut bytes = Vec::with_capacity(1 << 20);
        while bytes.len() < 1 << 20 {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            bytes.extend_from_slice(&seed.to_le_bytes());
        }
        std::fs::write(content.join(format!("asset-{file}.bin")), bytes)?;
    }
    std::fs::write(content.join("PostDeploy.sh"), "echo deployed\n")?;
    let archive = folder.join("big.0.0.0.tar.gz");
    let made = Command::new("tar").arg("-czf").arg(&archive).arg("-C").arg(&content).arg(".").status()?;
    if !made.success() {
        return Err("tar failed".into());
    }
    Ok(archive)
}
