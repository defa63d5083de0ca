//! A second client of a server that is killed again and again: it keeps writing, remembers what was acknowledged, and
//! looks afterwards whether all of it is there, once.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use reqwest::{Client as Http, Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use windlass_client::Client;
use windlass_model::{TaskState, task::TaskQuery};

use crate::{
    server::Server,
    shop::{self, Anything},
};

/// Between two writes, so that the server has time for what is tested.
const PAUSE: Duration = Duration::from_millis(60);
/// Until a request is sent again that was not answered.
const AGAIN: Duration = Duration::from_millis(40);
const ANSWER: Duration = Duration::from_secs(30);

/// What the server said yes to.
#[derive(Debug, Default, Clone)]
struct Acknowledged {
    machines: Vec<String>,
    /// Versions of `extra`, with the digests that the server told.
    packages: BTreeMap<String, String>,
    releases: Vec<String>,
    /// Scripts by their names, with their tasks.
    scripts: BTreeMap<String, u64>,
    /// Requests that were sent more than once.
    repeated: usize,
}

/// The client at work.
#[derive(Debug)]
pub struct Writer {
    acknowledged: Arc<Mutex<Acknowledged>>,
    stop: Arc<AtomicBool>,
    work: Option<JoinHandle<Result<(), String>>>,
}

impl Writer {
    /// Begins to write to a server, which has a project `shop`. What it makes is named by `round`.
    ///
    /// # Errors
    /// When no client can be made.
    pub fn start(server: &Server, round: u64) -> Anything<Self> {
        // Made for what it sets up in this process, on which the plain one below relies.
        let _client = server.client()?;
        let (url, token) = (server.url(), server.token());
        let (acknowledged, stop) = (Arc::<Mutex<Acknowledged>>::default(), Arc::<AtomicBool>::default());
        let hand = Hand {
            http: Http::new(),
            url: url.to_owned(),
            token: token.to_owned(),
            stop: Arc::clone(&stop),
            repeated: 0,
        };
        let work = tokio::spawn(write(hand, round, Arc::clone(&acknowledged)));
        Ok(Self { acknowledged, stop, work: Some(work) })
    }

    /// Ends the writing.
    ///
    /// # Errors
    /// When the server refused something that it has to take.
    pub async fn stop(&mut self) -> Anything<()> {
        self.stop.store(true, Ordering::Relaxed);
        match self.work.take() {
            Some(work) => Ok(work.await??),
            None => Ok(()),
        }
    }

    /// How many machines and scripts were acknowledged so far. They are written in turns, a machine first.
    #[must_use]
    pub fn written(&self) -> (usize, usize) {
        let known = self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner);
        (known.machines.len(), known.scripts.len())
    }

    /// Looks whether everything acknowledged is there, and each script was queued once and ran. Tells how much that
    /// was. To be called once the writing was stopped.
    ///
    /// # Errors
    /// The first thing that is missing or there twice.
    pub async fn check(&self, client: &Client) -> Anything<String> {
        let known = self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let machines: Vec<_> = client.machines().await?.into_iter().map(|machine| machine.name.to_string()).collect();
        let packages = client.package_versions("extra").await?;
        let packages: BTreeMap<_, _> = packages.into_iter().map(|package| (package.version, package.sha256)).collect();
        let releases: Vec<_> =
            client.releases(&"shop".parse()?).await?.into_iter().map(|release| release.version).collect();
        lost("machine", known.machines.iter(), |name| machines.contains(name))?;
        lost("package", known.packages.iter(), |(version, digest)| packages.get(*version) == Some(*digest))?;
        lost("release", known.releases.iter(), |version| releases.contains(version))?;
        let tasks = scripts(client).await?;
        lost("script", known.scripts.iter(), |(name, id)| tasks.get(*name).is_some_and(|ids| *ids == [**id]))?;
        if let Some((name, ids)) = tasks.iter().find(|(_, ids)| ids.len() > 1) {
            return Err(format!("the script {name} was asked for once and runs as the tasks {ids:?}").into());
        }
        Ok(format!(
            "{} machines, {} packages, {} releases, {} scripts acknowledged, {} requests sent again",
            known.machines.len(),
            known.packages.len(),
            known.releases.len(),
            known.scripts.len(),
            known.repeated
        ))
    }
}

fn lost<T: std::fmt::Debug>(
    what: &str,
    mut known: impl Iterator<Item = T>,
    there: impl Fn(&T) -> bool,
) -> Anything<()> {
    match known.find(|one| !there(one)) {
        Some(lost) => Err(format!("an acknowledged {what} is lost or another one: {lost:?}").into()),
        None => Ok(()),
    }
}

/// The numbers of all tasks that the writer queued, by script; every one of them must have succeeded.
async fn scripts(client: &Client) -> Anything<BTreeMap<String, Vec<u64>>> {
    let mut found: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    let mut query = TaskQuery { limit: Some(200), ..TaskQuery::default() };
    loop {
        let page = client.tasks(&query).await?;
        for task in page.items {
            let Some(name) = task.title.strip_prefix("script write-") else { continue };
            if task.state.is_final() && task.state != TaskState::Succeeded {
                return Err(format!("a script of the writer did not succeed: {task:?}").into());
            }
            found.entry(format!("write-{name}")).or_default().push(task.id.0);
        }
        match page.next {
            Some(next) => query.before = Some(windlass_model::TaskId(next)),
            None => return Ok(found),
        }
    }
}

/// Sends requests until they are answered.
struct Hand {
    http: Http,
    url: String,
    token: String,
    stop: Arc<AtomicBool>,
    repeated: usize,
}

impl Hand {
    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}/api/v1/{path}", self.url)).bearer_auth(&self.token).timeout(ANSWER)
    }

    /// The answer; none when it is to stop before there is one. `known` are refusals that mean that it was done before.
    async fn insist(&mut self, known: &[&str], ask: impl Fn(&Self) -> RequestBuilder) -> Result<Option<Value>, String> {
        let mut first = true;
        loop {
            let sent = ask(self).send().await;
            if let Ok(answer) = sent {
                let status = answer.status();
                match answer.json::<Value>().await {
                    Ok(value) if status.is_success() => return Ok(Some(value)),
                    Ok(value) if !first && value.get("code").is_some_and(|code| known.iter().any(|k| code == k)) => {
                        return Ok(Some(value));
                    }
                    Ok(value) if status != StatusCode::SERVICE_UNAVAILABLE => {
                        return Err(format!("refused: {value:#}"));
                    }
                    // It went away while it answered, or is about to.
                    _ => {}
                }
            }
            self.repeated += usize::from(first);
            first = false;
            if self.stop.load(Ordering::Relaxed) {
                return Ok(None);
            }
            tokio::time::sleep(AGAIN).await;
        }
    }
}

async fn write(mut hand: Hand, round: u64, acknowledged: Arc<Mutex<Acknowledged>>) -> Result<(), String> {
    let note =
        |change: &dyn Fn(&mut Acknowledged)| change(&mut acknowledged.lock().unwrap_or_else(PoisonError::into_inner));
    for number in 0.. {
        if hand.stop.load(Ordering::Relaxed) {
            break;
        }
        tokio::time::sleep(PAUSE).await;
        let name = format!("extra-{round}-{number}");
        let machine = json!({ "name": name, "connection": { "local": {} } });
        if hand
            .insist(&[], |hand| hand.request(Method::PUT, &format!("machines/{name}")).json(&machine))
            .await?
            .is_some()
        {
            note(&|known| known.machines.push(name.clone()));
        }
        let script = format!("write-{round}-{number}");
        let body = json!({ "name": script, "text": "info(\"written\");" });
        let key = format!("key-{round}-{number}");
        let queued = hand
            .insist(&[], |hand| hand.request(Method::POST, "scripts/run").header("idempotency-key", &key).json(&body))
            .await?;
        if let Some(id) = queued.and_then(|task| task.get("id")?.as_u64()) {
            note(&|known| {
                known.scripts.insert(script.clone(), id);
            });
        }
        // Rarer: they cost the server more.
        if number % 4 == 0 {
            let version = format!("1.{round}.{number}");
            let archive = shop::archive(&[("file", &version)]).map_err(|error| error.to_string())?;
            let path = format!("packages/extra.{version}.tar.gz?if_exists=ignore_same");
            let pushed = hand.insist(&[], |hand| {
                let length = archive.len();
                hand.request(Method::PUT, &path)
                    .header("content-type", "application/octet-stream")
                    .header("content-length", length)
                    .body(archive.clone())
            });
            if let Some(package) = pushed.await? {
                let digest = package.get("sha256").and_then(|digest| digest.as_str()).unwrap_or_default().to_owned();
                note(&|known| drop(known.packages.insert(version.clone(), digest.clone())));
            }
            let version = format!("50.{round}.{number}");
            let body = json!({ "version": version, "packages": { "shop-web": "0.0.0" } });
            let created = hand
                .insist(&[], |hand| {
                    let path = "projects/shop/releases";
                    hand.request(Method::POST, path)
                        .header("idempotency-key", format!("release-{round}-{number}"))
                        .json(&body)
                })
                .await?;
            if created.is_some() {
                note(&|known| known.releases.push(version.clone()));
            }
        }
    }
    let repeated = hand.repeated;
    note(&|known| known.repeated = repeated);
    Ok(())
}
