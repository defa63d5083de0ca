//! The states of a run, and what the host may do in each.
//!
//! | state | what it means | the host may |
//! |---|---|---|
//! | `ABSENT` | the machine knows nothing of the ticket | start it, cancel it (it becomes `FENCED`) |
//! | `PREPARED` | its script is there, nothing is decided | start it, cancel it (it becomes `FENCED`) |
//! | `STARTING` | the start is decided, the supervisor has not signed in | wait, for a minute: then the outcome is unknown; cancel |
//! | `RUNNING` | it runs | wait, read its output, cancel |
//! | `DONE` | it ended, its exit code and output are kept | store both, then confirm (it becomes `GONE`) |
//! | `LOST` | it began, and nobody can know how it ended | read what it printed, ask a person; never start it again by itself |
//! | `FENCED` | a cancel came first: it can never start | start the work under a new ticket |
//! | `GONE` | its result was taken and confirmed, by this host or another | nothing: whoever confirmed has the result |
//!
//! States only move down this table, `FENCED` excepted, which is reached from the first two rows only. A start that
//! bears a fencing token lower than one the machine has seen is refused and leaves the ticket as it was; that is an
//! error ([`crate::MachineError::Stale`]), no state.

use crate::error::Lost;

/// The state of a run as the machine tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunState {
    /// The machine knows nothing of it.
    Absent,
    /// Its script is there; it may be started.
    Prepared,
    /// The start is decided; the supervisor has not signed in yet.
    Starting,
    /// It runs.
    Running {
        /// Since how many seconds, where a start or a status was asked; 0 when only its output was.
        seconds: u64,
    },
    /// It ended.
    Done {
        /// Its exit code; 128 + N when it died by signal N.
        code: i32,
        /// Whether it printed to standard output.
        out: bool,
        /// Whether it printed to standard error.
        err: bool,
        /// Whether a cancel came before the end.
        cancelled: bool,
    },
    /// It started, and how it ended cannot be known.
    Lost(Lost),
    /// A cancel came first: it can never start.
    Fenced,
    /// Its result was taken and cleared.
    Gone,
}

impl RunState {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        Some(match words.next()? {
            "ABSENT" => Self::Absent,
            "PREPARED" => Self::Prepared,
            "STARTING" | "STARTED" => Self::Starting,
            "RUNNING" => Self::Running { seconds: words.next()?.parse().ok()? },
            "DONE" => {
                let code = words.next()?.parse().ok()?;
                let marks = words.next()?;
                Self::Done { code, out: marks.contains('o'), err: marks.contains('e'), cancelled: marks.contains('c') }
            }
            "LOST" => Self::Lost(if words.next()? == "reboot" { Lost::Reboot } else { Lost::Died }),
            "FENCED" => Self::Fenced,
            "GONE" => Self::Gone,
            _ => return None,
        })
    }

    /// Whether the ticket may be started now.
    #[must_use]
    pub fn may_start(self) -> bool {
        matches!(self, Self::Absent | Self::Prepared)
    }

    /// Whether waiting brings an end.
    #[must_use]
    pub fn may_wait(self) -> bool {
        matches!(self, Self::Starting | Self::Running { .. })
    }

    /// Whether a result is there to be stored and then confirmed.
    #[must_use]
    pub fn may_take(self) -> bool {
        matches!(self, Self::Done { .. })
    }

    /// Whether the same work may be started under another ticket without asking a person: it is certain that this one
    /// neither runs nor will, and what came of it is known.
    #[must_use]
    pub fn may_start_anew(self) -> bool {
        matches!(self, Self::Absent | Self::Prepared | Self::Done { .. } | Self::Fenced)
    }

    /// Whether nothing more will happen under this ticket.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(self, Self::Done { .. } | Self::Lost(_) | Self::Fenced | Self::Gone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_read_as_the_runner_writes_them() {
        let done = |out, err, cancelled| RunState::Done { code: 3, out, err, cancelled };
        for (text, state) in [
            ("ABSENT", RunState::Absent),
            ("STARTED 4711", RunState::Starting),
            ("RUNNING 12", RunState::Running { seconds: 12 }),
            ("DONE 3 -", done(false, false, false)),
            ("DONE 3 -oec", done(true, true, true)),
            ("LOST reboot", RunState::Lost(Lost::Reboot)),
            ("LOST died", RunState::Lost(Lost::Died)),
        ] {
            assert_eq!(RunState::parse(text), Some(state), "{text}");
        }
        for text in ["", "DONE", "DONE x -", "E full", "RUNNING", "done 1 -"] {
            assert_eq!(RunState::parse(text), None, "{text}");
        }
    }

    /// The table of the module's documentation.
    #[test]
    fn what_the_host_may_do_in_each_state() {
        let done = RunState::Done { code: 0, out: false, err: false, cancelled: false };
        let rows = [
            // state, start, wait, take, start anew, final
            (RunState::Absent, [true, false, false, true, false]),
            (RunState::Prepared, [true, false, false, true, false]),
            (RunState::Starting, [false, true, false, false, false]),
            (RunState::Running { seconds: 3 }, [false, true, false, false, false]),
            (done, [false, false, true, true, true]),
            (RunState::Lost(Lost::Died), [false, false, false, false, true]),
            (RunState::Lost(Lost::Reboot), [false, false, false, false, true]),
            (RunState::Lost(Lost::NeverSeen), [false, false, false, false, true]),
            (RunState::Fenced, [false, false, false, true, true]),
            (RunState::Gone, [false, false, false, false, true]),
        ];
        for (state, row) in rows {
            let may = [state.may_start(), state.may_wait(), state.may_take(), state.may_start_anew(), state.is_final()];
            assert_eq!(may, row, "{state:?}");
            let [start, wait, .., over] = may;
            assert_eq!(u8::from(start) + u8::from(wait) + u8::from(over), 1, "{state:?}: exactly one way on");
        }
    }
}
