//! What the runner costs: trivial commands under it, side by side with bare execs on the same connections.
//!
//! `cargo run --release -p windlass-tests --example machines_steps [TARGETS] [STEPS]` starts that many real sshd
//! servers (default 10) and runs that many commands (default 100) one after another on each, all targets at once,
//! three rounds of each kind in turn.

use std::sync::Arc;
use std::time::{Duration, Instant};

use windlass_machines::{CancelToken, CommandSpec, Config, Event, Interpreter, Machine, Machines, MemorySink, Ticket};
use windlass_tests::sshd::Sshd;

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1).filter_map(|argument| argument.parse::<usize>().ok());
    let (targets, steps) = (arguments.next().unwrap_or(10), arguments.next().unwrap_or(100));
    // The servers die with the thread that starts them: this one.
    let servers = (0..targets).map(|_| Sshd::start()).collect::<Result<Vec<_>, _>>()?;
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(measure(&servers, steps))
}

async fn measure(servers: &[Sshd], steps: usize) -> Result<(), Failure> {
    let pool = Machines::new(Config::default());
    let begin = Instant::now();
    let connecting = servers.iter().map(|server| {
        let (pool, endpoint) = (&pool, server.endpoint());
        async move { pool.connect(&endpoint).await }
    });
    let machines = futures::future::try_join_all(connecting).await?;
    println!("{} connections with the runner loaded: {}", machines.len(), millis(begin.elapsed()));
    for kind in [Kind::Bare, Kind::Runner, Kind::Output] {
        series(&machines, kind, 0, 3).await?;
    }
    let mut times: [Vec<Duration>; 3] = Default::default();
    for round in 1..=3 {
        for (kind, times) in [Kind::Bare, Kind::Runner, Kind::Output].into_iter().zip(&mut times) {
            let begin = Instant::now();
            series(&machines, kind, round, steps).await?;
            times.push(begin.elapsed());
        }
    }
    let [bare, runner, output] = times.map(|mut times| {
        times.sort();
        times.get(times.len() / 2).copied().unwrap_or_default()
    });
    println!("{steps} commands on each of {} targets, median of 3:", machines.len());
    println!("  bare exec of `true`              {}", millis(bare));
    for (name, time) in [("script `true` under the runner ", runner), ("script `echo hi` under the runner", output)] {
        println!("  {name}  {}   {:.2} x bare", millis(time), time.as_secs_f64() / bare.as_secs_f64());
    }
    one_at_a_time(&machines, steps).await
}

/// The delay a single step sees when nothing else happens.
async fn one_at_a_time(machines: &[Arc<Machine>], steps: usize) -> Result<(), Failure> {
    let Some(machine) = machines.first() else {
        return Ok(());
    };
    let mut each: [Vec<Duration>; 2] = Default::default();
    for step in 0..steps {
        for (kind, each) in [Kind::Bare, Kind::Runner].into_iter().zip(&mut each) {
            let begin = Instant::now();
            once(machine, kind, &format!("alone.{step}")).await?;
            each.push(begin.elapsed());
        }
    }
    for times in &mut each {
        times.sort();
    }
    let [bare, runner] = each.map(|times| times.get(times.len() / 2).copied().unwrap_or_default());
    println!(
        "one command, nothing else happening, median of {steps}: bare {}, runner {}",
        millis(bare),
        millis(runner)
    );
    Ok(())
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Bare,
    Runner,
    Output,
}

async fn series(machines: &[Arc<Machine>], kind: Kind, round: usize, steps: usize) -> Result<(), Failure> {
    let all = machines.iter().map(|machine| async move {
        for step in 0..steps {
            once(machine, kind, &format!("{kind:?}.{round}.{step}")).await?;
        }
        Ok::<(), Failure>(())
    });
    futures::future::try_join_all(all).await.map(drop)
}

async fn once(machine: &Machine, kind: Kind, name: &str) -> Result<(), Failure> {
    let script = match kind {
        Kind::Bare => {
            let mut channel = machine.exec("true").await?;
            while let Some(event) = channel.output.next().await {
                if event == Event::Exit(Some(0)) {
                    return Ok(());
                }
            }
            return Err("the exec did not end well".into());
        }
        Kind::Runner => "true",
        Kind::Output => "echo hi",
    };
    let ticket = Ticket::new(name)?;
    let mut sink = MemorySink::default();
    let spec = CommandSpec::script(Interpreter::Sh, script);
    let exit = machine.run(&ticket, &spec, &mut sink, &CancelToken::new()).await?;
    machine.ack(&ticket).await?;
    let expected: &[u8] = if matches!(kind, Kind::Output) { b"hi\n" } else { b"" };
    if exit.code == 0 && sink.out == expected { Ok(()) } else { Err("the command did not end well".into()) }
}

fn millis(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1000.0)
}
