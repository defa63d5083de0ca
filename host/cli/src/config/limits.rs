//! `[limits]` in `windlass.toml`: how much happens at once, and how long is waited.

use serde::Deserialize;
use windlass_engine::Settings;

/// Limits of a server; what is not said keeps its default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Deployments that work at once.
    tasks: Option<u32>,
    /// Scripts that work at once.
    scripts: Option<u32>,
    /// Steps of one deployment that run at once.
    steps: Option<u32>,
    /// Machines of one step that are worked on at once.
    machines: Option<u32>,
    /// Runs of one deployment at once.
    runs: Option<u32>,
    /// Machines of one deployment that are sent packages at once.
    transfers: Option<u32>,
    /// How long a lock is waited for when nobody says otherwise.
    lock_wait_seconds: Option<u64>,
    /// How long a pool without workers is waited for.
    pool_wait_seconds: Option<u64>,
    /// How long a run that is told to stop has before it is killed.
    grace_seconds: Option<u64>,
    /// How long a run that is killed has before it is abandoned.
    kill_seconds: Option<u64>,
}

impl Limits {
    /// The settings with what is said here.
    #[must_use]
    pub fn over(&self, defaults: Settings) -> Settings {
        let ms = |seconds: Option<u64>, default: u64| seconds.map_or(default, |seconds| seconds.saturating_mul(1000));
        Settings {
            task_cap: self.tasks.unwrap_or(defaults.task_cap),
            script_cap: self.scripts.unwrap_or(defaults.script_cap),
            steps_at_once: self.steps.unwrap_or(defaults.steps_at_once),
            targets_at_once: self.machines.unwrap_or(defaults.targets_at_once),
            runs_at_once: self.runs.unwrap_or(defaults.runs_at_once),
            acquisitions_at_once: self.transfers.unwrap_or(defaults.acquisitions_at_once),
            lock_wait_ms: ms(self.lock_wait_seconds, defaults.lock_wait_ms),
            pool_wait_ms: ms(self.pool_wait_seconds, defaults.pool_wait_ms),
            grace_ms: ms(self.grace_seconds, defaults.grace_ms),
            kill_ms: ms(self.kill_seconds, defaults.kill_ms),
            ..defaults
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn the_readme_tells_the_defaults() {
        let readme = include_str!("../../../../README.md");
        let told = readme.split("```toml\n[limits]\n").nth(1).unwrap().split("```").next().unwrap();
        let limits: Limits = toml::from_str(told).unwrap();
        let other = Settings {
            task_cap: 0,
            script_cap: 0,
            steps_at_once: 0,
            targets_at_once: 0,
            runs_at_once: 0,
            acquisitions_at_once: 0,
            lock_wait_ms: 0,
            pool_wait_ms: 0,
            grace_ms: 0,
            kill_ms: 0,
            ..Settings::for_cores(1)
        };
        assert_eq!(limits.over(other), Settings::for_cores(1));
    }

    #[test]
    fn what_is_not_said_keeps_its_default() {
        let defaults = Settings::for_cores(2);
        assert_eq!(Limits::default().over(defaults.clone()), defaults);
        let limits: Limits = toml::from_str("tasks = 1\ngrace_seconds = 3").unwrap();
        let expected = Settings { task_cap: 1, grace_ms: 3000, ..defaults.clone() };
        assert_eq!(limits.over(defaults), expected);
        assert!(toml::from_str::<Limits>("taks = 1").is_err(), "a slip is told");
    }
}
