//! Watching a task until it is over: what comes is folded and shown, the end becomes an exit code.
//!
//! The client makes a lost link again and fetches what was missed, so a server may restart meanwhile. The first Ctrl-C
//! stops only the watching.

use std::{
    io::{self, IsTerminal},
    time::Duration,
};

use futures::StreamExt;
use tokio::time::{Instant, MissedTickBehavior, sleep_until};
use windlass_client::{Client, TaskUpdate};
use windlass_model::{
    TaskId, TaskState,
    task::{LogLine, TaskChange, TaskDetail},
};

use crate::{
    cli::Format,
    errors::Failure,
    exit::Exit,
    output::Ui,
    render::{Jsonl, Plain, Renderer, Silent, Tree},
    text::now_ms,
    view::{Event, View},
};

/// How often the live tree is drawn anew.
const TICK: Duration = Duration::from_millis(100);
/// How long a cancelled task may take to stop before nobody watches any longer.
const CANCEL_PATIENCE: Duration = Duration::from_secs(60);
/// Silence after which all lines of the past have come.
const QUIET: Duration = Duration::from_millis(200);
/// Lines of the past that are put in order of time together, at most.
const HISTORY: usize = 20_000;

/// How to watch.
#[derive(Debug, Clone, Copy, Default)]
pub struct Watch {
    /// Stop watching after so long.
    pub timeout: Option<Duration>,
    /// Then cancel the task as well.
    pub cancel_on_timeout: bool,
}

/// Watches a task to its end.
///
/// # Errors
/// When the server stays away, or output cannot be written.
pub async fn follow(ui: &Ui, client: &Client, task: TaskId, watch: Watch) -> Result<Exit, Failure> {
    // Told apart from a lost link: a task that does not exist is an error at once.
    let now = client.task(task).await?;
    let view = View::blank(&now);
    let mut watcher = Watcher { client, task, view, renderer: renderer(ui), past: None };
    let exit = watcher.watch(watch).await?;
    if ui.format == Format::Json {
        ui.json(watcher.view.task())?;
    }
    Ok(exit)
}

/// Who shows the task: data goes to standard output, so the talk of `-o json` goes to standard error.
fn renderer(ui: &Ui) -> Box<dyn Renderer> {
    let smart = std::env::var("TERM").is_ok_and(|term| term != "dumb") && std::env::var_os("CI").is_none();
    match ui.format {
        Format::Table if io::stdout().is_terminal() && smart => Box::new(Tree::stdout(ui.colour())),
        Format::Table => Box::new(Plain::new(anstream::stdout(), ui.verbose)),
        Format::Json => Box::new(Plain::new(anstream::stderr(), ui.verbose)),
        Format::Jsonl => Box::new(Jsonl(io::stdout())),
        Format::Id => Box::new(Silent),
    }
}

/// One watching of one task.
struct Watcher<'a> {
    client: &'a Client,
    task: TaskId,
    view: View,
    renderer: Box<dyn Renderer>,
    /// A state with the lines that led to it, until all of them are there.
    past: Option<Past>,
}

/// What happened before somebody watched, being collected.
struct Past {
    now: TaskDetail,
    lines: Vec<(String, Vec<LogLine>)>,
    count: usize,
    told_at: Instant,
}

impl Watcher<'_> {
    async fn watch(&mut self, watch: Watch) -> Result<Exit, Failure> {
        let mut updates = self.client.follow_task(self.task);
        let mut deadline = watch.timeout.map(|timeout| Instant::now() + timeout);
        let mut cancelled = false;
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut interrupt = Box::pin(tokio::signal::ctrl_c());
        loop {
            let told_at = self.past.as_ref().map(|past| past.told_at);
            tokio::select! {
                biased;
                _ = &mut interrupt => return self.leave(Exit::Interrupted, "detached"),
                () = at(deadline) => {
                    if !watch.cancel_on_timeout || cancelled {
                        return self.leave(Exit::WaitedEnough, "waited long enough");
                    }
                    self.renderer.remark("waited long enough: the task is being cancelled")?;
                    self.client.cancel(self.task).await?;
                    cancelled = true;
                    deadline = Some(Instant::now() + CANCEL_PATIENCE);
                }
                update = updates.next() => match update {
                    Some(Ok(update)) => {
                        if self.take(update)? {
                            return self.over();
                        }
                    }
                    Some(Err(error)) => return Err(self.lost(error.into())),
                    None => return self.over(),
                },
                () = at(told_at) => self.tell_past()?,
                _ = tick.tick() => if self.past.is_none() {
                    self.renderer.tick(&self.view, now_ms())?;
                },
            }
        }
    }

    /// Takes in an update; true when the task is over.
    fn take(&mut self, update: TaskUpdate) -> io::Result<bool> {
        match update {
            TaskUpdate::State(now) => {
                self.tell_past()?;
                self.past = Some(Past { now: *now, lines: Vec::new(), count: 0, told_at: Instant::now() + QUIET });
                // A task that did nothing yet has no past to wait for.
                if self.past.as_ref().is_some_and(|past| past.now.summary.started_ms.is_none()) {
                    self.tell_past()?;
                }
            }
            TaskUpdate::Changed { at_ms, change } => {
                self.tell_past()?;
                self.show(&Event { task: self.task, at_ms, change })?;
            }
            TaskUpdate::Lines { node, lines } => match &mut self.past {
                Some(past) if past.count < HISTORY => {
                    past.count += lines.len();
                    past.lines.push((node, lines));
                    past.told_at = past.told_at.max(Instant::now() + QUIET / 2);
                }
                _ => {
                    self.tell_past()?;
                    let at_ms = lines.last().map_or_else(now_ms, |line| line.at_ms);
                    self.show(&Event { task: self.task, at_ms, change: TaskChange::Log { node, lines } })?;
                }
            },
            TaskUpdate::Reconnecting { cause } => {
                self.renderer.remark(&format!("lost the server, trying again: {cause}"))?;
            }
            TaskUpdate::Ended(now) => {
                self.tell_past()?;
                self.tell(*now, Vec::new())?;
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn tell_past(&mut self) -> io::Result<()> {
        match self.past.take() {
            Some(past) => self.tell(past.now, past.lines),
            None => Ok(()),
        }
    }

    /// Shows what led from what is shown to `now`.
    fn tell(&mut self, now: TaskDetail, lines: Vec<(String, Vec<LogLine>)>) -> io::Result<()> {
        self.view.grow(&now);
        for event in self.view.events_to(&now, lines) {
            self.show(&event)?;
        }
        self.view.settle(now);
        Ok(())
    }

    fn show(&mut self, event: &Event) -> io::Result<()> {
        let news = self.view.apply(event);
        self.renderer.event(event, &news, &self.view)
    }

    fn over(&mut self) -> Result<Exit, Failure> {
        self.renderer.end(&self.view)?;
        Ok(match self.view.task().summary.state {
            TaskState::Succeeded => Exit::Done,
            TaskState::Cancelled => Exit::TaskCancelled,
            _ => Exit::TaskFailed,
        })
    }

    /// Stops watching and says how to go on.
    fn leave(&mut self, exit: Exit, why: &str) -> Result<Exit, Failure> {
        self.renderer.end(&self.view)?;
        let task = self.task;
        self.renderer.remark(&format!("{why}: task {task} goes on"))?;
        self.renderer.remark(&format!("  follow it:  windlass task follow {task}"))?;
        self.renderer.remark(&format!("  cancel it:  windlass task cancel {task}"))?;
        Ok(exit)
    }

    fn lost(&mut self, failure: Failure) -> Failure {
        // The error that is printed after this says it all.
        let _ = self.renderer.end(&self.view);
        if failure.exit == Exit::NoServer {
            return failure
                .fix(format!("the task goes on; when the server is back: windlass task follow {}", self.task));
        }
        failure
    }
}

/// Resolves at that moment, or never.
async fn at(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// Reads a span such as `90s`, `15m`, `2h`; a bare number is seconds.
///
/// # Errors
/// When it is none.
pub fn parse_span(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits.parse().map_err(|_| "write it like 90s, 15m or 2h".to_owned())?;
    let unit = match text.get(digits.len()..).unwrap_or_default() {
        "" | "s" => 1,
        "m" | "min" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err("write it like 90s, 15m or 2h".to_owned()),
    };
    let seconds = number.checked_mul(unit).filter(|seconds| *seconds <= 366 * 86_400);
    seconds.map(Duration::from_secs).ok_or_else(|| "a year is the longest".to_owned())
}
