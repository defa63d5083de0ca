//! Commands on a machine: tickets, output to log and capture, processes that go on beside the guest.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::{
    sync::{Notify, watch},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;
use windlass_effects::{Answer, CancelToken, Command, Effect, EnvValue, Exit, Failure, Outcome, Program, Stdin};
use windlass_machines::{CommandSpec, Interpreter, Machine, OutputSink, Stream, Ticket};
use windlass_model::task::LogLevel;

use super::performer::{RunPerformer, failure};
use crate::logs::{self, Printer};

/// Bytes of each stream that an answer may carry.
const MAX_CAPTURE: usize = 1 << 20;
/// Bytes of each stream that are kept for a guest that reads a process.
const MAX_UNREAD: usize = 4 << 20;
/// Time a command has between the request to end and its end by force.
const GRACE: Duration = Duration::from_secs(10);

/// Commands of one run.
#[derive(Default)]
pub struct Commands {
    tickets: Mutex<Vec<Ticket>>,
    processes: Mutex<HashMap<u64, Attached>>,
}

/// A command that goes on beside the guest.
struct Process {
    output: Mutex<[Vec<u8>; 2]>,
    grown: Notify,
    ended: watch::Sender<Option<Result<i32, Failure>>>,
}

/// A process that is followed, for as long as this is kept.
struct Attached {
    process: Arc<Process>,
    ticket: Ticket,
    following: JoinHandle<()>,
}

impl Drop for Attached {
    fn drop(&mut self) {
        // The process itself goes on.
        self.following.abort();
    }
}

impl Commands {
    /// Tickets whose results are no longer needed on the machine once the run's end is durable.
    pub fn take_tickets(&self) -> Vec<Ticket> {
        let mut tickets = std::mem::take(&mut *self.tickets.lock().unwrap_or_else(PoisonError::into_inner));
        tickets.extend(self.processes().values().map(|attached| attached.ticket.clone()));
        tickets
    }

    /// Keeps a ticket until the run's end.
    pub fn keep(&self, ticket: Ticket) {
        self.tickets.lock().unwrap_or_else(PoisonError::into_inner).push(ticket);
    }

    /// Lets go of the processes as the run is suspended: they go on, and are attached to again. The results of those
    /// commands that have ended are no longer needed.
    pub async fn detach(&self) -> Vec<Ticket> {
        let attached: Vec<_> = self.processes().drain().map(|(_, attached)| attached).collect();
        for mut attached in attached {
            attached.following.abort();
            // Once it has ended it prints nothing more.
            let _ = (&mut attached.following).await;
        }
        std::mem::take(&mut *self.tickets.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn processes(&self) -> MutexGuard<'_, HashMap<u64, Attached>> {
        self.processes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a replay shows of processes: one that was started is followed again, until its end is known.
    pub fn replayed(&self, run: &RunPerformer, index: u64, effect: &Effect, answer: &Answer) {
        match (effect, answer) {
            (Effect::Start { command, .. }, Ok(_)) => {
                if let Ok(machine) = run.machine() {
                    // Where that fails, so does the call that asks for it.
                    let _ = self.attach(run, machine, index, command.quiet);
                }
            }
            (Effect::Wait { process, .. }, Ok(_)) => {
                self.processes().remove(process);
            }
            _ => {}
        }
    }

    /// Runs a command to its end.
    pub async fn run(
        &self,
        run: &RunPerformer,
        machine: &Arc<Machine>,
        index: u64,
        command: &Command,
        cancel: &CancelToken,
    ) -> Answer {
        let (ticket, spec) = (run.ticket(index)?, spec(run, command)?);
        let mut sink = Sink::new(run, index, command);
        let result = {
            let stop = stopper(cancel);
            machine.run(&ticket, &spec, &mut sink, &stop.token).await
        };
        sink.finish().await;
        if result.as_ref().map_or_else(|error| error.is_end_of_run(), |_| true) {
            self.tickets.lock().unwrap_or_else(PoisonError::into_inner).push(ticket);
        }
        let exit = match result {
            Ok(exit) => exit,
            Err(error) => return Err(run.told(machine, error).await),
        };
        if exit.output_cut {
            run.log.note(index, LogLevel::Warning, "the output was longer than what is kept; its middle is missing");
        }
        // Once the outcome is recorded nothing prints again, so its lines are written before.
        if sink.has_printed() {
            run.log.flush().await;
        }
        Ok(Outcome::Exit(sink.exit(exit.code, exit.output_cut)))
    }

    /// Starts a command that goes on beside the guest.
    pub async fn start(&self, run: &RunPerformer, machine: &Arc<Machine>, index: u64, command: &Command) -> Answer {
        let (ticket, spec) = (run.ticket(index)?, spec(run, command)?);
        if let Err(error) = machine.start(&ticket, &spec).await {
            return Err(run.told(machine, error).await);
        }
        self.attach(run, machine, index, command.quiet)?;
        Ok(Outcome::Number(index))
    }

    /// Reads what a process printed, waiting for more.
    #[allow(clippy::too_many_arguments, reason = "the fields of one effect")]
    pub async fn read(
        &self,
        run: &RunPerformer,
        machine: &Arc<Machine>,
        process: u64,
        stderr: bool,
        offset: u64,
        max: u32,
        cancel: &CancelToken,
    ) -> Answer {
        let process = self.attach(run, machine, process, true)?;
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        loop {
            let grown = process.grown.notified();
            tokio::pin!(grown);
            grown.as_mut().enable();
            let over = process.ended.borrow().is_some();
            {
                let output = process.output.lock().unwrap_or_else(PoisonError::into_inner);
                let [out, err] = &*output;
                let stream = if stderr { err } else { out };
                let rest = stream.get(start..).unwrap_or_default();
                if !rest.is_empty() {
                    let piece = rest.get(..max as usize).unwrap_or(rest);
                    return Ok(Outcome::Bytes(piece.to_vec()));
                }
            }
            if over {
                return Ok(Outcome::Bytes(Vec::new()));
            }
            tokio::select! {
                () = grown => {}
                () = cancel.cancelled() => return Err(Failure::cancelled()),
            }
        }
    }

    /// Waits for the end of a process.
    pub async fn wait(&self, run: &RunPerformer, machine: &Arc<Machine>, process: u64, cancel: &CancelToken) -> Answer {
        let process = self.attach(run, machine, process, true)?;
        let mut ended = process.ended.subscribe();
        let result = tokio::select! {
            result = ended.wait_for(Option::is_some) => result.ok().and_then(|result| result.clone()),
            () = cancel.cancelled() => return Err(Failure::cancelled()),
        };
        let code = result.unwrap_or_else(|| Err(Failure::new("io", "the process was forgotten")))?;
        Ok(Outcome::Exit(Exit { code, ..Exit::default() }))
    }

    /// Ends a process.
    pub async fn kill(&self, run: &RunPerformer, machine: &Arc<Machine>, process: u64) -> Answer {
        machine.cancel(&run.ticket(process)?, GRACE).await.map_err(failure)?;
        Ok(Outcome::Done)
    }

    /// The process of that number, followed from its first byte if nobody does yet.
    fn attach(
        &self,
        run: &RunPerformer,
        machine: &Arc<Machine>,
        number: u64,
        quiet: bool,
    ) -> Result<Arc<Process>, Failure> {
        let mut processes = self.processes();
        if let Some(attached) = processes.get(&number) {
            return Ok(Arc::clone(&attached.process));
        }
        let ticket = run.ticket(number)?;
        let process =
            Arc::new(Process { output: Mutex::default(), grown: Notify::new(), ended: watch::Sender::new(None) });
        let mut sink = ProcessSink {
            process: Arc::clone(&process),
            printers: (!quiet).then(|| printers(run, number)),
            taken: Taken::default(),
        };
        let (machine, followed) = (Arc::clone(machine), ticket.clone());
        let following = tokio::spawn(async move {
            let result = machine.follow(&followed, &mut sink, &CancellationToken::new()).await;
            for printer in sink.printers.iter_mut().flatten() {
                printer.finish().await;
            }
            sink.process.ended.send_replace(Some(result.map(|exit| exit.code).map_err(failure)));
            sink.process.grown.notify_waiters();
        });
        processes.insert(number, Attached { process: Arc::clone(&process), ticket, following });
        Ok(process)
    }
}

fn printers(run: &RunPerformer, index: u64) -> [Printer; 2] {
    [run.log.printer(index, logs::Stream::Out), run.log.printer(index, logs::Stream::Err)]
}

/// A command with its secrets put in.
fn spec(run: &RunPerformer, command: &Command) -> Result<CommandSpec, Failure> {
    let mut spec = match &command.program {
        Program::Argv(argv) => CommandSpec::argv(argv.iter().cloned()),
        Program::Script { interpreter, text, args } => {
            let interpreter = match interpreter.as_str() {
                "sh" => Interpreter::Sh,
                "bash" => Interpreter::Bash,
                "pwsh" => Interpreter::Pwsh,
                "python3" => Interpreter::Python3,
                other => {
                    return Err(Failure::new("invalid", format!("there is no interpreter {other:?}"))
                        .fix("use sh, bash, pwsh or python3"));
                }
            };
            let mut spec = CommandSpec::script(interpreter, text);
            if let windlass_machines::Program::Script { args: own, .. } = &mut spec.program {
                own.clone_from(args);
            }
            spec
        }
    };
    for (name, value) in &command.env {
        match value {
            EnvValue::Text(text) => spec = spec.env(name, text),
            EnvValue::Secret(handle) => spec = spec.secret_env(name, run.secret(handle)?),
        }
    }
    spec.stdin = match &command.stdin {
        Stdin::Empty => Bytes::new(),
        Stdin::Bytes(bytes) => Bytes::copy_from_slice(bytes),
        Stdin::Secret(handle) => Bytes::copy_from_slice(run.secret(handle)?.expose().as_bytes()),
    };
    spec.cwd.clone_from(&command.cwd);
    spec.timeout = command.timeout_ms.map(Duration::from_millis);
    spec.grace = GRACE;
    spec.fence = run.fence();
    Ok(spec)
}

/// Where a command's output goes: to the log, and its last bytes to the answer.
struct Sink {
    printers: Option<[Printer; 2]>,
    tails: [Tail; 2],
    taken: Taken,
}

/// How many bytes of each stream were taken: a link that is made again goes on there.
#[derive(Default)]
struct Taken([u64; 2]);

impl Taken {
    fn of(&self, stream: Stream) -> u64 {
        let Taken([out, err]) = self;
        if stream == Stream::Out { *out } else { *err }
    }

    fn add(&mut self, stream: Stream, bytes: &Bytes) {
        let Taken([out, err]) = self;
        *(if stream == Stream::Out { out } else { err }) += bytes.len() as u64;
    }
}

/// The last bytes of a stream.
struct Tail {
    bytes: Vec<u8>,
    keep: usize,
    cut: bool,
}

impl Sink {
    fn new(run: &RunPerformer, index: u64, command: &Command) -> Self {
        let keep = (command.capture as usize).min(MAX_CAPTURE);
        let tail = || Tail { bytes: Vec::new(), keep, cut: false };
        Self {
            printers: (!command.quiet).then(|| printers(run, index)),
            tails: [tail(), tail()],
            taken: Taken::default(),
        }
    }

    async fn finish(&mut self) {
        for printer in self.printers.iter_mut().flatten() {
            printer.finish().await;
        }
    }

    fn has_printed(&self) -> bool {
        let Taken(taken) = &self.taken;
        self.printers.is_some() && taken.iter().any(|&bytes| bytes > 0)
    }

    fn exit(self, code: i32, cut: bool) -> Exit {
        let [out, err] = self.tails;
        Exit { code, truncated: cut || out.cut || err.cut, stdout: out.bytes, stderr: err.bytes }
    }
}

impl Tail {
    fn push(&mut self, bytes: &[u8]) {
        if self.keep == 0 {
            return;
        }
        self.bytes.extend_from_slice(bytes);
        let over = self.bytes.len().saturating_sub(self.keep);
        if over > 0 {
            self.bytes.drain(..over);
            self.cut = true;
        }
    }
}

#[async_trait]
impl OutputSink for Sink {
    fn offset(&self, stream: Stream) -> u64 {
        self.taken.of(stream)
    }

    async fn write(&mut self, stream: Stream, _offset: u64, bytes: Bytes) -> Result<(), String> {
        self.taken.add(stream, &bytes);
        let [out, err] = &mut self.tails;
        match stream {
            Stream::Out => out.push(&bytes),
            Stream::Err => err.push(&bytes),
        }
        if let Some([out, err]) = &mut self.printers {
            let printer = if stream == Stream::Out { out } else { err };
            printer.push(&bytes).await;
        }
        Ok(())
    }
}

struct ProcessSink {
    process: Arc<Process>,
    printers: Option<[Printer; 2]>,
    taken: Taken,
}

#[async_trait]
impl OutputSink for ProcessSink {
    fn offset(&self, stream: Stream) -> u64 {
        self.taken.of(stream)
    }

    async fn write(&mut self, stream: Stream, _offset: u64, bytes: Bytes) -> Result<(), String> {
        self.taken.add(stream, &bytes);
        {
            let mut output = self.process.output.lock().unwrap_or_else(PoisonError::into_inner);
            let [out, err] = &mut *output;
            let kept = if stream == Stream::Out { out } else { err };
            let room = MAX_UNREAD.saturating_sub(kept.len());
            kept.extend_from_slice(bytes.get(..room.min(bytes.len())).unwrap_or_default());
        }
        self.process.grown.notify_waiters();
        if let Some([out, err]) = &mut self.printers {
            let printer = if stream == Stream::Out { out } else { err };
            printer.push(&bytes).await;
        }
        Ok(())
    }
}

/// A machine's cancel token that follows a run's, until dropped.
pub(super) struct Stopper {
    pub token: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Stopper {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub(super) fn stopper(cancel: &CancelToken) -> Stopper {
    let token = CancellationToken::new();
    let (from, to) = (cancel.clone(), token.clone());
    let task = tokio::spawn(async move {
        from.cancelled().await;
        to.cancel();
    });
    Stopper { token, task }
}
