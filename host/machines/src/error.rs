//! Everything that can go wrong with a machine.
//!
//! Each variant is one situation a person or the engine must tell apart. `Display` is one sentence fragment that says
//! what and where; [`MachineError::fix`] is the one thing to do about it. Nothing secret is ever kept in an error.

use std::time::Duration;

use thiserror::Error;

use crate::ticket::Ticket;

/// How a command's own time limit is called, to tell it from the others.
pub(crate) const COMMAND: &str = "the command";

/// Why something could not be done on a machine.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum MachineError {
    /// No connection could be made.
    #[error("{machine} cannot be reached: {reason}")]
    Unreachable {
        /// `user@host:port`.
        machine: String,
        /// What the network said.
        reason: String,
    },
    /// Something answered, but the SSH handshake failed.
    #[error("{machine} answers, but not as an SSH server we can talk to: {reason}")]
    Handshake {
        /// `user@host:port`.
        machine: String,
        /// What libssh2 said.
        reason: String,
    },
    /// The machine did not accept who we say we are.
    #[error("{machine} refused the {method}; it accepts: {accepted}")]
    AuthRefused {
        /// `user@host:port`.
        machine: String,
        /// `password`, `key`, `key file PATH` or `agent`.
        method: String,
        /// Methods the server offers.
        accepted: String,
    },
    /// Our own credential is unusable before the machine saw it.
    #[error("the {method} for {machine} cannot be used: {reason}")]
    BadCredential {
        /// `user@host:port`.
        machine: String,
        /// `password`, `key`, `key file PATH` or `agent`.
        method: String,
        /// Why.
        reason: String,
    },
    /// The machine is not trusted yet.
    #[error("{machine} is not trusted yet: its {algorithm} host key is {fingerprint}")]
    HostKeyUnknown {
        /// `user@host:port`.
        machine: String,
        /// Such as `ssh-ed25519`.
        algorithm: String,
        /// `SHA256:…`, to be compared with what the machine's owner says, then pinned.
        fingerprint: String,
    },
    /// The machine shows another key than the pinned one: reinstalled, or somebody in between.
    #[error("the host key of {machine} has changed: pinned {pinned}, but it shows {shown}")]
    HostKeyChanged {
        /// `user@host:port`.
        machine: String,
        /// The fingerprint that was trusted.
        pinned: String,
        /// The one it shows now.
        shown: String,
    },
    /// An open connection died. What ran there goes on; trying again re-attaches.
    #[error("the link to {machine} was lost: {reason}")]
    LinkLost {
        /// `user@host:port`.
        machine: String,
        /// How it was noticed.
        reason: String,
    },
    /// It took longer than allowed.
    #[error("{what} on {machine} took longer than {}", seconds(*.after))]
    Timeout {
        /// `user@host:port`.
        machine: String,
        /// What was waited for.
        what: String,
        /// The limit.
        after: Duration,
    },
    /// Somebody asked to stop, and it stopped.
    #[error("cancelled on {machine}{}", if *.started { "" } else { " before it started" })]
    Cancelled {
        /// `user@host:port`.
        machine: String,
        /// Whether the command had begun.
        started: bool,
    },
    /// A program that is needed there is not there.
    #[error("{machine} has no {tool}")]
    MissingTool {
        /// `user@host:port`.
        machine: String,
        /// What is missing.
        tool: String,
    },
    /// No space, or no inodes, left there.
    #[error("the disk of {machine} is full: {path} could not be written")]
    DiskFull {
        /// `user@host:port`.
        machine: String,
        /// What was being written.
        path: String,
    },
    /// Windlass' folder on the machine cannot be made or written.
    #[error("the folder {path} on {machine} cannot be created or written")]
    HomeUnusable {
        /// `user@host:port`.
        machine: String,
        /// The folder.
        path: String,
    },
    /// It started, and nobody can know how it ended.
    #[error("the outcome of {ticket} on {machine} is unknown: {cause}")]
    OutcomeUnknown {
        /// `user@host:port`.
        machine: String,
        /// The run.
        ticket: Ticket,
        /// What happened.
        cause: Lost,
    },
    /// The run ended long ago and its result was confirmed and cleared.
    #[error("{ticket} has ended on {machine}, and its result was taken and cleared before, which nobody here knows of")]
    AlreadyTaken {
        /// `user@host:port`.
        machine: String,
        /// The run.
        ticket: Ticket,
    },
    /// A cancel came first: this ticket can never start.
    #[error("{ticket} was cancelled on {machine} before it started")]
    Fenced {
        /// `user@host:port`.
        machine: String,
        /// The run.
        ticket: Ticket,
    },
    /// Another holder of the lock has been there since: this one has lost it.
    #[error(
        "{machine} refused to start {ticket}: a later holder of {resource} has been there (token {seen}, ours {token})"
    )]
    Stale {
        /// `user@host:port`.
        machine: String,
        /// The run.
        ticket: Ticket,
        /// What was locked.
        resource: String,
        /// The token of this start.
        token: u64,
        /// The highest the machine has seen.
        seen: u64,
    },
    /// A file there could not be read or written.
    #[error("{path} on {machine}: {reason}")]
    File {
        /// `user@host:port`.
        machine: String,
        /// The file.
        path: String,
        /// What the machine said.
        reason: String,
    },
    /// A file is larger than the caller wants to take.
    #[error("{path} on {machine} is {size} bytes, more than the {limit} allowed")]
    TooLarge {
        /// `user@host:port`.
        machine: String,
        /// The file.
        path: String,
        /// Its size.
        size: u64,
        /// The limit.
        limit: u64,
    },
    /// What arrived is not what was sent.
    #[error("{path} arrived damaged on {machine}: expected {expected}, found {found}")]
    Damaged {
        /// `user@host:port`.
        machine: String,
        /// The file.
        path: String,
        /// Size and digest that were promised.
        expected: String,
        /// Size and digest that were found.
        found: String,
    },
    /// The request itself makes no sense.
    #[error("{what} {reason}")]
    Invalid {
        /// Which part of it.
        what: String,
        /// Why not.
        reason: String,
    },
    /// The local side of a transfer failed: the file to send, or whoever takes the output.
    #[error("cannot {doing} for {machine}: {reason}")]
    Here {
        /// `user@host:port`.
        machine: String,
        /// `read the file` or `keep the output`.
        doing: String,
        /// Why.
        reason: String,
    },
    /// The far side answered something that makes no sense.
    #[error("{machine} answered in a way that is not understood: {reason}")]
    Protocol {
        /// `user@host:port`.
        machine: String,
        /// What was odd.
        reason: String,
    },
}

/// How a started run was lost from sight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Lost {
    /// The machine was restarted meanwhile.
    #[error("the machine was restarted while it ran")]
    Reboot,
    /// Its supervisor is gone and left no exit code.
    #[error("its supervisor died and left no exit code")]
    Died,
    /// The start was decided, but nothing was seen of it for a minute.
    #[error("it was about to start and never showed up")]
    NeverSeen,
}

impl MachineError {
    /// The one thing to do about it.
    #[must_use]
    pub fn fix(&self) -> String {
        match self {
            Self::Unreachable { .. } => "check host and port, and that sshd runs and no firewall is between".into(),
            Self::Handshake { .. } => "check that the port is that of an OpenSSH server, version 7 or newer".into(),
            Self::AuthRefused { method, .. } if method == "password" => {
                "check user and password, and `PasswordAuthentication` in the machine's sshd_config".into()
            }
            Self::AuthRefused { .. } => "add the public key to ~/.ssh/authorized_keys of that user".into(),
            Self::BadCredential { .. } => "give an unencrypted or correctly unlocked private key in PEM or OpenSSH form".into(),
            Self::HostKeyUnknown { .. } => "compare the fingerprint with the machine's owner, then run `windlass machine trust`".into(),
            Self::HostKeyChanged { .. } => {
                "if the machine was reinstalled, run `windlass machine trust` again; otherwise somebody may be in between".into()
            }
            Self::LinkLost { .. } => "try again: what runs there goes on and is picked up again".into(),
            Self::Timeout { .. } => "look at its output for what it waited for, or raise the timeout".into(),
            Self::Cancelled { .. } => "start it again when it is wanted".into(),
            Self::MissingTool { tool, .. } => format!("install {tool} on the machine, or put it into the user's PATH"),
            Self::DiskFull { .. } => "free some space there, then retry".into(),
            Self::HomeUnusable { .. } => "make the folder writable for that user, or set another `home` for the machine".into(),
            Self::OutcomeUnknown { .. } | Self::AlreadyTaken { .. } => {
                "look at the machine, then choose: retry, take as done, or fail".into()
            }
            Self::Fenced { .. } => "start it under a new ticket".into(),
            Self::Stale { .. } => "take the lock again, then start it under a new ticket".into(),
            Self::File { .. } => "check path and permissions there".into(),
            Self::TooLarge { .. } => "raise the limit, or fetch it as a stream".into(),
            Self::Damaged { .. } => "send it again; if it repeats, check the machine's disk and memory".into(),
            Self::Invalid { .. } => "correct the request".into(),
            Self::Here { .. } => "check the disk of the Windlass server".into(),
            Self::Protocol { .. } => "check what the login shell of that user prints or replaces, then retry".into(),
        }
    }

    /// The same as a fault of the link: what runs on the machine is not touched by it, and may be asked for again.
    #[must_use]
    pub(crate) fn of_link(self) -> Self {
        match self {
            Self::Handshake { machine, reason } => {
                Self::Unreachable { machine, reason: format!("what answers is no SSH server: {reason}") }
            }
            Self::Timeout { machine, what, after } => {
                Self::Unreachable { machine, reason: format!("{what} took longer than {}", seconds(after)) }
            }
            other => other,
        }
    }

    /// Whether this tells how a run ended, so that nothing of it is needed on the machine any more.
    #[must_use]
    pub fn is_end_of_run(&self) -> bool {
        match self {
            Self::Cancelled { .. } | Self::OutcomeUnknown { .. } | Self::AlreadyTaken { .. } | Self::Fenced { .. } => {
                true
            }
            // Not that of ending it.
            Self::Timeout { what, .. } => what == COMMAND,
            _ => false,
        }
    }

    /// Whether trying to connect again may help: with a machine that was reached before, it is rather the network than
    /// the wrong port.
    #[must_use]
    pub(crate) fn may_pass(&self) -> bool {
        self.is_retryable() || matches!(self, Self::Handshake { .. } | Self::Timeout { .. })
    }

    /// Whether the same request may simply be made again, because nothing was decided.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::LinkLost { .. })
    }
}

/// A duration as people say it: `10 s`, `1.5 s`, `250 ms`.
pub(crate) fn seconds(d: Duration) -> String {
    match (d.as_secs(), d.subsec_millis()) {
        (0, ms) => format!("{ms} ms"),
        (s, 0) => format!("{s} s"),
        (_, _) => format!("{:.1} s", d.as_secs_f64()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Only what tells how a run ended may let its record on the machine go.
    #[test]
    fn a_fault_on_the_way_is_not_the_end_of_a_run() {
        let machine = || "deploy@web1:22".to_owned();
        let ticket = || Ticket::new("7.web.1").unwrap();
        let timeout = |what: &str| MachineError::Timeout {
            machine: machine(),
            what: what.into(),
            after: Duration::from_millis(1500),
        };
        let reason = || "no greeting".to_owned();
        for (error, ends, may_pass) in [
            (MachineError::Cancelled { machine: machine(), started: true }, true, false),
            (MachineError::OutcomeUnknown { machine: machine(), ticket: ticket(), cause: Lost::Died }, true, false),
            (MachineError::AlreadyTaken { machine: machine(), ticket: ticket() }, true, false),
            (MachineError::Fenced { machine: machine(), ticket: ticket() }, true, false),
            (timeout(COMMAND), true, true),
            (timeout("ending the command"), false, true),
            (MachineError::LinkLost { machine: machine(), reason: reason() }, false, true),
            (MachineError::Unreachable { machine: machine(), reason: reason() }, false, true),
            (MachineError::Handshake { machine: machine(), reason: reason() }, false, true),
            (MachineError::DiskFull { machine: machine(), path: "/w".into() }, false, false),
            (MachineError::MissingTool { machine: machine(), tool: "sh".into() }, false, false),
        ] {
            assert_eq!((error.is_end_of_run(), error.may_pass()), (ends, may_pass), "{error}");
            if may_pass {
                assert!(error.clone().of_link().is_retryable(), "{error}");
            } else {
                assert_eq!(error.clone().of_link(), error);
            }
        }
        assert_eq!(
            timeout("the SSH handshake").of_link().to_string(),
            "deploy@web1:22 cannot be reached: the SSH handshake took longer than 1.5 s"
        );
    }
}
