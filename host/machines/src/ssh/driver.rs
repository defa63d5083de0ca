//! The thread that owns one SSH session and moves the bytes of all its channels.
//!
//! libssh2 is not thread-safe and wants a half-sent packet finished by the very call that began it, so everything
//! happens here, in turns: take requests, move what can be moved on every lane, then poll(2) on socket and wake-up
//! pipe. A lane whose reader is slow is not read; its window closes and the far side waits.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use ssh2::{Channel, ErrorCode, Session};
use tokio::sync::mpsc::error::{TryRecvError, TrySendError};
use tokio::sync::{mpsc, oneshot};

use super::connect::{Shared, interest, is_again};
use super::wire::{Interest, Wire};
use crate::error::MachineError;
use crate::link::{Event, PIECE};

/// A packet that cannot be handed to the kernel for this long means a dead link.
const STUCK: Duration = Duration::from_secs(13);
/// How long an abandoned command may keep its channel before we forget it.
const FAREWELL: Duration = Duration::from_secs(5);
/// Pieces moved on one lane before the next one gets its turn.
const TURN: usize = 16;
/// Errors of libssh2 that concern one channel, not the connection: failed, refused, closed, end sent.
const OF_CHANNEL: [i32; 4] = [-21, -22, -26, -27];

/// The wish to run a command.
pub(super) struct Request {
    pub command: String,
    pub bytes: mpsc::Receiver<Bytes>,
    pub events: mpsc::Sender<Event>,
    pub stalled: Arc<AtomicBool>,
    pub ready: oneshot::Sender<Result<(), MachineError>>,
    pub deadline: Instant,
}

/// One channel and where it is in its life.
struct Lane {
    phase: Phase,
    command: String,
    bytes: mpsc::Receiver<Bytes>,
    piece: Bytes,
    events: mpsc::Sender<Event>,
    stalled: Arc<AtomicBool>,
    ready: Option<oneshot::Sender<Result<(), MachineError>>>,
    deadline: Instant,
}

enum Phase {
    Opening,
    Starting(Channel),
    Running { channel: Channel, input: InputPhase },
    Ended(Channel),
    Leaving(Channel),
    Over,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum InputPhase {
    Open,
    Ending,
    Closed,
}

/// What a call into libssh2 came to.
enum Call<T> {
    Done(T),
    NotYet,
    /// This channel is no good.
    Refused(String),
}

pub(super) struct Driver {
    machine: String,
    session: Session,
    wire: Wire,
    bell: UnixStream,
    requests: mpsc::Receiver<Request>,
    shared: Arc<Shared>,
    lanes: Vec<Lane>,
    buffer: Vec<u8>,
}

impl Driver {
    pub(super) fn new(
        machine: String,
        session: Session,
        wire: Wire,
        bell: UnixStream,
        requests: mpsc::Receiver<Request>,
        shared: Arc<Shared>,
    ) -> Self {
        Self { machine, session, wire, bell, requests, shared, lanes: Vec::new(), buffer: vec![0; PIECE] }
    }

    /// Serves until the link is lost or nobody wants it any more.
    pub(super) fn run(mut self) {
        let reason = self.serve();
        // First the reason, then the ends of all queues: whoever finds a queue ended finds the reason.
        self.shared.set_lost(MachineError::LinkLost { machine: self.machine.clone(), reason });
        let _ = self.session.disconnect(None, "done", None);
    }

    fn serve(&mut self) -> String {
        loop {
            self.shared.rest();
            if let Some(reason) = self.shared.close_wanted() {
                return reason;
            }
            let moved = match self.turn() {
                Ok(moved) => moved,
                Err(reason) => return reason,
            };
            if moved {
                continue;
            }
            // Without a lane nobody would take the bytes, and poll would return at once for ever.
            let want = Interest { read: !self.lanes.is_empty(), write: false };
            match self.wire.wait(want, Some(&self.bell), self.patience()) {
                Ok(true) => self.shared.heard_now(),
                Ok(false) => {}
                Err(e) => return e.to_string(),
            }
            self.silence_bell();
        }
    }

    fn silence_bell(&mut self) {
        let mut rung = [0; 64];
        while matches!(self.bell.read(&mut rung), Ok(n) if n == rung.len()) {}
    }

    fn patience(&self) -> Duration {
        let now = Instant::now();
        let next = self.lanes.iter().filter(|lane| lane.has_deadline()).map(|lane| lane.deadline).min();
        next.map_or(Duration::from_secs(5), |next| next.saturating_duration_since(now).min(Duration::from_secs(5)))
    }

    /// One round over all lanes; whether anything moved.
    fn turn(&mut self) -> Result<bool, String> {
        let mut moved = false;
        loop {
            match self.requests.try_recv() {
                Ok(request) => self.lanes.push(Lane::new(request)),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return Err("it is no longer used".into()),
            }
        }
        let mut lanes = std::mem::take(&mut self.lanes);
        let mut opening = false;
        for lane in &mut lanes {
            // libssh2 opens one channel at a time.
            if matches!(lane.phase, Phase::Opening) {
                if opening {
                    continue;
                }
                opening = true;
            }
            moved |= self.advance(lane)?;
        }
        lanes.retain(|lane| !matches!(lane.phase, Phase::Over));
        self.lanes = lanes;
        Ok(moved)
    }

    fn advance(&mut self, lane: &mut Lane) -> Result<bool, String> {
        if lane.has_deadline() && Instant::now() >= lane.deadline {
            lane.late(&self.machine);
            return Ok(true);
        }
        match std::mem::replace(&mut lane.phase, Phase::Over) {
            Phase::Opening => {
                let session = self.session.clone();
                match self.call(|| session.channel_session())? {
                    Call::Done(channel) => lane.phase = Phase::Starting(channel),
                    Call::NotYet => {
                        lane.phase = Phase::Opening;
                        return Ok(false);
                    }
                    Call::Refused(reason) => {
                        lane.refuse(&self.machine, &format!("it opens no further session: {reason}"))
                    }
                }
                Ok(true)
            }
            Phase::Starting(mut channel) => {
                match self.call(|| channel.exec(&lane.command))? {
                    Call::Done(()) => {
                        if let Some(ready) = lane.ready.take() {
                            let _ = ready.send(Ok(()));
                        }
                        lane.phase = Phase::Running { channel, input: InputPhase::Open };
                    }
                    Call::NotYet => {
                        lane.phase = Phase::Starting(channel);
                        return Ok(false);
                    }
                    Call::Refused(reason) => lane.refuse(&self.machine, &format!("it runs no command: {reason}")),
                }
                Ok(true)
            }
            Phase::Running { channel, input } => self.carry(lane, channel, input),
            Phase::Ended(channel) => self.report(lane, channel),
            Phase::Leaving(mut channel) => {
                if matches!(self.call(|| channel.close())?, Call::NotYet) {
                    lane.phase = Phase::Leaving(channel);
                    return Ok(false);
                }
                Ok(true)
            }
            Phase::Over => Ok(false),
        }
    }

    /// Moves bytes of a running command in both directions.
    fn carry(&mut self, lane: &mut Lane, mut channel: Channel, mut input: InputPhase) -> Result<bool, String> {
        let mut moved = self.read(lane, &mut channel, 0)?;
        moved |= self.read(lane, &mut channel, 1)?;
        moved |= self.write(lane, &mut channel, &mut input)?;
        if lane.events.is_closed() {
            lane.deadline = Instant::now() + FAREWELL;
            lane.phase = Phase::Leaving(channel);
            return Ok(true);
        }
        if channel.eof() {
            lane.phase = Phase::Ended(channel);
            return Ok(true);
        }
        lane.phase = Phase::Running { channel, input };
        Ok(moved)
    }

    fn read(&mut self, lane: &Lane, channel: &mut Channel, stream: i32) -> Result<bool, String> {
        let mut moved = false;
        for _ in 0..TURN {
            let Some(place) = lane.place() else {
                return Ok(moved);
            };
            let mut buffer = std::mem::take(&mut self.buffer);
            let read = self.call(|| channel.stream(stream).read(&mut buffer).map_err(|e| ssh_error(&self.session, &e)));
            self.buffer = buffer;
            match read? {
                Call::Done(n @ 1..) => {
                    let piece = Bytes::copy_from_slice(self.buffer.get(..n).unwrap_or_default());
                    place.send(if stream == 0 { Event::Out(piece) } else { Event::Err(piece) });
                    moved = true;
                }
                Call::Done(_) | Call::NotYet | Call::Refused(_) => return Ok(moved),
            }
        }
        Ok(moved)
    }

    fn write(&mut self, lane: &mut Lane, channel: &mut Channel, input: &mut InputPhase) -> Result<bool, String> {
        let mut moved = false;
        for _ in 0..TURN {
            if lane.piece.is_empty() && *input == InputPhase::Open {
                match lane.bytes.try_recv() {
                    Ok(piece) => lane.piece = piece,
                    Err(TryRecvError::Empty) => return Ok(moved),
                    Err(TryRecvError::Disconnected) => *input = InputPhase::Ending,
                }
            }
            match *input {
                InputPhase::Closed => return Ok(moved),
                InputPhase::Ending => match self.call(|| channel.send_eof())? {
                    Call::NotYet => return Ok(moved),
                    Call::Done(()) | Call::Refused(_) => *input = InputPhase::Closed,
                },
                InputPhase::Open if lane.piece.is_empty() => {}
                InputPhase::Open => {
                    match self.call(|| channel.write(&lane.piece).map_err(|e| ssh_error(&self.session, &e)))? {
                        Call::Done(n @ 1..) => {
                            lane.piece.advance(n.min(lane.piece.len()));
                            moved = true;
                        }
                        Call::Done(_) | Call::NotYet => return Ok(moved),
                        Call::Refused(_) => {
                            // The command takes no more input; what it says and how it ends still counts.
                            lane.bytes.close();
                            lane.piece = Bytes::new();
                            *input = InputPhase::Closed;
                        }
                    }
                }
            }
        }
        Ok(moved)
    }

    /// Waits for the far side's farewell and passes on how the command ended.
    fn report(&mut self, lane: &mut Lane, mut channel: Channel) -> Result<bool, String> {
        if matches!(self.call(|| channel.wait_close())?, Call::NotYet) {
            lane.phase = Phase::Ended(channel);
            return Ok(false);
        }
        let Some(place) = lane.place() else {
            let abandoned = lane.events.is_closed();
            if !abandoned {
                lane.phase = Phase::Ended(channel);
            }
            return Ok(abandoned);
        };
        let signalled = channel.exit_signal().is_ok_and(|signal| signal.exit_signal.is_some());
        let code = if signalled { None } else { channel.exit_status().ok() };
        place.send(Event::Exit(code));
        lane.deadline = Instant::now() + FAREWELL;
        lane.phase = Phase::Leaving(channel);
        Ok(true)
    }

    /// Makes a call; if it leaves a packet half sent, repeats it until the packet is out.
    fn call<T>(&self, mut call: impl FnMut() -> Result<T, ssh2::Error>) -> Result<Call<T>, String> {
        let begin = Instant::now();
        loop {
            let error = match call() {
                Ok(value) => return Ok(Call::Done(value)),
                Err(error) => error,
            };
            if !is_again(&error) {
                return match error.code() {
                    ErrorCode::Session(code) if OF_CHANNEL.contains(&code) => {
                        Ok(Call::Refused(error.message().to_owned()))
                    }
                    _ => Err(error.message().to_owned()),
                };
            }
            let want = interest(&self.session);
            if !want.write {
                return Ok(Call::NotYet);
            }
            let left = STUCK.saturating_sub(begin.elapsed());
            if left.is_zero() {
                return Err(format!("nothing could be sent for {} s", STUCK.as_secs()));
            }
            self.wire.wait(Interest { read: true, write: true }, None, left).map_err(|e| e.to_string())?;
        }
    }
}

impl Lane {
    fn new(request: Request) -> Self {
        let Request { command, bytes, events, stalled, ready, deadline } = request;
        Self {
            phase: Phase::Opening,
            command,
            bytes,
            piece: Bytes::new(),
            events,
            stalled,
            ready: Some(ready),
            deadline,
        }
    }

    fn has_deadline(&self) -> bool {
        matches!(self.phase, Phase::Opening | Phase::Starting(_) | Phase::Leaving(_))
    }

    /// Room for one event; without, the reader will wake us when it has made some.
    fn place(&self) -> Option<mpsc::Permit<'_, Event>> {
        match self.events.try_reserve() {
            Ok(place) => Some(place),
            Err(TrySendError::Closed(())) => None,
            Err(TrySendError::Full(())) => {
                self.stalled.store(true, Ordering::Release);
                // It may have read between the two: look again, or nobody would wake us.
                self.events.try_reserve().ok()
            }
        }
    }

    fn refuse(&mut self, machine: &str, reason: &str) {
        if let Some(ready) = self.ready.take() {
            let error = MachineError::Protocol { machine: machine.to_owned(), reason: reason.to_owned() };
            let _ = ready.send(Err(error));
        }
        self.phase = Phase::Over;
    }

    fn late(&mut self, machine: &str) {
        if let Some(ready) = self.ready.take() {
            let _ = ready.send(Err(MachineError::LinkLost {
                machine: machine.to_owned(),
                reason: "it did not open a session in time".into(),
            }));
        }
        self.phase = Phase::Over;
    }
}

/// The error behind an `io::Error` of ssh2, which loses the code on the way.
fn ssh_error(session: &Session, error: &std::io::Error) -> ssh2::Error {
    const EAGAIN: i32 = -37;
    const SOCKET_RECV: i32 = -43;
    if error.kind() == ErrorKind::WouldBlock {
        return ssh2::Error::new(ErrorCode::Session(EAGAIN), "not yet");
    }
    ssh2::Error::last_session_error(session)
        .unwrap_or_else(|| ssh2::Error::new(ErrorCode::Session(SOCKET_RECV), "the connection was cut"))
}
