//! `windlass machine`: the targets and workers, whether they can be reached, and which host key is theirs.

use clap::{ArgGroup, Args, Subcommand};
use windlass_model::{
    Connection, EnvironmentName, Machine as Record, MachineName, PoolName, Role, SshAuth,
    views::{MachineReport, TrustReport},
};

use super::Context;
use crate::{errors::Failure, exit::Exit, render::Table, text::visible};

/// Add, trust and check machines
#[derive(Debug, Subcommand)]
pub enum Machine {
    /// Add a machine, or change it
    #[command(
        after_help = "Examples:\n  windlass machine add web1 --ssh deploy@web1.example.org -e production --role web\n  \
        windlass machine add here --local -e test --role web --role db\n\n\
        Passwords and passphrases are read by the server from its own environment; they are named here, never written."
    )]
    Add(Box<Add>),
    /// Look at the host key of a machine, and trust it
    #[command(after_help = "Examples:\n  windlass machine trust web1\n  \
        windlass machine trust web1 --fingerprint SHA256:uK3R0Wm1J7mYQnqOyPcVd0wKZ5fT1n2L8e4xVbBvQ9s")]
    Trust {
        /// Its name
        machine: MachineName,
        /// Trust this fingerprint, and no other
        #[arg(long)]
        fingerprint: Option<String>,
        /// Trust whatever it shows, without asking
        #[arg(short, long, conflicts_with = "fingerprint")]
        yes: bool,
    },
    /// List machines
    #[command(after_help = "Examples:\n  windlass machine list\n  windlass machine list -o id")]
    List,
    /// Reach a machine, test that commands can run there, show what is known of it
    #[command(after_help = "Examples:\n  windlass machine check web1\n  windlass machine check web1 -o json")]
    Check {
        /// Its name
        machine: MachineName,
    },
}

/// What a machine is.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("reached").required(true))]
pub struct Add {
    /// Its name
    machine: MachineName,
    /// Reached over SSH: user@host, or user@host:port
    #[arg(long, value_name = "USER@HOST", group = "reached")]
    ssh: Option<SshAddress>,
    /// It is the machine that the server runs on
    #[arg(long, group = "reached")]
    local: bool,
    /// Log in with this private key, a file on the server; else its SSH agent is asked
    #[arg(long, value_name = "PATH", requires = "ssh")]
    key_file: Option<String>,
    /// Environment variable of the server with the passphrase of the key
    #[arg(long, value_name = "NAME", requires = "key_file")]
    passphrase_env: Option<String>,
    /// Environment variable of the server with the password
    #[arg(long, value_name = "NAME", requires = "ssh", conflicts_with = "key_file")]
    password_env: Option<String>,
    /// Fingerprint of its host key, when it is known: SHA256:…
    #[arg(long, value_name = "FINGERPRINT", requires = "ssh")]
    host_key: Option<String>,
    /// Environment it belongs to; may be repeated
    #[arg(short, long = "environment", value_name = "ENVIRONMENT")]
    environments: Vec<EnvironmentName>,
    /// Role it plays; may be repeated
    #[arg(long = "role", value_name = "ROLE")]
    roles: Vec<Role>,
    /// Pool it works for; may be repeated
    #[arg(long = "pool", value_name = "POOL")]
    pools: Vec<PoolName>,
    /// Folder for what Windlass keeps there; ~/.windlass when none is given
    #[arg(long, value_name = "PATH")]
    home: Option<String>,
}

/// `user@host:port`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshAddress {
    user: String,
    host: String,
    port: u16,
}

impl std::str::FromStr for SshAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wanted = "write it like deploy@web1.example.org or deploy@10.0.0.7:2222";
        let (user, rest) = text.split_once('@').ok_or(wanted)?;
        let (host, port) = match rest.strip_prefix('[') {
            Some(v6) => {
                let (host, port) = v6.split_once(']').ok_or(wanted)?;
                (host, port.strip_prefix(':'))
            }
            None => match rest.rsplit_once(':') {
                Some((host, port)) if !host.contains(':') => (host, Some(port)),
                _ => (rest, None),
            },
        };
        let port = port.map_or(Ok(22), str::parse).map_err(|_| wanted)?;
        if user.is_empty() || host.is_empty() || port == 0 {
            return Err(wanted.to_owned());
        }
        Ok(Self { user: user.to_owned(), host: host.to_owned(), port })
    }
}

impl From<Add> for Record {
    fn from(add: Add) -> Self {
        let connection = match add.ssh {
            Some(SshAddress { user, host, port }) => {
                let auth = match (add.key_file, add.password_env) {
                    (Some(path), _) => SshAuth::KeyFile { path, passphrase_env: add.passphrase_env },
                    (None, Some(env)) => SshAuth::Password { env },
                    (None, None) => SshAuth::Agent,
                };
                Connection::Ssh {
                    host,
                    port,
                    user,
                    auth,
                    host_key: add.host_key,
                    home: add.home,
                    reconnect_seconds: None,
                }
            }
            None => Connection::Local { home: add.home },
        };
        Self {
            name: add.machine,
            environments: add.environments,
            roles: add.roles,
            pools: add.pools,
            connection,
            disabled: false,
        }
    }
}

/// Runs it.
///
/// # Errors
/// When the server refuses or cannot be reached.
pub async fn run(context: &Context<'_>, command: Machine) -> Result<Exit, Failure> {
    let client = context.client()?;
    match command {
        Machine::Add(add) => {
            let machine = client.put_machine(&(*add).into()).await?;
            context.ui.one(
                &machine,
                |machine| machine.name.to_string(),
                |machine| {
                    let next = match machine.connection {
                        Connection::Ssh { host_key: None, .. } => {
                            format!("look at its host key: windlass machine trust {}", machine.name)
                        }
                        _ => format!("try it: windlass machine check {}", machine.name),
                    };
                    format!("added machine {}\n{next}", machine.name)
                },
            )?;
        }
        Machine::Trust { machine, fingerprint, yes } => {
            let report = trust(context, &client, &machine, fingerprint, yes).await?;
            let text = |report: &TrustReport| {
                format!(
                    "{} is trusted with {} {}",
                    report.machine,
                    visible(&report.algorithm),
                    visible(&report.fingerprint)
                )
            };
            context.ui.one(&report, |report| report.fingerprint.clone(), text)?;
        }
        Machine::List => {
            let found = client.machines().await?;
            let columns = ["name", "reached", "environments", "roles", "pools", "host key"];
            context.ui.list(&found, |machine| machine.name.to_string(), &columns, cells)?;
        }
        Machine::Check { machine } => {
            let report = client.check_machine(&machine).await?;
            context.ui.one(&report, |report| report.machine.to_string(), checked)?;
        }
    }
    Ok(Exit::Done)
}

async fn trust(
    context: &Context<'_>,
    client: &windlass_client::Client,
    machine: &MachineName,
    fingerprint: Option<String>,
    yes: bool,
) -> Result<TrustReport, Failure> {
    if let Some(fingerprint) = fingerprint {
        return Ok(client.trust_machine(machine, Some(&fingerprint)).await?);
    }
    let seen = client.trust_machine(machine, None).await?;
    if seen.trusted {
        return Ok(seen);
    }
    context.ui.say(&format!(
        "{machine} shows the host key {} {}",
        visible(&seen.algorithm),
        visible(&seen.fingerprint)
    ))?;
    if let Some(before) = &seen.before {
        context.ui.say(&format!(
            "it showed another one before: {}\neither its key was changed, or this is another machine",
            visible(before)
        ))?;
    }
    if !yes {
        if !context.ui.may_ask {
            let message = format!("the host key of {machine} is not trusted, and nobody can be asked");
            let fix = format!("compare it, then: windlass machine trust {machine} --fingerprint {}", seen.fingerprint);
            return Err(Failure::usage(message).fix(fix));
        }
        context.ui.say("compare it on the machine: ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub")?;
        if !context.ui.confirm("trust it?")? {
            return Err(Failure::new("not-trusted", format!("the host key of {machine} was not trusted")));
        }
    }
    // By the fingerprint that was seen, so that another key that turns up meanwhile is refused.
    Ok(client.trust_machine(machine, Some(&seen.fingerprint)).await?)
}

fn cells(machine: &Record) -> Vec<String> {
    fn names<T: ToString>(names: &[T]) -> String {
        names.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    }
    let (reached, key) = match &machine.connection {
        Connection::Local { .. } => ("local".to_owned(), "not needed"),
        Connection::Ssh { host, port, user, host_key, .. } => {
            let port = if *port == 22 { String::new() } else { format!(":{port}") };
            (format!("{user}@{host}{port}"), if host_key.is_some() { "trusted" } else { "not trusted yet" })
        }
    };
    let name = if machine.disabled { format!("{} (disabled)", machine.name) } else { machine.name.to_string() };
    vec![name, reached, names(&machine.environments), names(&machine.roles), names(&machine.pools), key.to_owned()]
}

fn checked(report: &MachineReport) -> String {
    let mut table = Table::new(&["fact", "value"]);
    for (fact, value) in &report.facts {
        table.row([fact.replace('_', " "), value.clone()]);
    }
    format!("{} can be reached and runs commands\n\n{}", report.machine, table.render())
}
