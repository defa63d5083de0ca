//! Settings in layers: flag, `WINDLASS_*` variable, `windlass.toml`, default; the first that says something wins.
//!
//! The file is strict TOML and belongs to whoever runs a server. From it a client takes only where the server *of this
//! machine* is, never another address: a file in somebody's folder must not be able to send a token elsewhere.

mod limits;

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;

use crate::errors::Failure;

pub use limits::Limits;

/// Where a server listens when nobody says otherwise.
pub const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7227);
/// How long a stop may take when nobody says otherwise, and at most.
const DEFAULT_STOP_WITHIN: Duration = Duration::from_secs(10);
const MAX_STOP_WITHIN: Duration = Duration::from_secs(3600);
/// Largest configuration file.
const MAX_FILE: u64 = 1 << 20;

/// What `windlass.toml` may say.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Folder for everything the server keeps; relative to the file.
    pub data: Option<PathBuf>,
    /// Address and port to listen on.
    pub listen: Option<SocketAddr>,
    /// How the server logs.
    pub log_format: Option<LogFormat>,
    /// Folder of plugins to install at start; relative to the file.
    pub plugins: Option<PathBuf>,
    /// How long a stop may wait for what cannot be taken up later.
    pub stop_within_seconds: Option<u64>,
    /// How much happens at once.
    #[serde(default)]
    pub limits: Limits,
}

/// How the server logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// For people.
    Pretty,
    /// One JSON object a line.
    Json,
}

/// The environment, so that tests can bring their own.
pub trait Env {
    /// A variable that is set and not empty.
    fn var(&self, name: &str) -> Option<String>;
}

/// The environment of this process.
pub struct ProcessEnv;

impl Env for ProcessEnv {
    fn var(&self, name: &str) -> Option<String> {
        std::env::var(name).ok().filter(|value| !value.is_empty())
    }
}

/// What flags of `windlass serve` say.
#[derive(Debug, Clone, Default)]
pub struct ServerFlags {
    /// `--data`
    pub data: Option<PathBuf>,
    /// `--listen`
    pub listen: Option<SocketAddr>,
    /// `--log-format`
    pub log_format: Option<LogFormat>,
    /// `--plugins`
    pub plugins: Option<PathBuf>,
    /// `--stop-within`
    pub stop_within: Option<u64>,
}

/// The settings of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Folder for everything it keeps.
    pub data: PathBuf,
    /// Address and port to listen on.
    pub listen: SocketAddr,
    /// How it logs; none: for people on a terminal, JSON elsewhere.
    pub log_format: Option<LogFormat>,
    /// Folder of plugins to install at start.
    pub plugins: Option<PathBuf>,
    /// How long a stop may wait for what cannot be taken up later.
    pub stop_within: Duration,
    /// How much happens at once.
    pub limits: Limits,
}

impl Server {
    /// Puts the layers together.
    ///
    /// # Errors
    /// When a variable holds something that cannot be read.
    pub fn resolve(flags: ServerFlags, env: &dyn Env, file: File) -> Result<Self, Failure> {
        let path = |name| env.var(name).map(PathBuf::from);
        let listen = parsed(env, "WINDLASS_LISTEN", "an address with a port, such as 127.0.0.1:7227")?;
        let format = match env.var("WINDLASS_LOG_FORMAT").as_deref() {
            None => None,
            Some("pretty") => Some(LogFormat::Pretty),
            Some("json") => Some(LogFormat::Json),
            Some(other) => {
                return Err(bad_variable("WINDLASS_LOG_FORMAT", other, "pretty or json"));
            }
        };
        let stop_within = parsed(env, "WINDLASS_STOP_WITHIN", "a number of seconds, such as 10")?;
        let stop_within = flags.stop_within.or(stop_within).or(file.stop_within_seconds);
        let data = flags.data.or(path("WINDLASS_DATA")).or(file.data);
        Ok(Self {
            data: data.unwrap_or_else(|| default_data(env)),
            listen: flags.listen.or(listen).or(file.listen).unwrap_or(DEFAULT_LISTEN),
            log_format: flags.log_format.or(format).or(file.log_format),
            plugins: flags.plugins.or(path("WINDLASS_PLUGINS")).or(file.plugins),
            stop_within: stop_within.map_or(DEFAULT_STOP_WITHIN, Duration::from_secs).min(MAX_STOP_WITHIN),
            limits: file.limits,
        })
    }

    /// File that holds the first token.
    #[must_use]
    pub fn token_file(&self) -> PathBuf {
        self.data.join("token")
    }

    /// Address under which a client of this machine reaches the server.
    #[must_use]
    pub fn local_url(&self) -> String {
        url_of(self.listen)
    }
}

/// Address under which a client of this machine reaches a server that listens there.
#[must_use]
pub fn url_of(listen: SocketAddr) -> String {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    format!("http://{}", SocketAddr::new(ip, listen.port()))
}

fn parsed<T: std::str::FromStr>(env: &dyn Env, name: &str, wanted: &str) -> Result<Option<T>, Failure> {
    match env.var(name) {
        None => Ok(None),
        Some(text) => text.parse().map(Some).map_err(|_| bad_variable(name, &text, wanted)),
    }
}

fn bad_variable(name: &str, text: &str, wanted: &str) -> Failure {
    Failure::usage(format!("the environment variable {name} is {text:?}")).fix(format!("set it to {wanted}"))
}

/// `$XDG_DATA_HOME/windlass` or `~/.local/share/windlass`; `/var/lib/windlass` for who has no home.
fn default_data(env: &dyn Env) -> PathBuf {
    if let Some(base) = env.var("XDG_DATA_HOME") {
        return Path::new(&base).join("windlass");
    }
    match env.var("HOME") {
        Some(home) if home != "/" => Path::new(&home).join(".local/share/windlass"),
        _ => PathBuf::from("/var/lib/windlass"),
    }
}

impl File {
    /// Reads the file that was named, or the first one there is.
    ///
    /// # Errors
    /// When a named file is missing, or any is not what it should be.
    pub fn find(named: Option<&Path>, env: &dyn Env) -> Result<Self, Failure> {
        if let Some(path) = named.map(Path::to_owned).or_else(|| env.var("WINDLASS_CONFIG").map(PathBuf::from)) {
            return Self::read(&path);
        }
        for path in ["windlass.toml", "/etc/windlass/windlass.toml"] {
            if Path::new(path).is_file() {
                return Self::read(Path::new(path));
            }
        }
        Ok(Self::default())
    }

    fn read(path: &Path) -> Result<Self, Failure> {
        let size = fs::metadata(path).map_err(|error| Failure::file("read", path, &error))?.len();
        if size > MAX_FILE {
            return Err(Failure::new("config", format!("{} is larger than 1 MiB", path.display())));
        }
        let text = fs::read_to_string(path).map_err(|error| Failure::file("read", path, &error))?;
        let file = Self::parse(&text, &path.display().to_string())?;
        Ok(file.relative_to(path.parent().unwrap_or(Path::new(""))))
    }

    /// Reads the text of a file.
    ///
    /// # Errors
    /// When it is no TOML, or says something that is not known; with line and column.
    pub fn parse(text: &str, path: &str) -> Result<Self, Failure> {
        toml::from_str(text).map_err(|error: toml::de::Error| {
            let place = match error.span() {
                Some(span) => {
                    let before = text.get(..span.start).unwrap_or_default();
                    let line = before.matches('\n').count() + 1;
                    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
                    format!("{path}:{line}:{column}")
                }
                None => path.to_owned(),
            };
            Failure::new("config", "the configuration file cannot be used").at(place).cause(error.message()).fix(
                "it may hold data, listen, log_format, plugins, stop_within_seconds and [limits]; correct or remove the line",
            )
        })
    }

    fn relative_to(mut self, folder: &Path) -> Self {
        for path in [&mut self.data, &mut self.plugins].into_iter().flatten() {
            *path = folder.join(&path);
        }
        self
    }
}
