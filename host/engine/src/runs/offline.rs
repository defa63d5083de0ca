//! Machines that are away for longer than a run keeps its guest.
//!
//! Such a run is suspended and tries again from time to time, until its machine is back or its patience is at an end.
//! What it had going on the machine goes on there.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use windlass_effects::Failure;
use windlass_scheduler::{RunKey, WaitOn};

/// Pause before the first try, and between the later ones.
const PAUSES: (u64, u64) = (5_000, 60_000);

/// Since when machines are away, by the run that misses one. Kept in memory: a restart is patient anew.
pub struct Offline {
    patience_ms: u64,
    since: Mutex<HashMap<RunKey, (u64, u32)>>,
}

impl Offline {
    /// Runs wait so long for a machine in all.
    #[must_use]
    pub fn new(patience: Duration) -> Self {
        Self { patience_ms: u64::try_from(patience.as_millis()).unwrap_or(u64::MAX), since: Mutex::default() }
    }

    /// What a run that cannot reach its machine waits for; none when it has waited long enough, or for a failure that
    /// time does not heal.
    pub fn wait(&self, run: RunKey, machine: &str, failure: &Failure, now_ms: u64) -> Option<(WaitOn, String)> {
        let away = failure.retryable && matches!(failure.code.as_str(), "unreachable" | "link-lost");
        let mut since = self.since.lock().unwrap_or_else(PoisonError::into_inner);
        let (began, tries) = *since.entry(run).or_insert((now_ms, 0));
        let gives_up = began.saturating_add(self.patience_ms);
        if !away || gives_up <= now_ms {
            since.remove(&run);
            return None;
        }
        since.insert(run, (began, tries.saturating_add(1)));
        let pause = PAUSES.0.saturating_mul(1 << tries.min(10)).min(PAUSES.1);
        let text = format!("waits for machine {machine}, which cannot be reached: {}", failure.message);
        Some((WaitOn::Other(text.clone()).until(now_ms.saturating_add(pause).min(gives_up)), text))
    }

    /// The machine of a run is there, or the run is over.
    pub fn over(&self, run: RunKey) {
        self.since.lock().unwrap_or_else(PoisonError::into_inner).remove(&run);
    }
}

#[cfg(test)]
mod tests {
    use windlass_model::TaskId;

    use super::*;

    #[test]
    fn a_run_tries_ever_more_seldom_and_gives_up_in_the_end() {
        let run = RunKey { task: TaskId(1), step: 0, place: 0 };
        let offline = Offline::new(Duration::from_secs(100));
        let away = Failure::new("unreachable", "no route").retryable();
        let mut now = 1_000_000;
        let mut pauses = Vec::new();
        while let Some((WaitOn::Limited { until_ms, .. }, text)) = offline.wait(run, "web1", &away, now) {
            assert!(text.contains("web1") && text.contains("no route"), "{text}");
            pauses.push((until_ms - now) / 1000);
            now = until_ms;
        }
        assert_eq!(pauses, [5, 10, 20, 40, 25]);
        assert!(offline.wait(run, "web1", &Failure::new("auth", "refused"), now).is_none());
        assert!(offline.wait(run, "web1", &away, now).is_some(), "it is patient anew");
        offline.over(run);
        assert!(offline.since.lock().unwrap().is_empty());
    }
}
