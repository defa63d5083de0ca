//! The life of one run as the host sees it: start or attach, follow its output, end it if asked, take the result.
//!
//! A [`Run`] outlives connections: when one is lost, the same value goes on with the next one, from the bytes its sink
//! already has. It decides nothing about reconnecting; `machine` does.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::state::RunState;
use crate::command::{CommandSpec, Exit};
use crate::connection::Connection;
use crate::error::{COMMAND, Lost, MachineError};
use crate::sink::{OutputSink, Stream};
use crate::ticket::Ticket;

/// The far side reads output in blocks of this size.
const BLOCK: u64 = 4096;
/// More blocks than any disk has, and few enough for shells that reckon in 32 bits.
const MOST_BLOCKS: u64 = 1 << 27;
/// Blocks fetched at once of each stream.
const BLOCKS: u64 = 64;
/// A start that was decided but not signed for so long was lost in between.
const SIGN_IN: Duration = Duration::from_secs(60);
/// Pauses between looks at a running command: quick while it talks, slower while it is silent.
const FIRST_LOOK: Duration = Duration::from_millis(20);
const LAST_LOOK: Duration = Duration::from_millis(500);

/// Blocks that hold so many bytes.
pub(super) fn blocks(bytes: u64) -> u64 {
    bytes.div_ceil(BLOCK).min(MOST_BLOCKS)
}

/// What one look at a run brought.
struct Look {
    state: RunState,
    /// New output came.
    moved: bool,
    /// As much came as fits: there may be more.
    full: bool,
}

/// Why a run is being ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    Cancelled,
    TimedOut,
}

/// One run under way.
pub(crate) struct Run<'a> {
    pub ticket: &'a Ticket,
    /// What to start; without, it is only followed.
    spec: Option<&'a CommandSpec>,
    sink: &'a mut dyn OutputSink,
    pub cancel: &'a CancellationToken,
    cap: u64,
    grace: Duration,
    timeout: Option<Duration>,
    deadline: Option<Instant>,
    ending: Option<Ending>,
    cut: bool,
}

impl<'a> Run<'a> {
    pub(crate) fn new(
        ticket: &'a Ticket,
        spec: Option<&'a CommandSpec>,
        sink: &'a mut dyn OutputSink,
        cancel: &'a CancellationToken,
    ) -> Self {
        Self {
            ticket,
            spec,
            sink,
            cancel,
            cap: spec.map_or(crate::command::OUTPUT_CAP, |spec| spec.output_cap),
            grace: spec.map_or(Duration::from_secs(10), |spec| spec.grace),
            timeout: spec.and_then(|spec| spec.timeout),
            deadline: None,
            ending: None,
            cut: false,
        }
    }

    /// Goes on over `connection` until the run ends, or the connection does.
    pub(crate) async fn go_on(&mut self, connection: &Connection) -> Result<Exit, MachineError> {
        let mut watch = connection.watch(self.ticket);
        if self.cancel.is_cancelled() {
            self.ending.get_or_insert(Ending::Cancelled);
        }
        let mut state = match (self.ending, self.spec) {
            (Some(_), _) => connection.cancel(self.ticket, self.grace).await?,
            (None, Some(spec)) => connection.start(self.ticket, spec).await?,
            (None, None) => connection.status(self.ticket).await?,
        };
        let mut pause = FIRST_LOOK;
        let mut ended = None;
        let began = Instant::now();
        while !state.is_final() {
            self.note_age(state);
            if state == RunState::Starting && began.elapsed() > SIGN_IN {
                return Err(self.unknown(connection, Lost::NeverSeen));
            }
            if !state.may_wait() {
                return Err(MachineError::Protocol {
                    machine: connection.machine().to_owned(),
                    reason: format!("it knows nothing of {}", self.ticket),
                });
            }
            let deadline = self.deadline.filter(|_| self.ending.is_none());
            tokio::select! {
                biased;
                changed = watch.ended.changed() => {
                    changed.map_err(|_| connection.dead())?;
                    let text = watch.ended.borrow_and_update().clone();
                    state = connection.read_state(&text)?;
                }
                () = self.cancel.cancelled(), if self.ending.is_none() => ended = Some(Ending::Cancelled),
                () = sleep_until(deadline.unwrap_or(began)), if deadline.is_some() => ended = Some(Ending::TimedOut),
                () = sleep(pause) => {
                    let look = self.look(connection).await?;
                    state = look.state;
                    pause = if look.moved { FIRST_LOOK } else { (pause * 3 / 2).min(LAST_LOOK) };
                }
            }
            if let Some(why) = ended.take() {
                self.ending = Some(why);
                state = connection.cancel(self.ticket, self.grace).await?;
                if !state.is_final() {
                    return Err(self.timed_out(connection, "ending the command", self.grace));
                }
            }
        }
        self.finish(connection, state).await
    }

    /// The time-out counts from the start of the command, also for one that is attached to later.
    fn note_age(&mut self, state: RunState) {
        let Some(timeout) = self.timeout else { return };
        let age = if let RunState::Running { seconds } = state { seconds } else { 0 };
        self.deadline.get_or_insert_with(|| Instant::now() + timeout.saturating_sub(Duration::from_secs(age)));
    }

    async fn finish(&mut self, connection: &Connection, state: RunState) -> Result<Exit, MachineError> {
        let machine = connection.machine().to_owned();
        match state {
            RunState::Done { code, out, err, cancelled } => {
                if out || err {
                    self.drain(connection).await?;
                }
                match (cancelled, self.ending) {
                    (true, Some(Ending::TimedOut)) => {
                        let limit = self.timeout.unwrap_or_default();
                        Err(self.timed_out(connection, COMMAND, limit))
                    }
                    (true, _) => Err(MachineError::Cancelled { machine, started: true }),
                    (false, _) => Ok(Exit { code, output_cut: self.cut }),
                }
            }
            RunState::Lost(cause) => {
                self.drain(connection).await?;
                Err(self.unknown(connection, cause))
            }
            RunState::Fenced if self.ending.is_some() => Err(MachineError::Cancelled { machine, started: false }),
            RunState::Fenced => Err(MachineError::Fenced { machine, ticket: self.ticket.clone() }),
            _ => Err(MachineError::AlreadyTaken { machine, ticket: self.ticket.clone() }),
        }
    }

    async fn drain(&mut self, connection: &Connection) -> Result<(), MachineError> {
        // The state is older than the bytes that come with it: final and not full means that this was all.
        while self.look(connection).await?.full {}
        Ok(())
    }

    async fn look(&mut self, connection: &Connection) -> Result<Look, MachineError> {
        let (out, err) = (self.place(Stream::Out), self.place(Stream::Err));
        let beyond = format!("-{}", blocks(self.cap));
        let block = |place: Option<u64>| place.map_or_else(|| beyond.clone(), |at| (at / BLOCK).to_string());
        let (state, parts) = connection.poll(self.ticket, &block(out), &block(err), BLOCKS).await?;
        let mut look = Look { state, moved: false, full: false };
        for ((stream, place), part) in [(Stream::Out, out), (Stream::Err, err)].into_iter().zip(parts) {
            if let Some(at) = place {
                look.full |= part.len() as u64 == BLOCKS * BLOCK;
                look.moved |= self.take(connection, stream, at, part).await?;
            }
        }
        Ok(look)
    }

    /// Where a stream goes on; `None` once it has reached its cap and is thrown away.
    fn place(&self, stream: Stream) -> Option<u64> {
        Some(self.sink.offset(stream)).filter(|at| *at < self.cap)
    }

    async fn take(
        &mut self,
        connection: &Connection,
        stream: Stream,
        at: u64,
        part: Bytes,
    ) -> Result<bool, MachineError> {
        let known = usize::try_from(at % BLOCK).unwrap_or(usize::MAX).min(part.len());
        let mut fresh = part.slice(known..);
        if fresh.is_empty() {
            return Ok(false);
        }
        let room = usize::try_from(self.cap - at).unwrap_or(usize::MAX);
        if fresh.len() > room {
            fresh.truncate(room);
        }
        if fresh.len() == room {
            self.cut = true;
        }
        let kept = self.sink.write(stream, at, fresh).await;
        kept.map(|()| true).map_err(|reason| MachineError::Here {
            machine: connection.machine().to_owned(),
            doing: "keep the output".into(),
            reason,
        })
    }

    fn timed_out(&self, connection: &Connection, what: &str, after: Duration) -> MachineError {
        MachineError::Timeout { machine: connection.machine().to_owned(), what: what.into(), after }
    }

    fn unknown(&self, connection: &Connection, cause: Lost) -> MachineError {
        MachineError::OutcomeUnknown { machine: connection.machine().to_owned(), ticket: self.ticket.clone(), cause }
    }
}
