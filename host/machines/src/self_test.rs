//! Proving on a machine that the runner's promises hold there, before anything depends on them.
//!
//! Three harmless runs: one prints and exits, one outlives its connection, and that one is then ended. What fails is
//! told with its usual cause. To be done when a machine is registered and in health checks.

use std::time::Duration;

use crate::command::{CommandSpec, Interpreter};
use crate::error::MachineError;
use crate::machine::Machine;
use crate::runner::RunState;
use crate::sink::MemorySink;
use crate::ticket::Ticket;

/// What the runner can promise on a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SelfTest {
    /// Commands go on when the connection ends.
    pub survives_link: bool,
    /// Commands have a process group of their own, so a cancel reaches their children.
    pub own_group: bool,
    /// A cancel ended a command.
    pub cancels: bool,
    /// What is wrong and what to do about it, for people; empty when all is well.
    pub advice: Vec<String>,
}

impl Machine {
    /// Tries the runner's promises out. Closes the machine's connection once on the way.
    ///
    /// # Errors
    /// Any [`MachineError`] of the runs themselves; a broken promise is a result, not an error.
    pub async fn self_test(&self) -> Result<SelfTest, MachineError> {
        let ticket = |name: &str| Ticket::new(format!("self-test.{name}.{:016x}", rand::random::<u64>()));
        let (echo, nap) = (ticket("echo")?, ticket("nap")?);
        let mut sink = MemorySink::default();
        let spec = CommandSpec::script(Interpreter::Sh, "echo windlass; exit 7");
        let exit = self.run(&echo, &spec, &mut sink, &crate::CancelToken::new()).await?;
        if exit.code != 7 || sink.out != b"windlass\n" {
            return Err(MachineError::Protocol {
                machine: self.endpoint().to_string(),
                reason: format!(
                    "a script that prints `windlass` and exits 7 printed {:?} and exited {}",
                    sink.out_text(),
                    exit.code
                ),
            });
        }
        self.start(&nap, &CommandSpec::script(Interpreter::Sh, "sleep 600")).await?;
        self.disconnect().await;
        // Where a session's processes are killed at logout, that takes a moment.
        tokio::time::sleep(Duration::from_millis(500)).await;
        let survives_link = matches!(self.status(&nap).await?, RunState::Running { .. });
        let ended = self.cancel(&nap, Duration::from_secs(2)).await?;
        let cancels = matches!(ended, RunState::Done { cancelled: true, .. });
        let own_group = !self.facts().await?.detach.is_empty();
        self.ack(&echo).await?;
        self.ack(&nap).await?;
        self.flush_acks().await?;
        let mut advice = Vec::new();
        if !survives_link {
            advice.push(
                "commands die with the connection, usually because systemd-logind has KillUserProcesses=yes: \
                 run `loginctl enable-linger` for the user, or set it to no"
                    .to_owned(),
            );
        }
        if !own_group {
            advice.push(
                "commands get no process group of their own, so a cancel may miss background processes: \
                 install setsid (util-linux) or perl"
                    .to_owned(),
            );
        }
        if survives_link && !cancels {
            advice.push("a cancelled command did not end: check that the user may signal its own processes".to_owned());
        }
        Ok(SelfTest { survives_link, own_group, cancels, advice })
    }
}
