//! What can go wrong between client and server, with a fix for each.

use std::error::Error;

use windlass_model::views::Problem;

/// What a call gives.
pub type Result<T> = std::result::Result<T, ClientError>;

/// Why a call did not give what was asked for.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ClientError {
    /// The server answered with a problem.
    #[error("{}", .0.detail)]
    Problem(Box<Problem>),
    /// No connection came about.
    #[error("no connection to {server}: {cause}")]
    Unreachable {
        /// The server's URL.
        server: String,
        /// What the system said.
        cause: String,
    },
    /// The connection broke, or the server was silent too long.
    #[error("the connection to {server} broke: {cause}")]
    Broken {
        /// The server's URL.
        server: String,
        /// What happened.
        cause: String,
    },
    /// What answered does not speak this API.
    #[error("what answered at {server} is no Windlass server of a version known here: {cause}")]
    Foreign {
        /// The server's URL.
        server: String,
        /// What was odd.
        cause: String,
    },
    /// The client was given something it cannot use.
    #[error("{what} cannot be used: {cause}")]
    Misuse {
        /// What was given.
        what: &'static str,
        /// Why not.
        cause: String,
    },
}

impl ClientError {
    /// A short stable word for programs.
    #[must_use]
    pub fn code(&self) -> &str {
        match self {
            Self::Problem(problem) => &problem.code,
            Self::Unreachable { .. } => "unreachable",
            Self::Broken { .. } => "connection-broken",
            Self::Foreign { .. } => "not-windlass",
            Self::Misuse { .. } => "misuse",
        }
    }

    /// The HTTP status, where the server answered.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        self.problem().map(|problem| problem.status)
    }

    /// One thing to do about it.
    #[must_use]
    pub fn fix(&self) -> Option<&str> {
        match self {
            Self::Problem(problem) => problem.fix.as_deref(),
            Self::Unreachable { .. } => {
                Some("is the server running? windlass serve starts one; --server or WINDLASS_URL names another")
            }
            Self::Broken { .. } => Some("check the link and the server's log, then ask again"),
            Self::Foreign { .. } => Some("check the URL: --server or WINDLASS_URL, such as http://127.0.0.1:7227"),
            Self::Misuse { .. } => None,
        }
    }

    /// The problem, where the server answered with one.
    #[must_use]
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            Self::Problem(problem) => Some(problem),
            _ => None,
        }
    }

    /// Whether asking again may help, given that doing so is safe.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Broken { .. } => true,
            Self::Problem(problem) => problem.status == 503,
            Self::Foreign { .. } | Self::Misuse { .. } => false,
        }
    }

    pub(crate) fn of(server: &str, error: &reqwest::Error) -> Self {
        let server = server.to_owned();
        let cause = root(error);
        if error.is_connect() {
            Self::Unreachable { server, cause }
        } else if error.is_timeout() {
            Self::Broken { server, cause: "the server did not answer in time".to_owned() }
        } else if error.is_builder() {
            Self::Misuse { what: "the request", cause }
        } else {
            Self::Broken { server, cause }
        }
    }
}

/// The innermost cause: what the system said, without the layers that passed it on.
fn root(error: &dyn Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}
