//! The three targets: real SSH servers, each with a home of its own, or folders of this machine where there is no `sshd`.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};

use windlass_tests::sshd::{Options, Sshd};
use xtask::say;

use crate::Outcome;

/// A target as the sample's machines.yaml has it.
pub struct Target {
    /// Its name.
    pub name: &'static str,
    /// Its roles.
    pub roles: &'static str,
}

/// All of them: one also holds the database.
pub const TARGETS: [Target; 3] = [
    Target { name: "shop-1", roles: "db, web" },
    Target { name: "shop-2", roles: "web" },
    Target { name: "shop-3", roles: "web" },
];

/// Where the targets are.
pub enum Targets {
    /// Behind SSH servers on loopback.
    Ssh(Vec<Sshd>),
    /// In these folders.
    Local(Vec<PathBuf>),
}

impl Targets {
    /// Starts them below `folder`.
    pub fn start(folder: &Path) -> Outcome<Self> {
        let options = Options { inside: Some(folder.to_path_buf()), ..Options::default() };
        match TARGETS.iter().map(|_| Sshd::start_with(options.clone())).collect() {
            Ok(servers) => Ok(Self::Ssh(servers)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                say::line(&error.to_string());
                say::line("so three folders of this machine stand in for SSH targets");
                Ok(Self::Local(TARGETS.iter().map(|target| folder.join(target.name)).collect()))
            }
            Err(error) => Err(format!("cannot start the SSH servers of the demo: {error}")),
        }
    }

    /// One line each for the person watching.
    pub fn describe(&self) -> Vec<String> {
        let name = |at: usize| TARGETS.get(at).map_or("", |target| target.name);
        match self {
            Self::Ssh(servers) => servers
                .iter()
                .enumerate()
                .map(|(at, sshd)| {
                    format!("{}: sshd on 127.0.0.1:{}, host key {}", name(at), sshd.port(), sshd.host_key())
                })
                .collect(),
            Self::Local(homes) => homes
                .iter()
                .enumerate()
                .map(|(at, home)| format!("{}: this machine, in {}", name(at), home.display()))
                .collect(),
        }
    }

    /// machines.yaml with these targets.
    pub fn machines_yaml(&self) -> String {
        let connections: Vec<String> = match self {
            Self::Ssh(servers) => servers.iter().map(ssh).collect(),
            Self::Local(homes) => {
                homes.iter().map(|home| format!("{{ local: {{ home: {:?} }} }}", home.display().to_string())).collect()
            }
        };
        let machines = TARGETS.iter().zip(connections).map(|(Target { name, roles }, connection)| {
            format!("  - name: {name}\n    environments: [test]\n    roles: [{roles}]\n    connection: {connection}\n")
        });
        format!("machines:\n{}", machines.collect::<String>())
    }
}

fn ssh(sshd: &Sshd) -> String {
    format!(
        "{{ ssh: {{ host: 127.0.0.1, port: {}, user: {:?}, host_key: {:?}, auth: {{ key-file: {{ path: {:?} }} }} }} }}",
        sshd.port(),
        sshd.user(),
        sshd.host_key(),
        sshd.login_key_path().display().to_string(),
    )
}

/// A free port for each target's web server.
pub fn free_ports() -> Outcome<Vec<u16>> {
    // All are held until the last is found: they must differ.
    let held: std::io::Result<Vec<TcpListener>> =
        TARGETS.iter().map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).collect();
    let ports = held.and_then(|held| held.iter().map(|listener| Ok(listener.local_addr()?.port())).collect());
    ports.map_err(|error| format!("no free port: {error}"))
}
