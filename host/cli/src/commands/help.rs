//! `windlass help`: topics that belong to no single command.

use clap::{Args, CommandFactory, ValueEnum};

use super::Context;
use crate::{cli::Cli, errors::Failure, exit::Exit};

/// Print help on a topic
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  windlass help exit-codes\n  windlass help environment")]
pub struct Help {
    /// The topic; none prints the overview
    #[arg(value_enum)]
    topic: Option<Topic>,
}

/// What there is help on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Topic {
    /// What the process answers.
    ExitCodes,
    /// Environment variables.
    Environment,
    /// The configuration file of a server.
    Config,
    /// A unit file that runs a server as a service.
    Systemd,
}

const ENVIRONMENT: &str = "\
WINDLASS_URL         address of the server (--server)
WINDLASS_TOKEN       the token itself; else see --token-file
WINDLASS_CONFIG      configuration file (--config)
WINDLASS_DATA        folder of the server's data (serve --data)
WINDLASS_LISTEN      address the server listens on (serve --listen)
WINDLASS_LOG_FORMAT  pretty or json (serve --log-format)
WINDLASS_LOG         what the server logs, such as info or windlass_engine=debug
WINDLASS_PLUGINS     folder of plugins to install at start (serve --plugins)
WINDLASS_STOP_WITHIN how many seconds a stop may wait (serve --stop-within)
NO_COLOR, CLICOLOR, CLICOLOR_FORCE   colours, as everywhere
CI                   when set, nothing is ever asked";

const CONFIG: &str = "\
# windlass.toml, found in the current folder or in /etc/windlass.
# A flag wins over a WINDLASS_* variable, which wins over this file.
data = \"/var/lib/windlass\"        # folder for everything the server keeps
listen = \"127.0.0.1:7227\"         # put a reverse proxy with TLS in front to serve others
log_format = \"json\"               # pretty or json
plugins = \"/usr/lib/windlass\"     # plugins in this folder are installed at start
stop_within_seconds = 10          # how long a stop may wait for what cannot be taken up later

[limits]                          # what is left out keeps the default that is shown
tasks = 5                         # deployments that work at once: twice the cores, at least 5
scripts = 1000                    # scripts that work at once
steps = 10                        # steps of one deployment at once
machines = 10                     # machines of one step at once
runs = 100                        # steps times machines of one deployment at once
transfers = 10                    # machines of one deployment that are sent packages at once
lock_wait_seconds = 7200          # how long a lock is waited for
pool_wait_seconds = 900           # how long a pool without workers is waited for
grace_seconds = 10                # how long what is told to stop has before it is killed
kill_seconds = 20                 # how long what is killed has before it is given up";

const SYSTEMD: &str = "\
# /etc/systemd/system/windlass.service; then: systemctl daemon-reload && systemctl enable --now windlass
[Unit]
Description=Windlass, a deployment server
After=network-online.target
Wants=network-online.target

[Service]
Type=notify
User=windlass
StateDirectory=windlass
ExecStart=/usr/bin/windlass serve --data /var/lib/windlass
# Only the server is told to stop: commands that it runs on this machine go on, and the next start takes them up.
KillMode=process
KillSignal=SIGTERM
# stop_within_seconds, and the 30 s that closing the store may take.
TimeoutStopSec=45
# It ends with 70 when its store meets an error: starting again is the repair.
Restart=on-failure
RestartSec=2

[Install]
WantedBy=multi-user.target";

/// Runs it.
///
/// # Errors
/// When it cannot be printed.
pub fn run(context: &Context<'_>, command: &Help) -> Result<Exit, Failure> {
    let text = match command.topic {
        Some(Topic::ExitCodes) => Exit::table().trim_end().to_owned(),
        Some(Topic::Environment) => ENVIRONMENT.to_owned(),
        Some(Topic::Config) => CONFIG.to_owned(),
        Some(Topic::Systemd) => SYSTEMD.to_owned(),
        None => Cli::command().render_long_help().to_string(),
    };
    context.ui.data(&text)?;
    Ok(Exit::Done)
}
