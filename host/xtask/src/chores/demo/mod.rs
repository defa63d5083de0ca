//! The chore `demo`: a whole deployment on this machine, from an empty folder to two versions of a shop on three targets.
//!
//! Here is the order of events. Everything it starts lives below one folder and is gone at the end, however it ends.

mod servers;
mod shop;
mod targets;
mod tour;

use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tokio::signal::unix::{Signal, SignalKind, signal};
use xtask::{args::Demo, say};

use crate::{Outcome, http, plugins, process};
use servers::Server;
use targets::{TARGETS, Targets};

/// What runs, and must be stopped again.
struct Stage {
    folder: TempDir,
    targets: Option<Targets>,
    server: Option<Server>,
}

/// Plays the demo and cleans up after it.
pub async fn run(root: &Path, options: &Demo) -> Outcome {
    let folder = tempfile::Builder::new().prefix("windlass-demo-").tempdir();
    let folder = folder.map_err(|error| format!("cannot make a folder for the demo: {error}"))?;
    let mut stage = Stage { folder, targets: None, server: None };
    let mut stop = Stop::listen()?;
    let ended = tokio::select! {
        ended = stage.play(root, options.exit) => ended,
        () = stop.asked() => {
            say::heading("stopping");
            if options.exit { Err("the demo was stopped before everything was checked".to_owned()) } else { Ok(()) }
        }
    };
    if ended.is_err()
        && let Some(server) = &stage.server
    {
        say::line(&format!("the last lines of the server's log:\n{}", server.last_lines()));
    }
    let cleaned = stage.clear(options.keep).await;
    ended.and(cleaned)
}

impl Stage {
    async fn play(&mut self, root: &Path, exit: bool) -> Outcome {
        let dist = plugins::build(root, false).await?;

        say::heading("starting three targets");
        let targets = self.targets.insert(Targets::start(self.folder.path())?);
        for line in targets.describe() {
            say::line(&line);
        }
        let ports = targets::free_ports()?;
        let workspace = shop::write(root, self.folder.path(), targets, &ports)?;

        say::heading("starting the server, with an empty store");
        let server = self.server.insert(Server::start(self.folder.path(), &dist).await?);
        say::line(&format!("it listens on {}", server.url()));

        for (version, without) in shop::VERSIONS {
            say::heading(&format!("packing and pushing version {version}"));
            for arguments in shop::package_commands(root, self.folder.path(), version, without) {
                server.windlass(&arguments).await?;
            }
            // The second time nothing has changed, and it says so.
            say::heading("telling the server about environments, machines and the project `shop`");
            server.windlass(&["apply", &workspace.display().to_string()]).await?;
            say::heading(&format!("releasing and deploying {version}"));
            server.windlass(&["release", "create", "shop", "--version", version]).await?;
            server.windlass(&["deploy", "shop", "--version", version, "-e", "test"]).await?;
            check_answers(&ports, version, without.is_empty()).await?;
        }
        say::heading("running a coordination script: it waits until nothing works on shop-1");
        let script = root.join("scripts/wait-until-quiet.rhai").display().to_string();
        server.windlass(&["script", "run", &script, "--arg", "machine=shop-1"]).await?;
        tour::show(server, &ports);
        if exit {
            return tour::try_out(server).await;
        }
        say::line("Ctrl-C stops everything.");
        server.ended().await
    }

    /// Stops everything, makes sure that nothing is left, and removes the folder unless it is to be kept.
    async fn clear(mut self, keep: bool) -> Outcome {
        if let Some(server) = self.server.take() {
            server.stop().await;
        }
        drop(self.targets.take());
        let folder = self.folder.path().to_path_buf();
        let left = process::end_all(|| process::living_below(&folder)).await;
        if !left.is_empty() {
            return Err(format!("processes of the demo are left that cannot be ended: {left:?}"));
        }
        if keep {
            let folder: PathBuf = self.folder.keep();
            say::heading(&format!("stopped; everything is kept in {}", folder.display()));
            return Ok(());
        }
        self.folder.close().map_err(|error| format!("cannot remove {}: {error}", folder.display()))?;
        say::heading("stopped; nothing is left behind");
        Ok(())
    }
}

/// Asks each target itself: the new version must answer, and a page that only 1.1.0 has must be there or not.
async fn check_answers(ports: &[u16], version: &str, discounts: bool) -> Outcome {
    say::heading(&format!("checking by HTTP that {version} answers on every target"));
    for (target, port) in TARGETS.iter().zip(ports) {
        let name = target.name;
        let asked = |path: &'static str| async move {
            http::get(*port, path)
                .await
                .map_err(|error| format!("{name} was asked for http://127.0.0.1:{port}{path}: {error}"))
        };
        let said = asked("/version").await?;
        let expected = format!("shop {version} on {name}\n");
        if (said.status, said.body.as_str()) != (200, expected.as_str()) {
            return Err(format!("{name} should say {expected:?}, but it says {said:?}"));
        }
        let page = asked("/discounts").await?;
        let right = if discounts { page.status == 200 && page.body.contains("1.1.0") } else { page.status == 404 };
        if !right {
            return Err(format!("the page /discounts on {name} is not that of {version}: {page:?}"));
        }
        say::line(&format!("http://127.0.0.1:{port}/version: {}", said.body.trim_end()));
    }
    Ok(())
}

/// The ways to ask for an end: Ctrl-C, a kill, a terminal that goes away.
struct Stop([Signal; 3]);

impl Stop {
    fn listen() -> Outcome<Self> {
        let listen = |kind| signal(kind).map_err(|error| format!("cannot listen for signals: {error}"));
        Ok(Self([listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?, listen(SignalKind::hangup())?]))
    }

    async fn asked(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}
