//! What the process answers to its caller: one constant a meaning, the same for every command.
//!
//! `windlass help exit-codes` prints this table. Numbers are part of the interface: scripts and pipelines branch on
//! them, so a number never gets another meaning.

/// How the process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done; a task that was waited for succeeded.
    Done,
    /// Any failure that has no code of its own.
    Failure,
    /// The command line is wrong.
    Usage,
    /// The task on the server failed.
    TaskFailed,
    /// No token, or not a good one.
    NotAllowed,
    /// Waited as long as asked; the task goes on.
    WaitedEnough,
    /// The task was cancelled.
    TaskCancelled,
    /// It collides with what is there.
    Conflict,
    /// A data folder is damaged.
    Damaged,
    /// The server cannot be reached, or is of another version.
    NoServer,
    /// The server's store stopped; a restart is due.
    StoreStopped,
    /// Interrupted from the keyboard; the task goes on.
    Interrupted,
}

impl Exit {
    /// Every code, in order.
    pub const ALL: [Self; 12] = [
        Self::Done,
        Self::Failure,
        Self::Usage,
        Self::TaskFailed,
        Self::NotAllowed,
        Self::WaitedEnough,
        Self::TaskCancelled,
        Self::Conflict,
        Self::Damaged,
        Self::NoServer,
        Self::StoreStopped,
        Self::Interrupted,
    ];

    /// The number.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failure => 1,
            Self::Usage => 2,
            Self::TaskFailed => 3,
            Self::NotAllowed => 4,
            Self::WaitedEnough => 6,
            Self::TaskCancelled => 7,
            Self::Conflict => 8,
            Self::Damaged => 65,
            Self::NoServer => 69,
            Self::StoreStopped => 70,
            Self::Interrupted => 130,
        }
    }

    /// What it means.
    #[must_use]
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Done => "done; a task that was waited for succeeded",
            Self::Failure => "any other failure",
            Self::Usage => "the command line is wrong",
            Self::TaskFailed => "the task on the server failed",
            Self::NotAllowed => "no token, or not one that may do this",
            Self::WaitedEnough => "time-out while waiting; the task still runs",
            Self::TaskCancelled => "the task was cancelled",
            Self::Conflict => "conflict with what is there, such as a version that exists",
            Self::Damaged => "store check only: the data folder is damaged",
            Self::NoServer => "the server cannot be reached, or is too old or too new",
            Self::StoreStopped => "serve only: the store stopped, start the server again",
            Self::Interrupted => "interrupted, detached; the task still runs",
        }
    }

    /// The table as `windlass help exit-codes` prints it.
    #[must_use]
    pub fn table() -> String {
        Self::ALL.iter().map(|exit| format!("{:>5}  {}\n", exit.code(), exit.meaning())).collect()
    }
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}
