//! Opening an SSH connection: socket, handshake, host key, authentication; each with its own time limit.
//!
//! The work is done on the thread that will own the session for the rest of its life (see `driver`).

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use sha2::{Digest, Sha256};
use ssh2::{BlockDirections, ErrorCode, HostKeyType, MethodType, Session};
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::auth;
use super::driver::{Driver, Request};
use super::wire::{Interest, Wire};
use crate::endpoint::SshEndpoint;
use crate::error::MachineError;
use crate::link::{Channel, Input, Link, Output, QUEUE, Wake};

/// sshd allows ten sessions on a connection (`MaxSessions`); two stay free for whoever else shares it.
const CHANNELS: usize = 8;
/// libssh2's answer for "not yet".
const EAGAIN: i32 = -37;

/// Time limits of the phases of opening.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Timeouts {
    pub handshake: Duration,
    pub auth: Duration,
    pub open: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { handshake: Duration::from_secs(10), auth: Duration::from_secs(15), open: Duration::from_secs(10) }
    }
}

/// A host key as people compare it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostKey {
    /// Such as `ssh-ed25519`.
    pub algorithm: String,
    /// `SHA256:…`, as `ssh-keygen -l` prints it.
    pub fingerprint: String,
}

/// Asks a machine for its host key, without logging in.
///
/// # Errors
/// [`MachineError::Unreachable`] or [`MachineError::Handshake`].
pub async fn scan_host_key(host: &str, port: u16) -> Result<HostKey, MachineError> {
    let (host, name) = (host.to_owned(), format!("{host}:{port}"));
    let scanned = name.clone();
    tokio::task::spawn_blocking(move || {
        let (session, _wire) = handshake(&host, port, &scanned, false, Timeouts::default())?;
        host_key(&session, &scanned)
    })
    .await
    .map_err(|e| MachineError::Handshake { machine: name, reason: e.to_string() })?
}

/// State that the owner thread and the handles share.
pub(super) struct Shared {
    waker: UnixStream,
    woken: AtomicBool,
    begin: Instant,
    heard: AtomicU64,
    lost: Mutex<Option<MachineError>>,
    close: Mutex<Option<String>>,
}

impl Shared {
    pub(super) fn wake(&self) {
        if !self.woken.swap(true, Ordering::AcqRel) {
            // A full pipe means that a wake-up is already on its way.
            let _ = (&self.waker).write(&[1]);
        }
    }

    pub(super) fn rest(&self) {
        self.woken.store(false, Ordering::Release);
    }

    pub(super) fn heard_now(&self) {
        self.heard.store(self.millis(), Ordering::Relaxed);
    }

    pub(super) fn close_wanted(&self) -> Option<String> {
        self.close.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_lost(&self, error: MachineError) {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    }

    fn millis(&self) -> u64 {
        u64::try_from(self.begin.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// An open, authenticated connection. Dropping it ends the thread behind it.
pub(crate) struct SshLink {
    machine: String,
    requests: mpsc::Sender<Request>,
    shared: Arc<Shared>,
    channels: Arc<Semaphore>,
    timeouts: Timeouts,
}

impl SshLink {
    /// Connects and logs in.
    pub(crate) async fn connect(endpoint: &SshEndpoint, timeouts: Timeouts) -> Result<Self, MachineError> {
        let machine = endpoint.to_string();
        let unreachable = |reason: String| MachineError::Unreachable { machine: machine.clone(), reason };
        let (waker, bell) = UnixStream::pair().map_err(|e| unreachable(e.to_string()))?;
        let nonblocking = waker.set_nonblocking(true).and_then(|()| bell.set_nonblocking(true));
        nonblocking.map_err(|e| unreachable(e.to_string()))?;
        let shared = Arc::new(Shared {
            waker,
            woken: AtomicBool::new(false),
            begin: Instant::now(),
            heard: AtomicU64::new(0),
            lost: Mutex::new(None),
            close: Mutex::new(None),
        });
        let (requests, queue) = mpsc::channel(CHANNELS);
        let (opened, outcome) = oneshot::channel();
        let thread = {
            let (endpoint, shared) = (endpoint.clone(), Arc::clone(&shared));
            move || match open(&endpoint, timeouts) {
                Ok((session, wire)) => {
                    shared.heard_now();
                    if opened.send(Ok(())).is_ok() {
                        Driver::new(endpoint.to_string(), session, wire, bell, queue, shared).run();
                    }
                }
                Err(error) => drop(opened.send(Err(error))),
            }
        };
        std::thread::Builder::new()
            .name(format!("ssh {}", endpoint.host))
            .stack_size(512 * 1024)
            .spawn(thread)
            .map_err(|e| unreachable(format!("no thread for it: {e}")))?;
        outcome.await.map_err(|_| unreachable("its thread ended early".into()))??;
        Ok(Self { machine, requests, shared, channels: Arc::new(Semaphore::new(CHANNELS)), timeouts })
    }

    fn dead(&self) -> MachineError {
        self.lost()
            .unwrap_or_else(|| MachineError::LinkLost { machine: self.machine.clone(), reason: "it was closed".into() })
    }
}

#[async_trait]
impl Link for SshLink {
    async fn open(&self, command: &str) -> Result<Channel, MachineError> {
        let permit = Arc::clone(&self.channels).acquire_owned().await.map_err(|_| self.dead())?;
        let (input, bytes) = mpsc::channel(QUEUE);
        let (events, output) = mpsc::channel(QUEUE);
        let (ready, opened) = oneshot::channel();
        let stalled = Arc::new(AtomicBool::new(false));
        let deadline = Instant::now() + self.timeouts.open;
        let request =
            Request { command: command.to_owned(), bytes, events, stalled: Arc::clone(&stalled), ready, deadline };
        self.requests.send(request).await.map_err(|_| self.dead())?;
        let wake = {
            let shared = Arc::clone(&self.shared);
            Wake(Some(Arc::new(move || shared.wake())))
        };
        wake.wake();
        opened.await.map_err(|_| self.dead())??;
        Ok(Channel {
            input: Input { queue: input, wake: wake.clone() },
            output: Output { queue: output, stalled, wake, _permit: Some(permit) },
        })
    }

    fn lost(&self) -> Option<MachineError> {
        self.shared.lost.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn quiet(&self) -> Duration {
        let heard = self.shared.heard.load(Ordering::Relaxed);
        Duration::from_millis(self.shared.millis().saturating_sub(heard))
    }

    fn close(&self, reason: &str) {
        self.shared.close.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| reason.to_owned());
        self.shared.wake();
    }
}

impl Drop for SshLink {
    fn drop(&mut self) {
        self.close("it is no longer used");
    }
}

fn open(endpoint: &SshEndpoint, timeouts: Timeouts) -> Result<(Session, Wire), MachineError> {
    let machine = endpoint.to_string();
    let known = endpoint.host_key.is_some();
    let (session, wire) = handshake(&endpoint.host, endpoint.port, &machine, known, timeouts)?;
    let shown = host_key(&session, &machine)?;
    match &endpoint.host_key {
        None => {
            return Err(MachineError::HostKeyUnknown {
                machine,
                algorithm: shown.algorithm,
                fingerprint: shown.fingerprint,
            });
        }
        Some(pinned) if *pinned != shown.fingerprint => {
            return Err(MachineError::HostKeyChanged { machine, pinned: pinned.clone(), shown: shown.fingerprint });
        }
        Some(_) => {}
    }
    auth::authenticate(&session, &wire, endpoint, Instant::now() + timeouts.auth, timeouts.auth)?;
    Ok((session, wire))
}

/// Shakes hands with a machine, of which is told whether it is known to be an SSH server.
fn handshake(
    host: &str,
    port: u16,
    machine: &str,
    known: bool,
    timeouts: Timeouts,
) -> Result<(Session, Wire), MachineError> {
    let deadline = Instant::now() + timeouts.handshake;
    let unreachable =
        |e: std::io::Error| MachineError::Unreachable { machine: machine.to_owned(), reason: e.to_string() };
    let lost = |reason: String| MachineError::LinkLost { machine: machine.to_owned(), reason };
    // What has greeted as an SSH server is one, and what was one before is one that did not come to greet.
    let greeted = |session: &Session| session.banner_bytes().map(|banner| banner.starts_with(b"SSH-"));
    let failed = |session: &Session, wire: &Wire, e: Failure| match e {
        Failure::Late if greeted(session) == Some(true) => {
            lost(format!("the SSH handshake took longer than {}", crate::error::seconds(timeouts.handshake)))
        }
        Failure::Ssh(e) if greeted(session).unwrap_or(known) && (is_of_link(&e) || of_keys(&e) && wire.is_over()) => {
            lost(format!("in the middle of the SSH handshake: {}", e.message()))
        }
        Failure::Late => MachineError::Timeout {
            machine: machine.to_owned(),
            what: "the SSH handshake".into(),
            after: timeouts.handshake,
        },
        Failure::Ssh(e) => MachineError::Handshake { machine: machine.to_owned(), reason: e.message().to_owned() },
        Failure::Io(e) => MachineError::Unreachable { machine: machine.to_owned(), reason: e.to_string() },
    };
    let wire = Wire::connect(host, port, deadline).map_err(unreachable)?;
    let nothing =
        |e: ssh2::Error| MachineError::Handshake { machine: machine.to_owned(), reason: e.message().to_owned() };
    let mut session = Session::new().map_err(nothing)?;
    session.set_tcp_stream(wire.share().map_err(unreachable)?);
    session.set_blocking(false);
    prefer(&session).map_err(nothing)?;
    let mut shaking = session.clone();
    insist(&session, &wire, deadline, || shaking.handshake()).map_err(|e| failed(&session, &wire, e))?;
    Ok((session, wire))
}

/// ChaCha20 is libssh2's fastest cipher; a fixed order of host keys keeps the pinned one the one that is shown.
fn prefer(session: &Session) -> Result<(), ssh2::Error> {
    const CIPHERS: &str =
        "chacha20-poly1305@openssh.com,aes128-gcm@openssh.com,aes256-gcm@openssh.com,aes256-ctr,aes192-ctr,aes128-ctr";
    const HOST_KEYS: &str =
        "ssh-ed25519,ecdsa-sha2-nistp256,ecdsa-sha2-nistp384,ecdsa-sha2-nistp521,rsa-sha2-512,rsa-sha2-256";
    session.method_pref(MethodType::CryptCs, CIPHERS)?;
    session.method_pref(MethodType::CryptSc, CIPHERS)?;
    session.method_pref(MethodType::HostKey, HOST_KEYS)
}

fn host_key(session: &Session, machine: &str) -> Result<HostKey, MachineError> {
    let Some((key, kind)) = session.host_key() else {
        return Err(MachineError::Handshake { machine: machine.to_owned(), reason: "it showed no host key".into() });
    };
    let algorithm = match kind {
        HostKeyType::Ed25519 => "ssh-ed25519",
        HostKeyType::Ecdsa256 => "ecdsa-sha2-nistp256",
        HostKeyType::Ecdsa384 => "ecdsa-sha2-nistp384",
        HostKeyType::Ecdsa521 => "ecdsa-sha2-nistp521",
        HostKeyType::Rsa => "ssh-rsa",
        HostKeyType::Dss => "ssh-dss",
        HostKeyType::Unknown => "unknown",
    };
    let fingerprint = format!("SHA256:{}", STANDARD_NO_PAD.encode(Sha256::digest(key)));
    Ok(HostKey { algorithm: algorithm.into(), fingerprint })
}

/// Why a call into libssh2 did not succeed.
pub(super) enum Failure {
    Late,
    Ssh(ssh2::Error),
    Io(std::io::Error),
}

/// Whether the socket broke, rather than the protocol: errors of libssh2 for send, end, time-out and receive.
pub(super) fn is_of_link(error: &ssh2::Error) -> bool {
    matches!(error.code(), ErrorCode::Session(-7 | -13 | -9 | -30 | -43))
}

/// Whether the keys could not be exchanged: libssh2 says so of a link that broke then, and of methods that do not meet.
fn of_keys(error: &ssh2::Error) -> bool {
    matches!(error.code(), ErrorCode::Session(-5 | -8))
}

/// Whether libssh2 only means "not yet".
pub(super) fn is_again(error: &ssh2::Error) -> bool {
    error.code() == ErrorCode::Session(EAGAIN)
}

/// What libssh2 waits for.
pub(super) fn interest(session: &Session) -> Interest {
    match session.block_directions() {
        BlockDirections::Outbound => Interest { read: false, write: true },
        BlockDirections::Both => Interest { read: true, write: true },
        BlockDirections::Inbound | BlockDirections::None => Interest { read: true, write: false },
    }
}

/// Repeats a call until it succeeds, fails, or `deadline` is over.
pub(super) fn insist<T>(
    session: &Session,
    wire: &Wire,
    deadline: Instant,
    mut call: impl FnMut() -> Result<T, ssh2::Error>,
) -> Result<T, Failure> {
    loop {
        match call() {
            Ok(value) => return Ok(value),
            Err(e) if !is_again(&e) => return Err(Failure::Ssh(e)),
            Err(_) => {}
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Failure::Late);
        }
        wire.wait(interest(session), None, left).map_err(Failure::Io)?;
    }
}
