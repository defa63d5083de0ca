//! Why a plugin is refused, and why a run of it ended badly, in words for the person who has to act.

use std::fmt;

use windlass_effects::{Failure, Stop};
use windlass_model::Capability;

use crate::{limits::Hit, trap::Frame};

/// Why bytes are not taken as a plugin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// More bytes than allowed.
    #[error("the plugin has {size} bytes, more than the {limit} that this server takes")]
    TooLarge {
        /// Its size.
        size: usize,
        /// The bound.
        limit: usize,
    },
    /// Something else than a component.
    #[error("a plugin must be a WebAssembly component, but this is {found}")]
    NoComponent {
        /// What it is.
        found: String,
        /// What to do.
        fix: &'static str,
    },
    /// A component that does not hold together.
    #[error("the component is damaged, or made for another runtime: {detail}")]
    Malformed {
        /// What the compiler says.
        detail: String,
    },
    /// Built for another version of the contract.
    #[error("the plugin was built for {interface}, this server serves version {served}")]
    OtherVersion {
        /// What it imports or exports.
        interface: String,
        /// What is served.
        served: String,
    },
    /// Imports what no server of this version has.
    #[error("the plugin imports {import}, which this server does not serve")]
    NotServed {
        /// The import.
        import: String,
    },
    /// Exports no step.
    #[error(
        "the plugin does not export windlass:step/run (it exports {})",
        if exports.is_empty() { "nothing".to_owned() } else { exports.join(", ") }
    )]
    NoStep {
        /// What it exports.
        exports: Vec<String>,
    },
    /// Imports or exports an interface, but with other functions or types.
    #[error("the plugin does not fit the contract {served} that this server serves: {detail}")]
    Mismatch {
        /// What the linker says.
        detail: String,
        /// What is served.
        served: String,
    },
    /// Calls an interface that its manifest does not ask for.
    #[error("the plugin calls {interface}, but its manifest does not ask for the capability {capability}")]
    Undeclared {
        /// The interface.
        interface: String,
        /// What is missing.
        capability: Capability,
    },
    /// `describe` did not return.
    #[error("the plugin cannot describe itself: {cause}")]
    Describe {
        /// Why.
        cause: Box<RunError>,
    },
    /// `describe` returned something that is no manifest.
    #[error("the plugin's manifest is wrong: {detail}")]
    Manifest {
        /// What is wrong with it.
        detail: String,
    },
    /// The manifest beside the component is not that of the component.
    #[error("the manifest file does not belong to this component: {detail}")]
    Sidecar {
        /// What differs.
        detail: String,
    },
    /// Nothing is wrong with the plugin.
    #[error("the plugin could not be loaded: {detail}")]
    Host {
        /// What went wrong.
        detail: String,
    },
}

impl Refused {
    /// One thing to do about it.
    #[must_use]
    pub fn fix(&self) -> String {
        const SDK: &str = "rebuild it with the SDK of this server";
        match self {
            Self::TooLarge { .. } => "build it in release mode, without debug information".to_owned(),
            Self::NoComponent { fix, .. } => (*fix).to_owned(),
            Self::Malformed { .. } => "build it again".to_owned(),
            Self::OtherVersion { .. } => format!("{SDK}, or run a server that serves that version"),
            Self::NotServed { import } => hint(import).to_owned(),
            Self::NoStep { .. } => "implement `Step` and call `export_step!`".to_owned(),
            Self::Mismatch { .. } => SDK.to_owned(),
            Self::Undeclared { capability, .. } => format!("add {capability} to the capabilities of its manifest"),
            Self::Describe { .. } => "correct what `describe` returns, and build it again".to_owned(),
            Self::Manifest { .. } => "correct the manifest, and build it again".to_owned(),
            Self::Sidecar { .. } => "build the plugin again".to_owned(),
            Self::Host { .. } => "look at the server's log, and try again".to_owned(),
        }
    }
}

fn hint(import: &str) -> &'static str {
    if import.starts_with("wasi:") {
        "build it for wasm32-unknown-unknown (`cargo xtask plugins`), not for a WASI target"
    } else if import.starts_with("windlass:") {
        "rebuild it with the SDK of this server"
    } else {
        "import packages of `windlass` only"
    }
}

/// Why a run did not end well.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RunError {
    /// It was not started: it would call what it was not granted.
    #[error(
        "the plugin calls {interface}, which needs the capability {capability} that was not granted: \
         it {}; grant it, or use another plugin",
        capability.meaning()
    )]
    NotGranted {
        /// The interface.
        interface: String,
        /// What is missing.
        capability: Capability,
    },
    /// The plugin says that the step failed. An ordinary end.
    #[error("{0}")]
    Failed(Failure),
    /// The run was cancelled.
    #[error("the run was cancelled{}", if *.forced { ", and the plugin was stopped because it did not react" } else { "" })]
    Cancelled {
        /// The plugin did not return by itself.
        forced: bool,
    },
    /// The plugin panicked: a bug in it.
    #[error("the plugin panicked{}: {message}; this is a bug in the plugin{frames}", At(place))]
    Panicked {
        /// What it said.
        message: String,
        /// File, line and column, if it said so.
        place: Option<String>,
        /// Where it was, innermost first.
        frames: Frames,
    },
    /// The plugin did what WebAssembly does not allow: a bug in it.
    #[error("the plugin crashed ({what}); this is a bug in the plugin{frames}")]
    Trapped {
        /// The trap.
        what: String,
        /// Where it was, innermost first.
        frames: Frames,
    },
    /// The plugin ran into a bound.
    #[error("the plugin was stopped: it {hit}{frames}")]
    Limit {
        /// Which.
        hit: Hit,
        /// Where it was, innermost first.
        frames: Frames,
    },
    /// The waist ended the run: suspended, diverged, or the host cannot go on.
    #[error("{0}")]
    Stopped(Stop),
    /// A fault of the server, not of the plugin.
    #[error("the server could not run the plugin: {0}")]
    Host(String),
}

impl RunError {
    /// What kind of end it is, as the code of a failure.
    #[must_use]
    pub fn code(&self) -> &str {
        match self {
            Self::NotGranted { .. } => "denied",
            Self::Failed(failure) => &failure.code,
            Self::Cancelled { .. } => "cancelled",
            Self::Panicked { .. } => "plugin-panic",
            Self::Trapped { .. } => "plugin-trap",
            Self::Limit { .. } => "plugin-limit",
            Self::Stopped(_) => "stopped",
            Self::Host(_) => "host",
        }
    }

    /// The end of the run as a failure of its step.
    #[must_use]
    pub fn into_failure(self) -> Failure {
        match self {
            Self::Failed(failure) => failure,
            other => Failure::new(other.code(), other.to_string()),
        }
    }
}

/// Where a guest was when it was stopped; empty if that is not known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Frames(pub Vec<Frame>);

impl fmt::Display for Frames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|frame| write!(f, "\n  at {frame}"))
    }
}

struct At<'a>(&'a Option<String>);

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_ref().map_or(Ok(()), |place| write!(f, " at {place}"))
    }
}
