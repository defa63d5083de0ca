//! Stopping a run that runs: first it is asked to, then it is killed, then it is given up.

use crate::{
    decision::Decision,
    event::{RunKey, StopKind, Subject},
    progress::{Phase, Stop},
    timers::Timer,
    turn::Turn,
};

impl Turn<'_> {
    /// Tells a running run to stop. It is over once it says so, or once it is abandoned.
    pub fn stop_run(&mut self, key: RunKey, kind: StopKind) {
        let until_ms = self.now.saturating_add(self.state.settings.grace_ms);
        let Some(run) = self.state.run_mut(key).filter(|run| run.phase == Phase::Running) else {
            return;
        };
        if let Some(stop) = &mut run.stop {
            // It is stopped already; a cancel only changes what that means.
            if kind == StopKind::Cancel {
                stop.why = kind;
            }
            return;
        }
        run.stop = Some(Stop { why: kind, kind, until_ms });
        run.deadline = None;
        self.state.timers.set(until_ms, Timer::Run(key));
        self.say(Decision::StopRun { run: key, kind });
        self.touch(Subject::Run(key));
    }

    /// A run that was told to stop did not: it is killed, then abandoned.
    pub(super) fn press(&mut self, key: RunKey) {
        let until_ms = self.now.saturating_add(self.state.settings.kill_ms);
        let Some(stop) = self.state.run_mut(key).and_then(|run| run.stop.as_mut()) else {
            return;
        };
        if stop.kind == StopKind::Kill {
            return self.abandon(key);
        }
        stop.kind = StopKind::Kill;
        stop.until_ms = until_ms;
        self.state.timers.set(until_ms, Timer::Run(key));
        self.say(Decision::StopRun { run: key, kind: StopKind::Kill });
    }
}
