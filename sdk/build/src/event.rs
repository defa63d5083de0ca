//! What a build tells the person watching, one value per thing that happened. Where it is printed is the caller's choice.

use std::fmt;

/// One piece of news from a running build. `Display` gives the line to print.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// Another process builds the same folder.
    Waiting,
    /// Nothing changed since the last build.
    Fresh {
        /// How many plugins are ready.
        plugins: usize,
    },
    /// A toolchain, or a part of one, is being installed.
    Installing(String),
    /// The toolchain that will be used.
    Toolchain(String),
    /// A line of the tool that is running now (cargo, rustup, apt-get).
    Line(String),
    /// One plugin passed verification and lies in `dist`.
    Ready {
        /// Its id.
        id: String,
        /// Its version.
        version: String,
        /// The size of the component.
        bytes: u64,
    },
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Waiting => write!(f, "waiting for another build of the plugins to end"),
            Self::Fresh { plugins } => {
                write!(f, "{plugins} plugins are up to date, not built again (force a build to do so)")
            }
            Self::Installing(what) => write!(f, "installing {what}"),
            Self::Toolchain(which) => write!(f, "building plugins with {which}"),
            Self::Line(line) => write!(f, "    {line}"),
            Self::Ready { id, version, bytes } => {
                write!(f, "ready: {id} {version} ({} KiB)", bytes.div_ceil(1024))
            }
        }
    }
}

/// Where events go.
pub(crate) type Say<'a> = &'a (dyn Fn(Event) + Send + Sync);
