//! How fast a deployment is, beside the plain floor, in one run: `cargo xtask bench deploy`.
//!
//! Prints ratios, never a verdict on seconds: the machine that runs this is noisy. The floor of a deployment is what
//! a shell would do by hand: ten `ssh host 'cat > f && sha256sum -c && tar x && …'` at once. The floor of small steps
//! is the same number of bare commands over one open connection each.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Command, Stdio},
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

const TARGETS: usize = 10;
const ROUNDS: usize = 3;

type Anything<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> Anything<()> {
    let quick = std::env::args().any(|argument| argument == "--quick");
    let (mebibytes, steps) = if quick { (5, 20) } else { (50, 100) };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let targets = (0..TARGETS).map(|_| Sshd::start()).collect::<Result<Vec<_>, _>>()?;
    let folder = tempfile::tempdir()?;
    let archive = archive(folder.path(), mebibytes)?;
    let bench = runtime.block_on(Bench::open(folder.path(), &targets, &archive, steps))?;

    println!("{mebibytes} MiB to {TARGETS} targets: transfer, verify, extract, script, switch");
    let (mut ours, mut floor) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        floor.push(plain_ssh(&targets, &archive, round)?);
        ours.push(runtime.block_on(bench.deploy("big", round))?);
    }
    report("plain ssh, ten at once", &floor, &floor);
    report("windlass, a new version", &ours, &floor);

    println!("{steps} small steps one after another on each of {TARGETS} targets, connections open");
    let (mut ours, mut floor) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        floor.push(bare_execs(&targets, steps)?);
        ours.push(runtime.block_on(bench.deploy("small", round))?);
    }
    report("bare commands over ssh2", &floor, &floor);
    report("windlass, runner and journal", &ours, &floor);
    let per_step = |times: &[Duration]| median(times).as_secs_f64() * 1000.0 / steps as f64;
    println!("  a step: bare {:.2} ms, windlass {:.2} ms", per_step(&floor), per_step(&ours));

    println!("peak memory of this process (server and bench): {} MiB", peak_mebibytes());
    runtime.block_on(bench.engine.close());
    Ok(())
}

fn median(times: &[Duration]) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort();
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

fn report(name: &str, times: &[Duration], floor: &[Duration]) {
    let all: Vec<_> = times.iter().map(|time| format!("{:.2}", time.as_secs_f64())).collect();
    let ratio = median(times).as_secs_f64() / median(floor).as_secs_f64().max(1e-9);
    println!("  {name:<32} {:>7.2} s   {ratio:>5.2} x   ({} s)", median(times).as_secs_f64(), all.join(", "));
}

fn peak_mebibytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("0");
    line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) / 1024
}

/// A tar.gz of about that size whose content compresses like a web application: little.
fn archive(folder: &Path, mebibytes: usize) -> Anything<PathBuf> {
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

/// The floor: what a shell does by hand, ten at once.
fn plain_ssh(targets: &[Sshd], archive: &Path, round: usize) -> Anything<Duration> {
    let sum = Command::new("sha256sum").arg(archive).output()?.stdout;
    let sum = String::from_utf8_lossy(&sum).split_whitespace().next().unwrap_or_default().to_owned();
    let started = Instant::now();
    let mut children = Vec::new();
    for target in targets {
        let home = target.home().join("floor");
        let script = format!(
            "mkdir -p {home}/{round} && cd {home} && cat > f && echo '{sum}  f' | sha256sum -c >/dev/null && \
             tar -xzf f -C {round} && sh {round}/PostDeploy.sh >/dev/null && ln -sfn {round} current",
            home = home.display()
        );
        let child = Command::new("ssh")
            .args([
                "-F",
                "none",
                "-o",
                "StrictHostKeyChecking=no",
                "-o",
                "UserKnownHostsFile=/dev/null",
                "-o",
                "LogLevel=ERROR",
            ])
            .args(["-o", "IdentitiesOnly=yes", "-c", "aes128-gcm@openssh.com", "-p", &target.port().to_string(), "-i"])
            .arg(target.login_key_path())
            .arg(format!("{}@127.0.0.1", target.user()))
            .arg(script)
            .stdin(Stdio::from(std::fs::File::open(archive)?))
            .spawn()?;
        children.push(child);
    }
    for mut child in children {
        if !child.wait()?.success() {
            return Err("plain ssh failed".into());
        }
    }
    Ok(started.elapsed())
}

/// The floor of small steps: bare commands, one connection a target, all targets at once.
fn bare_execs(targets: &[Sshd], steps: usize) -> Anything<Duration> {
    let mut sessions = Vec::new();
    for target in targets {
        let stream = TcpStream::connect(("127.0.0.1", target.port()))?;
        stream.set_nodelay(true)?;
        let mut session = ssh2::Session::new()?;
        session.set_tcp_stream(stream);
        session.handshake()?;
        session.userauth_pubkey_memory(target.user(), None, &target.login_key(), None)?;
        sessions.push(session);
    }
    let started = Instant::now();
    let threads: Vec<_> = sessions
        .into_iter()
        .map(|session| {
            std::thread::spawn(move || -> Result<(), ssh2::Error> {
                for _ in 0..steps {
                    let mut channel = session.channel_session()?;
                    channel.exec("true")?;
                    let mut output = String::new();
                    // Nothing is printed; the end of output is waited for.
                    let _ = channel.read_to_string(&mut output);
                    channel.wait_close()?;
                }
                Ok(())
            })
        })
        .collect();
    for thread in threads {
        thread.join().map_err(|_| "a bare command panicked")??;
    }
    Ok(started.elapsed())
}

struct Bench {
    engine: Engine,
    archive: PathBuf,
}

impl Bench {
    async fn open(folder: &Path, targets: &[Sshd], archive: &Path, steps: usize) -> Anything<Self> {
        let engine = Engine::open(EngineConfig::new(folder.join("data"))).await?;
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
                .map(|(number, target)| machine(number, target))
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
    async fn deploy(&self, project: &str, round: usize) -> Anything<Duration> {
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
            .deploy(DeployRequest { project, environment, version: Some(version), machines: vec![] })
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
    Ok(ProjectFiles { project, process: Process { steps }, variables: vec![] })
}

fn machine(number: usize, target: &Sshd) -> Anything<Machine> {
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
            home: Some(target.home().join("windlass").display().to_string()),
        },
        disabled: false,
    })
}
