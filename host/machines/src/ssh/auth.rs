//! Proving who we are: password, key, agent.
//!
//! Keys are always handed over in memory, so a key file is read here and its absence told as such. What the server
//! offers instead is part of the refusal.

use std::time::{Duration, Instant};

use ssh2::{Error, ErrorCode, KeyboardInteractivePrompt, Prompt, Session};
use windlass_model::SecretText;

use super::connect::{Failure, insist, is_of_link};
use super::wire::Wire;
use crate::endpoint::{Auth, SshEndpoint};
use crate::error::MachineError;

/// LIBSSH2_ERROR_FILE, _METHOD_NOT_SUPPORTED, _INVAL, _KEYFILE_AUTH_FAILED: the key never left this process.
const OUR_FAULT: [i32; 4] = [-16, -33, -34, -48];
/// LIBSSH2_ERROR_AUTHENTICATION_FAILED, _PUBLICKEY_UNVERIFIED.
const REFUSED: [i32; 2] = [-18, -19];

/// Logs in before `deadline`.
pub(super) fn authenticate(
    session: &Session,
    wire: &Wire,
    endpoint: &SshEndpoint,
    deadline: Instant,
    limit: Duration,
) -> Result<(), MachineError> {
    let user = endpoint.user.as_str();
    let mut login = Login { session, wire, endpoint, deadline, limit, accepted: "nothing".into() };
    // Asking for the methods tries the method `none`, which some servers accept.
    let methods = insist(session, wire, deadline, || session.auth_methods(user).map(str::to_owned));
    match methods {
        _ if session.authenticated() => return Ok(()),
        Ok(methods) => login.accepted = methods.replace(',', ", "),
        Err(e) => return Err(login.explain(e)),
    }
    match &endpoint.auth {
        Auth::Password(password) => login.password(password),
        Auth::Key { pem, passphrase } => login.key(pem.expose(), passphrase.as_ref()),
        Auth::KeyFile { path, passphrase } => {
            let pem = std::fs::read_to_string(path).map(SecretText::new).map_err(|e| login.unusable(&e.to_string()))?;
            login.key(pem.expose(), passphrase.as_ref())
        }
        Auth::Agent => login.agent(),
    }
}

struct Login<'a> {
    session: &'a Session,
    wire: &'a Wire,
    endpoint: &'a SshEndpoint,
    deadline: Instant,
    limit: Duration,
    accepted: String,
}

impl Login<'_> {
    fn attempt(&self, call: impl FnMut() -> Result<(), Error>) -> Result<(), MachineError> {
        insist(self.session, self.wire, self.deadline, call).map_err(|e| self.explain(e))
    }

    fn password(&self, password: &SecretText) -> Result<(), MachineError> {
        let user = &self.endpoint.user;
        if !self.accepted.contains("password") && self.accepted.contains("keyboard-interactive") {
            let mut answers = Answers(password);
            return self.attempt(|| self.session.userauth_keyboard_interactive(user, &mut answers));
        }
        self.attempt(|| self.session.userauth_password(user, password.expose()))
    }

    fn key(&self, pem: &str, passphrase: Option<&SecretText>) -> Result<(), MachineError> {
        let passphrase = passphrase.map(SecretText::expose);
        self.attempt(|| self.session.userauth_pubkey_memory(&self.endpoint.user, None, pem, passphrase))
    }

    fn agent(&self) -> Result<(), MachineError> {
        let unusable = |e: Error| self.unusable(e.message());
        let mut agent = self.session.agent().map_err(unusable)?;
        agent.connect().map_err(unusable)?;
        agent.list_identities().map_err(unusable)?;
        let keys = agent.identities().map_err(unusable)?;
        if keys.is_empty() {
            return Err(self.unusable("the agent holds no key"));
        }
        let mut refusal = None;
        for key in keys {
            match self.attempt(|| agent.userauth(&self.endpoint.user, &key)) {
                Err(e @ MachineError::AuthRefused { .. }) => refusal = Some(e),
                other => return other,
            }
        }
        refusal.map_or(Ok(()), Err)
    }

    fn unusable(&self, reason: &str) -> MachineError {
        MachineError::BadCredential {
            machine: self.endpoint.to_string(),
            method: self.endpoint.auth.method(),
            reason: reason.to_owned(),
        }
    }

    fn explain(&self, failure: Failure) -> MachineError {
        let machine = self.endpoint.to_string();
        match failure {
            Failure::Late => MachineError::LinkLost {
                machine,
                reason: format!("logging in took longer than {}", crate::error::seconds(self.limit)),
            },
            Failure::Ssh(e) if is_of_link(&e) || is_unanswered(&e) && self.wire.is_over() => {
                MachineError::LinkLost { machine, reason: format!("while logging in: {}", e.message()) }
            }
            Failure::Io(e) => MachineError::Unreachable { machine, reason: e.to_string() },
            Failure::Ssh(e) => match e.code() {
                ErrorCode::Session(code) if REFUSED.contains(&code) => MachineError::AuthRefused {
                    machine,
                    method: self.endpoint.auth.method(),
                    accepted: self.accepted.clone(),
                },
                ErrorCode::Session(code) if OUR_FAULT.contains(&code) => self.unusable(e.message()),
                _ => MachineError::Handshake { machine, reason: e.message().to_owned() },
            },
        }
    }
}

/// Whether libssh2 got no answer to a proof: it then says the same as of one that was refused, but in other words.
fn is_unanswered(error: &Error) -> bool {
    error.message().starts_with("Waiting for")
        || !matches!(error.code(), ErrorCode::Session(code) if REFUSED.contains(&code) || OUR_FAULT.contains(&code))
}

/// Answers every hidden question with the password.
struct Answers<'a>(&'a SecretText);

impl KeyboardInteractivePrompt for Answers<'_> {
    fn prompt<'a>(&mut self, _user: &str, _instructions: &str, prompts: &[Prompt<'a>]) -> Vec<String> {
        prompts.iter().map(|p| if p.echo { String::new() } else { self.0.expose().to_owned() }).collect()
    }
}
